//! What holds for any input: no bytes make us panic, what we write we read, and our JSON is everybody's JSON.

use proptest::prelude::*;
use serde_json::{Map, Value};
use sio_proto::{
    Assembler, Binary, Body, Incoming, Limits, Many, Parser, Payload, RawArgs, decode_all, decode_args,
    decode_msgpack, decode_text, encode_ack, encode_connect, encode_connect_request, encode_event, to_value,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_decoded_or_refused(text in packet_like_text()) {
        if let Ok(packet) = decode_text(&text, &Limits::default()) {
            exercise(Parser::Json, &packet);
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in packet_like_bytes()) {
        if let Ok(packet) = decode_msgpack(&bytes, &Limits::default()) {
            exercise(Parser::Msgpack, &packet);
        }
        // The argument decoders are public, so nothing says that their input was checked.
        for count in [0, 1, 2, u32::MAX] {
            for parser in [Parser::Json, Parser::Msgpack] {
                let _ = to_value(parser, &bytes, count, &[]);
                let _ = decode_args::<Vec<Binary>>(parser, &bytes, count, &[]);
                let _ = decode_all::<(u8, Option<String>)>(parser, &bytes, count, &[]);
            }
        }
    }

    #[test]
    fn our_json_is_what_serde_json_takes_for_json(text in json_like_text()) {
        let ours = RawArgs::parse(&format!("[{text}]"), &Limits::default()).map(|args| args.count());
        // Ignored values are checked for syntax only, as ours are; one value more than any list has tells the counts apart.
        let theirs = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(&format!("[{text}]"));
        match (ours, theirs) {
            (Ok(count), Ok(items)) => prop_assert_eq!(count as usize, items.len()),
            (Err(_), Err(_)) => {}
            (ours, theirs) => prop_assert!(false, "{text}: {ours:?}, {theirs:?}"),
        }
    }

    #[test]
    fn events_survive_both_parsers(
        name in "[a-z\u{1e}\"é]{1,12}",
        namespace in "/[a-z/]{0,9}",
        ack_id in proptest::option::of(0..10_u64.pow(19)),
        values in proptest::collection::vec(value(), 0..6),
        offset in proptest::option::of("[0-9A-Za-z._-]{1,12}"),
    ) {
        for parser in [Parser::Json, Parser::Msgpack] {
            let body = parser.encode_event_args(&name, &Many(&values)).expect("plain values");
            let mut out = Vec::new();
            encode_event(&mut out, parser, &namespace, ack_id, &body, offset.as_deref());
            let packet = decode(parser, &out);
            prop_assert_eq!((packet.namespace, packet.ack_id, packet.attachments), (&*namespace, ack_id, 0));
            let Payload::Event { name: found, elements, count } = packet.payload else { panic!("an event") };
            prop_assert_eq!(&found, &name);
            let mut expected = values.clone();
            expected.extend(offset.clone().map(Value::String));
            prop_assert_eq!(to_value(parser, elements, count, &[]).expect("plain values"), expected);
            // A relayed body is the body.
            let again = Body::relay_event(parser, &name, elements, count, &[]).expect("not reserved");
            if offset.is_none() {
                prop_assert_eq!(again, body);
            }

            let ack = parser.encode_ack_args(&Many(&values)).expect("plain values");
            let mut out = Vec::new();
            encode_ack(&mut out, parser, &namespace, 7, &ack);
            let Payload::Ack { elements, count } = decode(parser, &out).payload else { panic!("an ack") };
            prop_assert_eq!((elements, count), (&*ack.elements, ack.count));
        }
    }

    #[test]
    fn attachments_survive_both_parsers(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..=10),
        between in value(),
    ) {
        let args: Vec<(Value, Binary)> = parts.iter().map(|part| (between.clone(), part.clone().into())).collect();
        for parser in [Parser::Json, Parser::Msgpack] {
            let body = parser.encode_event_args("e", &Many(&args)).expect("at most ten");
            let mut out = Vec::new();
            encode_event(&mut out, parser, "/", Some(1), &body, None);
            let packet = decode(parser, &out);
            prop_assert_eq!(packet.attachments as usize, body.attachments.len());
            let whole = assemble(&packet, &body);
            let (packet, attachments) = match &whole {
                Some(whole) => (whole.as_incoming(), &*whole.attachments),
                None => (packet, &[][..]),
            };
            let Payload::Event { elements, count, .. } = packet.payload else { panic!("an event") };
            let back: Vec<(Value, Binary)> = decode_all(parser, elements, count, attachments).expect("fits");
            prop_assert_eq!(&back, &args);
        }
    }

    #[test]
    fn connects_survive_both_parsers(
        namespace in "/[a-z]{0,9}",
        auth in proptest::option::of(proptest::collection::btree_map("[a-z]{0,4}", value(), 0..4)),
    ) {
        let auth = auth.map(|auth| auth.into_iter().collect::<Map<_, _>>());
        for parser in [Parser::Json, Parser::Msgpack] {
            let mut out = Vec::new();
            encode_connect_request(&mut out, parser, &namespace, auth.as_ref());
            let packet = decode(parser, &out);
            prop_assert_eq!(packet.namespace, &*namespace);
            let Payload::Connect { auth: found } = packet.payload else { panic!("a connect") };
            let found = found.map(|found| to_value(parser, found, 1, &[]).expect("an object").remove(0));
            prop_assert_eq!(found, auth.clone().map(Value::Object));

            let mut out = Vec::new();
            encode_connect(&mut out, parser, &namespace, "s", Some("p"));
            let Payload::Connect { auth: Some(found) } = decode(parser, &out).payload else { panic!("a connect") };
            prop_assert_eq!(to_value(parser, found, 1, &[]).expect("an object"), [serde_json::json!({"sid": "s", "pid": "p"})]);
        }
    }
}

