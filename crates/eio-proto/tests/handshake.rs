//! Who is let in, what the others are told, and which library it seems to be.

use eio_proto::{
    Admission, HandshakeFault, HandshakeRequest, HandshakeTraits, Method, Policy, Query, Revision,
    SessionState, TransportKind, forbidden_body, is_legal_origin, looks_like_javascript, verify,
};

const POLICY: Policy = Policy { allows_polling: true, allows_websocket: true, allows_v3: false };

/// Live sessions: `poll`, `ws` and, of revision 3, `old`.
fn session(sid: &str) -> Option<SessionState> {
    let (transport, revision) = match sid {
        "poll" => (TransportKind::Polling, Revision::V4),
        "ws" => (TransportKind::WebSocket, Revision::V4),
        "old" => (TransportKind::Polling, Revision::V3),
        _ => return None,
    };
    Some(SessionState { transport, revision })
}

/// `line` is `GET`, `POST`, `PUT` or `UPGRADE`, a space, and the query.
#[track_caller]
fn check_with(policy: Policy, is_allowed: bool, line: &str, expected: Result<Admission, HandshakeFault>) {
    let (verb, query) = line.split_once(' ').unwrap();
    let query = Query::parse(query);
    let method = match verb {
        "GET" | "UPGRADE" => Method::Get,
        "POST" => Method::Post,
        _ => Method::Other,
    };
    let request = HandshakeRequest {
        query: &query,
        method,
        is_websocket_upgrade: verb == "UPGRADE",
        has_legal_origin: !line.contains("evil"),
    };
    assert_eq!(verify(&request, &policy, session, || is_allowed), expected, "{line}");
}

#[track_caller]
fn check(line: &str, expected: Result<Admission, HandshakeFault>) {
    check_with(POLICY, true, line, expected);
}

#[test]
fn good_requests_are_admitted() {
    check("GET EIO=4&transport=polling", Ok(Admission::Open(TransportKind::Polling)));
    check("GET EIO=4&transport=polling&sid=", Ok(Admission::Open(TransportKind::Polling)));
    check("UPGRADE EIO=4&transport=websocket", Ok(Admission::Open(TransportKind::WebSocket)));
    check("GET EIO=4&transport=polling&sid=poll", Ok(Admission::Poll));
    check("POST EIO=4&transport=polling&sid=poll", Ok(Admission::Poll));
    check("PUT EIO=4&transport=polling&sid=poll", Ok(Admission::Poll));
    check("UPGRADE EIO=4&transport=websocket&sid=poll", Ok(Admission::Upgrade));
    check("UPGRADE EIO=4&transport=websocket&sid=ws", Ok(Admission::Upgrade));
    check("GET EIO=3&transport=polling&sid=old", Ok(Admission::Poll));
    let v3 = Policy { allows_v3: true, ..POLICY };
    check_with(v3, true, "GET EIO=3&transport=polling", Ok(Admission::Open(TransportKind::Polling)));
}

#[test]
fn faults_come_in_the_order_of_the_reference_server() {
    use HandshakeFault::*;
    check("GET EIO=4", Err(TransportUnknown));
    check("GET EIO=3&transport=foo", Err(TransportUnknown));
    check("GET EIO=4&transport=webtransport", Err(TransportUnknown));
    check("GET EIO=4&transport=constructor&sid=evil", Err(TransportUnknown));
    check("GET EIO=4&transport=polling&sid=evil", Err(InvalidOrigin));
    check("GET EIO=3&transport=websocket&sid=__proto__", Err(SessionUnknown));
    check("GET EIO=3&transport=polling&sid=ws", Err(TransportMismatch));
    check("GET EIO=4&transport=websocket&sid=poll", Err(TransportMismatch));
    check("GET EIO=4&transport=websocket&sid=ws", Err(TransportMismatch));
    check("UPGRADE EIO=4&transport=polling&sid=poll", Err(TransportMismatch));
    check("GET EIO=3&transport=polling&sid=poll", Err(ProtocolMismatch));
    check("UPGRADE EIO=4&transport=websocket&sid=old", Err(ProtocolMismatch));
    check("POST EIO=4&transport=websocket", Err(BadMethod));
    check("PUT EIO=3&transport=polling", Err(BadMethod));
    check("GET EIO=3&transport=websocket", Err(TransportHandshake));
    check("UPGRADE EIO=4&transport=polling", Err(TransportHandshake));
    check("GET transport=polling", Err(UnsupportedProtocolVersion));
    check_with(POLICY, false, "GET transport=polling", Err(Forbidden));
    check_with(POLICY, false, "POST EIO=4&transport=polling", Err(BadMethod));
    check_with(POLICY, false, "GET EIO=4&transport=polling&sid=poll", Ok(Admission::Poll));
    let bare = Policy { allows_polling: false, ..POLICY };
    check_with(bare, true, "GET EIO=4&transport=polling", Err(TransportUnknown));
    let polling = Policy { allows_websocket: false, ..POLICY };
    check_with(polling, true, "UPGRADE EIO=4&transport=websocket&sid=poll", Err(TransportUnknown));
}

