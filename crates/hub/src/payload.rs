//! Owns what the payloads of all vocabularies are made of: ids, percentages, what else a publisher says, and the form in
//! which payload types are declared. Does not know any event.
//!
//! Invariant: a payload never loses what its publisher said beyond the known fields.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::fault::{Fault, Refusal};
use crate::room::{RoomKind, RoomName};

/// Bytes of an id in a payload. 160: with `project:` and the like in front it still makes a room's name.
pub const ID_BYTES_MAX: usize = 160;

/// What a publisher says beyond the fields that are known.
pub type Extra = serde_json::Map<String, Value>;

/// The data of an event or a command.
pub trait Payload: DeserializeOwned + JsonSchema {
    /// The name of the event or command.
    const NAME: &'static str;
    /// What it says, in a sentence.
    const ABOUT: &'static str;

    /// The rooms that it goes to if its publisher names none.
    ///
    /// # Errors
    /// The peer's fault: it does not say what the room is named after ([`Refusal::BadPayload`]), or something that
    /// makes no room's name.
    fn rooms(&self) -> Result<Vec<RoomName>, Fault>;

    /// What "the newest of each" means where only the latest is kept; empty if there is but one.
    fn key(&self) -> Box<str>;
}

/// Something's id: 1 to [`ID_BYTES_MAX`] bytes without control characters. Integers are taken as their digits.
///
/// Checked where it is read; one that is made by `From` is checked by whoever reads it next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Id(Box<str>);

