//! Frames from the outside: the examples of RFC 6455 §5.7, every fault, limits, round trips and arbitrary cuts.

use proptest::prelude::*;
use ws_proto::{
    CloseCode, Decoder, Fault, Inflater, Message, OpCode, Role, Rules, Step, encode_close,
    encode_close_masked, encode_frame, encode_frame_masked, encode_header, header_len, mask,
};

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const SERVER: Rules = Rules { role: Role::Server, message_bytes_max: 1000, fragments_max: 4 };
const CLIENT: Rules = Rules { role: Role::Client, ..SERVER };

/// A message that owns what it says.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseCode>, String),
}

impl From<Message<'_>> for Said {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.into()),
            Message::Binary(bytes) => Self::Binary(bytes.into()),
            Message::Ping(bytes) => Self::Ping(bytes.into()),
            Message::Pong(bytes) => Self::Pong(bytes.into()),
            Message::Close(code, reason) => Self::Close(code, reason.into()),
        }
    }
}

/// Everything that a stream says, and the fault or the need that ended it.
fn read(stream: &[u8], rules: &Rules) -> (Vec<Said>, Result<usize, Fault>) {
    let (mut stream, mut start, mut said, mut decoder) = (stream.to_vec(), 0, Vec::new(), Decoder::default());
    loop {
        match decoder.decode(&mut stream[start..], rules, None) {
            Ok(Step::Frame { used, message }) => {
                start += used;
                said.extend(message.map(Said::from));
            }
            Ok(Step::Incomplete { need }) => return (said, Ok(need)),
            Err(fault) => return (said, Err(fault)),
        }
    }
}

/// A masked frame, as a client sends it.
fn frame(op: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_header(&mut out, op, fin, false, payload.len(), Some(KEY));
    let start = out.len();
    out.extend_from_slice(payload);
    mask(KEY, &mut out[start..]);
    out
}

#[test]
fn decoder_is_one_pointer() {
    assert_eq!(size_of::<Decoder>(), size_of::<usize>());
}

#[test]
fn examples_of_the_rfc_are_read() {
    let hello = || Said::Text("Hello".into());
    assert_eq!(read(b"\x81\x05Hello", &CLIENT), (vec![hello()], Ok(2)));
    assert_eq!(read(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &SERVER), (vec![hello()], Ok(2)));
    assert_eq!(read(b"\x01\x03Hel\x80\x02lo", &CLIENT), (vec![hello()], Ok(2)));
    assert_eq!(read(b"\x89\x05Hello", &CLIENT), (vec![Said::Ping(b"Hello".into())], Ok(2)));
    let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(read(pong, &SERVER), (vec![Said::Pong(b"Hello".into())], Ok(2)));
    for (len, header) in [(256, &b"\x82\x7E\x01\x00"[..]), (65536, b"\x82\x7F\0\0\0\0\0\x01\0\0")] {
        let stream = [header, &vec![7; len]].concat();
        let rules = Rules { message_bytes_max: len, ..CLIENT };
        assert_eq!(read(&stream, &rules), (vec![Said::Binary(vec![7; len])], Ok(2)));
    }
}

#[test]
fn examples_of_the_rfc_are_written() {
    let mut out = Vec::new();
    encode_frame(&mut out, OpCode::Text, b"Hello");
    encode_frame_masked(&mut out, OpCode::Text, b"Hello", KEY);
    encode_header(&mut out, OpCode::Text, false, true, 3, None);
    assert_eq!(out, b"\x81\x05Hello\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x41\x03");
    for len in [0, 125, 126, 127, 65535, 65536] {
        out.clear();
        encode_header(&mut out, OpCode::Binary, true, false, len, None);
        assert_eq!(out.len(), header_len(len), "{len}");
    }
}

