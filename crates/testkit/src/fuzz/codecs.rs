//! The codecs' promises: bytes from outside end in a value or a fault, never in a panic; what was written reads back;
//! where input is cut makes no difference.

use eio_proto::{Data, Packet, PayloadEncoder, PayloadEncoderV3, Query};
use sio_proto::{Assembler, Incoming, Limits, Parser, Payload};
use ws_proto::{Decoder, Deflater, Inflater, Message, Role, Rules, Step};

/// Takes the first byte off as a choice; 0 if there is none.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(&first, rest)| (first, rest))
}

/// Frames in one piece, and in two pieces cut at every place that the first byte leads to: the same messages, the same
/// fault. The first byte also says who masks, and whether compression was agreed upon.
pub fn ws_decoder(data: &[u8]) {
    let (options, frames) = choice(data);
    let (cut, frames) = choice(frames);
    let rules = Rules {
        role: if options & 1 == 0 { Role::Server } else { Role::Client },
        message_bytes_max: 1_000,
        fragments_max: 8,
    };
    let deflates = options & 2 != 0;
    let whole = decode(&[frames], &rules, deflates);
    let at = if frames.is_empty() { 0 } else { usize::from(cut) % frames.len() };
    let halves = decode(&[&frames[..at], &frames[at..]], &rules, deflates);
    assert_eq!(whole, halves, "cut at {at}");
    let bytes: Vec<&[u8]> = frames.chunks(1).collect();
    assert_eq!(whole, decode(&bytes, &rules, deflates), "cut everywhere");
}

/// What a decoder makes of bytes that come in `pieces`: messages as text, and the fault that ended it.
fn decode(pieces: &[&[u8]], rules: &Rules, deflates: bool) -> (Vec<String>, Option<String>) {
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
    let mut unread = Vec::new();
    let mut heard = Vec::new();
    for piece in pieces {
        unread.extend_from_slice(piece);
        let mut start = 0;
        loop {
            let inflater = deflates.then_some(&mut inflater);
            let available = unread.len() - start;
            match decoder.decode(&mut unread[start..], rules, inflater) {
                Ok(Step::Incomplete { need }) => {
                    assert!(need > available, "{need} are needed and {available} there");
                    assert!(need <= 14 + rules.message_bytes_max + rules.message_bytes_max / 8 + 64);
                    break;
                }
                Ok(Step::Frame { used, message }) => {
                    assert!(used > 0 && used <= available);
                    start += used;
                    if let Some(message) = message {
                        let len = match message {
                            Message::Text(text) => text.len(),
                            Message::Binary(data) | Message::Ping(data) | Message::Pong(data) => data.len(),
                            Message::Close(_, reason) => reason.len(),
                        };
                        assert!(len <= rules.message_bytes_max, "a message of {len} bytes");
                        heard.push(format!("{message:?}"));
                    }
                }
                Err(fault) => {
                    assert!(fault.close_code().is_sendable());
                    return (heard, Some(format!("{fault:?}")));
                }
            }
        }
        unread.drain(..start);
    }
    (heard, None)
}

/// Inflating keeps its bound, and gives back what was deflated.
pub fn deflate_inflate(data: &[u8]) {
    let mut inflater = Inflater::default();
    for max in [0, 100, 100_000] {
        if let Ok(out) = inflater.inflate(data, max) {
            assert!(out.len() <= max, "{} bytes out of at most {max}", out.len());
        }
    }
    let mut packed = Vec::new();
    Deflater::default().compress(data, &mut packed);
    let back = inflater.inflate(&packed, data.len()).expect("what was deflated inflates");
    assert_eq!(back, data);
}

/// One packet of either revision: what decodes encodes to something that decodes to the same.
pub fn eio_text(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(packet) = eio_proto::decode_text(text) {
            let mut out = Vec::new();
            eio_proto::encode_text(&mut out, &packet);
            let again = std::str::from_utf8(&out).expect("packets in text form are text");
            assert_eq!(eio_proto::decode_text(again).as_ref(), Ok(&packet));
        }
        if let Ok(packet) = eio_proto::decode_text_v3(text) {
            let mut out = Vec::new();
            eio_proto::encode_text_v3(&mut out, &packet);
            let again = std::str::from_utf8(&out).expect("packets in text form are text");
            assert_eq!(eio_proto::decode_text_v3(again).as_ref(), Ok(&packet));
        }
    }
    if let Ok(packet) = eio_proto::decode_binary_v3(data) {
        let Packet::Message(Data::Binary(bytes)) = &packet else { panic!("only messages are binary") };
        let mut out = Vec::new();
        eio_proto::encode_binary_v3(&mut out, bytes);
        assert_eq!(out, data);
    }
}

/// A polling body: bounded, and what was read writes back to what reads the same.
pub fn eio_payload(data: &[u8]) {
    let packets: Vec<_> = eio_proto::decode_payload(data, 16).collect();
    assert!(packets.len() <= 17, "16 packets and a fault");
    let good: Vec<Packet<'_>> = packets.into_iter().map_while(Result::ok).collect();
    if good.is_empty() {
        return;
    }
    let mut body = Vec::new();
    let mut encoder = PayloadEncoder::new(&mut body);
    for packet in &good {
        encoder.push(packet);
    }
    assert_eq!(encoder.packets(), good.len());
    let again: Vec<_> =
        eio_proto::decode_payload(&body, 16).map(|packet| packet.expect("it was good")).collect();
    assert_eq!(again, good);
}

