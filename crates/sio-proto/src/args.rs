//! From arguments that came in to Rust types.

use crate::binary::{self, BASE64_KEY, Scope};
use crate::json::Elements;
use crate::{Parser, msgpack};
use bytes::Bytes;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Why arguments are not of the type that was asked for. The peer's fault, but no violation of the protocol: the application's to
/// answer.
#[derive(Debug)]
pub struct ArgsFault(String);

impl fmt::Display for ArgsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arguments do not fit: {}", self.0)
    }
}

impl std::error::Error for ArgsFault {}

impl de::Error for ArgsFault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        ArgsFault(message.to_string())
    }
}

/// Decodes arguments the way a handler with one parameter wants them: none is `T` from null, one is `T` from that argument, and
/// several are `T` from their sequence.
///
/// A tuple asked of several arguments ignores those beyond its length and takes null for those that are missing, as a JavaScript
/// listener would. Where one argument must be told from a list of one, use [`decode_all`].
///
/// `elements` and `count` are those of a [`Payload`](crate::Payload); `attachments` those of an
/// [`OwnedIncoming`](crate::OwnedIncoming), else empty.
///
/// # Errors
/// [`ArgsFault`] with what serde said.
pub fn decode_args<T: DeserializeOwned>(
    parser: Parser,
    elements: &[u8],
    count: u32,
    attachments: &[Bytes],
) -> Result<T, ArgsFault> {
    let plain = plain_elements(parser, elements, count)?;
    in_scope(parser, attachments, || decode_plain(parser, &plain, count))
}

/// Decodes arguments as a sequence, however many there are; tuples as in [`decode_args`].
///
/// # Errors
/// [`ArgsFault`] with what serde said.
pub fn decode_all<T: DeserializeOwned>(
    parser: Parser,
    elements: &[u8],
    count: u32,
    attachments: &[Bytes],
) -> Result<T, ArgsFault> {
    let plain = plain_elements(parser, elements, count)?;
    in_scope(parser, attachments, || T::deserialize(List { parser, rest: Rest::new(parser, &plain, count) }))
}

/// As [`decode_args`], into a type that may borrow from `elements`.
///
/// # Errors
/// [`ArgsFault`] with what serde said; also when the arguments have msgpack extensions, which cannot be decoded in place.
pub fn decode_borrowed<'de, T: Deserialize<'de>>(
    parser: Parser,
    elements: &'de [u8],
    count: u32,
    attachments: &[Bytes],
) -> Result<T, ArgsFault> {
    match plain_elements(parser, elements, count)? {
        Cow::Borrowed(plain) => in_scope(parser, attachments, || decode_plain(parser, plain, count)),
        Cow::Owned(_) => Err(de::Error::custom("msgpack extensions cannot be borrowed")),
    }
}

/// Decodes arguments into JSON values, one for each.
///
/// A binary value is an object with one key, `{"$base64":"…"}`, from which [`Binary`](crate::Binary) can be read back. From msgpack,
/// map keys that are no strings become their text, and numbers that JSON does not have (NaN, infinities) become null.
///
/// # Errors
/// [`ArgsFault`] when a JSON number is beyond the range of a double or a string has half a surrogate pair, which JSON text can say
/// and a JSON value cannot.
pub fn to_value(
    parser: Parser,
    elements: &[u8],
    count: u32,
    attachments: &[Bytes],
) -> Result<Vec<Value>, ArgsFault> {
    let values: Vec<Loose> = decode_all(parser, elements, count, attachments)?;
    Ok(values.into_iter().map(|Loose(value)| value).collect())
}

/// The last argument, if it is a text. Where connection state recovery is on, that is an event's place in the history.
///
/// Looks at nothing but the last argument, apart from finding it.
#[must_use]
pub fn last_text(parser: Parser, elements: &[u8], count: u32) -> Option<String> {
    let mut rest = Rest::new(parser, elements, count);
    let mut last = None;
    while let Some(item) = rest.next_item() {
        last = Some(item);
    }
    decode_item(parser, last?, PhantomData).ok()
}

fn plain_elements(parser: Parser, elements: &[u8], count: u32) -> Result<Cow<'_, [u8]>, ArgsFault> {
    match parser {
        Parser::Json => Ok(Cow::Borrowed(elements)),
        Parser::Msgpack => {
            msgpack::without_extensions(elements, count).ok_or_else(|| de::Error::custom("invalid msgpack"))
        }
    }
}