impl Id {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The room that is named after it.
    ///
    /// # Errors
    /// The peer's fault: [`Refusal::BadRoomName`].
    pub fn room(&self, kind: RoomKind) -> Result<RoomName, Fault> {
        RoomName::of(kind, &self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<&String> for Id {
    fn from(text: &String) -> Self {
        Self(text.as_str().into())
    }
}

impl From<String> for Id {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an id: a text of 1 to {ID_BYTES_MAX} bytes without control characters, or an integer")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Id, E> {
        if text.is_empty() || text.len() > ID_BYTES_MAX || text.chars().any(char::is_control) {
            // Not the text itself: it may be as long as the message.
            return Err(E::invalid_value(Unexpected::Other("another text"), &self));
        }
        Ok(Id(text.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Id, E> {
        Ok(Id::from(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Id, E> {
        Ok(Id(number.to_string().into()))
    }
}

impl JsonSchema for Id {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An id: a text without control characters, or an integer.",
            "type": ["string", "integer"],
            "minLength": 1,
            "maxLength": ID_BYTES_MAX,
        })
    }
}

/// Declares a number between two bounds: made by `new`, it is moved to the nearest bound; read, it is refused outside.
macro_rules! bounded {
    ($(#[doc = $doc:literal])+ $name:ident, $min:literal, $max:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
        pub struct $name(f64);

        impl $name {
            /// The number, moved between the bounds; the lower one for what is no number.
            #[must_use]
            pub fn new(number: f64) -> Self {
                Self(if number.is_nan() { $min } else { number.clamp($min, $max) })
            }

            /// The number.
            #[must_use]
            pub fn value(self) -> f64 {
                self.0
            }
        }

        impl From<f64> for $name {
            fn from(number: f64) -> Self {
                Self::new(number)
            }
        }

        impl From<u32> for $name {
            fn from(number: u32) -> Self {
                Self::new(number.into())
            }
        }

        impl From<i32> for $name {
            fn from(number: i32) -> Self {
                Self::new(number.into())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // Whole numbers without a point, as people write them. Between the bounds the cast is exact.
                if self.0.fract() == 0.0 {
                    serializer.serialize_u64(self.0 as u64)
                } else {
                    serializer.serialize_f64(self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = f64::deserialize(deserializer)?;
                if ($min..=$max).contains(&number) {
                    Ok(Self(number))
                } else {
                    let expected = concat!("a number from ", $min, " to ", $max);
                    Err(D::Error::invalid_value(Unexpected::Float(number), &expected))
                }
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "number", "minimum": $min, "maximum": $max })
            }
        }
    };
}

bounded! {
    /// How much of something is done: 0 to 100.
    Percent, 0.0, 100.0
}

bounded! {
    /// How sure somebody is: 0 to 1.
    Confidence, 0.0, 1.0
}

/// Declares the payload of an event or command.
///
/// Fields that are `addressed` say where the event goes: they may be missing where rooms are named instead, but whoever
/// builds a payload by `new` gives them. `new` takes what is addressed and required; the rest has a method each.
/// Whatever else a publisher says is kept in `extra`.
macro_rules! payload {
    (
        $(#[doc = $doc:literal])+
        $name:ident = $event:literal {
            $(addressed { $($(#[$a_meta:meta])+ $a:ident: $a_type:ty,)+ })?
            $(required { $($(#[$r_meta:meta])+ $r:ident: $r_type:ty,)+ })?
            $(optional { $($(#[$o_meta:meta])+ $o:ident: $o_type:ty,)+ })?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[non_exhaustive]
        pub struct $name {
            $($($(#[$a_meta])+ #[serde(default, skip_serializing_if = "Option::is_none")] pub $a: Option<$a_type>,)+)?
            $($($(#[$r_meta])+ pub $r: $r_type,)+)?
            $($($(#[$o_meta])+ #[serde(default, skip_serializing_if = "Option::is_none")] pub $o: Option<$o_type>,)+)?
            /// Whatever else was said; it is passed on.
            #[serde(flatten)]
            pub extra: $crate::payload::Extra,
        }

        impl $name {
            /// The name of the event or command.
            pub const NAME: &'static str = $event;
            /// What it says.
            pub const ABOUT: &'static str = concat!($($doc),+);

            /// One with what it must say.
            #[must_use]
            #[allow(clippy::new_without_default)] // Where nothing is required there is still nothing to say by default.
            pub fn new($($($a: impl Into<$a_type>,)+)? $($($r: impl Into<$r_type>,)+)?) -> Self {
                Self {
                    $($($a: Some($a.into()),)+)?
                    $($($r: $r.into(),)+)?
                    $($($o: None,)+)?
                    extra: $crate::payload::Extra::new(),
                }
            }

            $($(
                #[doc = concat!("Says `", stringify!($o), "`.")]
                #[must_use]
                pub fn $o(mut self, $o: impl Into<$o_type>) -> Self {
                    self.$o = Some($o.into());
                    self
                }
            )+)?

            /// Says something more, under a name of its own. Names of known fields do not belong here.
            #[must_use]
            pub fn with(mut self, name: impl Into<String>, value: impl Into<::serde_json::Value>) -> Self {
                self.extra.insert(name.into(), value.into());
                self
            }
        }
    };
}

/// Says where payloads go, and what the latest of them is known by.
macro_rules! addressed {
    ($($name:ident: |$it:ident| $rooms:expr, key $key:expr;)+) => {$(
        impl $crate::payload::Payload for $name {
            const NAME: &'static str = $name::NAME;
            const ABOUT: &'static str = $name::ABOUT;

            #[allow(unused_variables)] // Some go to the same room whatever they say.
            fn rooms(&self) -> Result<Vec<$crate::room::RoomName>, $crate::fault::Fault> {
                let $it = self;
                $rooms
            }

            #[allow(unused_variables)] // Of some there is but one.
            fn key(&self) -> Box<str> {
                let $it = self;
                $key.into()
            }
        }
    )+};
}

pub(crate) use {addressed, payload};

/// The rooms named after ids that may be missing; `names` are their fields.
///
/// # Errors
/// The peer's fault: none of them is there.
pub(crate) fn rooms_of(ids: &[(RoomKind, Option<&Id>)], names: &str) -> Result<Vec<RoomName>, Fault> {
    let rooms: Vec<_> =
        ids.iter().filter_map(|(kind, id)| id.map(|id| id.room(*kind))).collect::<Result<_, _>>()?;
    if rooms.is_empty() {
        let message = format!("without {names} the event has no room of its own; give it, or name rooms");
        return Err(Fault::new(Refusal::BadPayload, message));
    }
    Ok(rooms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_texts_or_integers() {
        for (json, expected) in [("\"a:b\"", "a:b"), ("42", "42"), ("-1", "-1")] {
            let id: Id = serde_json::from_str(json).unwrap();
            assert_eq!(id.as_str(), expected);
        }
        let long = format!("\"{}\"", "x".repeat(ID_BYTES_MAX + 1));
        for bad in ["\"\"", "\"\\n\"", "1.5", "null", "{}", &long] {
            assert!(serde_json::from_str::<Id>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_id_makes_a_room_of_every_kind() {
        let id = Id::from("x".repeat(ID_BYTES_MAX));
        for kind in RoomKind::ALL.into_iter().filter(|kind| kind.has_id()) {
            assert!(id.room(kind).is_ok(), "{}", kind.as_str());
        }
    }

    #[test]
    fn percentages_are_refused_outside_when_read_and_moved_inside_when_made() {
        assert_eq!(serde_json::from_str::<Percent>("100").unwrap(), Percent::new(100.0));
        for bad in ["-0.1", "100.1", "\"5\""] {
            assert!(serde_json::from_str::<Percent>(bad).is_err(), "{bad}");
        }
        assert_eq!(Percent::new(f64::NAN).value(), 0.0);
        assert_eq!(Percent::from(250).value(), 100.0);
        assert_eq!(serde_json::to_string(&Percent::new(12.0)).unwrap(), "12");
        assert_eq!(serde_json::to_string(&Confidence::new(0.5)).unwrap(), "0.5");
    }
}