#[test]
fn every_fault_of_the_peer_is_named_and_has_its_code() {
    let text = |payload: &[u8]| frame(OpCode::Text, true, payload);
    let start = frame(OpCode::Text, false, b"a");
    let more = frame(OpCode::Continuation, false, b"b");
    for (stream, fault, code, shown) in [
        (
            b"\x91\x80".to_vec(),
            Fault::ReservedBits(1),
            1002,
            "reserved bits 001 without an extension for them",
        ),
        (
            b"\xF1\x80".to_vec(),
            Fault::ReservedBits(7),
            1002,
            "reserved bits 111 without an extension for them",
        ),
        (
            b"\xC1\x80\0\0\0\0".to_vec(),
            Fault::ReservedBits(4),
            1002,
            "reserved bits 100 without an extension for them",
        ),
        (b"\x83\x80".to_vec(), Fault::BadOpCode(3), 1002, "opcode 0x3 is reserved"),
        (b"\x8F\x80".to_vec(), Fault::BadOpCode(15), 1002, "opcode 0xf is reserved"),
        (b"\x81\x00".to_vec(), Fault::Unmasked, 1002, "frame from a client is not masked"),
        (frame(OpCode::Ping, false, b""), Fault::FragmentedControl, 1002, "control frame without fin"),
        (frame(OpCode::Pong, true, &[0; 126]), Fault::LongControl, 1002, "control frame exceeds 125 bytes"),
        (more.clone(), Fault::ContinuationWithoutStart, 1002, "continuation without a message to continue"),
        (
            [start.clone(), text(b"b")].concat(),
            Fault::StartInsideMessage,
            1002,
            "new message inside a fragmented one",
        ),
        (
            [start.clone(), more.clone(), more.clone(), more.clone(), more.clone()].concat(),
            Fault::TooManyFragments { max: 4 },
            1009,
            "message in more frames than fragments_max of 4",
        ),
        (
            text(&[b'a'; 1001])[..8].to_vec(),
            Fault::MessageTooBig { bytes: 1001, max: 1000 },
            1009,
            "message of 1001 bytes exceeds the limit of 1000",
        ),
        (
            b"\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0".to_vec(),
            Fault::MessageTooBig { bytes: u64::MAX, max: 1000 },
            1009,
            "message of 18446744073709551615 bytes exceeds the limit of 1000",
        ),
        (
            [start.clone(), frame(OpCode::Continuation, true, &[b'b'; 1000])[..8].to_vec()].concat(),
            Fault::MessageTooBig { bytes: 1001, max: 1000 },
            1009,
            "message of 1001 bytes exceeds the limit of 1000",
        ),
        (text(b"a\xFF"), Fault::BadUtf8, 1007, "text is not utf-8"),
        (text(&[0xFF; 200]), Fault::BadUtf8, 1007, "text is not utf-8"),
        (
            [frame(OpCode::Text, false, b"\xC3"), frame(OpCode::Continuation, true, b"b")].concat(),
            Fault::BadUtf8,
            1007,
            "text is not utf-8",
        ),
        (frame(OpCode::Close, true, b"\x03\xE8\xFF"), Fault::BadUtf8, 1007, "text is not utf-8"),
        (
            frame(OpCode::Close, true, b"\x03"),
            Fault::ShortClose,
            1002,
            "close frame with 1 byte, a code takes 2",
        ),
        (
            frame(OpCode::Close, true, b"\x03\xED"),
            Fault::BadCloseCode(1005),
            1002,
            "close code 1005 must not be sent",
        ),
    ] {
        let (said, end) = read(&stream, &SERVER);
        assert_eq!((said, end), (Vec::new(), Err(fault)), "{shown}");
        assert_eq!((fault.close_code(), fault.to_string().as_str()), (CloseCode(code), shown));
    }
    assert_eq!(read(&frame(OpCode::Text, true, b""), &CLIENT), (Vec::new(), Err(Fault::Masked)));
    // Compressed pieces after the first, and compressed control frames, are faults even where compression was agreed upon.
    let mut inflater = Inflater::default();
    for bits in [0xC9, 0x41] {
        let mut stream = [bits, 0x80, 0, 0, 0, 0, 0xC0, 0x80, 0, 0, 0, 0];
        let mut decoder = Decoder::default();
        let first = decoder.decode(&mut stream, &SERVER, Some(&mut inflater)).map(drop);
        let end =
            first.and_then(|()| decoder.decode(&mut stream[6..], &SERVER, Some(&mut inflater)).map(drop));
        assert_eq!(end, Err(Fault::ReservedBits(4)), "{bits:#x}");
    }
    let mut damaged = *b"\xC1\x81\0\0\0\0\xFF";
    let end = Decoder::default().decode(&mut damaged, &SERVER, Some(&mut inflater)).map(drop);
    assert_eq!(end, Err(Fault::BadDeflate));
    assert_eq!(Fault::BadDeflate.close_code(), CloseCode::INVALID_PAYLOAD);
    assert_eq!(Fault::BadDeflate.to_string(), "compressed message is not a deflate stream");
    assert_eq!(Fault::Masked.to_string(), "frame from a server is masked");
}

