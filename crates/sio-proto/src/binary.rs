//! Binary values within arguments, and the side channel by which they leave and enter a typed value.
//!
//! serde gives a value no way to say "put these bytes beside the packet", so while one of our encode or decode calls runs, a
//! thread-local *scope* tells [`Binary`] where it is and holds the attachments. The scope is put back when the call ends, also when
//! it unwinds. Outside of a call `Binary` is a self-contained object, see there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;

/// The one key of a binary value that stands in plain JSON.
pub(crate) const BASE64_KEY: &str = "$base64";

/// Bytes that travel as a binary value: to a JavaScript peer a `Buffer` or `ArrayBuffer`, to Python `bytes`.
///
/// Usable anywhere within a type that is given to or asked from this crate. Under the text parser it becomes an attachment and a
/// placeholder, under msgpack a `bin`. Anywhere else, for instance in `serde_json::to_value`, it is `{"$base64":"…"}`, and it can be
/// read back from that; formats that are not human-readable get plain bytes.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Binary(pub Bytes);

impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Binary(bytes.into())
    }
}

impl From<Bytes> for Binary {
    fn from(bytes: Bytes) -> Self {
        Binary(bytes)
    }
}

impl From<&[u8]> for Binary {
    fn from(bytes: &[u8]) -> Self {
        Binary(Bytes::copy_from_slice(bytes))
    }
}

impl Deref for Binary {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Binary({:?})", self.0)
    }
}

/// Where the running thread is.
#[derive(Debug, Default)]
pub(crate) enum Scope {
    /// In none of our calls.
    #[default]
    Outside,
    /// Encoding for the text parser; the attachments so far.
    EncodeJson(Vec<Bytes>),
    /// Encoding for msgpack.
    EncodeMsgpack,
    /// Decoding what the text parser gave, with these attachments.
    DecodeJson(Vec<Bytes>),
}

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope::Outside) };
}

/// Puts the scope that was before back when it goes.
struct Restore(Scope);

impl Drop for Restore {
    fn drop(&mut self) {
        SCOPE.replace(std::mem::take(&mut self.0));
    }
}

/// Runs `f` within `scope`; answers what it answered and the scope as it left it.
pub(crate) fn within<R>(scope: Scope, f: impl FnOnce() -> R) -> (R, Scope) {
    let _restore = Restore(SCOPE.replace(scope));
    let result = f();
    (result, SCOPE.take())
}

/// The attachment with this number, if the thread is decoding and there is one.
pub(crate) fn attachment(num: usize) -> Option<Bytes> {
    SCOPE.with_borrow(|scope| match scope {
        Scope::DecodeJson(attachments) => attachments.get(num).cloned(),
        Scope::Outside | Scope::EncodeJson(_) | Scope::EncodeMsgpack => None,
    })
}

/// Whether the thread is decoding a packet with attachments, in which placeholders mean something.
pub(crate) fn has_attachments() -> bool {
    SCOPE.with_borrow(|scope| matches!(scope, Scope::DecodeJson(attachments) if !attachments.is_empty()))
}

/// A placeholder's number from what it was written as. JavaScript has only doubles, so `0.0` is as good as `0`.
pub(crate) fn placeholder_number(num: f64) -> Option<usize> {
    (num >= 0.0 && num.fract() == 0.0 && num < 4_294_967_296.0).then_some(num as usize)
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        enum Place {
            Attachment(usize),
            Inline,
            Outside,
        }
        let place = SCOPE.with_borrow_mut(|scope| match scope {
            Scope::EncodeJson(attachments) => {
                attachments.push(self.0.clone());
                Place::Attachment(attachments.len() - 1)
            }
            Scope::EncodeMsgpack => Place::Inline,
            Scope::Outside | Scope::DecodeJson(_) => Place::Outside,
        });
        match place {
            Place::Attachment(num) => {
                // Peers' test suites compare texts: this order of keys.
                let mut object = serializer.serialize_struct("Placeholder", 2)?;
                object.serialize_field("_placeholder", &true)?;
                object.serialize_field("num", &num)?;
                object.end()
            }
            Place::Inline => serializer.serialize_bytes(&self.0),
            Place::Outside if serializer.is_human_readable() => {
                let mut object = serializer.serialize_struct("Binary", 1)?;
                object.serialize_field(BASE64_KEY, &to_base64(&self.0))?;
                object.end()
            }
            Place::Outside if u32::try_from(self.0.len()).is_ok() => serializer.serialize_bytes(&self.0),
            Place::Outside => Err(S::Error::custom("binary value of 4 GiB or more")),
        }
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(BinaryVisitor)
        } else {
            deserializer.deserialize_byte_buf(BinaryVisitor)
        }
    }
}

struct BinaryVisitor;

impl<'de> Visitor<'de> for BinaryVisitor {
    type Value = Binary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a binary value")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Binary, E> {
        Ok(Binary(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Binary, E> {
        Ok(Binary(bytes.into()))
    }

    /// An array of byte values, as some languages write bytes that they did not mark as binary.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Binary, A::Error> {
        // The hint is the peer's word; 4 KiB is all it may reserve.
        let mut bytes = Vec::with_capacity(items.size_hint().unwrap_or(0).min(4096));
        while let Some(byte) = items.next_element::<u8>()? {
            bytes.push(byte);
        }
        Ok(Binary(bytes.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Binary, A::Error> {
        let mut is_placeholder = false;
        let mut num = None;
        let mut inline = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "_placeholder" => is_placeholder = map.next_value()?,
                "num" => num = Some(map.next_value::<f64>()?),
                BASE64_KEY => inline = Some(map.next_value::<String>()?),
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        if let Some(text) = inline {
            return STANDARD.decode(text).map(Binary::from).map_err(|_| de::Error::custom("invalid base64"));
        }
        if is_placeholder && let Some(num) = num {
            return placeholder_number(num)
                .and_then(attachment)
                .map(Binary)
                .ok_or_else(|| de::Error::custom(format_args!("placeholder {num} names no attachment")));
        }
        Err(de::Error::custom("an object that is no binary value"))
    }
}
