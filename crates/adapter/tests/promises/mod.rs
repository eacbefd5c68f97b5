//! What the decoders of other servers' messages promise of any bytes, as a function that panics where one is broken. Does
//! not know where bytes come from: the fuzz target `adapter_message` and the test of its corpus both call it.

use adapter::{Data, classic, msgpack, python, sharded};

/// Any bytes, as each kind of message: they are read or refused, what was read is no larger than they allow, and writing
/// it again gives what reads the same.
pub(crate) fn adapter_message(data: &[u8]) {
    if let Ok(value) = msgpack::decode(data) {
        check_size(&value, data);
        let written = msgpack::encode(&value);
        let again = msgpack::decode(&written).expect("what was written is read");
        // As bytes: no number that is none is equal to itself.
        assert_eq!(msgpack::encode(&again), written);
    }
    if let Ok(value) = Data::parse(data) {
        check_size(&value, data);
        let written = value.to_json();
        assert_eq!(Data::of(written.clone()).to_json(), written);
    }
    let letter = classic::decode_event(data).or_else(|_| classic::decode_request("/", data));
    if let Ok(letter) = letter {
        let (channel, body) = classic::encode_ask(&classic::Channels::new("p", &letter.namespace), &letter);
        assert!(channel.starts_with('p') && !body.is_empty());
    }
    if let Ok(Some(answer)) = classic::decode_answer(data) {
        assert!(!classic::encode_answer(&answer).is_empty());
    }
    match sharded::decode(data) {
        Ok(sharded::Said::Ask(letter)) => assert!(sharded::encode_ask(&letter).is_some()),
        Ok(sharded::Said::Answer(answer)) => assert!(sharded::encode_answer("me", "/", &answer).is_some()),
        Ok(sharded::Said::Sign) | Err(_) => {}
    }
    if let Ok(adapter::python::Said { ask: Some(adapter::Ask::Broadcast { args, opts, .. }), .. }) =
        python::decode(data)
    {
        args.iter().for_each(|arg| check_size(arg, data));
        assert!(python::encode_event("host", "/", &args, &opts).is_some());
    }
}

/// Each value takes a byte at least, and no byte becomes more than a moment's text does: 24 characters of 6 bytes, or a
/// number that names an entry.
fn check_size(value: &Data, from: &[u8]) {
    let Size { values, bytes } = size(value);
    assert!(values <= from.len(), "{values} values of {} bytes", from.len());
    assert!(bytes <= 32 * from.len(), "{bytes} bytes of {}", from.len());
}

struct Size {
    values: usize,
    bytes: usize,
}

fn size(value: &Data) -> Size {
    let sum = |all: &mut dyn Iterator<Item = Size>| {
        all.fold(Size { values: 1, bytes: 0 }, |sum, one| Size {
            values: sum.values + one.values,
            bytes: sum.bytes + one.bytes,
        })
    };
    match value {
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::UInt(_) | Data::Float(_) => {
            Size { values: 1, bytes: 0 }
        }
        Data::Text(text) => Size { values: 1, bytes: text.len() },
        Data::Bytes(bytes) => Size { values: 1, bytes: bytes.len() },
        Data::List(items) => sum(&mut items.iter().map(size)),
        Data::Map(entries) => sum(&mut entries.iter().map(|(key, value)| {
            let Size { values, bytes } = size(value);
            Size { values, bytes: bytes + key.len() }
        })),
    }
}
