//! The msgpack parser: packets as other implementations write them, byte for byte, and what it refuses.

use serde_json::json;
use sio_proto::{
    Binary, Fault, Limits, Many, NoArgs, Parser, Payload, decode_all, decode_args, decode_msgpack,
    encode_ack, encode_connect, encode_connect_error, encode_connect_request, encode_disconnect,
    encode_event, to_value,
};

#[test]
fn a_javascript_connect_has_undefined_for_data() {
    let bytes = hex("83 a4 74 79 70 65 00 a4 64 61 74 61 d4 00 00 a3 6e 73 70 a1 2f");
    let packet = decode_msgpack(&bytes, &Limits::default()).expect("a stock client's packet");
    assert_eq!((packet.namespace, packet.ack_id, packet.attachments), ("/", None, 0));
    assert_eq!(packet.payload, Payload::Connect { auth: None });
}

#[test]
fn a_connect_brings_its_map() {
    let bytes = hex("83 a4 74 79 70 65 00 a4 64 61 74 61 81 a3 6b 65 79 a2 76 31 a3 6e 73 70 a4 2f 6f 70 73");
    let packet = decode_msgpack(&bytes, &Limits::default()).expect("a stock client's packet");
    let Payload::Connect { auth: Some(auth) } = packet.payload else { panic!("{packet:?}") };
    assert_eq!(packet.namespace, "/ops");
    assert_eq!(auth, hex("81 a3 6b 65 79 a2 76 31"));
    assert_eq!(to_value(Parser::Msgpack, auth, 1, &[]).expect("a map"), [json!({"key": "v1"})]);
}

#[test]
fn an_event_has_its_binary_inside() {
    let bytes = hex(
        "85 a4 74 79 70 65 02 a4 64 61 74 61 93 a4 74 69 63 6b 07 c4 02 ca fe a7 6f 70 74 69 6f 6e 73 81 a8 63 6f 6d \
         70 72 65 73 73 c3 a2 69 64 03 a3 6e 73 70 a1 2f",
    );
    let packet = decode_msgpack(&bytes, &Limits::default()).expect("a stock client's packet");
    assert_eq!(packet.ack_id, Some(3));
    let Payload::Event { name, elements, count } = packet.payload else { panic!("an event") };
    assert_eq!((&*name, count), ("tick", 2));
    assert_eq!(elements, hex("07 c4 02 ca fe"));
    let (number, binary): (u8, Binary) = decode_args(Parser::Msgpack, elements, count, &[]).expect("fits");
    assert_eq!((number, &*binary), (7, &[0xca, 0xfe][..]));
    assert_eq!(
        to_value(Parser::Msgpack, elements, count, &[]).expect("values"),
        [json!(7), json!({"$base64": "yv4="})]
    );
}

#[test]
fn an_ack_starts_with_its_id() {
    let bytes = hex("84 a2 69 64 03 a4 74 79 70 65 03 a4 64 61 74 61 91 a2 6f 6b a3 6e 73 70 a1 2f");
    let packet = decode_msgpack(&bytes, &Limits::default()).expect("a stock client's packet");
    assert_eq!(packet.ack_id, Some(3));
    let Payload::Ack { elements, count } = packet.payload else { panic!("an ack") };
    assert_eq!(decode_args::<String>(Parser::Msgpack, elements, count, &[]).expect("a text"), "ok");
}

#[test]
fn a_disconnect_has_no_data_or_nil() {
    let plain = hex("82 a4 74 79 70 65 01 a3 6e 73 70 a1 2f");
    let with_nil = hex("83 a4 74 79 70 65 01 a4 64 61 74 61 c0 a3 6e 73 70 a1 2f");
    for bytes in [plain, with_nil] {
        let packet = decode_msgpack(&bytes, &Limits::default()).expect("a stock client's packet");
        assert_eq!((packet.namespace, packet.payload), ("/", Payload::Disconnect));
    }
}

