//! Messages of three families: written and read again, as their own libraries write them, and any bytes at all.

use adapter::classic::{self, Channels};
use adapter::{Answer, Ask, Data, Letter, Opts, RemoteSocket, Reply, msgpack, python, sharded};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Whole numbers, texts, bytes, lists and maps; no floats, whose JSON may be a whole number.
fn data() -> impl Strategy<Value = Data> {
    let leaf = prop_oneof![
        Just(Data::Null),
        any::<bool>().prop_map(Data::Bool),
        any::<i64>().prop_map(Data::Int),
        (i64::MAX as u64 + 1..=u64::MAX).prop_map(Data::UInt),
        ".{0,40}".prop_map(Data::Text),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Data::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(4, 40, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Data::List),
            proptest::collection::btree_map("[a-z]{1,8}", inner, 0..20)
                .prop_map(|map| Data::Map(map.into_iter().collect())),
        ]
    })
}

fn args() -> impl Strategy<Value = Vec<Data>> {
    (".{1,10}", proptest::collection::vec(data(), 0..4)).prop_map(|(name, mut args)| {
        args.insert(0, Data::Text(name));
        args
    })
}

fn opts() -> impl Strategy<Value = Opts> {
    let names = || proptest::collection::vec(".{0,10}", 0..4);
    (names(), names(), any::<bool>(), proptest::option::of(0..1_000_000_u64))
        .prop_map(|(rooms, except, is_volatile, timeout_ms)| Opts { rooms, except, is_volatile, timeout_ms })
}

