//! Listeners, origins, figures and the end.

use serde_json::json;

use crate::fanfare::{Fanfare, PATIENCE, Reply, agent, until};
use crate::watcher::Watcher;

#[test]
fn both_listeners_serve_the_same_rooms() {
    let server = Fanfare::start(&[]);
    let realtime = server.address("realtime").unwrap();
    let (mut socket, _) = Watcher::connect(realtime, "/socket.io/", "/");
    server.post("/api/v1/events", r#"{"event":"hello","room":"global"}"#);
    assert_eq!(socket.event().0, "hello");
    let at = |url: &str| Reply::of(agent().get(url).call().unwrap());
    let health = at(&format!("{realtime}/health"));
    assert_eq!(
        health.json()["port"].as_u64(),
        realtime.rsplit(':').next().and_then(|port| port.parse().ok())
    );
    assert_eq!(at(&format!("{realtime}/stats")).status, 200);
    assert_eq!(at(&format!("{realtime}/metrics")).status, 404);
    let publish = agent().post(format!("{realtime}/api/v1/events")).send("{}").unwrap();
    assert_eq!(publish.status(), 404);
}

#[test]
fn one_listener_may_be_opened_alone() {
    let api = Fanfare::start(&["--only", "api"]);
    assert!(api.address("realtime").is_none());
    assert_eq!(api.get("/health").status, 200);
    let realtime = Fanfare::start(&["--only", "realtime"]);
    assert!(realtime.address("api").is_none());
    Watcher::connect(realtime.address("realtime").unwrap(), "/socket.io/", "/");
}

#[test]
fn the_api_listener_can_do_without_socket_io() {
    let server = Fanfare::start(&["--no-api-socketio"]);
    assert_eq!(server.get("/socket.io/?EIO=4&transport=polling").refusal(), (404, "not_found".to_owned()));
    let (mut socket, _) = Watcher::connect(server.address("realtime").unwrap(), "/socket.io/", "/");
    server.post("/api/v1/events", r#"{"event":"hello","room":"global"}"#);
    assert_eq!(socket.event().0, "hello");
}

#[test]
fn health_has_the_shape_that_probes_read() {
    let server = Fanfare::start(&[]);
    let _socket = Watcher::connect(server.api(), "/socket.io/", "/");
    // It comes into the dashboard right after it was greeted.
    until(PATIENCE, "it is in the dashboard", || {
        server.get("/health").json()["checks"]["socketio_manager"]["rooms"] != 1
    });
    let health = server.get("/health").json();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["service"], "socketio");
    let connections = json!({ "log_connections": 0, "admin_connections": 0, "total_connections": 1 });
    assert_eq!(health["connections"], connections);
    assert_eq!(health["checks"]["socketio_manager"], json!({ "active_connections": 1, "rooms": 2 }));
    assert_eq!(health["checks"]["store"]["status"], "ok");
    assert!(health["uptime_s"].is_u64() && health["version"].is_string());
    assert_eq!(server.get("/livez").json(), json!({ "status": "ok" }));
    assert_eq!(server.get("/readyz").json(), json!({ "status": "ready" }));
}

#[test]
fn figures_count_what_happened() {
    let server = Fanfare::start(&[]);
    let (mut socket, _) = Watcher::connect(server.api(), "/socket.io/", "/ws");
    socket.ask("join_room", &json!({}));
    server.post("/api/v1/events", r#"{"event":"hello","room":"global"}"#);
    for path in ["/stats", "/api/v1/websocket/stats", "/socket/stats"] {
        let stats = server.get(path).json();
        assert_eq!(stats["connections"]["total_connections"], 1, "{path}");
        assert_eq!(stats["connections"]["by_namespace"], json!({ "/ws": 1 }));
        assert_eq!(stats["connections"]["by_transport"], json!({ "polling": 1, "websocket": 0 }));
        let rooms =
            json!({ "total": 1, "largest": [{ "namespace": "/ws", "room": "global", "members": 1 }] });
        assert_eq!(stats["rooms"], rooms);
        assert_eq!((&stats["events"]["published"], &stats["events"]["in"]), (&json!(1), &json!(1)));
        assert_eq!(stats["commands"]["join_room"], 1);
        assert_eq!(stats["errors"], json!({ "bad_payload": 1 }));
    }
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    assert!(metrics.body.ends_with("# EOF\n"));
    for line in metrics.body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(name.starts_with("fanfare_") && value.parse::<f64>().is_ok(), "{line}");
    }
    for line in [
        "fanfare_sockets 1",
        "fanfare_namespace_sockets{namespace=\"/ws\"} 1",
        "fanfare_events_published_total 1",
        "fanfare_refusals_total{code=\"bad_payload\"} 1",
        "fanfare_commands_total{command=\"join_room\"} 1",
        "fanfare_faults_total{kind=\"engine\"} 0",
        "fanfare_sessions_opened_polling_total 1",
    ] {
        assert!(metrics.body.lines().any(|found| found == line), "{line} is missing in\n{}", metrics.body);
    }
}

#[test]
fn pages_of_known_origins_may_use_the_server_and_others_may_not() {
    let server = Fanfare::start(&[]);
    let events = format!("{}/api/v1/events", server.api());
    let with_origin = |origin: &str| {
        let request = agent().post(&events).header("origin", origin);
        Reply::of(request.send(r#"{"event":"e","room":"global"}"#).unwrap())
    };
    let allowed = with_origin("http://localhost:3000");
    assert_eq!(
        (allowed.status, allowed.header("access-control-allow-origin")),
        (201, "http://localhost:3000")
    );
    assert_eq!(with_origin(server.api()).status, 201, "the server's own page");
    assert_eq!(with_origin("https://evil.example").refusal(), (403, "origin_not_allowed".to_owned()));

    let preflight = ureq::http::Request::builder()
        .method("OPTIONS")
        .uri(&events)
        .header("origin", "http://localhost:3001")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let reply = Reply::of(agent().run(preflight.body(()).unwrap()).unwrap());
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), "http://localhost:3001");
    assert_eq!(reply.header("access-control-allow-headers"), "content-type");
    assert!(reply.header("access-control-allow-methods").contains("POST"));

    let open = |origin: &str| {
        let url = format!("{}/socket.io/?EIO=4&transport=polling", server.api());
        agent().get(url).header("origin", origin).call().unwrap().status().as_u16()
    };
    assert_eq!(open("http://127.0.0.1:3000"), 200);
    assert_eq!(open("https://evil.example"), 403, "it could not be kept from watching otherwise");

    let anyone = Fanfare::start(&["--cors-origin", "*"]);
    let request = agent().get(format!("{}/health", anyone.api())).header("origin", "https://any.example");
    assert_eq!(Reply::of(request.call().unwrap()).header("access-control-allow-origin"), "*");
}

#[test]
fn the_client_library_and_the_page_are_part_of_the_binary() {
    let server = Fanfare::start(&[]);
    for path in ["/socket.io/socket.io.js", "/socket.io/socket.io.min.js", "/ws/socket.io/socket.io.min.js"] {
        let file = server.get(path);
        assert_eq!((file.status, file.header("etag")), (200, "\"4.8.4\""), "{path}");
        assert_eq!(file.header("content-type"), "application/javascript; charset=utf-8");
        assert_eq!(file.header("cache-control"), "public, max-age=0");
        assert!(file.body.contains("Socket.IO v4.8.4"));
        for tag in ["\"4.8.4\"", "W/\"4.8.4\""] {
            let request = agent().get(format!("{}{path}", server.api())).header("if-none-match", tag);
            assert_eq!(Reply::of(request.call().unwrap()).status, 304);
        }
    }
    assert_ne!(server.get("/socket.io/other.js").status, 200);
    for path in ["/", "/ui"] {
        let page = server.get(path);
        assert!(page.header("content-security-policy").contains("default-src 'self'"));
        assert!(page.body.contains("/ui/page.js") && page.body.contains("/socket.io/socket.io.min.js"));
    }
    for path in ["/ui/page.js", "/ui/page.css", "/ui/icon.svg"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.get("/ui/secret").refusal(), (404, "not_found".to_owned()));
}

#[test]
fn a_terminated_server_says_goodbye_and_ends_well() {
    let server = Fanfare::start(&[]);
    let _socket = Watcher::connect(server.api(), "/socket.io/", "/");
    assert_eq!(server.terminate(), Some(0));
}