#[test]
fn exactly_the_limits_pass() {
    let text = "é".repeat(500);
    assert_eq!(read(&frame(OpCode::Text, true, text.as_bytes()), &SERVER), (vec![Said::Text(text)], Ok(2)));
    let mut stream = frame(OpCode::Binary, false, &[1; 250]);
    stream.extend(frame(OpCode::Continuation, false, &[2; 250]));
    stream.extend(frame(OpCode::Continuation, false, &[3; 250]));
    stream.extend(frame(OpCode::Ping, true, &[9; 125]));
    stream.extend(frame(OpCode::Continuation, true, &[4; 250]));
    let whole = [[1; 250], [2; 250], [3; 250], [4; 250]].concat();
    assert_eq!(read(&stream, &SERVER), (vec![Said::Ping(vec![9; 125]), Said::Binary(whole)], Ok(2)));
    let tiny = Rules { message_bytes_max: 4, ..SERVER };
    let fault = Fault::MessageTooBig { bytes: 5, max: 4 };
    assert_eq!(read(&frame(OpCode::Text, true, b"Hello"), &tiny), (vec![], Err(fault)));
}

#[test]
fn fragmented_message_is_let_go_by_the_call_after_it() {
    let mut decoder = Decoder::default();
    let mut stream = frame(OpCode::Text, false, b"Hel");
    decoder.decode(&mut stream, &SERVER, None).unwrap();
    assert!(decoder.is_inside_message());
    let mut stream = frame(OpCode::Continuation, true, b"lo");
    let step = decoder.decode(&mut stream, &SERVER, None).unwrap();
    assert_eq!(step, Step::Frame { used: 8, message: Some(Message::Text("Hello")) });
    assert!(!decoder.is_inside_message());
    assert_eq!(decoder.decode(&mut [], &SERVER, None), Ok(Step::Incomplete { need: 2 }));
    assert_eq!(format!("{decoder:?}"), "Decoder { pending: None }");
    // A whole message directly behind a fragmented one, without the call in between.
    let mut stream = [frame(OpCode::Text, false, b"a"), frame(OpCode::Continuation, true, b"b")].concat();
    stream.extend(frame(OpCode::Text, true, b"c"));
    assert_eq!(read(&stream, &SERVER), (vec![Said::Text("ab".into()), Said::Text("c".into())], Ok(2)));
}

#[test]
fn close_frames_carry_code_and_reason() {
    let (mut out, mut masked) = (Vec::new(), Vec::new());
    let long = "é".repeat(100);
    for (code, reason, heard) in [
        (None, "", (None, "")),
        (None, "lost with the code", (None, "")),
        (Some(CloseCode::NORMAL), "", (Some(CloseCode(1000)), "")),
        (Some(CloseCode(4999)), "bye", (Some(CloseCode(4999)), "bye")),
        // 61 characters of two bytes are what fits into 123 bytes.
        (Some(CloseCode::GOING_AWAY), &long, (Some(CloseCode(1001)), &long[..122])),
    ] {
        out.clear();
        masked.clear();
        encode_close(&mut out, code, reason);
        encode_close_masked(&mut masked, code, reason, KEY);
        let expected = (vec![Said::Close(heard.0, heard.1.into())], Ok(2));
        assert_eq!(read(&out, &CLIENT), expected);
        assert_eq!(read(&masked, &SERVER), expected);
    }
}

#[test]
fn only_codes_that_may_travel_are_sendable() {
    let sendable: Vec<u16> = (0..=u16::MAX).filter(|&code| CloseCode(code).is_sendable()).collect();
    let expected: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
    assert_eq!(sendable, expected);
}

#[test]
fn masking_twice_changes_nothing_and_rotates_the_key_bytewise() {
    for len in 0..40 {
        let plain: Vec<u8> = (0..len).collect();
        let mut bytes = plain.clone();
        mask(KEY, &mut bytes);
        let expected: Vec<u8> = plain.iter().enumerate().map(|(i, byte)| byte ^ KEY[i % 4]).collect();
        assert_eq!(bytes, expected);
        mask(KEY, &mut bytes);
        assert_eq!(bytes, plain);
    }
}

/// A message, the key it is masked with, and where it is cut into fragments.
#[derive(Clone, Debug)]
struct Sent {
    said: Said,
    key: [u8; 4],
    pieces: usize,
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    let said = prop_oneof![
        4 => ".{0,80}".prop_map(Said::Text),
        2 => bytes(300).prop_map(Said::Binary),
        1 => bytes(126).prop_map(Said::Ping),
        1 => bytes(126).prop_map(Said::Pong),
        1 => (3000..5000u16, "[a-zé]{0,40}").prop_map(|(code, reason)| Said::Close(Some(CloseCode(code)), reason)),
    ];
    (said, any::<[u8; 4]>(), 1..5usize).prop_map(|(said, key, pieces)| Sent { said, key, pieces })
}

