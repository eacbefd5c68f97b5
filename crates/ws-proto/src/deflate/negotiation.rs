//! The `Sec-WebSocket-Extensions` header as far as permessage-deflate goes (RFC 7692 §7.1). Does not know other extensions.

use std::fmt;

use super::WINDOW_BITS;

/// What our own client offers. The answer goes to [`accept`].
pub const OFFER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// permessage-deflate is on for this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The largest window the server may use, where one was named (8–15).
    pub server_window_bits: Option<u8>,
}

impl Agreement {
    /// The server's `Sec-WebSocket-Extensions` value.
    pub fn response_header(&self) -> String {
        match self.server_window_bits {
            None => OFFER.to_owned(),
            Some(bits) => format!("{OFFER}; server_max_window_bits={bits}"),
        }
    }
}

/// Picks the first offer that we can honour; `None` if there is none, and the connection is uncompressed.
///
/// `offers` is the value of the client's `Sec-WebSocket-Extensions`, several such headers joined by commas. An offer with an
/// unknown, repeated or malformed parameter, or one that demands a window smaller than [`WINDOW_BITS`], is passed over.
///
/// Spec: RFC 7692 §5.1, §7.1.
pub fn negotiate(offers: &str) -> Option<Agreement> {
    split_unquoted(offers, b',').find_map(|offer| {
        let params = Params::parse(offer).ok()??;
        if matches!(params.server_window, Some(bits) if bits < WINDOW_BITS) {
            return None;
        }
        Some(Agreement { server_window_bits: params.server_window })
    })
}

/// Reads the server's answer to [`OFFER`]. `Ok(None)`: it declined.
///
/// # Errors
/// The server answered what was not offered; the connection must fail (RFC 7692 §5.1).
pub fn accept(response: &str) -> Result<Option<Agreement>, UnacceptableAnswer> {
    if response.trim().is_empty() {
        return Ok(None);
    }
    let mut answers = split_unquoted(response, b',');
    let params = answers.next().map_or(Ok(None), Params::parse)?;
    match (params, answers.next()) {
        // The server has to confirm that it keeps no context, because ours is shared; a client window was not on offer.
        (Some(Params { server_no_context: true, server_window, client_window: None }), None) => {
            Ok(Some(Agreement { server_window_bits: server_window }))
        }
        _ => Err(UnacceptableAnswer),
    }
}

/// An extension, parameter or value in the server's answer that does not fit our offer. The server's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnacceptableAnswer;

impl fmt::Display for UnacceptableAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "extension answer does not fit the offer `{OFFER}`")
    }
}

impl std::error::Error for UnacceptableAnswer {}

/// The parameters of one permessage-deflate offer or answer. Whether the client keeps context never matters to us: a server
/// forbids it in any case, and a client simply does not.
struct Params {
    server_no_context: bool,
    server_window: Option<u8>,
    /// Outer: named at all. Inner: with a value.
    client_window: Option<Option<u8>>,
}

impl Params {
    /// `Ok(None)`: another extension.
    fn parse(offer: &str) -> Result<Option<Self>, UnacceptableAnswer> {
        let mut parts = split_unquoted(offer, b';').map(str::trim);
        if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate")) {
            return Ok(None);
        }
        let mut params = Self { server_no_context: false, server_window: None, client_window: None };
        let mut client_no_context = false;
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (part, None),
            };
            match (name.to_ascii_lowercase().as_str(), value) {
                ("server_no_context_takeover", None) if !params.server_no_context => {
                    params.server_no_context = true;
                }
                ("client_no_context_takeover", None) if !client_no_context => client_no_context = true,
                ("server_max_window_bits", Some(value)) if params.server_window.is_none() => {
                    params.server_window = Some(window_bits(value)?);
                }
                ("client_max_window_bits", value) if params.client_window.is_none() => {
                    params.client_window = Some(value.map(window_bits).transpose()?);
                }
                _ => return Err(UnacceptableAnswer),
            }
        }
        Ok(Some(params))
    }
}

/// 8 to 15 without leading zeros, bare or quoted (RFC 7692 §7.1.2.1).
fn window_bits(value: &str) -> Result<u8, UnacceptableAnswer> {
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    match bare.as_bytes() {
        [digit @ b'8'..=b'9'] => Ok(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Ok(10 + digit - b'0'),
        _ => Err(UnacceptableAnswer),
    }
}

/// Splits at `separator`, but not inside quotes, where other extensions may hide one.
fn split_unquoted(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut is_quoted = false;
        let end = text.bytes().position(|byte| {
            is_quoted ^= byte == b'"';
            byte == separator && !is_quoted
        });
        // The separator is ASCII, so both cuts fall between characters.
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[track_caller]
    fn check(offers: &str, answer: Option<&str>) {
        assert_eq!(negotiate(offers).map(|agreed| agreed.response_header()).as_deref(), answer, "{offers}");
    }

    #[test]
    fn first_offer_that_can_be_honoured_is_taken() {
        check("permessage-deflate", Some(PLAIN));
        check("permessage-deflate; client_max_window_bits", Some(PLAIN));
        check("Permessage-Deflate ;client_max_window_bits=\"10\"", Some(PLAIN));
        check("x-other; a=\"permessage-deflate, b\", permessage-deflate", Some(PLAIN));
        check(
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            Some(
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits=12",
            ),
        );
        check("permessage-deflate; server_max_window_bits=10, permessage-deflate", Some(PLAIN));
    }

    #[test]
    fn offers_that_cannot_be_honoured_are_declined() {
        check("", None);
        check("x-webkit-deflate-frame", None);
        check("permessage-deflate; server_max_window_bits=11", None);
        check("permessage-deflate; server_max_window_bits", None);
        check("permessage-deflate; server_max_window_bits=16", None);
        check("permessage-deflate; server_max_window_bits=012", None);
        check("permessage-deflate; client_max_window_bits=7", None);
        check("permessage-deflate; server_no_context_takeover=1", None);
        check("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None);
        check("permessage-deflate; mystery", None);
        check("permessage-deflate;", None);
    }

    #[test]
    fn our_client_accepts_our_server_and_refuses_surprises() {
        assert_eq!(accept(PLAIN), Ok(Some(Agreement { server_window_bits: None })));
        let answer = "permessage-deflate;server_no_context_takeover;server_max_window_bits=9";
        assert_eq!(accept(answer), Ok(Some(Agreement { server_window_bits: Some(9) })));
        assert_eq!(accept(" "), Ok(None));
        for bad in [
            "permessage-deflate",
            "x-other",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=12",
            "permessage-deflate; server_no_context_takeover, permessage-deflate",
        ] {
            assert_eq!(accept(bad), Err(UnacceptableAnswer), "{bad}");
        }
    }
}
