//! Arguments to and from Rust types, under both parsers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sio_proto::{
    Args, Binary, Body, EncodeFault, Limits, Many, NoArgs, One, Parser, RawArgs, decode_all, decode_args,
    decode_borrowed, last_text, to_value,
};
use std::collections::BTreeMap;

const PARSERS: [Parser; 2] = [Parser::Json, Parser::Msgpack];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Upload {
    name: String,
    size: Option<u64>,
    parts: Vec<Binary>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Plain,
    Scaled { width: u32 },
}

#[test]
fn a_type_survives_both_parsers() {
    let upload = Upload {
        name: "a\u{1e}b".into(),
        size: None,
        parts: vec![Binary::from(vec![1, 2]), Binary::default(), Binary::from(&b"\x1e"[..])],
        kind: Kind::Scaled { width: 9 },
    };
    for parser in PARSERS {
        let body = parser.encode_ack_args(&One(&upload)).expect("can be encoded");
        assert_eq!(body.count, 1);
        assert_eq!(body.attachments.len(), if parser == Parser::Json { 3 } else { 0 });
        let back: Upload = decode_args(parser, &body.elements, body.count, &body.attachments).expect("fits");
        assert_eq!(back, upload);
        let back: (Upload,) =
            decode_all(parser, &body.elements, body.count, &body.attachments).expect("fits");
        assert_eq!(back.0, upload);
    }
    let body = Parser::Json.encode_ack_args(&One(&upload)).expect("can be encoded");
    assert_eq!(
        String::from_utf8(body.elements).expect("text"),
        concat!(
            r#"{"name":"a\u001eb","size":null,"parts":[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},"#,
            r#"{"_placeholder":true,"num":2}],"kind":{"scaled":{"width":9}}}"#
        )
    );
}