fn encode(sent: &Sent, role: Role, out: &mut Vec<u8>) {
    let (op, payload) = match &sent.said {
        Said::Text(text) => (OpCode::Text, text.as_bytes()),
        Said::Binary(bytes) => (OpCode::Binary, &bytes[..]),
        Said::Ping(bytes) => (OpCode::Ping, &bytes[..]),
        Said::Pong(bytes) => (OpCode::Pong, &bytes[..]),
        Said::Close(code, reason) => {
            return match role {
                Role::Server => encode_close_masked(out, *code, reason, sent.key),
                Role::Client => encode_close(out, *code, reason),
            };
        }
    };
    let key = (role == Role::Server).then_some(sent.key);
    let pieces = if op.is_control() { 1 } else { sent.pieces };
    let mut rest = payload;
    for piece in 0..pieces {
        let is_last = piece + 1 == pieces;
        let (now, later) = rest.split_at(if is_last { rest.len() } else { rest.len() / 2 });
        rest = later;
        encode_header(
            out,
            if piece == 0 { op } else { OpCode::Continuation },
            is_last,
            false,
            now.len(),
            key,
        );
        let start = out.len();
        out.extend_from_slice(now);
        mask(key.unwrap_or_default(), &mut out[start..]);
    }
}

proptest! {
    #[test]
    fn stream_cut_anywhere_says_the_same(
        sent in prop::collection::vec(sent(), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        is_server: bool,
    ) {
        let rules = if is_server { SERVER } else { CLIENT };
        let mut stream = Vec::new();
        sent.iter().for_each(|sent| encode(sent, rules.role, &mut stream));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.push(stream.len());
        cuts.sort_unstable();

        let (mut decoder, mut unread, mut arrived, mut said) = (Decoder::default(), Vec::new(), 0, Vec::new());
        for cut in cuts {
            unread.extend_from_slice(&stream[arrived..cut]);
            arrived = cut;
            loop {
                let had = unread.len();
                match decoder.decode(&mut unread, &rules, None) {
                    Ok(Step::Frame { used, message }) => {
                        said.extend(message.map(Said::from));
                        unread.drain(..used);
                    }
                    Ok(Step::Incomplete { need }) => {
                        prop_assert!(need > had);
                        break;
                    }
                    Err(fault) => panic!("{fault}"),
                }
            }
        }
        prop_assert!(unread.is_empty());
        let expected: Vec<_> = sent.into_iter().map(|sent| sent.said).collect();
        prop_assert_eq!(said, expected);
    }

    #[test]
    fn need_is_enough_to_progress(said in sent()) {
        let mut stream = Vec::new();
        encode(&said, Role::Server, &mut stream);
        let (mut decoder, mut start, mut have, mut calls) = (Decoder::default(), 0, 0, 0);
        while start < stream.len() {
            calls += 1;
            // Header, key, body, and the frame itself: four calls at most for each of at most four frames.
            prop_assert!(calls <= 16);
            match decoder.decode(&mut stream[start..start + have], &SERVER, None) {
                Ok(Step::Frame { used, .. }) => (start, have) = (start + used, 0),
                Ok(Step::Incomplete { need }) => have = need,
                Err(fault) => panic!("{fault}"),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), is_server: bool) {
        let (said, end) = read(&bytes, if is_server { &SERVER } else { &CLIENT });
        prop_assert!(said.len() <= bytes.len());
        if let Ok(need) = end {
            prop_assert!(need <= 1000 + 14);
        }
    }

    #[test]
    fn short_text_is_judged_the_same_on_both_ways(payload in prop::collection::vec(any::<u8>(), 0..40), key: [u8; 4]) {
        // A fragmented message in one piece and an empty end takes the general way.
        let (mut short, mut general) = (Vec::new(), Vec::new());
        encode_frame_masked(&mut short, OpCode::Text, &payload, key);
        encode_header(&mut general, OpCode::Text, false, false, payload.len(), Some([0; 4]));
        general.extend_from_slice(&payload);
        encode_header(&mut general, OpCode::Continuation, true, false, 0, Some(key));
        prop_assert_eq!(read(&short, &SERVER), read(&general, &SERVER));
    }
}
