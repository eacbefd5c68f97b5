//! The query string of an Engine.IO request. Does not know whether the request makes sense: see `verify`.

use std::borrow::Cow;

use crate::{Revision, TransportKind};

/// A request's query, decoded once. Of repeated keys the last value counts (EIO4 "Protocol", as the reference server reads it).
///
/// Decoding follows browsers: `%xx` and `+`, an incomplete `%` stays as it is, bytes that are not UTF-8 become U+FFFD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The whole query as it came, without the `?`.
    pub raw: &'a str,
    /// `EIO`: exactly `4`, or else revision 3.
    pub revision: Revision,
    /// `transport`; `None` if missing or not a name we know.
    pub transport: Option<TransportKind>,
    /// `sid`; `None` if missing or empty, which asks for a new session. Not checked: it may be no [`crate::Sid`] at all.
    pub sid: Option<Cow<'a, str>>,
    /// `b64` with any value but the empty one: the client wants binary as base64 text.
    pub b64: bool,
    /// `j`: the index of a JSONP request, which is not part of revision 4.
    pub jsonp: Option<Cow<'a, str>>,
    /// `t` as it came, undecoded: a cache buster whose shape tells client libraries apart.
    pub t: Option<&'a str>,
    /// Where the keys stand.
    pub positions: KeyPositions,
}

/// The place of each known key among all keys, counted from 0; of repeated keys the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyPositions {
    /// `EIO`.
    pub eio: Option<usize>,
    /// `transport`.
    pub transport: Option<usize>,
    /// `t`.
    pub t: Option<usize>,
    /// `sid`.
    pub sid: Option<usize>,
    /// `b64`.
    pub b64: Option<usize>,
    /// Keys altogether.
    pub len: usize,
}

impl<'a> Query<'a> {
    /// Reads a query, without the `?`. Anything is a query; what is missing is `None`.
    pub fn parse(raw: &'a str) -> Self {
        let mut query = Self {
            raw,
            revision: Revision::V3,
            transport: None,
            sid: None,
            b64: false,
            jsonp: None,
            t: None,
            positions: KeyPositions::default(),
        };
        for (key, value) in raw_pairs(raw) {
            let at = query.positions.len;
            query.positions.len += 1;
            match &*percent_decode(key) {
                "EIO" => {
                    query.revision = Revision::from_query(Some(&percent_decode(value)));
                    query.positions.eio.get_or_insert(at);
                }
                "transport" => {
                    query.transport = TransportKind::from_name(&percent_decode(value));
                    query.positions.transport.get_or_insert(at);
                }
                "sid" => {
                    query.sid = Some(percent_decode(value)).filter(|sid| !sid.is_empty());
                    query.positions.sid.get_or_insert(at);
                }
                "b64" => {
                    query.b64 = !value.is_empty();
                    query.positions.b64.get_or_insert(at);
                }
                "j" => query.jsonp = Some(percent_decode(value)),
                "t" => {
                    query.t = Some(value);
                    query.positions.t.get_or_insert(at);
                }
                _ => {}
            }
        }
        query
    }

    /// All keys and values in order, decoded: what applications see as the handshake's query.
    pub fn pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        raw_pairs(self.raw).map(|(key, value)| (percent_decode(key), percent_decode(value)))
    }
}

fn raw_pairs(raw: &str) -> impl Iterator<Item = (&str, &str)> {
    raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Undoes `application/x-www-form-urlencoded`; borrows where there is nothing to undo.
fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (next, byte) = match (first, after) {
            (b'+', _) => (after, b' '),
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (after, hex_value(*high) << 4 | hex_value(*low))
            }
            (other, _) => (after, *other),
        };
        bytes.push(byte);
        rest = next;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// The value of an ASCII hex digit.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_keys_are_found_wherever_they_stand() {
        let query = Query::parse("token=a%20b&EIO=4&transport=polling&t=Q7zmEE3.0&sid=hT3&b64=1&j=0");
        assert_eq!(query.revision, Revision::V4);
        assert_eq!(query.transport, Some(TransportKind::Polling));
        assert_eq!(query.sid.as_deref(), Some("hT3"));
        assert_eq!((query.b64, query.jsonp.as_deref(), query.t), (true, Some("0"), Some("Q7zmEE3.0")));
        let positions =
            KeyPositions { eio: Some(1), transport: Some(2), t: Some(3), sid: Some(4), b64: Some(5), len: 7 };
        assert_eq!(query.positions, positions);
        assert_eq!(query.pairs().next(), Some(("token".into(), "a b".into())));
    }

    #[test]
    fn last_of_repeated_keys_wins_and_empty_means_none() {
        let query = Query::parse("EIO=3&transport=polling&EIO=4&transport=foo&sid=x&sid=&b64=&");
        assert_eq!((query.revision, query.transport, query.sid.clone()), (Revision::V4, None, None));
        assert!(!query.b64);
        assert_eq!((query.positions.eio, query.positions.len), (Some(0), 7));
    }

    #[test]
    fn only_exactly_four_is_revision_four() {
        for raw in ["", "EIO", "EIO=", "EIO=04", "EIO=4%20", "EIO=5", "eio=4"] {
            assert_eq!(Query::parse(raw).revision, Revision::V3, "{raw}");
        }
        assert_eq!(Query::parse("%45IO=%34").revision, Revision::V4);
    }

    #[test]
    fn odd_escapes_are_read_as_browsers_do() {
        let decoded = |raw| Query::parse(raw).pairs().next().unwrap().1.into_owned();
        assert_eq!(decoded("a=%"), "%");
        assert_eq!(decoded("a=%4"), "%4");
        assert_eq!(decoded("a=%zz%4a+%C3%A9"), "%zzJ é");
        assert_eq!(decoded("a=%ff=b"), "\u{FFFD}=b");
    }

    proptest! {
        #[test]
        fn any_text_is_a_query(raw: String) {
            let query = Query::parse(&raw);
            prop_assert_eq!(query.pairs().count(), query.positions.len);
        }

        #[test]
        fn escaped_values_come_back(value: String) {
            let escaped: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let raw = format!("sid={escaped}");
            let sid = Query::parse(&raw).sid;
            prop_assert_eq!(sid.as_deref().unwrap_or(""), &value);
        }
    }
}