fn ask() -> impl Strategy<Value = Ask> {
    let request = || "[0-9a-f]{16}";
    let names = || proptest::collection::vec(".{0,10}", 0..4);
    prop_oneof![
        (args(), opts(), proptest::option::of(request())).prop_map(|(args, opts, request)| Ask::Broadcast {
            args,
            opts,
            request
        }),
        (opts(), names()).prop_map(|(opts, rooms)| Ask::Join { opts, rooms }),
        (opts(), names()).prop_map(|(opts, rooms)| Ask::Leave { opts, rooms }),
        (opts(), any::<bool>()).prop_map(|(opts, close)| Ask::Disconnect { opts, close }),
        (opts(), request()).prop_map(|(opts, request)| Ask::Fetch { opts, request }),
        (names(), request()).prop_map(|(rooms, request)| Ask::Ids { rooms, request }),
        request().prop_map(|request| Ask::Rooms { request }),
        (args(), proptest::option::of(request()))
            .prop_map(|(args, request)| Ask::ServerSide { args, request }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let socket =
        (".{0,20}", proptest::collection::vec(".{0,10}", 0..3)).prop_map(|(id, rooms)| RemoteSocket {
            id,
            handshake: json!({ "headers": {}, "secure": false }),
            rooms,
            data: json!({ "n": 1 }),
        });
    prop_oneof![
        proptest::collection::vec(socket, 1..4).prop_map(Reply::Sockets),
        data().prop_map(Reply::Value),
        any::<u32>().prop_map(|count| Reply::Count(count.into())),
        data().prop_map(Reply::Ack),
    ]
}

proptest! {
    #[test]
    fn values_are_read_as_they_were_written(value in data()) {
        prop_assert_eq!(msgpack::decode(&msgpack::encode(&value)), Ok(value));
    }

    #[test]
    fn cut_values_are_refused(value in data(), cut in any::<prop::sample::Index>()) {
        let bytes = msgpack::encode(&value);
        prop_assert!(msgpack::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn asks_are_read_as_they_were_written(ask in ask()) {
        let letter = Letter { uid: Some("me".into()), namespace: "/x".into(), ask };
        let channels = Channels::new("socket.io", "/x");
        let (channel, body) = classic::encode_ask(&channels, &letter);
        let read = if channel == channels.requests {
            classic::decode_request("/x", &body)
        } else {
            classic::decode_event(&body)
        };
        prop_assert_eq!(read.as_ref(), Ok(&letter));
        if let Some(body) = sharded::encode_ask(&letter) {
            prop_assert_eq!(sharded::decode(&body), Ok(sharded::Said::Ask(letter)));
        }
    }

    #[test]
    fn answers_are_read_as_they_were_written(reply in reply()) {
        let answer = Answer { request: "r".into(), reply };
        prop_assert_eq!(classic::decode_answer(&classic::encode_answer(&answer)), Ok(Some(answer.clone())));
        if let Some(body) = sharded::encode_answer("me", "/", &answer) {
            prop_assert_eq!(sharded::decode(&body), Ok(sharded::Said::Answer(answer)));
        }
    }

    #[test]
    fn events_for_python_are_read_as_they_were_written(args in args(), opts in opts()) {
        let opts = Opts { is_volatile: false, timeout_ms: None, ..opts };
        let body = python::encode_event("host", "/", &args, &opts).expect("a name");
        let said = python::decode(&body).expect("it is understood");
        // One null stands for none there.
        let args = if args[1..] == [Data::Null] { args[..1].to_vec() } else { args };
        prop_assert_eq!(said.ask, Some(Ask::Broadcast { args, opts, request: None }));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (msgpack::decode(&bytes), classic::decode_event(&bytes), classic::decode_answer(&bytes));
        let _ = (classic::decode_request("/", &bytes), sharded::decode(&bytes), python::decode(&bytes));
    }

    #[test]
    fn messages_that_are_almost_right_are_read_or_refused(
        ask in ask(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let letter = Letter { uid: Some("me".into()), namespace: "/".into(), ask };
        let (_, mut body) = classic::encode_ask(&Channels::new("s", "/"), &letter);
        let at = at.index(body.len());
        body[at] = byte;
        let _ = (classic::decode_event(&body), classic::decode_request("/", &body), sharded::decode(&body));
    }
}

/// As `@socket.io/redis-adapter` and `@socket.io/redis-emitter` write them.
#[test]
fn events_of_node_are_read() {
    let packet = "83a474797065 02a46461746192a47469636b07a36e7370a12f";
    let one = format!("93 a66b39507a5132 {packet} 83a5726f6f6d7391a4626c7565a665786365707490a5666c61677380");
    let letter = classic::decode_event(&hex(&one)).unwrap();
    assert_eq!((letter.uid.as_deref(), letter.namespace.as_str()), (Some("k9PzQ2"), "/"));
    let args = vec![Data::text("tick"), Data::Int(7)];
    assert_eq!(letter.ask, Ask::Broadcast { args: args.clone(), opts: Opts::to(&["blue"]), request: None });
    let all = format!(
        "93 a7656d6974746572 {packet} 83a5726f6f6d7390a5666c61677381a8766f6c6174696c65c3a665786365707491a3726564"
    );
    let letter = classic::decode_event(&hex(&all)).unwrap();
    let opts = Opts { except: vec!["red".into()], is_volatile: true, ..Opts::default() };
    assert_eq!(letter.ask, Ask::Broadcast { args, opts, request: None });
    // Old emitters leave things out.
    let bare = "93 a7656d6974746572 82a47479706502a46461746191a47469636b 81a5726f6f6d739107";
    let letter = classic::decode_event(&hex(bare)).unwrap();
    let args = vec![Data::text("tick")];
    assert_eq!(letter.ask, Ask::Broadcast { args, opts: Opts::to(&["7"]), request: None });
    assert_eq!(letter.namespace, "/");
}

#[test]
fn requests_of_node_are_read() {
    let acks = "85a3756964a66b39507a5132a9726571756573744964a67537 54624c6da47479706507a67061636b657483a4747970\
                6502a46461746191a4706f6c6ca36e7370a12fa46f70747383a5726f6f6d7390a665786365707490a5666c616773\
                81a774696d656f7574cd0384";
    let letter = classic::decode_request("/", &hex(acks)).unwrap();
    let opts = Opts { timeout_ms: Some(900), ..Opts::default() };
    let args = vec![Data::text("poll")];
    assert_eq!(letter.ask, Ask::Broadcast { args, opts, request: Some("u7TbLm".into()) });
    let ack = "83a47479706509a9726571756573744964a6753754624c6da67061636b65742a";
    let answer = Answer { request: "u7TbLm".into(), reply: Reply::Ack(Data::Int(42)) };
    assert_eq!(classic::decode_answer(&hex(ack)), Ok(Some(answer.clone())));
    assert_eq!(classic::encode_answer(&answer), hex(ack), "to the byte");
    let join = br#"{"type":2,"opts":{"rooms":["blue"],"except":[]},"rooms":["vip"]}"#;
    let letter = classic::decode_request("/", join).unwrap();
    assert_eq!(
        (letter.uid, letter.ask),
        (None, Ask::Join { opts: Opts::to(&["blue"]), rooms: vec!["vip".into()] })
    );
    assert!(classic::decode_request("/", br#"{"type":2,"requestId":"r","sid":"s","room":"r"}"#).is_err());
}

#[test]
fn messages_of_python_are_read() {
    let emit = |data: Value, is_binary: bool, room: Value| {
        let message = json!({
            "method": "emit", "event": "tick", "data": data, "binary": is_binary, "namespace": "/",
            "room": room, "skip_sid": null, "callback": null, "host_id": "5d41402abc4b2a76b9719d911017c592",
        });
        match python::decode(message.to_string().as_bytes()).expect("it is understood").ask {
            Some(Ask::Broadcast { args, opts, .. }) => (args[1..].to_vec(), opts.rooms),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(emit(json!([7]), false, json!("blue")), (vec![Data::Int(7)], vec!["blue".into()]));
    assert_eq!(emit(json!([null]), false, Value::Null), (vec![], vec![]));
    assert_eq!(emit(json!("x"), false, json!(["a", "b"])).0, [Data::text("x")], "of older versions");
    let binary = json!([[{ "_placeholder": true, "num": 0 }], "AQI="]);
    assert_eq!(emit(binary, true, Value::Null).0, [Data::Bytes(vec![1, 2].into())]);
    assert!(python::decode(&[0x80, 4]).unwrap_err().contains("pickled"));
    let callback = br#"{"method":"callback","host_id":"h","sid":"s","namespace":"/","id":1,"args":[]}"#;
    assert_eq!(python::decode(callback).expect("it is understood").ask, None);
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|letter| letter.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}
