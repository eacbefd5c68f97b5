//! The text parser's rules, one line of transcript each: what a message decodes to, and that the encoders write the same texts.

use serde_json::{Value, json};
use sio_proto::{
    Args, Fault, Incoming, Kind, Limits, Many, NoArgs, Parser, Payload, decode_text, encode_ack,
    encode_connect, encode_connect_error, encode_connect_request, encode_disconnect, encode_event,
};

#[test]
fn every_kind_of_packet_is_read() {
    check("0", "CONNECT /");
    check("0{}", "CONNECT / {}");
    check(r#"0{"token":"123"}"#, r#"CONNECT / {"token":"123"}"#);
    check(r#"0/chat,{"key":"v1"}"#, r#"CONNECT /chat {"key":"v1"}"#);
    check("0/chat", "CONNECT /chat");
    check("0/chat,", "CONNECT /chat");
    check(r#"0/,{"a":1}"#, r#"CONNECT / {"a":1}"#);
    check("1", "DISCONNECT /");
    check("1/chat,", "DISCONNECT /chat");
    check("1/chat", "DISCONNECT /chat");
    check(r#"2["tick",7]"#, "EVENT / tick (1) 7");
    check(r#"2/chat,14["ask","name"]"#, r#"EVENT /chat id 14 ask (1) "name""#);
    check(r#"2["alone"]"#, "EVENT / alone (0) ");
    check(r#"3/chat,14["Ada"]"#, r#"ACK /chat id 14 (1) "Ada""#);
    check("314[]", "ACK / id 14 (0) ");
    check(
        r#"4/chat,{"message":"closed","data":{"why":3}}"#,
        r#"CONNECT_ERROR /chat {"message":"closed","data":{"why":3}}"#,
    );
    check(r#"4"refused""#, r#"CONNECT_ERROR / "refused""#);
    check(
        r#"52-/chat,["img",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
        r#"EVENT /chat +2 img (2) {"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#,
    );
    check(
        r#"61-/chat,9[{"_placeholder":true,"num":0}]"#,
        r#"ACK /chat +1 id 9 (1) {"_placeholder":true,"num":0}"#,
    );
}

#[test]
fn the_type_must_be_one_of_seven() {
    check("", "empty packet");
    check("7", "unknown packet type");
    check("abc", "unknown packet type");
    check("é", "unknown packet type");
    check("/", "unknown packet type");
    check(":", "unknown packet type");
}

#[test]
fn a_binary_packet_announces_one_to_ten_attachments() {
    check("50-[\"b\"]", "binary packet without a valid attachment count");
    check("5[\"b\"]", "binary packet without a valid attachment count");
    check("5", "binary packet without a valid attachment count");
    check("5-", "binary packet without a valid attachment count");
    check("51", "binary packet without a valid attachment count");
    check("5x-[\"b\"]", "binary packet without a valid attachment count");
    check("5-1-[\"b\"]", "binary packet without a valid attachment count");
    check(r#"510-["b"]"#, "EVENT / +10 b (0) ");
    check(r#"511-["b"]"#, "more attachments than attachments_max of 10");
    check(r#"599999999999999999999999-["b"]"#, "more attachments than attachments_max of 10");
    check(r#"51-["b"]"#, "EVENT / +1 b (0) ");
    // Only these two kinds have a count.
    check(r#"21-["b"]"#, "invalid json at byte 3");
}

#[test]
fn data_must_fit_the_kind() {
    for connect in ["0null", "0[]", r#"0"a""#, "01.5e", "0true"] {
        assert!(decode_text(connect, &Limits::default()).is_err(), "{connect}");
    }
    check("0null", "data does not fit a packet of kind Connect");
    check("0[]", "data does not fit a packet of kind Connect");
    check("1{}", "data does not fit a packet of kind Disconnect");
    check("1[]", "data does not fit a packet of kind Disconnect");
    check("1null", "data does not fit a packet of kind Disconnect");
    check("1 ", "data does not fit a packet of kind Disconnect");
    check("2{}", "data does not fit a packet of kind Event");
    check("2null", "data does not fit a packet of kind Event");
    check("2[]", "event name is neither a string nor a number");
    check("2[null]", "event name is neither a string nor a number");
    check("2[true,1]", "event name is neither a string nor a number");
    check("2[[\"a\"]]", "event name is neither a string nor a number");
    check("3{}", "data does not fit a packet of kind Ack");
    check("31{}", "data does not fit a packet of kind Ack");
    check("4[]", "data does not fit a packet of kind ConnectError");
    check("4null", "data does not fit a packet of kind ConnectError");
}

#[test]
fn missing_data_is_harmless() {
    check("2", "EVENT /  (0) ");
    check("2/chat", "EVENT /chat  (0) ");
    check("23", "EVENT / id 3  (0) ");
    check("3", "ACK / (0) ");
    check("37", "ACK / id 7 (0) ");
    check("4", "CONNECT_ERROR / ");
    check("51-", "EVENT / +1  (0) ");
}

#[test]
fn an_ack_without_an_id_is_read_and_left_to_be_ignored() {
    check("3[1]", "ACK / (1) 1");
}

#[test]
fn ack_ids_are_at_most_nineteen_digits() {
    check("2007[\"a\"]", "EVENT / id 7 a (0) ");
    check("29007199254740993[\"a\"]", "EVENT / id 9007199254740993 a (0) ");
    check("29999999999999999999[\"a\"]", "EVENT / id 9999999999999999999 a (0) ");
    check("210000000000000000000[\"a\"]", "ack id is not a number in range");
    check("2-1[\"a\"]", "invalid json at byte 3");
    let limits = Limits { ack_id_digits_max: 3, ..Limits::default() };
    assert!(decode_text("2123[\"a\"]", &limits).is_ok());
    assert_eq!(decode_text("21234[\"a\"]", &limits), Err(Fault::AckId));
    let limits = Limits { ack_id_digits_max: 99, ..Limits::default() };
    assert_eq!(decode_text("210000000000000000000[\"a\"]", &limits), Err(Fault::AckId));
}

#[test]
fn some_event_names_are_reserved() {
    for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
        check(&format!("2[{name:?}]"), "reserved event name");
        assert!(Parser::Json.encode_event_args(name, &NoArgs).is_err(), "{name}");
        assert!(Parser::Msgpack.encode_event_args(name, &NoArgs).is_err(), "{name}");
    }
    check(r#"2["\u0063onnect"]"#, "reserved event name");
    for name in ["connection", "error", "message", "Connect", "", "connectx"] {
        check(&format!("2[{name:?}]"), &format!("EVENT / {name} (0) "));
    }
}

#[test]
fn a_number_can_be_an_event_name() {
    check(r#"2[1,"a"]"#, r#"EVENT / 1 (1) "a""#);
    check("2[-1.5e3]", "EVENT / -1.5e3 (0) ");
    check("2[01]", "invalid json at byte 3");
}

#[test]
fn escapes_in_event_names_are_undone() {
    check(r#"2["a\"b\\c\/\b\f\n\r\td"]"#, "EVENT / a\"b\\c/\u{8}\u{c}\n\r\td (0) ");
    check(r#"2["\u00e9\ud83d\ude00"]"#, "EVENT / é😀 (0) ");
    check(r#"2["\u001e"]"#, "EVENT / \u{1e} (0) ");
    // Half a pair, which JavaScript can hold and UTF-8 cannot.
    check(r#"2["\ud83dx"]"#, "EVENT / \u{fffd}x (0) ");
    check(r#"2["\ud83d\u0041"]"#, "EVENT / \u{fffd}A (0) ");
    check(r#"2["\ude00"]"#, "EVENT / \u{fffd} (0) ");
    check(r#"2["\x"]"#, "invalid json at byte 3");
    check(r#"2["\u12"]"#, "invalid json at byte 3");
}

#[test]
fn an_event_name_has_a_length() {
    let limits = Limits { event_name_bytes_max: 6, ..Limits::default() };
    assert!(decode_text(r#"2["abcd"]"#, &limits).is_ok());
    assert_eq!(
        decode_text(r#"2["abcde"]"#, &limits),
        Err(Fault::EventNameTooLong { bytes: 7, max: 6 }),
        "counted as written, quotes and all"
    );
}

#[test]
fn a_namespace_ends_at_the_first_comma() {
    check(r#"0/chat{"a":1}"#, r#"CONNECT /chat{"a":1}"#);
    check(r#"2/a{b,["x"]"#, "EVENT /a{b x (0) ");
    check("0/chat?x=1,", "CONNECT /chat?x=1");
    check("0/ü,", "CONNECT /ü");
    check("0/a\u{1e}b,", "control character in a namespace");
    check("0/a\nb", "control character in a namespace");
    let limits = Limits { namespace_bytes_max: 4, ..Limits::default() };
    assert_eq!(decode_text("0/abc,{}", &limits).map(|packet| packet.namespace), Ok("/abc"));
    assert_eq!(decode_text("0/abc", &limits).map(|packet| packet.namespace), Ok("/abc"));
    assert!(matches!(decode_text("0/abcd,{}", &limits), Err(Fault::NamespaceTooLong { max: 4 })));
    assert!(matches!(decode_text("0/abcd", &limits), Err(Fault::NamespaceTooLong { max: 4 })));
}

#[test]
fn json_is_checked_to_the_end() {
    check("2abc[\"a\"]", "invalid json at byte 1");
    check("2[\"a\"", "invalid json at byte 5");
    check("2[\"a\",", "invalid json at byte 6");
    check("2[\"a\",]", "invalid json at byte 6");
    check("2[\"a\" 1]", "invalid json at byte 6");
    check("2[\"a\"]x", "invalid json at byte 6");
    check("2[\"a\",1]]", "invalid json at byte 8");
    check("2[\"a\n\"]", "invalid json at byte 4");
    check("2[\"a\",\"\u{1e}\"]", "invalid json at byte 7");
    check("2[\"a\",01]", "invalid json at byte 7");
    check("2[\"a\",1.]", "invalid json at byte 8");
    check("2[\"a\",.5]", "invalid json at byte 6");
    check("2[\"a\",1e]", "invalid json at byte 8");
    check("2[\"a\",-]", "invalid json at byte 7");
    check("2[\"a\",{\"b\"}]", "invalid json at byte 10");
    check("2[\"a\",{\"b\":1,}]", "invalid json at byte 13");
    check("2[\"a\",{b:1}]", "invalid json at byte 7");
    check("2[\"a\",[1}]", "invalid json at byte 8");
    check("2[\"a\",nul]", "invalid json at byte 6");
    check("2[\"a\",NaN]", "invalid json at byte 6");
    check("2[\"a\",'b']", "invalid json at byte 6");
    check("2[ \"a\" ,\t1 , {\r\n\"b\" : [ ] } ] ", "EVENT / a (2) 1 , {\r\n\"b\" : [ ] }");
    check(
        r#"2["a",{},[],{"b":{}},[[]],"",0,-0,1.5E+3,true,false,null]"#,
        r#"EVENT / a (11) {},[],{"b":{}},[[]],"",0,-0,1.5E+3,true,false,null"#,
    );
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("2[\"a\",{}1{}]", "[".repeat(depth - 1), "]".repeat(depth - 1));
    let limits = Limits::default();
    assert!(decode_text(&nested(64), &limits).is_ok());
    assert_eq!(decode_text(&nested(65), &limits), Err(Fault::TooDeep { max: 64 }));
    let objects =
        |depth: usize| format!("2[\"a\",{}1{}]", "{\"k\":".repeat(depth - 1), "}".repeat(depth - 1));
    assert!(decode_text(&objects(64), &limits).is_ok());
    assert_eq!(decode_text(&objects(65), &limits), Err(Fault::TooDeep { max: 64 }));
    // Whatever the setting says, a document that is accepted can be decoded.
    let limits = Limits { json_depth_max: u32::MAX, ..limits };
    assert_eq!(decode_text(&nested(121), &limits), Err(Fault::TooDeep { max: 120 }));
    let deepest = nested(120);
    let packet = decode_text(&deepest, &limits).expect("as deep as can be");
    let Payload::Event { elements, count, .. } = packet.payload else { panic!("an event") };
    assert!(sio_proto::to_value(Parser::Json, elements, count, &[]).is_ok());
    let limits = Limits { json_depth_max: 0, ..Limits::default() };
    assert_eq!(decode_text("2[\"a\"]", &limits), Err(Fault::TooDeep { max: 0 }));
}

#[test]
fn packets_are_written_as_stock_servers_write_them() {
    let text = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text packets are UTF-8")
    };
    let json = Parser::Json;
    assert_eq!(text(&|o| encode_connect(o, json, "/", "pWx", None)), r#"0{"sid":"pWx"}"#);
    assert_eq!(
        text(&|o| encode_connect(o, json, "/chat", "a", Some("Z"))),
        r#"0/chat,{"sid":"a","pid":"Z"}"#
    );
    assert_eq!(text(&|o| encode_disconnect(o, json, "/")), "1");
    assert_eq!(text(&|o| encode_disconnect(o, json, "/chat")), "1/chat,");
    assert_eq!(
        text(&|o| encode_connect_error(o, json, "/random", "Invalid namespace", None)),
        r#"4/random,{"message":"Invalid namespace"}"#
    );
    assert_eq!(
        text(&|o| encode_connect_error(o, json, "/chat", "closed", Some(&json!({"why": 3})))),
        r#"4/chat,{"message":"closed","data":{"why":3}}"#
    );
    let odd =
        decode_text("0/chat?x=1{", &Limits::default()).expect("a namespace, though none of ours").namespace;
    assert_eq!(text(&|o| encode_connect_error(o, json, odd, "no", None)), r#"4/chat?x=1{,{"message":"no"}"#);
    assert_eq!(text(&|o| encode_connect_request(o, json, "/", None)), "0");
    let auth = json!({"token": "t", "a": 1});
    assert_eq!(
        text(&|o| encode_connect_request(o, json, "/x", auth.as_object())),
        r#"0/x,{"token":"t","a":1}"#
    );

    let event = |args: &dyn Args, id, offset: Option<&str>| {
        let body = json.encode_event_args("one", args).expect("can be encoded");
        text(&|o| encode_event(o, json, "/", id, &body, offset))
    };
    assert_eq!(event(&Many((1, "x")), None, None), r#"2["one",1,"x"]"#);
    assert_eq!(event(&Many((1,)), None, Some("Q7xAbC2")), r#"2["one",1,"Q7xAbC2"]"#);
    assert_eq!(event(&NoArgs, None, Some("Q7xAbC3")), r#"2["one","Q7xAbC3"]"#);
    assert_eq!(event(&NoArgs, Some(u64::MAX), None), r#"218446744073709551615["one"]"#);
    assert_eq!(event(&NoArgs, Some(0), None), r#"20["one"]"#);

    let body = json.encode_ack_args(&NoArgs).expect("nothing is encodable");
    assert_eq!(text(&|o| encode_ack(o, json, "/", 3, &body)), "33[]");
    let body = json.encode_ack_args(&Many(("Ada",))).expect("can be encoded");
    assert_eq!(text(&|o| encode_ack(o, json, "/chat", 14, &body)), r#"3/chat,14["Ada"]"#);
}

/// Tests 17 to 32 of the protocol's official suite, as far as they are about packets: what comes in, and what an echoing server
/// must write.
#[test]
fn the_official_suites_texts() {
    echo(r#"2["message",1,"2",{"3":[true]}]"#, &[], r#"2["message-back",1,"2",{"3":[true]}]"#);
    echo(
        r#"2["message","message to main namespace"]"#,
        &[],
        r#"2["message-back","message to main namespace"]"#,
    );
    echo(
        r#"52-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
        &[&[1, 2, 3], &[4, 5, 6]],
        r#"52-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
    );
    echo(r#"2456["message-with-ack",1,"2",{"3":[false]}]"#, &[], r#"3456[1,"2",{"3":[false]}]"#);
    echo(
        r#"52-789["message-with-ack",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
        &[&[1, 2, 3], &[4, 5, 6]],
        r#"62-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
    );
    // Connecting, leaving, and being refused.
    check("0", "CONNECT /");
    check(r#"0{"token":"123"}"#, r#"CONNECT / {"token":"123"}"#);
    check("0/custom,", "CONNECT /custom");
    check(r#"0/custom,{"token":"abc"}"#, r#"CONNECT /custom {"token":"abc"}"#);
    check("0/random", "CONNECT /random");
    check("1/custom", "DISCONNECT /custom");
    check("abc", "unknown packet type");
    check("2{}", "data does not fit a packet of kind Event");
    check(r#"2abc["message-with-ack",1,"2",{"3":[false]}]"#, "invalid json at byte 1");
}

/// Decodes a message, has it echoed by relaying and by way of JSON values, and compares both with what is expected.
fn echo(message: &str, attachments: &[&[u8]], expected: &str) {
    let limits = Limits::default();
    let header = decode_text(message, &limits).expect("the suite's packets are right");
    let mut assembler = sio_proto::Assembler::default();
    let whole;
    let mut parts = Vec::new();
    let packet = if attachments.is_empty() {
        header
    } else {
        assembler.begin(&header, &limits).expect("nothing was pending");
        let mut last = None;
        for attachment in attachments {
            last = assembler.push(attachment, &limits).expect("an attachment was due");
        }
        whole = last.expect("all attachments came");
        parts.clone_from(&whole.attachments);
        whole.as_incoming()
    };
    let Payload::Event { elements, count, .. } = packet.payload else { panic!("an event") };
    let answer = |event: sio_proto::Body, ack: sio_proto::Body| {
        let mut out = Vec::new();
        match packet.ack_id {
            Some(id) => encode_ack(&mut out, Parser::Json, packet.namespace, id, &ack),
            None => encode_event(&mut out, Parser::Json, packet.namespace, None, &event, None),
        }
        String::from_utf8(out).expect("text packets are UTF-8")
    };
    let event = sio_proto::Body::relay_event(Parser::Json, "message-back", elements, count, &parts);
    let ack = sio_proto::Body::relay_ack(elements, count, &parts).expect("no more attachments than came");
    assert_eq!(ack.attachments, parts);
    assert_eq!(answer(event.expect("can be relayed"), ack), expected);

    if parts.is_empty() {
        let values: Vec<Value> =
            sio_proto::to_value(Parser::Json, elements, count, &[]).expect("plain values");
        let event = Parser::Json.encode_event_args("message-back", &Many(&values)).expect("can be encoded");
        let ack = Parser::Json.encode_ack_args(&Many(&values)).expect("can be encoded");
        assert_eq!(answer(event, ack), expected);
    } else {
        let values: Vec<sio_proto::Binary> =
            sio_proto::decode_all(Parser::Json, elements, count, &parts).expect("binary values");
        let event = Parser::Json.encode_event_args("message-back", &Many(&values)).expect("can be encoded");
        let ack = Parser::Json.encode_ack_args(&Many(&values)).expect("can be encoded");
        assert_eq!((&event.attachments, &ack.attachments), (&parts, &parts));
        assert_eq!(answer(event, ack), expected);
    }
}

#[track_caller]
fn check(message: &str, expected: &str) {
    let found = match decode_text(message, &Limits::default()) {
        Ok(packet) => {
            let is_binary = packet.attachments > 0;
            assert_eq!(is_binary, matches!(packet.kind(), Kind::BinaryEvent | Kind::BinaryAck), "{message}");
            transcript(&packet)
        }
        Err(fault) => fault.to_string(),
    };
    assert_eq!(found, expected, "{message}");
}

fn transcript(packet: &Incoming<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("slices of text");
    let mut to = format!("{} ", packet.namespace);
    if packet.attachments > 0 {
        to += &format!("+{} ", packet.attachments);
    }
    if let Some(id) = packet.ack_id {
        to += &format!("id {id} ");
    }
    match &packet.payload {
        Payload::Connect { auth: None } => format!("CONNECT {}", to.trim_end()),
        Payload::Connect { auth: Some(auth) } => format!("CONNECT {to}{}", text(auth)),
        Payload::Disconnect => format!("DISCONNECT {}", to.trim_end()),
        Payload::Event { name, elements, count } => format!("EVENT {to}{name} ({count}) {}", text(elements)),
        Payload::Ack { elements, count } => format!("ACK {to}({count}) {}", text(elements)),
        Payload::ConnectError { data } => format!("CONNECT_ERROR {to}{}", text(data)),
    }
}