fn in_scope<R>(parser: Parser, attachments: &[Bytes], f: impl FnOnce() -> R) -> R {
    let scope = match parser {
        Parser::Json => Scope::DecodeJson(attachments.to_vec()),
        Parser::Msgpack => Scope::Outside,
    };
    binary::within(scope, f).0
}

fn decode_plain<'de, T: Deserialize<'de>>(
    parser: Parser,
    plain: &'de [u8],
    count: u32,
) -> Result<T, ArgsFault> {
    match count {
        0 => T::deserialize(IntoDeserializer::<ArgsFault>::into_deserializer(())),
        1 => decode_item(parser, plain, PhantomData),
        _ => T::deserialize(List { parser, rest: Rest::new(parser, plain, count) }),
    }
}

/// Decodes one argument, all of `item`.
fn decode_item<'de, S: DeserializeSeed<'de>>(
    parser: Parser,
    item: &'de [u8],
    seed: S,
) -> Result<S::Value, ArgsFault> {
    match parser {
        Parser::Json => {
            let mut deserializer = serde_json::Deserializer::from_slice(item);
            let value = seed.deserialize(&mut deserializer).map_err(de::Error::custom)?;
            deserializer.end().map_err(de::Error::custom)?;
            Ok(value)
        }
        Parser::Msgpack => {
            let mut deserializer = rmp_serde::Deserializer::from_read_ref(item).with_human_readable();
            seed.deserialize(&mut deserializer).map_err(de::Error::custom)
        }
    }
}

/// The arguments that are still to be decoded.
enum Rest<'de> {
    Json(Elements<'de>),
    Msgpack { bytes: &'de [u8], count: u32 },
}

impl<'de> Rest<'de> {
    fn new(parser: Parser, plain: &'de [u8], count: u32) -> Self {
        match parser {
            Parser::Json => Rest::Json(Elements::new(plain)),
            Parser::Msgpack => Rest::Msgpack { bytes: plain, count },
        }
    }

    fn next_item(&mut self) -> Option<&'de [u8]> {
        match self {
            Rest::Json(elements) => elements.next(),
            Rest::Msgpack { count: 0, .. } => None,
            Rest::Msgpack { bytes, count } => {
                let (item, rest) = bytes.split_at(msgpack::skip_values(bytes, 1)?);
                *count -= 1;
                *bytes = rest;
                Some(item)
            }
        }
    }
}

/// The arguments as one sequence.
struct List<'de> {
    parser: Parser,
    rest: Rest<'de>,
}

impl<'de> Deserializer<'de> for List<'de> {
    type Error = ArgsFault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ArgsFault> {
        visitor.visit_seq(ListAccess { list: self, len_min: 0 })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ArgsFault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ArgsFault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, ArgsFault> {
        visitor.visit_seq(ListAccess { list: self, len_min: len })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, ArgsFault> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ArgsFault> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq map enum
        identifier ignored_any
    }
}

struct ListAccess<'de> {
    list: List<'de>,
    /// How many items to make up with null when the arguments run out.
    len_min: usize,
}

impl<'de> SeqAccess<'de> for ListAccess<'de> {
    type Error = ArgsFault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, ArgsFault> {
        let is_due = self.len_min > 0;
        self.len_min = self.len_min.saturating_sub(1);
        match self.list.rest.next_item() {
            Some(item) => decode_item(self.list.parser, item, seed).map(Some),
            None if is_due => {
                seed.deserialize(IntoDeserializer::<ArgsFault>::into_deserializer(())).map(Some)
            }
            None => Ok(None),
        }
    }
}

/// A JSON value read from either encoding; binary values as [`Binary`](crate::Binary) shows outside of packets.
struct Loose(Value);

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor).map(Loose)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // Null for what JSON has no number for.
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(binary_value(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Loose(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((Loose(key), Loose(value))) = entries.next_entry()? {
            let key = match key {
                Value::String(text) => text,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    key.to_string()
                }
            };
            object.insert(key, value);
        }
        if binary::has_attachments() && object.get("_placeholder") == Some(&Value::Bool(true)) {
            let num = object.get("num").and_then(Value::as_f64).and_then(binary::placeholder_number);
            let bytes = num.and_then(binary::attachment);
            return bytes
                .map(|bytes| binary_value(&bytes))
                .ok_or_else(|| de::Error::custom("placeholder names no attachment"));
        }
        Ok(Value::Object(object))
    }
}

fn binary_value(bytes: &[u8]) -> Value {
    Value::Object(Map::from_iter([(BASE64_KEY.to_owned(), Value::String(binary::to_base64(bytes)))]))
}