#[test]
fn packets_are_written_with_what_they_need_only() {
    let bytes = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let msgpack = Parser::Msgpack;
    let head = "a4 74 79 70 65 0T a3 6e 73 70 a1 2f";
    let expected = |map: &str, kind: char, rest: &str| {
        hex(&format!("{map} {} {rest}", head.replace('T', &kind.to_string())))
    };
    assert_eq!(bytes(&|o| encode_disconnect(o, msgpack, "/")), expected("82", '1', ""));
    assert_eq!(
        bytes(&|o| encode_connect(o, msgpack, "/", "S", None)),
        expected("83", '0', "a4 64 61 74 61 81 a3 73 69 64 a1 53"),
        "no pid, rather than an undefined one"
    );
    assert_eq!(
        bytes(&|o| encode_connect(o, msgpack, "/", "S", Some("P"))),
        expected("83", '0', "a4 64 61 74 61 82 a3 73 69 64 a1 53 a3 70 69 64 a1 50")
    );
    assert_eq!(bytes(&|o| encode_connect_request(o, msgpack, "/", None)), expected("82", '0', ""));
    assert_eq!(
        bytes(&|o| encode_connect_request(o, msgpack, "/", json!({"k": 1}).as_object())),
        expected("83", '0', "a4 64 61 74 61 81 a1 6b 01")
    );
    assert_eq!(
        bytes(&|o| encode_connect_error(o, msgpack, "/", "no", Some(&json!(null)))),
        expected("83", '4', "a4 64 61 74 61 82 a7 6d 65 73 73 61 67 65 a2 6e 6f a4 64 61 74 61 c0")
    );
    let body = msgpack
        .encode_event_args("tick", &Many((7, Binary::from(vec![0xca, 0xfe]))))
        .expect("can be encoded");
    assert!(body.attachments.is_empty());
    assert_eq!(
        bytes(&|o| encode_event(o, msgpack, "/", Some(300), &body, None)),
        expected("84", '2', "a2 69 64 cd 01 2c a4 64 61 74 61 93 a4 74 69 63 6b 07 c4 02 ca fe")
    );
    assert_eq!(
        bytes(&|o| encode_event(o, msgpack, "/", None, &body, Some("Q"))),
        expected("83", '2', "a4 64 61 74 61 94 a4 74 69 63 6b 07 c4 02 ca fe a1 51")
    );
    let body = msgpack.encode_ack_args(&NoArgs).expect("nothing is encodable");
    assert_eq!(
        bytes(&|o| encode_ack(o, msgpack, "/", 0, &body)),
        expected("84", '3', "a2 69 64 00 a4 64 61 74 61 90")
    );
}

#[test]
fn keys_come_in_any_order_and_unknown_ones_are_ignored() {
    let packet = json!({"zzz": [1, {"deep": [null]}], "nsp": "/a", "data": ["x", 1], "id": 5, "type": 2, "options": {}});
    let bytes = rmp_serde::to_vec(&packet).expect("plain data");
    let packet = decode_msgpack(&bytes, &Limits::default()).expect("a tolerable packet");
    assert_eq!((packet.namespace, packet.ack_id), ("/a", Some(5)));
    // An id may be absent, nil or undefined; the last is how JavaScript says the first.
    for id in ["c0", "d4 00 00"] {
        let bytes =
            hex(&format!("84 a4 74 79 70 65 02 a3 6e 73 70 a1 2f a4 64 61 74 61 91 a1 78 a2 69 64 {id}"));
        assert_eq!(decode_msgpack(&bytes, &Limits::default()).map(|packet| packet.ack_id), Ok(None), "{id}");
    }
}