/// Uses everything that a decoded packet offers.
fn exercise(parser: Parser, packet: &Incoming<'_>) {
    let limits = Limits::default();
    match &packet.payload {
        Payload::Event { elements, count, .. } | Payload::Ack { elements, count } => {
            if parser == Parser::Json {
                let list = format!("[{}]", std::str::from_utf8(elements).expect("part of a text"));
                assert_eq!(RawArgs::parse(&list, &limits).expect("checked before").count(), *count);
            }
            if let Ok(values) = to_value(parser, elements, *count, &[]) {
                assert_eq!(values.len(), *count as usize);
            }
            let _ = decode_args::<Binary>(parser, elements, *count, &[]);
        }
        Payload::Connect { auth: Some(data) } | Payload::ConnectError { data } if !data.is_empty() => {
            let _ = to_value(parser, data, 1, &[]);
        }
        Payload::Connect { .. } | Payload::ConnectError { .. } | Payload::Disconnect => {}
    }
    let mut assembler = Assembler::default();
    if assembler.begin(packet, &limits).is_ok() {
        for _ in 1..packet.attachments {
            assert_eq!(assembler.push(b"x", &limits), Ok(None));
        }
        if let Ok(whole) = assembler.push(b"x", &limits) {
            let whole = whole.expect("the last attachment came");
            let (Payload::Event { elements, count, .. } | Payload::Ack { elements, count }) =
                whole.as_incoming().payload
            else {
                panic!("only events and acks are binary")
            };
            let _ = to_value(parser, elements, count, &whole.attachments);
        }
    }
}

fn decode(parser: Parser, bytes: &[u8]) -> Incoming<'_> {
    let limits = Limits::default();
    match parser {
        Parser::Json => {
            assert!(!bytes.contains(&0x1e), "U+001E parts packets in polling payloads");
            decode_text(std::str::from_utf8(bytes).expect("text packets are UTF-8"), &limits).expect("ours")
        }
        Parser::Msgpack => decode_msgpack(bytes, &limits).expect("ours"),
    }
}

