//! Takes the outermost layer off a value that serialises as a sequence, so that each item becomes an argument of its own.

use crate::{ArgsWriter, EncodeFault};
use serde::Serialize;
use serde::ser::{Error, Impossible, SerializeSeq, SerializeTuple, SerializeTupleStruct, Serializer};
use std::fmt;

impl Error for EncodeFault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        EncodeFault::Custom(message.to_string())
    }
}

/// Writes the items of a sequence, and nothing for unit and `None`; anything else is [`EncodeFault::NotASequence`].
pub(crate) struct Items<'w, 'a>(pub(crate) &'w mut ArgsWriter<'a>);

type Refusal = Impossible<(), EncodeFault>;

/// The methods for what is no sequence.
macro_rules! refuse {
    ($($method:ident($($argument:ty),*) -> $answer:ty;)*) => {
        $(fn $method(self, $(_: $argument),*) -> Result<$answer, EncodeFault> {
            Err(EncodeFault::NotASequence)
        })*
    };
}

impl Serializer for Items<'_, '_> {
    type Ok = ();
    type Error = EncodeFault;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Refusal;
    type SerializeMap = Refusal;
    type SerializeStruct = Refusal;
    type SerializeStructVariant = Refusal;

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, EncodeFault> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, EncodeFault> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, EncodeFault> {
        Ok(self)
    }

    fn serialize_unit(self) -> Result<(), EncodeFault> {
        Ok(())
    }

    fn serialize_none(self) -> Result<(), EncodeFault> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeFault> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), EncodeFault> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), EncodeFault> {
        Err(EncodeFault::NotASequence)
    }

    refuse! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_i128(i128) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_u128(u128) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Refusal;
        serialize_map(Option<usize>) -> Refusal;
        serialize_struct(&'static str, usize) -> Refusal;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Refusal;
    }
}

impl SerializeSeq for Items<'_, '_> {
    type Ok = ();
    type Error = EncodeFault;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeFault> {
        self.0.one(value)
    }

    fn end(self) -> Result<(), EncodeFault> {
        Ok(())
    }
}

impl SerializeTuple for Items<'_, '_> {
    type Ok = ();
    type Error = EncodeFault;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeFault> {
        self.0.one(value)
    }

    fn end(self) -> Result<(), EncodeFault> {
        Ok(())
    }
}

impl SerializeTupleStruct for Items<'_, '_> {
    type Ok = ();
    type Error = EncodeFault;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeFault> {
        self.0.one(value)
    }

    fn end(self) -> Result<(), EncodeFault> {
        Ok(())
    }
}