#[test]
fn what_is_no_packet_is_refused() {
    check(json!({"type": 2, "nsp": "/", "data": ["x"]}), None);
    check(json!({"nsp": "/", "data": ["x"]}), Some("unknown packet type"));
    check(json!({"type": 5, "nsp": "/", "data": ["x"]}), Some("unknown packet type"));
    check(json!({"type": -1, "nsp": "/", "data": ["x"]}), Some("unknown packet type"));
    check(json!({"type": "2", "nsp": "/", "data": ["x"]}), Some("unknown packet type"));
    check(json!({"type": 2, "data": ["x"]}), Some("packet without a namespace"));
    check(json!({"type": 2, "nsp": 1, "data": ["x"]}), Some("packet without a namespace"));
    check(json!({"type": 2, "nsp": "/\u{1e}", "data": ["x"]}), Some("control character in a namespace"));
    check(json!({"type": 2, "nsp": "/", "data": ["x"], "id": -1}), Some("ack id is not a number in range"));
    check(json!({"type": 2, "nsp": "/", "data": ["x"], "id": "1"}), Some("ack id is not a number in range"));
    check(json!({"type": 2, "nsp": "/"}), Some("data does not fit a packet of kind Event"));
    check(json!({"type": 2, "nsp": "/", "data": {}}), Some("data does not fit a packet of kind Event"));
    check(
        json!({"type": 2, "nsp": "/", "data": [null]}),
        Some("event name is neither a string nor a number"),
    );
    check(json!({"type": 2, "nsp": "/", "data": ["connect"]}), Some("reserved event name"));
    check(json!({"type": 3, "nsp": "/", "data": null}), Some("data does not fit a packet of kind Ack"));
    check(json!({"type": 0, "nsp": "/", "data": null}), Some("data does not fit a packet of kind Connect"));
    check(json!({"type": 0, "nsp": "/", "data": []}), Some("data does not fit a packet of kind Connect"));
    check(json!({"type": 1, "nsp": "/", "data": {}}), Some("data does not fit a packet of kind Disconnect"));
    check(json!({"type": 4, "nsp": "/", "data": 1}), Some("data does not fit a packet of kind ConnectError"));
    check(json!([1]), Some("invalid msgpack at byte 0"));
    assert_eq!(decode_msgpack(&[], &Limits::default()), Err(Fault::Empty));
    let mut trailing = rmp_serde::to_vec(&json!({"type": 1, "nsp": "/"})).expect("plain data");
    trailing.push(0);
    assert_eq!(
        decode_msgpack(&trailing, &Limits::default()),
        Err(Fault::Msgpack { offset: trailing.len() - 1 })
    );
    // A string that is no UTF-8, deep inside.
    let bytes = hex("83 a4 74 79 70 65 02 a3 6e 73 70 a1 2f a4 64 61 74 61 92 a1 78 91 a1 ff");
    assert!(matches!(decode_msgpack(&bytes, &Limits::default()), Err(Fault::Msgpack { .. })));
}

#[test]
fn numbers_can_be_event_names() {
    for (bytes, name) in [
        ("01", "1"),
        ("cd 03 e8", "1000"),
        ("ff", "-1"),
        ("d0 80", "-128"),
        ("d1 ff 00", "-256"),
        ("d3 80 00 00 00 00 00 00 00", "-9223372036854775808"),
        ("d0 05", "5"),
        ("cb 3f f8 00 00 00 00 00 00", "1.5"),
        ("ca 3f c0 00 00", "1.5"),
    ] {
        let bytes = hex(&format!("83 a4 74 79 70 65 02 a3 6e 73 70 a1 2f a4 64 61 74 61 91 {bytes}"));
        let packet = decode_msgpack(&bytes, &Limits::default()).expect("a number is a name");
        let Payload::Event { name: found, .. } = packet.payload else { panic!("an event") };
        assert_eq!(found, name);
    }
}