fn assemble(header: &Incoming<'_>, body: &Body) -> Option<sio_proto::OwnedIncoming> {
    let limits = Limits::default();
    let mut assembler = Assembler::default();
    if header.attachments > 0 {
        assembler.begin(header, &limits).expect("idle");
    }
    let mut whole = None;
    for attachment in &body.attachments {
        assert!(whole.is_none());
        whole = assembler.push(attachment, &limits).expect("was due");
    }
    whole
}

/// JSON values whose numbers are the same to both parsers and to JavaScript.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Whole doubles are written as integers, and so read back as such.
        any::<f64>().prop_filter_map("not whole", |number| {
            (number.is_finite() && number.fract() != 0.0).then(|| Value::from(number))
        }),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Text that gets far into the parser often: pieces of packets in any order.
fn packet_like_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[\"e\""),
        Just("["),
        Just("]"),
        Just(","),
        Just("{\"a\":"),
        Just("{\"_placeholder\":true,\"num\":0}"),
        Just("{\"_placeholder\":true,\"num\":"),
        Just("}"),
        Just("1"),
        Just("-"),
        Just("\"\\ud800\""),
        Just("\"é\""),
        Just("null"),
        Just(" "),
        Just("/x"),
        Just("12"),
        Just("\\"),
        Just("\u{1e}"),
    ];
    let body = proptest::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat());
    prop_oneof![
        any::<String>(),
        ("[0-7]", "(1?[0-9]-)?", "(/[a-z]{0,3},?)?", "[0-9]{0,21}", body.clone())
            .prop_map(|(kind, count, namespace, id, body)| kind + &count + &namespace + &id + &body),
        ("[256]", "(1-)?", "[0-9]{0,2}", proptest::collection::vec(json_like_text(), 0..3))
            .prop_map(|(kind, count, id, values)| format!("{kind}{count}{id}[\"e\",{}]", values.join(","))),
    ]
}

/// JSON, and JSON with a byte changed, dropped or doubled.
fn json_like_text() -> impl Strategy<Value = String> {
    let spaced = (value(), any::<bool>())
        .prop_map(|(value, is_pretty)| if is_pretty { format!("{value:#}") } else { value.to_string() });
    let numbers = "-?(0|[1-9][0-9]{0,3})?(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?".prop_map(|text| text);
    let escapes = "\"([a-z]|\\\\[a-z\"/\\\\]|\\\\u[0-9a-g]{3,5}){0,6}\"".prop_map(|text| text);
    (prop_oneof![spaced, numbers, escapes], any::<prop::sample::Index>(), 0..6_u8, any::<char>()).prop_map(
        |(text, at, change, other)| {
            let mut chars: Vec<char> = text.chars().collect();
            if chars.is_empty() {
                return text;
            }
            let at = at.index(chars.len());
            match change {
                0 => chars[at] = other,
                1 => drop(chars.remove(at)),
                2 => chars.insert(at, chars[at]),
                _ => {}
            }
            chars.into_iter().collect()
        },
    )
}

/// Packets with bytes changed, and bytes that mean something to msgpack.
fn packet_like_bytes() -> impl Strategy<Value = Vec<u8>> {
    let packet = (0..5_u8, value(), any::<Option<i32>>()).prop_map(|(kind, data, id)| {
        let packet = serde_json::json!({"type": kind, "nsp": "/a", "data": ["e", data], "id": id});
        rmp_serde::to_vec(&packet).expect("plain data")
    });
    let changed = (packet, proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4))
        .prop_map(|(mut bytes, changes)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        });
    let heads = proptest::collection::vec(prop_oneof![0x80..=0x9f_u8, 0xc0..=0xdf_u8, 0..4_u8], 0..40);
    prop_oneof![any::<Vec<u8>>(), changed, heads]
}
