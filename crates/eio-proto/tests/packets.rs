//! Packets and payloads from the outside: the examples of the protocol, every fault, round trips, and damage.

use std::borrow::Cow;

use eio_proto::*;
use proptest::prelude::*;

fn text(data: &str) -> Packet<'_> {
    Packet::Message(Data::Text(data))
}

fn binary(data: &[u8]) -> Packet<'_> {
    Packet::Message(Data::Binary(Cow::Borrowed(data)))
}

#[test]
fn every_packet_type_is_read_and_written() {
    for (packet, wire) in [
        (Packet::Open("{}"), "0{}"),
        (Packet::Close, "1"),
        (Packet::Ping(""), "2"),
        (Packet::Ping("probe"), "2probe"),
        (Packet::Pong("probe"), "3probe"),
        (text("héllo"), "4héllo"),
        (text(""), "4"),
        (binary(&[0, 1, 2, 4]), "bAAECBA=="),
        (binary(&[]), "b"),
        (Packet::Upgrade, "5"),
        (Packet::Noop, "6"),
    ] {
        assert_eq!(decode_text(wire), Ok(packet.clone()), "{wire}");
        let mut out = Vec::new();
        encode_text(&mut out, &packet);
        assert_eq!(out, wire.as_bytes());
    }
}

#[test]
fn text_frames_are_never_split_and_rest_of_bare_packets_is_ignored() {
    assert_eq!(decode_text("4a\u{1e}4b"), Ok(text("a\u{1e}4b")));
    for (wire, packet) in [("1x", Packet::Close), ("5é", Packet::Upgrade), ("6 ", Packet::Noop)] {
        assert_eq!(decode_text(wire), Ok(packet));
    }
}

#[test]
fn base64_may_be_unpadded_and_url_safe() {
    for wire in ["b+/8=", "b+/8", "b-_8=", "b-_8", "b+_8", "b-/9"] {
        assert_eq!(decode_text(wire), Ok(binary(&[0xFB, 0xFF])), "{wire}");
    }
    // Data whose base64 begins with the digit of a message is still all data.
    assert_eq!(decode_text("b4AAA"), Ok(binary(&[0xE0, 0, 0])));
}

#[test]
fn bad_packets_tell_where() {
    for (wire, fault, message) in [
        ("", PacketFault::Empty { offset: 0 }, "empty packet at byte 0"),
        ("abc", PacketFault::UnknownType { found: b'a', offset: 0 }, "unknown packet type 'a' at byte 0"),
        ("7", PacketFault::UnknownType { found: b'7', offset: 0 }, "unknown packet type '7' at byte 0"),
        ("é", PacketFault::UnknownType { found: 0xC3, offset: 0 }, "unknown packet type 'Ã' at byte 0"),
        ("b###AQI", PacketFault::Base64 { offset: 1 }, "bad base64 at byte 1"),
        ("bAAé", PacketFault::Base64 { offset: 3 }, "bad base64 at byte 3"),
        ("bAAAAA", PacketFault::Base64 { offset: 6 }, "bad base64 at byte 6"),
        ("bAA==AA", PacketFault::Base64 { offset: 3 }, "bad base64 at byte 3"),
    ] {
        assert_eq!(decode_text(wire), Err(fault), "{wire}");
        assert_eq!(fault.to_string(), message);
    }
}

#[test]
fn third_revision_puts_the_type_into_binary() {
    assert_eq!(decode_text_v3("b4AAECBA=="), Ok(binary(&[0, 1, 2, 4])));
    assert_eq!(decode_text_v3("4hi"), Ok(text("hi")));
    assert_eq!(decode_text_v3("2probe"), Ok(Packet::Ping("probe")));
    assert_eq!(decode_text_v3("b"), Err(PacketFault::Empty { offset: 1 }));
    assert_eq!(decode_text_v3("b2AA"), Err(PacketFault::UnknownType { found: b'2', offset: 1 }));
    assert_eq!(decode_text_v3("b4é"), Err(PacketFault::Base64 { offset: 2 }));
    assert_eq!(decode_binary_v3(&[4, 9, 8]), Ok(binary(&[9, 8])));
    assert_eq!(decode_binary_v3(&[]), Err(PacketFault::Empty { offset: 0 }));
    assert_eq!(decode_binary_v3(&[3, 9]), Err(PacketFault::UnknownType { found: 3, offset: 0 }));
    let mut out = Vec::new();
    encode_binary_v3(&mut out, &[9, 8]);
    assert_eq!(out, [4, 9, 8]);
}