#[test]
fn arguments_are_counted() {
    check(&NoArgs, 0, "");
    check(&One(7), 1, "7");
    check(&One((1, 2)), 1, "[1,2]");
    check(&One("text"), 1, r#""text""#);
    check(&One(Option::<u8>::None), 1, "null");
    check(&One(json!({"b": 1, "a": [2.0, -0.0, 1e300, 0.1]})), 1, r#"{"b":1,"a":[2,0,1e+300,0.1]}"#);
    check(&Many((1, "2", json!({"3": [true]}))), 3, r#"1,"2",{"3":[true]}"#);
    check(&Many(()), 0, "");
    check(&Many(Option::<[u8; 2]>::None), 0, "");
    check(&Many([[1, 2], [3, 4]]), 2, "[1,2],[3,4]");
    check(&Many(Vec::<u8>::new()), 0, "");
    check(&Many(vec![json!(null); 20]), 20, &["null"; 20].join(","));
    let raw = RawArgs::parse(r#" [ 1 , {"k":"v"}, [] ] "#, &Limits::default()).expect("an array");
    assert_eq!(raw.count(), 3);
    check(&raw, 3, r#"1 , {"k":"v"}, []"#);
    check(&RawArgs::parse("[]", &Limits::default()).expect("an array"), 0, "");
}

#[track_caller]
fn check(args: &dyn Args, count: u32, json: &str) {
    let ack = Parser::Json.encode_ack_args(args).expect("can be encoded");
    assert_eq!((ack.count, std::str::from_utf8(&ack.elements)), (count, Ok(json)));
    let event = Parser::Json.encode_event_args("e\"", args).expect("can be encoded");
    let comma = if count == 0 { "" } else { "," };
    assert_eq!(
        (event.count, String::from_utf8(event.elements)),
        (count + 1, Ok(format!(r#""e\""{comma}{json}"#)))
    );
    // Msgpack says the same.
    let packed = Parser::Msgpack.encode_ack_args(args).expect("can be encoded");
    assert_eq!(packed.count, count);
    assert_eq!(
        to_value(Parser::Msgpack, &packed.elements, count, &[]).expect("values").len(),
        to_value(Parser::Json, &ack.elements, count, &[]).expect("values").len(),
    );
    let packed = Parser::Msgpack.encode_event_args("e\"", args).expect("can be encoded");
    let values: (String, Option<Value>) =
        decode_all(Parser::Msgpack, &packed.elements, packed.count, &[]).expect("fits");
    assert_eq!(values.0, "e\"");
}

#[test]
fn several_arguments_need_a_sequence() {
    for parser in PARSERS {
        assert!(matches!(parser.encode_ack_args(&Many(7)), Err(EncodeFault::NotASequence)));
        assert!(matches!(parser.encode_ack_args(&Many(json!({}))), Err(EncodeFault::NotASequence)));
    }
    assert!(RawArgs::parse("{}", &Limits::default()).is_err());
    assert!(RawArgs::parse("[1", &Limits::default()).is_err());
    assert!(RawArgs::parse("[1]2", &Limits::default()).is_err());
}

#[test]
fn one_argument_is_the_value_and_several_are_a_tuple() {
    assert_eq!(decode_args::<u8>(Parser::Json, b"7", 1, &[]).expect("fits"), 7);
    assert_eq!(decode_args::<(u8, u8)>(Parser::Json, b"[7,8]", 1, &[]).expect("fits"), (7, 8));
    assert_eq!(
        decode_args::<(u8, String)>(Parser::Json, br#"7 , "x""#, 2, &[]).expect("fits"),
        (7, "x".into())
    );
    assert_eq!(decode_args::<Vec<Value>>(Parser::Json, b"1,[2],{}", 3, &[]).expect("fits").len(), 3);
    decode_args::<()>(Parser::Json, b"", 0, &[]).expect("nothing is the unit");
    assert_eq!(decode_args::<Option<u8>>(Parser::Json, b"", 0, &[]).expect("fits"), None);
    assert_eq!(decode_args::<Value>(Parser::Json, b"", 0, &[]).expect("fits"), Value::Null);
    assert_eq!(decode_all::<Vec<u8>>(Parser::Json, b"", 0, &[]).expect("fits"), Vec::<u8>::new());
    assert_eq!(decode_all::<Vec<u8>>(Parser::Json, b"7", 1, &[]).expect("fits"), [7]);
    assert_eq!(decode_args::<Option<(u8, u8)>>(Parser::Json, b"7,8", 2, &[]).expect("fits"), Some((7, 8)));
    assert!(decode_args::<u8>(Parser::Json, b"", 0, &[]).is_err());
    assert!(decode_args::<u8>(Parser::Json, b"\"7\"", 1, &[]).is_err());
    assert!(decode_args::<u8>(Parser::Json, b"7,8", 2, &[]).is_err());
    let fault = decode_args::<u8>(Parser::Json, b"300", 1, &[]).expect_err("too large");
    assert!(fault.to_string().starts_with("arguments do not fit: invalid value"), "{fault}");
}

#[test]
fn a_tuple_is_as_patient_as_a_javascript_listener() {
    for parser in PARSERS {
        let body = parser.encode_ack_args(&Many((1, 2, "more"))).expect("can be encoded");
        let args = (body.elements.as_slice(), body.count);
        assert_eq!(decode_args::<(u8, u8)>(parser, args.0, args.1, &[]).expect("fits"), (1, 2));
        let wide: (u8, u8, String, Option<u8>, Value) =
            decode_args(parser, args.0, args.1, &[]).expect("fits");
        assert_eq!(wide, (1, 2, "more".into(), None, Value::Null));
        assert!(decode_args::<(u8, u8, String, u8)>(parser, args.0, args.1, &[]).is_err());
    }
}

#[test]
fn the_last_argument_may_be_a_text() {
    for parser in PARSERS {
        let last = |args: &dyn Args| {
            let body = parser.encode_ack_args(args).expect("can be encoded");
            last_text(parser, &body.elements, body.count)
        };
        assert_eq!(last(&Many((1, "a,\"b"))).as_deref(), Some("a,\"b"));
        assert_eq!(last(&One("Q7xAbC2")).as_deref(), Some("Q7xAbC2"));
        assert_eq!(last(&Many(("a", 1))), None);
        assert_eq!(last(&Many(("a", ["b"]))), None);
        assert_eq!(last(&NoArgs), None);
    }
    assert_eq!(last_text(Parser::Msgpack, &[0xd4, 0, 0], 1), None);
    assert_eq!(last_text(Parser::Msgpack, &[0xa1], 2), None);
}

#[test]
fn a_value_can_be_borrowed() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Said<'a> {
        text: &'a str,
    }
    for parser in PARSERS {
        let body = parser.encode_ack_args(&One(json!({"text": "hello"}))).expect("can be encoded");
        let said: Said<'_> = decode_borrowed(parser, &body.elements, 1, &[]).expect("fits");
        assert_eq!(said, Said { text: "hello" });
        let two = parser.encode_ack_args(&Many(("a", "b"))).expect("can be encoded");
        assert_eq!(decode_borrowed::<(&str, &str)>(parser, &two.elements, 2, &[]).expect("fits"), ("a", "b"));
    }
    assert!(decode_borrowed::<Option<&str>>(Parser::Msgpack, &[0xd4, 0, 0], 1, &[]).is_err());
}

#[test]
fn more_than_ten_binary_values_are_refused() {
    let values = |count: usize| vec![Binary::from(vec![1]); count];
    assert_eq!(
        Parser::Json.encode_ack_args(&Many(values(10))).expect("can be encoded").attachments.len(),
        10
    );
    let fault = Parser::Json.encode_ack_args(&Many(values(11))).expect_err("too many");
    assert_eq!(fault.to_string(), "11 binary values exceed the 10 that a packet may carry");
    let parts = vec![Bytes::new(); 11];
    assert!(Body::relay_event(Parser::Json, "e", b"", 0, &parts).is_err());
    assert!(Body::relay_ack(b"", 0, &parts).is_err());
    // They are ordinary values there.
    assert!(Parser::Msgpack.encode_ack_args(&Many(values(11))).is_ok());
}

#[test]
fn placeholders_of_the_callers_own_do_not_mix_with_binary_values() {
    let own = json!({"_placeholder": true, "num": 0});
    assert!(Parser::Json.encode_ack_args(&One(&own)).is_ok(), "without attachments it is an ordinary object");
    let mixed = Many((own, Binary::from(vec![1])));
    assert!(matches!(Parser::Json.encode_ack_args(&mixed), Err(EncodeFault::ForeignPlaceholder)));
    assert!(Parser::Msgpack.encode_ack_args(&mixed).is_ok());
    let bad = Many((json!({"_placeholder": true}), Binary::from(vec![1])));
    assert!(matches!(Parser::Json.encode_ack_args(&bad), Err(EncodeFault::ForeignPlaceholder)));
}

#[test]
fn binary_values_have_a_form_outside_of_packets() {
    let binary = Binary::from(vec![0xca, 0xfe]);
    let value = serde_json::to_value(&binary).expect("an object");
    assert_eq!(value, json!({"$base64": "yv4="}));
    assert_eq!(serde_json::from_value::<Binary>(value).expect("reads back"), binary);
    assert_eq!(serde_json::from_value::<Binary>(json!([202, 254])).expect("byte values"), binary);
    for wrong in
        [json!({"$base64": "*"}), json!({}), json!({"_placeholder": true, "num": 0}), json!([256]), json!(1)]
    {
        assert!(serde_json::from_value::<Binary>(wrong.clone()).is_err(), "{wrong}");
    }
    let packed = rmp_serde::to_vec(&binary).expect("bytes");
    assert_eq!(packed, [0xc4, 2, 0xca, 0xfe]);
    assert_eq!(rmp_serde::from_slice::<Binary>(&packed).expect("reads back"), binary);
}

#[test]
fn values_show_their_attachments_in_place() {
    let parts = [Bytes::from_static(&[0xca, 0xfe])];
    let elements = br#"{"a":[{"num":0,"_placeholder":true}]},{"_placeholder":false,"num":0}"#;
    assert_eq!(
        to_value(Parser::Json, elements, 2, &parts).expect("values"),
        [json!({"a": [{"$base64": "yv4="}]}), json!({"_placeholder": false, "num": 0})]
    );
    // In a packet without attachments a placeholder means nothing.
    let own = br#"{"_placeholder":true,"num":0}"#;
    assert_eq!(
        to_value(Parser::Json, own, 1, &[]).expect("values"),
        [json!({"_placeholder": true, "num": 0})]
    );
    assert!(decode_args::<Binary>(Parser::Json, own, 1, &[]).is_err());
    assert!(to_value(Parser::Json, br#"{"_placeholder":true,"num":1}"#, 1, &parts).is_err());
}

#[test]
fn an_encode_within_an_encode_keeps_its_attachments_apart() {
    struct Nested;
    impl Serialize for Nested {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let inner = Parser::Json
                .encode_ack_args(&One(Binary::from(vec![9])))
                .map_err(serde::ser::Error::custom)?;
            assert_eq!(inner.attachments.len(), 1);
            Binary::from(vec![1]).serialize(serializer)
        }
    }
    let body = Parser::Json.encode_ack_args(&Many((Binary::from(vec![0]), Nested))).expect("can be encoded");
    assert_eq!(body.attachments, [Bytes::from_static(&[0]), Bytes::from_static(&[1])]);
}

#[test]
fn an_unwinding_encode_leaves_nothing_behind() {
    struct Explodes;
    impl Serialize for Explodes {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("as told")
        }
    }
    let unwound = std::panic::catch_unwind(|| {
        let _ = Parser::Json.encode_ack_args(&Many((Binary::from(vec![0]), Explodes)));
    });
    assert!(unwound.is_err());
    let outside = serde_json::to_value(Binary::from(vec![0])).expect("an object");
    assert_eq!(outside, json!({"$base64": "AA=="}), "the thread is outside of the call again");
}

#[test]
fn values_that_cannot_be_written_are_the_callers_fault() {
    let map = BTreeMap::from([((1, 2), 3)]);
    assert!(matches!(Parser::Json.encode_ack_args(&One(&map)), Err(EncodeFault::Json(_))));
}

#[test]
fn old_clients_queries_become_an_object() {
    use sio_proto::revision4::{encode_connect, encode_connect_error, query_to_auth, split_query};
    assert_eq!(split_query("/chat?token=a&x"), ("/chat", Some("token=a&x")));
    assert_eq!(split_query("/chat"), ("/chat", None));
    assert_eq!(
        Value::Object(query_to_auth("token=a%20b+c&x&y=1&y=2&y=3&&%zz=%e9&u=%C3%A9")),
        json!({"token": "a b c", "x": "", "y": ["1", "2", "3"], "%zz": "\u{fffd}", "u": "é"})
    );
    let mut out = Vec::new();
    encode_connect(&mut out, Parser::Json, "/");
    encode_connect(&mut out, Parser::Json, "/chat");
    encode_connect_error(&mut out, Parser::Json, "/chat", &json!("refused"));
    assert_eq!(out, br#"00/chat,4/chat,"refused""#);
}