/// Both framings of revision 3, as [`eio_payload`].
pub fn eio_payload_v3(data: &[u8]) {
    let text: Vec<_> = eio_proto::decode_payload_v3_text(data, 16).collect();
    assert!(!text.is_empty() && text.len() <= 17);
    let good: Vec<Packet<'_>> = text.into_iter().map_while(Result::ok).collect();
    if !good.is_empty() {
        let mut body = Vec::new();
        let mut encoder = PayloadEncoderV3::new(&mut body);
        for packet in &good {
            encoder.push(packet);
        }
        let again: Vec<_> =
            eio_proto::decode_payload_v3_text(&body, 16).map(|packet| packet.expect("it was good")).collect();
        assert_eq!(again, good);
    }
    let binary: Vec<_> = eio_proto::decode_payload_v3_binary(data, 16).collect();
    assert!(!binary.is_empty() && binary.len() <= 17);
    let good: Vec<Packet<'_>> = binary.into_iter().map_while(Result::ok).collect();
    if !good.is_empty() {
        let mut body = Vec::new();
        for packet in &good {
            eio_proto::encode_payload_v3_binary(&mut body, packet);
        }
        let again: Vec<_> = eio_proto::decode_payload_v3_binary(&body, 16)
            .map(|packet| packet.expect("it was good"))
            .collect();
        assert_eq!(again, good);
    }
}

/// Any text is a query.
pub fn eio_query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let query = Query::parse(text);
    assert_eq!(query.pairs().count(), query.positions.len);
    assert!(query.sid.as_deref() != Some(""), "an empty sid is none");
    if let Some(sid) = query.sid.as_deref().and_then(eio_proto::Sid::parse) {
        assert_eq!(query.sid.as_deref(), Some(sid.to_string().as_str()));
    }
}

/// One text packet: its arguments are what they claim to be, and relaying them changes nothing.
pub fn sio_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let limits = Limits::default();
    let Ok(incoming) = sio_proto::decode_text(text, &limits) else { return };
    assert!(incoming.attachments <= limits.attachments_max);
    check_incoming(Parser::Json, &incoming, &[]);
}

/// One msgpack packet, as [`sio_text`].
pub fn sio_msgpack(data: &[u8]) {
    let limits = Limits::default();
    let Ok(incoming) = sio_proto::decode_msgpack(data, &limits) else { return };
    assert_eq!(incoming.attachments, 0);
    check_incoming(Parser::Msgpack, &incoming, &[]);
}

fn check_incoming(parser: Parser, incoming: &Incoming<'_>, attachments: &[bytes::Bytes]) {
    // A msgpack packet names whatever its peer wrote; in text, what does not begin with a slash is no name.
    assert!(parser == Parser::Msgpack || incoming.namespace.starts_with('/'));
    match &incoming.payload {
        Payload::Event { name, elements, count } => {
            if let Ok(values) = sio_proto::to_value(parser, elements, *count, attachments) {
                assert_eq!(values.len(), *count as usize);
            }
            if incoming.attachments > 0 {
                return;
            }
            let Ok(body) = sio_proto::Body::relay_event(parser, name, elements, *count, attachments) else {
                return;
            };
            if !sio_proto::is_valid_namespace(incoming.namespace) {
                return;
            }
            let mut out = Vec::new();
            sio_proto::encode_event(&mut out, parser, incoming.namespace, incoming.ack_id, &body, None);
            if attachments.is_empty() {
                let limits = Limits { event_name_bytes_max: usize::MAX, ..Limits::default() };
                let text = std::str::from_utf8(&out);
                let again = match parser {
                    Parser::Json => sio_proto::decode_text(text.expect("JSON is text"), &limits),
                    Parser::Msgpack => sio_proto::decode_msgpack(&out, &limits),
                };
                assert_eq!(again.as_ref(), Ok(incoming), "relayed as {out:?}");
            }
        }
        Payload::Ack { elements, count } => {
            if let Ok(values) = sio_proto::to_value(parser, elements, *count, attachments) {
                assert_eq!(values.len(), *count as usize);
            }
        }
        Payload::Connect { auth: Some(auth) } => {
            let _ = sio_proto::decode_args::<serde_json::Value>(parser, auth, 1, &[]);
        }
        Payload::Connect { auth: None } | Payload::Disconnect | Payload::ConnectError { .. } => {}
    }
}

/// A header and its attachments: pieces are parted by the byte `ff`, the first is the header.
pub fn sio_assembler(data: &[u8]) {
    let limits = Limits { assembled_bytes_max: 1_000, ..Limits::default() };
    let mut pieces = data.split(|&byte| byte == 0xff);
    let Some(Ok(header)) = pieces.next().map(std::str::from_utf8) else { return };
    let Ok(incoming) = sio_proto::decode_text(header, &limits) else { return };
    let mut assembler = Assembler::default();
    let began = assembler.begin(&incoming, &limits);
    assert!(began.is_err() || incoming.attachments > 0);
    if began.is_err() {
        assert!(!assembler.is_waiting());
        return;
    }
    for (index, piece) in pieces.enumerate() {
        match assembler.push(piece, &limits) {
            Ok(None) => {
                assert!(assembler.is_waiting() && index + 1 < incoming.attachments as usize);
            }
            Ok(Some(whole)) => {
                assert!(!assembler.is_waiting());
                assert_eq!(whole.attachments.len(), incoming.attachments as usize);
                check_incoming(Parser::Json, &whole.as_incoming(), &whole.attachments);
                break;
            }
            Err(_) => {
                assert!(!assembler.is_waiting());
                break;
            }
        }
    }
}