/// Decodes a whole body, the packets written out, the fault (if any) last.
fn transcript<'a>(packets: impl Iterator<Item = Result<Packet<'a>, PayloadFault>>) -> Vec<String> {
    packets
        .map(|packet| match packet {
            Ok(packet) => {
                let mut out = Vec::new();
                encode_text(&mut out, &packet);
                String::from_utf8(out).unwrap()
            }
            Err(fault) => format!("! {fault}"),
        })
        .collect()
}

#[track_caller]
fn check(body: &[u8], expected: &[&str]) {
    assert_eq!(transcript(decode_payload(body, 4)), expected, "{}", body.escape_ascii());
}

#[test]
fn payload_is_split_and_stops_at_the_first_bad_packet() {
    check(b"4one\x1ebAAEC\x1e4two", &["4one", "bAAEC", "4two"]);
    check(b"2", &["2"]);
    check(b"", &["! empty packet at byte 0"]);
    check(b"4a\x1e", &["4a", "! empty packet at byte 3"]);
    check(b"4a\x1e\x1e4b", &["4a", "! empty packet at byte 3"]);
    check(b"4a\x1exyz\x1e4b", &["4a", "! unknown packet type 'x' at byte 3"]);
    check(b"4a\x1eb!\x1e4b", &["4a", "! bad base64 at byte 4"]);
    check(b"4\xC3\xA9\x1e4a\xFFb", &["4é", "! payload is not utf-8 at byte 6"]);
    check(b"1\x1e2\x1e3\x1e6", &["1", "2", "3", "6"]);
    check(b"1\x1e2\x1e3\x1e6\x1e4", &["1", "2", "3", "6", "! payload of more packets than the limit of 4"]);
}

#[test]
fn payload_is_built_with_its_figures() {
    let mut out = b"kept".to_vec();
    let mut payload = PayloadEncoder::new(&mut out);
    assert_eq!((payload.packets(), payload.bytes(), payload.bytes_with(3)), (0, 0, 3));
    payload.push(&text("one"));
    assert_eq!((payload.packets(), payload.bytes(), payload.bytes_with(3)), (1, 4, 8));
    payload.push(&binary(&[0, 1, 2]));
    payload.push_encoded(b"4two");
    assert_eq!((payload.packets(), payload.bytes()), (3, 15));
    assert_eq!(out, b"kept4one\x1ebAAEC\x1e4two");
}

#[track_caller]
fn check_v3(body: &str, expected: &[&str]) {
    assert_eq!(transcript(decode_payload_v3_text(body.as_bytes(), 3)), expected, "{body}");
}

#[test]
fn third_revisions_lengths_count_utf16_units() {
    check_v3("3:4hé1:2", &["4hé", "2"]);
    // An astral character counts twice.
    check_v3("3:4😀6:2probe", &["4😀", "2probe"]);
    check_v3("6:b4AAEC", &["bAAEC"]);
    check_v3("", &["! bad packet length at byte 0"]);
    check_v3("0:", &["! empty packet at byte 2"]);
    check_v3("1:23", &["2", "! bad packet length at byte 3"]);
    check_v3("1:2x:2", &["2", "! bad packet length at byte 3"]);
    check_v3(":2", &["! bad packet length at byte 0"]);
    check_v3("-1:2", &["! bad packet length at byte 0"]);
    check_v3("5:4hi", &["! bad packet length at byte 0"]);
    check_v3("2:4😀", &["! bad packet length at byte 0"]);
    check_v3("99999999999:4", &["! bad packet length at byte 0"]);
    check_v3("1:21:x", &["2", "! unknown packet type 'x' at byte 5"]);
    check_v3("1:21:21:21:2", &["2", "2", "2", "! payload of more packets than the limit of 3"]);
    assert_eq!(transcript(decode_payload_v3_text(b"2:4\xFF", 3)), ["! payload is not utf-8 at byte 3"]);
}

#[test]
fn third_revisions_binary_framing_is_read() {
    let check = |body: &[u8], expected: &[&str]| {
        assert_eq!(transcript(decode_payload_v3_binary(body, 2)), expected, "{}", body.escape_ascii());
    };
    check(b"\x00\x03\xff4hi\x01\x04\xff\x04\x00\x01\x02", &["4hi", "bAAEC"]);
    check(b"\x00\x01\x00\xff4123456789", &["4123456789"]);
    check(b"\x00\x03\xff4\xC3\xA9", &["4é"]);
    check(b"", &["! bad packet length at byte 0"]);
    check(b"\x02\x01\xff2", &["! bad packet length at byte 0"]);
    check(b"\x00\xff2", &["! bad packet length at byte 0"]);
    check(b"\x00\x0a\xff2", &["! bad packet length at byte 0"]);
    check(b"\x00\x02\xff2", &["! bad packet length at byte 0"]);
    check(b"\x00\x01", &["! bad packet length at byte 0"]);
    check(b"\x00\x01\xff2\x01\x01\xff\x03", &["2", "! unknown packet type '\\u{3}' at byte 7"]);
    check(b"\x00\x02\xff4\xFF", &["! payload is not utf-8 at byte 4"]);
    check(
        b"\x00\x01\xff2\x00\x01\xff2\x00\x01\xff2",
        &["2", "2", "! payload of more packets than the limit of 2"],
    );
}

