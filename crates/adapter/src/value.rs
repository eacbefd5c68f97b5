//! Owns values as foreign servers send them: what JSON has, and bytes. Does not know how they are written. Invariant: no
//! value is nested deeper than [`DEPTH_MAX`] once it was read.

use bytes::Bytes;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use sio_proto::Binary;

/// Levels of lists and maps within a message. 72: what clients take (64), and the message around it.
pub const DEPTH_MAX: usize = 72;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Nothing; also what JavaScript calls undefined.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// A whole number beyond [`i64::MAX`].
    UInt(u64),
    /// Any other number.
    Float(f64),
    /// A text; moments are texts, too, as JSON has them.
    Text(String),
    /// Bytes; clients get them as an attachment.
    Bytes(Bytes),
    /// A list.
    List(Vec<Data>),
    /// Names and what they stand for, in the order in which they came.
    Map(Vec<(String, Data)>),
}

impl Data {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Data::Text(text.to_owned())
    }

    /// What a map has under a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Data> {
        let Data::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Data::Text(text) = self { Some(text) } else { None }
    }

    /// The number, if it is whole and not negative. JavaScript writes some of those as doubles.
    #[must_use]
    pub fn as_count(&self) -> Option<u64> {
        match self {
            Data::Int(number) => u64::try_from(*number).ok(),
            Data::UInt(number) => Some(*number),
            // Up to 2^53 every whole number is one double.
            Data::Float(number)
                if number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(number) =>
            {
                Some(*number as u64)
            }
            Data::Null | Data::Bool(_) | Data::Float(_) | Data::Text(_) => None,
            Data::Bytes(_) | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// Whether bytes are in it, at any depth.
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        match self {
            Data::Bytes(_) => true,
            Data::List(items) => items.iter().any(Data::has_bytes),
            Data::Map(entries) => entries.iter().any(|(_, value)| value.has_bytes()),
            Data::Null | Data::Bool(_) | Data::Int(_) | Data::UInt(_) | Data::Float(_) | Data::Text(_) => {
                false
            }
        }
    }

    /// Reads JSON. Objects that stand for bytes become bytes: what `JSON.stringify` makes of a `Buffer`, and our own
    /// `{"$base64":"…"}`.
    #[must_use]
    pub fn of(value: Value) -> Self {
        match value {
            Value::Null => Data::Null,
            Value::Bool(value) => Data::Bool(value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Data::Int(number),
                (None, Some(number)) => Data::UInt(number),
                (None, None) => number.as_f64().map_or(Data::Null, Data::Float),
            },
            Value::String(text) => Data::Text(text),
            Value::Array(items) => Data::List(items.into_iter().map(Data::of).collect()),
            Value::Object(object) => match bytes_of(&object) {
                Some(bytes) => Data::Bytes(bytes),
                None => Data::Map(object.into_iter().map(|(key, value)| (key, Data::of(value))).collect()),
            },
        }
    }

    /// Writes JSON; bytes as `JSON.stringify` writes a `Buffer`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Data::Null => Value::Null,
            Data::Bool(value) => (*value).into(),
            Data::Int(number) => (*number).into(),
            Data::UInt(number) => (*number).into(),
            Data::Float(number) => (*number).into(),
            Data::Text(text) => text.as_str().into(),
            Data::Bytes(bytes) => json!({ "type": "Buffer", "data": bytes.as_ref() }),
            Data::List(items) => items.iter().map(Data::to_json).collect(),
            Data::Map(entries) => {
                Value::Object(entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect())
            }
        }
    }

    /// Reads JSON text that foreign servers wrote.
    ///
    /// # Errors
    /// Their fault: it is none, or is nested too deeply.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(json).map_err(|error| format!("no json: {error}"))?;
        let data = Data::of(value);
        if data.depth() > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX} levels"));
        }
        Ok(data)
    }

    fn depth(&self) -> usize {
        match self {
            Data::List(items) => 1 + items.iter().map(Data::depth).max().unwrap_or(0),
            Data::Map(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            Data::Null | Data::Bool(_) | Data::Int(_) | Data::UInt(_) | Data::Float(_) => 0,
            Data::Text(_) | Data::Bytes(_) => 0,
        }
    }
}

fn bytes_of(object: &Map<String, Value>) -> Option<Bytes> {
    if object.len() == 2 && object.get("type").is_some_and(|kind| kind == "Buffer") {
        let items = object.get("data")?.as_array()?.iter();
        let bytes: Option<Vec<u8>> =
            items.map(|item| item.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect();
        return bytes.map(Bytes::from);
    }
    if object.len() == 1 && object.contains_key("$base64") {
        let binary: Binary = serde_json::from_value(Value::Object(object.clone())).ok()?;
        return Some(binary.0);
    }
    None
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Data::Null => serializer.serialize_unit(),
            Data::Bool(value) => serializer.serialize_bool(*value),
            Data::Int(number) => serializer.serialize_i64(*number),
            Data::UInt(number) => serializer.serialize_u64(*number),
            Data::Float(number) => serializer.serialize_f64(*number),
            Data::Text(text) => serializer.serialize_str(text),
            Data::Bytes(bytes) => Binary(bytes.clone()).serialize(serializer),
            Data::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Data::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_known_in_json() {
        let bytes = Data::Bytes(Bytes::from_static(&[1, 2]));
        assert_eq!(Data::of(json!({ "type": "Buffer", "data": [1, 2] })), bytes);
        assert_eq!(Data::of(json!({ "$base64": "AQI=" })), bytes);
        assert_eq!(Data::of(bytes.to_json()), bytes);
        assert!(Data::List(vec![Data::Map(vec![("a".into(), bytes)])]).has_bytes());
        let none = json!({ "type": "Buffer", "data": [1, 256] });
        assert_eq!(Data::of(none.clone()).to_json(), none);
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Data::parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(Data::parse(nested(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(Data::parse(nested(10_000).as_bytes()).is_err());
    }
}
