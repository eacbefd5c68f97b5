//! Owns msgpack as Node's libraries write it: `notepack` 3, and what older versions of it meant by extension 0. Does not
//! know messages. Invariant: whatever the bytes, reading them neither panics nor takes more memory than some hundred times
//! theirs, which is what a list of nothing but nulls takes.

use bytes::Bytes;

use crate::value::{DEPTH_MAX, Data};

/// Milliseconds from `0001-01-01` to `9999-12-31`, around 1970: what can be written as RFC 3339.
const MOMENT_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Items that a list or map has room for before they are read; beyond that it grows as they come. Lists are within lists, so a
/// message that promises more than it has makes us reserve this many on each level.
const RESERVED_MAX: usize = 64;

/// Reads one value that takes all of the bytes.
///
/// # Errors
/// Whoever wrote them is at fault: they are cut, go on, or are nested too deeply.
pub fn decode(bytes: &[u8]) -> Result<Data, String> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(0)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(format!("{} bytes too many", reader.rest.len())) }
}

/// Writes a value.
#[must_use]
pub fn encode(value: &Data) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    write(&mut out, value);
    out
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("cut")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "cut".to_owned())
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn len(&mut self, bytes: u32) -> Result<usize, String> {
        let number = match bytes {
            1 => u32::from(self.byte()?),
            2 => u32::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?),
        };
        usize::try_from(number).map_err(|_| "too long".to_owned())
    }

    fn value(&mut self, depth: usize) -> Result<Data, String> {
        let kind = self.byte()?;
        Ok(match kind {
            0x00..=0x7f => Data::Int(kind.into()),
            0x80..=0x8f => self.map(usize::from(kind & 0x0f), depth)?,
            0x90..=0x9f => self.list(usize::from(kind & 0x0f), depth)?,
            0xa0..=0xbf => self.text(usize::from(kind & 0x1f))?,
            0xc0 => Data::Null,
            0xc1 => return Err("a byte that means nothing".to_owned()),
            0xc2 => Data::Bool(false),
            0xc3 => Data::Bool(true),
            0xc4..=0xc6 => {
                let len = self.len(1 << (kind - 0xc4))?;
                Data::Bytes(Bytes::copy_from_slice(self.take(len)?))
            }
            0xc7..=0xc9 => {
                let len = self.len(1 << (kind - 0xc7))?;
                self.extension(len)?
            }
            0xca => Data::Float(f32::from_be_bytes(self.array()?).into()),
            0xcb => Data::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Data::Int(self.byte()?.into()),
            0xcd => Data::Int(u16::from_be_bytes(self.array()?).into()),
            0xce => Data::Int(u32::from_be_bytes(self.array()?).into()),
            0xcf => {
                let number = u64::from_be_bytes(self.array()?);
                i64::try_from(number).map_or(Data::UInt(number), Data::Int)
            }
            0xd0 => Data::Int(i8::from_be_bytes(self.array()?).into()),
            0xd1 => Data::Int(i16::from_be_bytes(self.array()?).into()),
            0xd2 => Data::Int(i32::from_be_bytes(self.array()?).into()),
            0xd3 => Data::Int(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.extension(1 << (kind - 0xd4))?,
            0xd9..=0xdb => {
                let len = self.len(1 << (kind - 0xd9))?;
                self.text(len)?
            }
            0xdc | 0xdd => {
                let len = self.len(2 << (kind - 0xdc))?;
                self.list(len, depth)?
            }
            0xde | 0xdf => {
                let len = self.len(2 << (kind - 0xde))?;
                self.map(len, depth)?
            }
            0xe0..=0xff => Data::Int(i8::from_be_bytes([kind]).into()),
        })
    }

    fn text(&mut self, len: usize) -> Result<Data, String> {
        // What JavaScript writes of half a surrogate pair is no UTF-8; it is shown as such.
        Ok(Data::Text(String::from_utf8_lossy(self.take(len)?).into_owned()))
    }

    fn list(&mut self, len: usize, depth: usize) -> Result<Data, String> {
        let depth = deeper(depth)?;
        let mut items = Vec::with_capacity(len.min(RESERVED_MAX));
        for _ in 0..len {
            items.push(self.value(depth)?);
        }
        Ok(Data::List(items))
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<Data, String> {
        let depth = deeper(depth)?;
        let mut entries = Vec::with_capacity(len.min(RESERVED_MAX));
        for _ in 0..len {
            entries.push((key(self.value(depth)?)?, self.value(depth)?));
        }
        Ok(Data::Map(entries))
    }

    fn extension(&mut self, len: usize) -> Result<Data, String> {
        let kind = i8::from_be_bytes(self.array()?);
        let body = self.take(len)?;
        Ok(match (kind, len) {
            (-1, _) => moment(timestamp_ms(body)?),
            // Of `notepack` 2: undefined, a moment, an ArrayBuffer.
            (0, 1) => Data::Null,
            (0, 8) => moment(i64::from_be_bytes(body.try_into().map_err(|_| "cut".to_owned())?)),
            _ => Data::Bytes(Bytes::copy_from_slice(body)),
        })
    }
}

/// The name of an entry. JavaScript has texts only; numbers and the like are named as it would.
fn key(data: Data) -> Result<String, String> {
    match data {
        Data::Text(text) => Ok(text),
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::UInt(_) | Data::Float(_) => {
            Ok(data.to_json().to_string())
        }
        // A map as the name of an entry of a map that is a name, and so on: each level would double its quotes.
        Data::Bytes(_) | Data::List(_) | Data::Map(_) => Err("a key that is no text".to_owned()),
    }
}

fn deeper(depth: usize) -> Result<usize, String> {
    if depth >= DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX} levels"));
    }
    Ok(depth + 1)
}

