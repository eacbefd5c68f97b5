//! Owns the part of msgpack that scripts and we exchange: lists of numbers and byte strings. Does not know what they
//! mean. Redis has a reader and a writer of it built in, which are far faster than taking a text apart in a script.
//!
//! Bytes that make no sense are [`Failure::Damaged`]; they never panic.

use crate::body::Reader;
use crate::fault::Failure;

/// Lists in lists, at most: answers have one level.
const DEPTH_MAX: usize = 8;

/// A value that a script answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A number that is none of a fraction and not below zero.
    Number(u64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values.
    List(Vec<Value>),
}

impl Value {
    pub(crate) fn into_number(self) -> Result<u64, Failure> {
        match self {
            Value::Number(number) => Ok(number),
            Value::Bytes(_) | Value::List(_) => Err(damaged("a number was expected")),
        }
    }

    pub(crate) fn into_bytes(self) -> Result<Vec<u8>, Failure> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) | Value::List(_) => Err(damaged("bytes were expected")),
        }
    }

    pub(crate) fn into_list(self) -> Result<Vec<Value>, Failure> {
        match self {
            Value::List(list) => Ok(list),
            Value::Number(_) | Value::Bytes(_) => Err(damaged("a list was expected")),
        }
    }
}

/// Writes a list of numbers. Scripts count in doubles, so what is beyond 2^53 loses its last digits here.
pub(crate) fn encode_numbers(numbers: &[f64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + 3 * numbers.len());
    out.push(0xdd);
    let count = u32::try_from(numbers.len()).expect("invariant: a call has a bounded number of numbers");
    out.extend_from_slice(&count.to_be_bytes());
    for number in numbers {
        if (0.0..128.0).contains(number) && number.fract() == 0.0 {
            // Most are: counts, and which room.
            out.push(*number as u8);
        } else {
            out.push(0xcb);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
    out
}

/// Reads one value that fills all of `bytes`.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Failure> {
    let mut reader = Reader { rest: bytes };
    let value = read(&mut reader, DEPTH_MAX)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(damaged("there is more than one value")) }
}

fn read(reader: &mut Reader<'_>, depth: usize) -> Result<Value, Failure> {
    let Some(depth) = depth.checked_sub(1) else { return Err(damaged("lists are too deep")) };
    let mark = reader.u8()?;
    let bytes = |reader: &mut Reader<'_>, count: usize| Ok(Value::Bytes(reader.take(count)?.to_vec()));
    match mark {
        0x00..=0x7f => Ok(Value::Number(u64::from(mark))),
        0x90..=0x9f => list(reader, usize::from(mark & 0x0f), depth),
        0xa0..=0xbf => bytes(reader, usize::from(mark & 0x1f)),
        0xc4 | 0xd9 => {
            let count = usize::from(reader.u8()?);
            bytes(reader, count)
        }
        0xc5 | 0xda => {
            let count = usize::from(u16::from_be_bytes(reader.array()?));
            bytes(reader, count)
        }
        0xc6 | 0xdb => {
            let count = reader.u32()? as usize;
            bytes(reader, count)
        }
        0xca => whole(f64::from(f32::from_be_bytes(reader.array()?))),
        0xcb => whole(f64::from_be_bytes(reader.array()?)),
        0xcc => Ok(Value::Number(u64::from(reader.u8()?))),
        0xcd => Ok(Value::Number(u64::from(u16::from_be_bytes(reader.array()?)))),
        0xce => Ok(Value::Number(u64::from(reader.u32()?))),
        0xcf => Ok(Value::Number(reader.u64()?)),
        0xd0 => signed(i64::from(i8::from_be_bytes(reader.array()?))),
        0xd1 => signed(i64::from(i16::from_be_bytes(reader.array()?))),
        0xd2 => signed(i64::from(i32::from_be_bytes(reader.array()?))),
        0xd3 => signed(i64::from_be_bytes(reader.array()?)),
        0xdc => {
            let count = usize::from(u16::from_be_bytes(reader.array()?));
            list(reader, count, depth)
        }
        0xdd => {
            let count = reader.u32()? as usize;
            list(reader, count, depth)
        }
        // An empty table of a script may come as an empty map.
        0x80 => Ok(Value::List(Vec::new())),
        other => Err(damaged(&format!("byte {other:#04x} begins no value"))),
    }
}

fn list(reader: &mut Reader<'_>, count: usize, depth: usize) -> Result<Value, Failure> {
    // Each value takes a byte at least: no more is set aside than has come.
    let mut values = Vec::with_capacity(count.min(reader.rest.len()));
    for _ in 0..count {
        values.push(read(reader, depth)?);
    }
    Ok(Value::List(values))
}

fn whole(number: f64) -> Result<Value, Failure> {
    if (0.0..18_446_744_073_709_551_616.0).contains(&number) && number.fract() == 0.0 {
        Ok(Value::Number(number as u64))
    } else {
        Err(damaged(&format!("{number} is no count")))
    }
}

fn signed(number: i64) -> Result<Value, Failure> {
    match u64::try_from(number) {
        Ok(number) => Ok(Value::Number(number)),
        Err(_) => Err(damaged(&format!("{number} is no count"))),
    }
}

fn damaged(why: &str) -> Failure {
    Failure::Damaged(format!("an answer makes no sense: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_as_they_were_written() {
        let numbers = [0_u64, 1, 127, 128, 255, 65_536, 1 << 40, (1 << 53) - 1];
        let encoded = encode_numbers(&numbers.map(|number| number as f64));
        let list = decode(&encoded).unwrap().into_list().unwrap();
        let read: Vec<u64> = list.into_iter().map(|value| value.into_number().unwrap()).collect();
        assert_eq!(read, numbers);
    }

    #[test]
    fn every_form_that_scripts_write_is_read() {
        let long = [&[0xda, 0x01, 0x00][..], &[7; 256]].concat();
        for (bytes, value) in [
            (&[0xa1, b'a'][..], Value::Bytes(b"a".to_vec())),
            (&[0xd9, 1, b'a'], Value::Bytes(b"a".to_vec())),
            (&long, Value::Bytes(vec![7; 256])),
            (&[0x92, 1, 0xcd, 1, 0], Value::List(vec![Value::Number(1), Value::Number(256)])),
            (&[0x80], Value::List(vec![])),
            (&[0xd1, 1, 0], Value::Number(256)),
            (&[0xca, 0x41, 0x00, 0x00, 0x00], Value::Number(8)),
        ] {
            assert_eq!(decode(bytes).unwrap(), value);
        }
        for bytes in [&[][..], &[0xff], &[0xc0], &[0x91], &[0x01, 0x01], &[0xca, 0x3f, 0, 0, 0], &[0x91; 20]]
        {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            // That it returns is the point; what it takes has no more values than bytes.
            if let Ok(Value::List(list)) = decode(&bytes) {
                prop_assert!(list.len() <= bytes.len());
            }
        }
    }
}