#[test]
fn third_revisions_payloads_are_built() {
    let mut out = b"kept".to_vec();
    let mut payload = PayloadEncoderV3::new(&mut out);
    payload.push(&text("h😀"));
    payload.push(&binary(&[0, 1, 2]));
    payload.push_encoded("2");
    assert_eq!((payload.packets(), payload.bytes()), (3, 19));
    assert_eq!(out, "kept4:4h😀6:b4AAEC1:2".as_bytes());

    let mut out = Vec::new();
    encode_payload_v3_binary(&mut out, &text("hé"));
    encode_payload_v3_binary(&mut out, &binary(&[0, 1, 2]));
    encode_payload_v3_binary_text(&mut out, "4123456789");
    assert_eq!(out, b"\x00\x04\xff4h\xC3\xA9\x01\x04\xff\x04\x00\x01\x02\x00\x01\x00\xff4123456789");
}

/// Packets with data that may stand anywhere: U+001E is not allowed in polling text.
fn packets() -> impl Strategy<Value = Vec<(u8, String, Vec<u8>)>> {
    prop::collection::vec((0..8u8, "[^\u{1e}]{0,20}", prop::collection::vec(any::<u8>(), 0..20)), 1..20)
}

fn packet((kind, text, bytes): &(u8, String, Vec<u8>)) -> Packet<'_> {
    match kind {
        0 => Packet::Open(text),
        1 => Packet::Close,
        2 => Packet::Ping(text),
        3 => Packet::Pong(text),
        4 => Packet::Message(Data::Text(text)),
        5 => Packet::Upgrade,
        6 => Packet::Noop,
        _ => Packet::Message(Data::Binary(bytes.into())),
    }
}

proptest! {
    #[test]
    fn payloads_of_all_three_forms_come_back(parts in packets()) {
        let packets: Vec<_> = parts.iter().map(packet).collect();
        let (mut v4, mut v3, mut v3_binary) = (Vec::new(), Vec::new(), Vec::new());
        let mut v4_encoder = PayloadEncoder::new(&mut v4);
        packets.iter().for_each(|packet| v4_encoder.push(packet));
        let mut v3_encoder = PayloadEncoderV3::new(&mut v3);
        packets.iter().for_each(|packet| v3_encoder.push(packet));
        packets.iter().for_each(|packet| encode_payload_v3_binary(&mut v3_binary, packet));
        prop_assert_eq!(decode_payload(&v4, 20).collect::<Result<Vec<_>, _>>(), Ok(packets.clone()));
        prop_assert_eq!(decode_payload_v3_text(&v3, 20).collect::<Result<Vec<_>, _>>(), Ok(packets.clone()));
        prop_assert_eq!(decode_payload_v3_binary(&v3_binary, 20).collect::<Result<Vec<_>, _>>(), Ok(packets));
    }

    #[test]
    fn cut_payload_yields_a_prefix_of_its_packets(parts in packets(), cut: prop::sample::Index) {
        let packets: Vec<_> = parts.iter().map(packet).collect();
        let mut body = Vec::new();
        let mut encoder = PayloadEncoderV3::new(&mut body);
        packets.iter().for_each(|packet| encoder.push(packet));
        let cut = &body[..cut.index(body.len())];
        let whole: Vec<_> = decode_payload_v3_text(cut, 20).map_while(Result::ok).collect();
        prop_assert!(packets.starts_with(&whole));
    }

    #[test]
    fn arbitrary_bodies_end_within_the_limit(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for packets in [
            transcript(decode_payload(&body, 8)),
            transcript(decode_payload_v3_text(&body, 8)),
            transcript(decode_payload_v3_binary(&body, 8)),
        ] {
            prop_assert!((1..=9).contains(&packets.len()));
        }
        let _ = decode_binary_v3(&body);
    }

    #[test]
    fn near_valid_bodies_never_panic(body in "([0-9b]|:|\u{1e}|é|😀|[A-Z=]){0,30}") {
        let _ = transcript(decode_payload(body.as_bytes(), 8));
        let _ = transcript(decode_payload_v3_text(body.as_bytes(), 8));
        let _ = (decode_text(&body), decode_text_v3(&body));
    }
}
