//! Owns one entry of a stream as Redis writes it, and the message that it is to whoever keeps it. Does not read from
//! anywhere. Invariant: whatever Redis says, reading it does not panic.

use std::collections::BTreeMap;

use queues::Message;
use redis::Value;

/// The field that has the event.
const BODY: &[u8] = b"json";

/// The field by which senders say what they call the request, as with the header `Idempotency-Key` over HTTP.
const KEY: &[u8] = b"idempotency_key";

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its id, `<milliseconds>-<number>`.
    pub(super) id: String,
    /// Its fields; `None` if it has been deleted meanwhile.
    pub(super) fields: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Entry {
    /// What it says: the field `json`, or the only one there is beside the key.
    pub(super) fn message(&self) -> Option<Message> {
        let fields = self.fields.as_deref().unwrap_or_default();
        let key = fields.iter().find(|(name, _)| name == KEY).map(|(_, key)| key);
        let mut others = fields.iter().filter(|(name, _)| name != KEY);
        let body = match fields.iter().find(|(name, _)| name == BODY) {
            Some((_, body)) => body,
            None => others.next().filter(|_| others.next().is_none()).map(|(_, body)| body)?,
        };
        let mut headers = BTreeMap::new();
        if let Some(key) = key {
            let key = String::from_utf8_lossy(key).into_owned();
            headers.insert("idempotency_key".to_owned(), key);
        }
        Some(Message { body: body.clone(), headers, message_id: Some(self.id.clone()), ..Message::default() })
    }
}

/// The entries of one stream in the answer of `XREADGROUP`; none if it waited in vain.
///
/// # Errors
/// What came is no such answer, in words for the log.
pub(super) fn read(answer: Value) -> Result<Vec<Entry>, String> {
    let streams = match answer {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(streams) => streams,
        other => return Err(unexpected(&other)),
    };
    let mut all = Vec::new();
    for stream in streams {
        match stream {
            Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
                Ok([_, rows]) => all.append(&mut entries(rows)?),
                Err(parts) => return Err(unexpected(&Value::Array(parts))),
            },
            other => return Err(unexpected(&other)),
        }
    }
    Ok(all)
}

/// Where `XAUTOCLAIM` goes on, and the entries that it has taken over.
///
/// # Errors
/// As [`read`].
pub(super) fn claimed(answer: Value) -> Result<(String, Vec<Entry>), String> {
    let Value::Array(parts) = answer else { return Err(unexpected(&answer)) };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some(cursor), Some(rows)) => Ok((text(cursor)?, entries(rows)?)),
        _ => Err("an answer of XAUTOCLAIM has fewer than two parts".to_owned()),
    }
}

fn entries(rows: Value) -> Result<Vec<Entry>, String> {
    let Value::Array(rows) = rows else { return Err(unexpected(&rows)) };
    rows.into_iter().map(entry).collect()
}

fn entry(row: Value) -> Result<Entry, String> {
    let Value::Array(parts) = row else { return Err(unexpected(&row)) };
    match <[Value; 2]>::try_from(parts) {
        Ok([id, Value::Nil]) => Ok(Entry { id: text(id)?, fields: None }),
        Ok([id, Value::Array(flat)]) => {
            let mut fields = Vec::with_capacity(flat.len() / 2);
            let mut flat = flat.into_iter();
            while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                fields.push((bytes(name)?, bytes(value)?));
            }
            Ok(Entry { id: text(id)?, fields: Some(fields) })
        }
        Ok([_, other]) => Err(unexpected(&other)),
        Err(parts) => Err(unexpected(&Value::Array(parts))),
    }
}

fn bytes(value: Value) -> Result<Vec<u8>, String> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        other => Err(unexpected(&other)),
    }
}

fn text(value: Value) -> Result<String, String> {
    bytes(value).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn unexpected(value: &Value) -> String {
    let mut shown = format!("{value:?}");
    if let Some((end, _)) = shown.char_indices().nth(100) {
        shown.truncate(end);
    }
    format!("redis answers what it should not: {shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn row(id: &str, fields: &[&str]) -> Value {
        Value::Array(vec![word(id), Value::Array(fields.iter().map(|field| word(field)).collect())])
    }

    #[test]
    fn answers_are_taken_apart() {
        let deleted = Value::Array(vec![word("2-0"), Value::Nil]);
        let rows = Value::Array(vec![row("1-0", &["json", "{}"]), deleted]);
        let answer = Value::Array(vec![Value::Array(vec![word("s"), rows.clone()])]);
        let all = read(answer).unwrap();
        assert_eq!(all[0].fields, Some(vec![(b"json".to_vec(), b"{}".to_vec())]));
        assert_eq!((all[1].id.as_str(), &all[1].fields), ("2-0", &None));
        assert_eq!(read(Value::Nil).unwrap(), []);
        let (cursor, again) = claimed(Value::Array(vec![word("0-0"), rows, Value::Array(vec![])])).unwrap();
        assert_eq!((cursor.as_str(), again), ("0-0", all));
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        for bad in [
            Value::Okay,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![Value::Array(vec![word("s")])]),
            Value::Array(vec![Value::Array(vec![word("s"), Value::Array(vec![word("1-0")])])]),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad:?}");
            assert!(claimed(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_entry_says_its_event_in_one_field() {
        let message = |fields: &[(&str, &str)]| {
            let fields = fields.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()));
            Entry { id: "1-0".into(), fields: Some(fields.collect()) }.message()
        };
        let both = message(&[("other", "x"), ("json", "{}"), ("idempotency_key", "k")]).unwrap();
        assert_eq!((both.body.as_slice(), both.headers["idempotency_key"].as_str()), (&b"{}"[..], "k"));
        assert_eq!(both.message_id.as_deref(), Some("1-0"));
        assert_eq!(message(&[("payload", "[]")]).unwrap().body, b"[]");
        assert_eq!(message(&[("a", "1"), ("b", "2")]), None);
        assert_eq!(message(&[]), None);
    }
}
