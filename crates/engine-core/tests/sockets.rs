//! Sockets: CONNECT and its refusal, violations, disconnection from either side, and how links and sessions end.

use engine_core::Config;
use std::time::Duration;
use testkit::transcript::check;

const OPEN: &str = "a > WS\na < 0*\na > 40\na < 40{\"sid\":\"*\"}\n? accepted a\n";

fn check_open(script: &str) {
    check(Config::default(), &format!("{OPEN}{script}"));
}

#[test]
fn auth_reaches_the_application_as_it_came() {
    check(
        Config::default(),
        r#"
        a > WS
        a < 0{"sid":"*","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}
        a > 40{"token":"123"}
        a < 40{"sid":"*"}
        ? connect a {"token":"123"}
        a > 40/custom,{"token":"abc"}
        a < 40/custom,{"sid":"*"}
        ? connect a/custom {"token":"abc"}
        a > 40/bare
        a < 40/bare,{"sid":"*"}
        ? connect a/bare
        = sockets 3
        = namespaces 3
        "#,
    );
}

#[test]
fn an_unknown_namespace_is_refused_and_the_session_lives() {
    check_open(
        r#"
        a > 40/nope
        a < 44/nope,{"message":"Invalid namespace"}
        a > 42["x"]
        ? event a x []
        a > 40/nope,
        a < 44/nope,{"message":"Invalid namespace"}
        = sockets 1
        = namespaces 1
        "#,
    );
}

#[test]
fn a_refusal_may_carry_data() {
    check_open(
        r#"
        a > 40/later,
        ! refuse a/later not you {"why":[1,2]}
        a < 44/later,{"message":"not you","data":{"why":[1,2]}}
        a > 40/later,
        ! accept a/later
        a < 40/later,{"sid":"*"}
        "#,
    );
}

#[test]
fn rule_breaking_closes_the_whole_session() {
    // A packet, for a session that has joined `/` and awaits an answer for `/later`.
    for packet in [
        "4",
        "4abc",
        "42{}",
        "42abc[\"x\"]",
        "42[]",
        "42[{}]",
        "40",
        "40null",
        "40/chat,[]",
        "44{\"message\":\"x\"}",
        "42/other,[\"x\"]",
        "42/later,[\"x\"]",
        "41/other,",
        "41/later,",
        "43/other,1[]",
        "47[\"x\"]",
        "450-[\"x\"]",
        "451[\"x\"]",
        "4511-[\"x\"]",
        "42[\"connect\"]",
        "x0102",
        "451-[\"x\",{\"_placeholder\":true,\"num\":0}]␤42[\"y\"]",
    ] {
        check_open(&format!(
            r#"
            a > 40/later,
            a > {packet}
            a < CLOSE
            a < END
            ? disconnected a forced close
            ? disconnected a/later forced close
            ? closed a forced close
            = sessions 0
            = sockets 0
            = namespaces 0
            = counter faults_socket 1
            "#
        ));
    }
}

#[test]
fn a_second_connect_while_the_first_is_being_answered_is_ignored() {
    check_open(
        r#"
        a > 40/later,
        a > 40/later,
        ? connect a/later
        ? not connect a/later
        = counter faults_socket 1
        ! accept a/later
        a < 40/later,*
        "#,
    );
}

#[test]
fn a_bad_engine_packet_is_a_parse_error() {
    for packet in ["abc", "z", "b###", "7x"] {
        check_open(&format!(
            "a > {packet}\na < CLOSE\na < END\n? disconnected a parse error\n? closed a parse error\n"
        ));
    }
}

#[test]
fn packets_without_meaning_are_ignored() {
    check_open(
        r#"
        a > 0{}
        a > 5
        a > 6
        a > 3
        a > 43
        a > 437[1]
        a > 42["still"]
        ? event a still []
        "#,
    );
}

#[test]
fn an_event_before_any_connect_closes_the_session() {
    check(Config::default(), "a > WS\na < 0*\na > 42[\"x\"]\na < CLOSE\na < END\n? closed a forced close\n");
}

#[test]
fn leaving_a_namespace_leaves_the_session_and_the_others() {
    check_open(
        r#"
        a > 40/chat,
        a < 40/chat,*
        ! join a/chat r
        a > 41/chat,
        ? disconnected a/chat client namespace disconnect rooms=r
        = rooms 0
        = namespaces 1
        a > 42["still"]
        ? event a still []
        a > 40/chat,
        a < 40/chat,*
        a > 41
        ? disconnected a client namespace disconnect
        a > 42/chat,["x"]
        ? event a/chat x []
        "#,
    );
}

#[test]
fn an_event_to_a_namespace_that_was_left_is_a_violation() {
    check_open("a > 41\na > 42[\"x\"]\na < CLOSE\na < END\n? closed a forced close\n");
}

#[test]
fn the_application_disconnects_one_socket() {
    check_open(
        r#"
        a > 40/chat,
        a < 40/chat,*
        ! disconnect a/chat
        a < 41/chat,
        ? disconnected a/chat server namespace disconnect
        ! emit a/chat x []
        ? fault the socket is not connected
        ! emit a x []
        a < 42["x"]
        "#,
    );
}

#[test]
fn the_application_disconnects_a_connection_namespace_by_namespace() {
    check_open(
        r#"
        a > 40/chat,
        a < 40/chat,*
        a > 40/later,
        ! emit a x [1]
        ! disconnect a/chat close
        a < 42["x",1]
        a < 41
        a < 41/chat,
        # A moment later, so that the peer looks at the packets first.
        @ +10ms
        a < CLOSE
        a < END
        ? disconnected a server namespace disconnect
        ? disconnected a/chat server namespace disconnect
        ? closed a forced close
        = sessions 0
        "#,
    );
}

#[test]
fn a_connection_that_goes_while_the_application_decides_is_void() {
    check_open(
        r#"
        a > 40/later,
        a > CUT
        ? disconnected a/later transport close
        ! accept a/later
        ? gone a/later
        = sockets 0
        = namespaces 0
        "#,
    );
}

#[test]
fn the_ways_in_which_a_websocket_ends() {
    check_open("a > CLOSE 1000\na < CLOSE 1000\na < END\n? disconnected a transport close\n= sessions 0\n");
    check_open("a > CLOSE\na < CLOSE\na < END\n? closed a transport close\n");
    check_open("a > CUT\n? closed a transport close\n= sessions 0\n");
    check_open("a > 1\na < CLOSE\na < END\n? closed a transport close\n");
    check_open("! emit a x [1]\n! close a\na < 42[\"x\",1]\na < CLOSE\na < END\n? closed a forced close\n");
    check_open(
        "a > RAW 8100\na < CLOSE 1002\na < END\n? closed a transport error\n= counter faults_websocket 1",
    );
}

#[test]
fn too_many_namespaces_are_refused_one_by_one() {
    check(
        Config { namespaces_per_session_max: 2, ..Config::default() },
        r#"
        a > WS
        a < 0*
        a > 40
        a < 40*
        a > 40/one,
        a < 40/one,*
        a > 40/two,
        a < 44/two,{"message":"*namespaces_per_session_max of 2*"}
        a > 41/one,
        a > 40/two,
        a < 40/two,*
        "#,
    );
}

#[test]
fn revision_three_joins_the_main_namespace_unasked() {
    check(
        Config::default(),
        r#"
        a: v3
        a > GET
        a < GET 200 *:0{"sid":*
        a > GET
        a < GET 200 2:40
        ? accepted a
        a > POST 19:42["hé",{"a":"x1"}]
        a < POST 200 ok
        ? event a hé [{"a":"x1"}]
        a > POST 2:40
        a < POST 200 ok
        a > POST 14:40/chat?k=v%20
        a < POST 200 ok
        ? connect a/chat {"k":"v "}
        a > GET
        a < GET 200 8:40/chat,
        a > POST 8:40/nope,
        a < POST 200 ok
        a > GET
        a < GET 200 27:44/nope,"Invalid namespace"
        ! emit a tick [1]
        ! emit a tick ["é"]
        a > GET
        a < GET 200 12:42["tick",1]14:42["tick","é"]
        ! emit a bin ["x:0102"]
        a > GET
        a < GET 200 octets 00*ff3435312d*0103ff040102
        a > POST 1:2
        a < POST 200 ok
        a > GET
        a < GET 200 1:3
        a > POST 1:1
        a < POST 200 ok
        ? closed a transport close
        "#,
    );
}

#[test]
fn revision_three_gets_base64_if_it_asks_for_it() {
    check(
        Config::default(),
        r#"
        a: v3 b64
        a > GET
        a < GET 200 *:0{"sid":*
        a > GET
        a < GET 200 2:40
        ! emit a bin ["x:0102"]
        a > GET
        a < GET 200 *:451-["bin",{"_placeholder":true,"num":0}]6:b4AQI=
        b: v3
        b > WS
        b < 0*
        b < 40
        ! emit b bin ["x:0102"]
        b < 451-*
        b < x040102
        b > 451-["up",{"_placeholder":true,"num":0}]
        b > x04cafe
        ? event b up [{"$base64":"yv4="}]
        "#,
    );
}

#[test]
fn a_closed_revision_three_session_hears_it_in_its_own_framing() {
    check(
        Config {
            ping_interval: Duration::from_millis(300),
            ping_timeout: Duration::from_millis(200),
            ..Config::default()
        },
        r#"
        a: v3
        a > GET
        a < GET 200 *:0{"sid":*
        a > GET
        a < GET 200 2:40
        a > GET
        @ +510ms
        a < GET 200 1:1
        "#,
    );
}

#[test]
fn a_graceful_close_sends_all_that_is_queued() {
    let emits: String = (0..30).map(|_| "! emit a big [\"long:10000\"]\n").collect();
    let events: String = (0..30).map(|_| "a < 42[\"big\",*\n").collect();
    check_open(&format!(
        "a > STALL 0\n{emits}! close a\na > FLOW\n{events}@ +10ms\na < CLOSE\na < END\n= sessions 0\n"
    ));
}

#[test]
fn server_stop_sends_websockets_a_close_frame() {
    check_open("! shutdown\na < CLOSE\na < END\n? disconnected a server shutting down\n= sessions 0\n");
    check_open("! drain 1\na < CLOSE\na < END\n? left 0\n? disconnected a server shutting down\n");
}