#[test]
fn error_table_is_the_wire_format() {
    use HandshakeFault::*;
    for (fault, code, message, context) in [
        (TransportUnknown, 0, "Transport unknown", None),
        (SessionUnknown, 1, "Session ID unknown", None),
        (BadMethod, 2, "Bad handshake method", None),
        (InvalidOrigin, 3, "Bad request", Some("INVALID_ORIGIN")),
        (TransportMismatch, 3, "Bad request", Some("TRANSPORT_MISMATCH")),
        (ProtocolMismatch, 3, "Bad request", Some("PROTOCOL_MISMATCH")),
        (TransportHandshake, 3, "Bad request", Some("TRANSPORT_HANDSHAKE_ERROR")),
        (IdGeneration, 3, "Bad request", Some("ID_GENERATION_ERROR")),
        (MiddlewareFailure, 3, "Bad request", Some("MIDDLEWARE_FAILURE")),
        (Forbidden, 4, "Forbidden", None),
        (UnsupportedProtocolVersion, 5, "Unsupported protocol version", None),
    ] {
        assert_eq!((fault.code(), fault.message(), fault.context()), (code, message, context));
        assert_eq!(fault.body(), format!(r#"{{"code":{code},"message":"{message}"}}"#).as_bytes());
        assert_eq!(fault.http_status(), if code == 4 { 403 } else { 400 });
        let shown = context.map_or(message.to_owned(), |context| format!("{message} ({context})"));
        assert_eq!(fault.to_string(), shown);
    }
}

#[test]
fn refusals_in_the_applications_words_are_valid_json() {
    assert_eq!(
        forbidden_body("no \"entry\" \\ é\n"),
        r#"{"code":4,"message":"no \"entry\" \\ é\u000a"}"#.as_bytes()
    );
    assert_eq!(forbidden_body("Forbidden"), HandshakeFault::Forbidden.body());
}

#[test]
fn origins_with_control_bytes_are_illegal() {
    assert!(is_legal_origin(b"") && is_legal_origin("https://\té.example".as_bytes()));
    assert!(!is_legal_origin(b"https://a\x00") && !is_legal_origin(b"\x7F") && !is_legal_origin(b"a\r\nb"));
}

/// A handshake: query, `User-Agent`, whether extensions were offered, and what it should be taken for.
type Sample = (&'static str, Option<&'static str>, bool, bool);

/// First requests as the clients themselves sent them to a bare TCP listener.
const CAPTURED: &[Sample] = &[
    // socket.io-client 4.8.4 on Node 20: polling first, then WebSocket only; the custom key is the test's.
    ("token=x&EIO=4&transport=polling&t=amzpb5z2", Some("node-XMLHttpRequest"), false, true),
    ("token=x&EIO=4&transport=websocket", None, true, true),
    // socket.io-client 4.0.0 and 3.1.3 on Node 20 know no recovery; on a bare WebSocket they cannot be told apart.
    ("token=x&EIO=4&transport=polling&t=Q7zmEE3&b64=1", Some("node-XMLHttpRequest"), false, false),
    ("token=x&EIO=4&transport=websocket", None, true, true),
    ("token=x&EIO=4&transport=polling&t=Q7zmFRF&b64=1", Some("node-XMLHttpRequest"), false, false),
    // python-socketio 5.18.1, with requests and websocket-client, then with aiohttp.
    ("transport=polling&EIO=4&t=1795258649.4777124", Some("python-requests/2.34.2"), false, false),
    ("transport=websocket&EIO=4&t=1795258652.111012", None, false, false),
    ("transport=polling&EIO=4&t=1795258654.7569513", Some("Python/3.11 aiohttp/3.14.5"), false, false),
    ("transport=websocket&EIO=4&t=1795258657.3657522", Some("Python/3.11 aiohttp/3.14.5"), false, false),
];

/// Handshakes put together from descriptions of the other clients, not captured.
const DESCRIBED: &[Sample] = &[
    // Browsers, from 4.8 on and before; a WebSocket whose extensions a proxy dropped.
    (
        "EIO=4&transport=polling&t=amzpb5z2",
        Some("Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0"),
        false,
        true,
    ),
    ("a=1&b=2&EIO=4&transport=polling&t=Q7zmEE3.0", Some("Mozilla/5.0 (Windows NT 10.0)"), false, true),
    ("EIO=4&transport=websocket", Some("Mozilla/5.0 (Macintosh) Version/26.0 Safari/605.1.15"), false, true),
    ("EIO=4&transport=websocket&t=amzpb5z2", Some("Mozilla/5.0 (Macintosh)"), true, true),
    // React Native polls through okhttp with JavaScript's query.
    ("EIO=4&transport=polling&t=amzpb5z2", Some("okhttp/4.12.0"), false, true),
    // rust_socketio.
    ("EIO=4&transport=polling&t=1795258649", None, false, false),
    ("EIO=4&transport=websocket", None, false, false),
    // Java: the keys in the order of its hash map; on a bare WebSocket only its stack tells.
    ("t=Q7zmEE3&EIO=4&transport=polling", Some("okhttp/3.12.12"), false, false),
    ("EIO=4&transport=websocket", Some("okhttp/4.12.0"), true, false),
    // Dart, Swift, .NET and C++.
    ("EIO=4&transport=websocket", Some("Dart/3.6 (dart:io)"), true, false),
    ("transport=polling&b64=1&EIO=4", Some("App/1 CFNetwork/1496.0.7 Darwin/23.5.0"), false, false),
    ("EIO=4&transport=polling&t=1795258649", Some("Agent .NET/9"), false, false),
    ("EIO=4&transport=websocket&t=1795258649", Some("WebSocket++/0.8.2"), false, false),
    // A Python program in a browser's clothes is told by its order, JavaScript of revision 3 by its `EIO`.
    ("transport=polling&EIO=4&t=1795258649.47", Some("Mozilla/5.0"), false, false),
    ("EIO=3&transport=polling&t=Q7zmEE3", Some("Mozilla/5.0"), false, false),
    // Made by hand.
    ("EIO=4&transport=polling", Some("curl/8.11"), false, false),
    ("EIO=4&transport=polling&t=amzpb5z2&x=1", None, false, false),
    ("EIO=4&x=1&transport=polling&t=amzpb5z2", None, false, false),
    ("EIO=4&transport=polling&x=1&t=amzpb5z2", None, false, false),
    ("EIO=4&transport=polling&t=Q7zmEE3.", None, false, false),
    ("transport=polling", None, false, false),
    ("EIO=4", None, true, false),
    ("", None, true, false),
];

#[test]
fn javascript_is_told_from_the_others() {
    for &(raw, user_agent, offers_extensions, expected) in CAPTURED.iter().chain(DESCRIBED) {
        let query = Query::parse(raw);
        let traits = HandshakeTraits { query: &query, user_agent, offers_extensions };
        assert_eq!(looks_like_javascript(&traits), expected, "{raw} {user_agent:?} {offers_extensions}");
    }
}