/// A timestamp of msgpack's own in its three sizes, in milliseconds.
fn timestamp_ms(body: &[u8]) -> Result<i64, String> {
    let (seconds, nanoseconds) = match body.len() {
        4 => (i64::from(u32::from_be_bytes(body.try_into().map_err(|_| "cut")?)), 0),
        8 => {
            let both = u64::from_be_bytes(body.try_into().map_err(|_| "cut")?);
            ((both & 0x3_ffff_ffff) as i64, both >> 34)
        }
        12 => {
            let (nanoseconds, seconds) = body.split_at(4);
            let nanoseconds = u32::from_be_bytes(nanoseconds.try_into().map_err(|_| "cut")?);
            (i64::from_be_bytes(seconds.try_into().map_err(|_| "cut")?), nanoseconds.into())
        }
        len => return Err(format!("a timestamp of {len} bytes")),
    };
    Ok(seconds.saturating_mul(1_000).saturating_add((nanoseconds / 1_000_000) as i64))
}

/// A moment as JSON would have it.
fn moment(ms: i64) -> Data {
    if !MOMENT_MS.contains(&ms) {
        return Data::Null;
    }
    let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Days since 0000-03-01 of the proleptic Gregorian calendar, in eras of 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1_000 % 60, in_day % 1_000);
    Data::Text(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
}

fn write(out: &mut Vec<u8>, value: &Data) {
    match value {
        Data::Null => out.push(0xc0),
        Data::Bool(value) => out.push(0xc2 + u8::from(*value)),
        Data::Int(number) => match *number {
            number @ -32..=127 => out.push(number as i8 as u8),
            number => match (u32::try_from(number), i32::try_from(number)) {
                (Ok(number), _) => out.extend([&[0xce][..], &number.to_be_bytes()].concat()),
                (_, Ok(number)) => out.extend([&[0xd2][..], &number.to_be_bytes()].concat()),
                (Err(_), Err(_)) => out.extend([&[0xd3][..], &number.to_be_bytes()].concat()),
            },
        },
        Data::UInt(number) => out.extend([&[0xcf][..], &number.to_be_bytes()].concat()),
        Data::Float(number) => out.extend([&[0xcb][..], &number.to_be_bytes()].concat()),
        Data::Text(text) => {
            match text.len() {
                len @ 0..=31 => out.push(0xa0 + len as u8),
                len => head(out, 0xdb, len),
            }
            out.extend_from_slice(text.as_bytes());
        }
        Data::Bytes(bytes) => {
            head(out, 0xc6, bytes.len());
            out.extend_from_slice(bytes);
        }
        Data::List(items) => {
            match items.len() {
                len @ 0..=15 => out.push(0x90 + len as u8),
                len => head(out, 0xdd, len),
            }
            items.iter().for_each(|item| write(out, item));
        }
        Data::Map(entries) => {
            match entries.len() {
                len @ 0..=15 => out.push(0x80 + len as u8),
                len => head(out, 0xdf, len),
            }
            for (key, value) in entries {
                write(out, &Data::text(key));
                write(out, value);
            }
        }
    }
}

fn head(out: &mut Vec<u8>, kind: u8, len: usize) {
    out.push(kind);
    // Redis takes no message of more than 512 MiB.
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_of_both_versions_are_read() {
        assert_eq!(decode(&[0xd4, 0, 0]), Ok(Data::Null));
        let one_ms = [&[0xd7, 0][..], &1_i64.to_be_bytes()].concat();
        assert_eq!(decode(&one_ms), Ok(Data::text("1970-01-01T00:00:00.001Z")));
        assert_eq!(decode(&[0xd5, 0, 1, 2]), Ok(Data::Bytes(Bytes::from_static(&[1, 2]))));
        let seconds = [&[0xd6, 0xff][..], &1_700_000_000_u32.to_be_bytes()].concat();
        assert_eq!(decode(&seconds), Ok(Data::text("2023-11-14T22:13:20.000Z")));
        let leap = [&[0xc7, 12, 0xff][..], &[0; 4], &951_782_400_i64.to_be_bytes()].concat();
        assert_eq!(decode(&leap), Ok(Data::text("2000-02-29T00:00:00.000Z")));
        let beyond = [&[0xc7, 12, 0xff][..], &[0; 4], &i64::MAX.to_be_bytes()].concat();
        assert_eq!(decode(&beyond), Ok(Data::Null));
    }

    #[test]
    fn what_is_cut_or_too_deep_is_refused() {
        assert!(decode(&[]).is_err());
        assert!(decode(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decode(&[0x01, 0x02]).is_err());
        assert!(decode(&vec![0x91; 100_000]).is_err());
    }

    #[test]
    fn keys_are_texts_or_what_javascript_makes_texts_of() {
        let read = |key: &[u8]| match decode(&[&[0x81][..], key, &[0xc0]].concat())? {
            Data::Map(entries) => Ok(entries[0].0.clone()),
            other => Err(format!("{other:?}")),
        };
        assert_eq!(read(&[0xa1, b'k']).as_deref(), Ok("k"));
        assert_eq!(
            [read(&[7]), read(&[0xc2]), read(&[0xc0])],
            ["7", "false", "null"].map(|key| Ok(key.into()))
        );
        for bad in [&[0x90][..], &[0x80], &[0xc4, 0]] {
            assert_eq!(read(bad), Err("a key that is no text".into()));
        }
        // Sixty levels of names: two to the sixtieth quotes if they were taken.
        let bomb = [vec![0x81; 60], vec![0xc0; 61]].concat();
        assert!(decode(&bomb).is_err());
    }
}