#[test]
fn nesting_is_bounded_without_recursion() {
    let nested = |depth: usize| {
        let mut bytes = hex("83 a4 74 79 70 65 02 a3 6e 73 70 a1 2f a4 64 61 74 61 92 a1 78");
        bytes.extend(std::iter::repeat_n(0x91, depth - 1));
        bytes.push(0xc0);
        bytes
    };
    assert!(decode_msgpack(&nested(64), &Limits::default()).is_ok());
    assert_eq!(decode_msgpack(&nested(65), &Limits::default()), Err(Fault::TooDeep { max: 64 }));
    assert_eq!(decode_msgpack(&nested(1_000_000), &Limits::default()), Err(Fault::TooDeep { max: 64 }));
}

#[test]
fn a_count_that_the_bytes_do_not_bear_out_costs_nothing() {
    for bytes in ["df ff ff ff ff", "83 a4 64 61 74 61 dd ff ff ff ff", "83 a4 64 61 74 61 c6 ff ff ff ff 00"]
    {
        assert!(
            matches!(decode_msgpack(&hex(bytes), &Limits::default()), Err(Fault::Msgpack { .. })),
            "{bytes}"
        );
    }
    // Arguments that were not checked before, too.
    assert!(decode_all::<Vec<u8>>(Parser::Msgpack, &hex("dd ff ff ff ff"), 1, &[]).is_err());
    assert!(decode_all::<Vec<u8>>(Parser::Msgpack, &[], u32::MAX, &[]).is_err());
}

#[test]
fn javascript_extensions_become_plain_values() {
    // undefined; 2026-11-21T00:00:00.123Z; an array buffer of 1 byte, of 300; 1970; a date that is none; another type.
    let mut bytes = hex("d4 00 00  d7 00 00 00 01 a1 fb 67 18 7b  c7 01 00 2a");
    bytes.extend(hex("c8 01 2c 00"));
    bytes.extend([7; 300]);
    bytes.extend(hex(
        "d7 00 00 00 00 00 00 00 00 00  d7 00 7f ff ff ff ff ff ff ff  d6 ff 00 00 00 01  92 01 d4 00 00",
    ));
    let values = to_value(Parser::Msgpack, &bytes, 8, &[]).expect("tolerable values");
    assert_eq!(values[0], json!(null));
    assert_eq!(values[1], json!("2026-11-21T00:00:00.123Z"));
    assert_eq!(values[2], json!({"$base64": "Kg=="}));
    assert_eq!(values[3]["$base64"].as_str().map(str::len), Some(400));
    assert_eq!(values[4], json!("1970-01-01T00:00:00.000Z"));
    assert_eq!(values[5], json!(null));
    assert_eq!(values[6], json!({"$base64": "AAAAAQ=="}));
    assert_eq!(values[7], json!([1, null]));

    for (millis, text) in [
        (1_795_219_200_123_i64, "2026-11-21T00:00:00.123Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (951_868_800_000, "2000-03-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
        (-62_167_219_200_001, "-000001-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "+010000-01-01T00:00:00.000Z"),
        (8_640_000_000_000_000, "+275760-09-13T00:00:00.000Z"),
        (-8_640_000_000_000_000, "-271821-04-20T00:00:00.000Z"),
    ] {
        let mut bytes = hex("d7 00");
        bytes.extend(millis.to_be_bytes());
        assert_eq!(decode_args::<String>(Parser::Msgpack, &bytes, 1, &[]).expect("a text"), text);
    }
}

#[test]
fn keys_that_are_no_strings_become_their_text() {
    let values = to_value(Parser::Msgpack, &hex("82 01 a1 61 c3 02"), 1, &[]).expect("a map");
    assert_eq!(values, [json!({"1": "a", "true": 2})]);
}

#[track_caller]
fn check(packet: serde_json::Value, expected: Option<&str>) {
    let bytes = rmp_serde::to_vec(&packet).expect("plain data");
    let found = decode_msgpack(&bytes, &Limits::default()).err().map(|fault| fault.to_string());
    assert_eq!(found.as_deref(), expected, "{packet}");
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect()
}
