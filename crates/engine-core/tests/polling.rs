//! Long-polling: handshake, the rules for requests at once, closing, and how replies are filled.

use engine_core::{Config, Transports};
use testkit::transcript::check;

fn suite() -> Config {
    Config {
        ping_interval: std::time::Duration::from_millis(300),
        ping_timeout: std::time::Duration::from_millis(200),
        ..Config::default()
    }
}

#[test]
fn the_handshake_is_one_open_packet_with_five_keys() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0{"sid":"*","upgrades":["websocket"],"pingInterval":300,"pingTimeout":200,"maxPayload":1000000}
        = sessions 1
        = websockets 0
        "#,
    );
}

#[test]
fn no_upgrade_is_offered_where_none_is_allowed() {
    for config in [
        Config { allow_upgrades: false, ..Config::default() },
        Config { transports: Transports { polling: true, websocket: false }, ..Config::default() },
    ] {
        check(config, "a > GET\na < GET 200 0*\"upgrades\":[],*");
    }
}

#[test]
fn a_get_waits_until_there_is_something_to_send() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > GET
        a > POST 40
        a < POST 200 ok
        a < GET 200 40{"sid":"*"}
        ? connect a
        ? accepted a
        ! emit a one [1]
        ! emit a two [2]
        a > GET
        a < GET 200 42["one",1]␞42["two",2]
        "#,
    );
}

#[test]
fn a_get_whose_carrier_stops_is_answered_and_the_session_goes_on() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > GET
        ! detour a
        a < GET 200 6
        a > POST 40
        a < POST 200 ok
        ? connect a
        ? accepted a
        a > GET
        a < GET 200 40{"sid":"*"}
        a > GET
        ! detour a
        a < GET 200 6
        ! detour a
        a > GET
        ! emit a one [1]
        a < GET 200 42["one",1]
        = sessions 1
        "#,
    );
}

#[test]
fn several_packets_in_one_post_are_heard_in_order() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40␞
        # The empty packet at the end is a fault; what came before it was heard.
        a < POST 400
        ? connect a
        ? disconnected a parse error
        ? closed a parse error
        b > GET
        b < GET 200 0*
        b > POST 40
        b < POST 200 ok
        b > POST 42["x",1]␞42["y"]␞41
        b < POST 200 ok
        ? event b x [1]
        ? event b y []
        ? disconnected b client namespace disconnect
        = sessions 1
        "#,
    );
}

#[test]
fn a_second_get_closes_the_session() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        a > GET
        a > GET
        a < GET 200 1
        a < GET 400
        ? disconnected a transport error
        ? closed a transport error
        a > GET
        a < GET 400 {"code":1,"message":"Session ID unknown"}
        = sessions 0
        = counter faults_overlap 1
        "#,
    );
}

#[test]
fn a_second_post_closes_the_session_and_ends_the_first() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST-BEGIN
        b: sid=a
        b > POST 42["x"]
        a < POST 400
        b < POST 400
        a > POST-END 40
        ? closed a transport error
        = sessions 0
        "#,
    );
}

#[test]
fn a_get_and_a_post_at_once_are_the_normal_case() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > GET
        a > POST-BEGIN
        a > POST-END 40
        a < POST 200 ok
        a < GET 200 40*
        = sessions 1
        "#,
    );
}

#[test]
fn a_lost_get_ends_the_session() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > GET
        a > CUT GET
        ? closed a transport error
        a > GET
        a < GET 400 {"code":1,*
        "#,
    );
}

#[test]
fn a_lost_post_ends_the_session() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > GET
        a > POST-BEGIN
        a > CUT POST
        a < GET 200 1
        ? closed a transport error
        "#,
    );
}

#[test]
fn a_body_above_the_limit_is_dropped_and_the_session_lives() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST-BIG
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        "#,
    );
}

#[test]
fn octets_in_revision_four_are_a_fault() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST-OCTETS 3430
        a < POST 400
        ? closed a transport error
        "#,
    );
}

#[test]
fn a_close_packet_ends_the_waiting_get_with_a_noop() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        a > GET
        a > POST 1
        a < GET 200 6
        a < POST 200 ok
        ? disconnected a transport close
        ? closed a transport close
        a > GET
        a < GET 400 {"code":1,*
        "#,
    );
}

#[test]
fn nothing_after_a_close_packet_is_heard() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > POST 1␞42["late"]
        a < POST 200 ok
        ? not event *
        "#,
    );
}

#[test]
fn a_request_of_another_revision_is_refused() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        b: v3 sid=a
        b > GET
        b < GET 400 {"code":3,"message":"Bad request"}
        b > POST 4
        b < POST 400 {"code":3,"message":"Bad request"}
        b > WS
        b < WS 400 *
        = sessions 1
        "#,
    );
}

#[test]
fn a_reply_holds_sixteen_packets_at_most() {
    let emits: String = (0..40).map(|n| format!("! emit a n [{n}]\n")).collect();
    let reply =
        |range: std::ops::Range<u32>| range.map(|n| format!("42[\"n\",{n}]")).collect::<Vec<_>>().join("␞");
    let script = format!(
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        {emits}
        a > GET
        a < GET 200 {}
        a > GET
        a < GET 200 {}
        a > GET
        a < GET 200 {}
        "#,
        reply(0..16),
        reply(16..32),
        reply(32..40),
    );
    check(Config::default(), &script);
}

#[test]
fn a_packet_and_its_attachments_stay_in_one_reply() {
    let emits: String = (0..15).map(|n| format!("! emit a n [{n}]\n")).collect();
    let script = format!(
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        {emits}
        ! emit a bin ["x:0102"]
        a > GET
        a < GET 200 *42["n",14]
        a > GET
        a < GET 200 451-["bin",{{"_placeholder":true,"num":0}}]␞bAQI=
        "#
    );
    check(Config::default(), &script);
}

#[test]
fn a_reply_stops_at_its_bytes_but_holds_one_packet_at_least() {
    check(
        Config { poll_bytes_max: 1_000, ..Config::default() },
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        ! emit a big ["long:5000"]
        ! emit a small [1]
        ! emit a small [2]
        a > GET
        a < GET 200 42["big","l*"]
        a > GET
        a < GET 200 42["small",1]␞42["small",2]
        "#,
    );
}

#[test]
fn close_waits_for_the_get_that_takes_what_is_queued() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        ! emit a bye [1]
        ! close a
        ? disconnected a forced close
        ? closed a forced close
        = sessions 1
        a > POST 42["late"]
        a < POST 400*
        ? not event *
        a > GET
        a < GET 200 42["bye",1]
        # JavaScript clients act on a close packet before they look at a message of the same payload.
        a > GET
        a < GET 200 1
        = sessions 0
        a > GET
        a < GET 400 {"code":1,*
        "#,
    );
}

#[test]
fn close_answers_the_waiting_get_at_once() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > GET
        ! close a
        a < GET 200 1
        = sessions 0
        "#,
    );
}

#[test]
fn a_closing_session_is_gone_after_its_grace() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        ! close a
        @ +29s
        = sessions 1
        @ +1100ms
        = sessions 0
        a > GET
        a < GET 400 {"code":1,*
        "#,
    );
}

#[test]
fn server_stop_drops_what_is_queued() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        ! emit a bye [1]
        b > GET
        b < GET 200 0*
        b > GET
        ! shutdown
        b < GET 200 1
        ? disconnected a server shutting down
        = sessions 0
        a > GET
        a < GET 400 {"code":1,*
        "#,
    );
}

#[test]
fn a_polling_session_whose_outbox_is_full_is_closed() {
    check(
        Config { outbox_bytes_max: 10_000, ..Config::default() },
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        ! emit a big ["long:9000"]
        ! emit a big ["long:9000"]
        = sessions 1
        ! emit a big ["long:9000"]
        ? disconnected a outbox full
        ? closed a outbox full
        = counter outboxes_full 1
        = sessions 0
        "#,
    );
}

#[test]
fn one_event_larger_than_the_outbox_passes() {
    check(
        Config { outbox_bytes_max: 10_000, ..Config::default() },
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        ! emit a big ["long:90000"]
        a > GET
        a < GET 200 42["big"*
        "#,
    );
}

#[test]
fn close_with_more_than_a_reply_holds_loses_nothing() {
    let emits: String = (0..20).map(|n| format!("! emit a n [{n}]\n")).collect();
    let script = format!(
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        {emits}
        ! close a
        a > GET
        a < GET 200 42["n",0]␞*␞42["n",15]
        a > GET
        a < GET 200 42["n",16]␞*␞42["n",19]
        a > GET
        a < GET 200 1
        = sessions 0
        "#
    );
    check(Config::default(), &script);
}

#[test]
fn a_post_that_was_underway_at_the_close_is_replied_to_once() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > POST-BEGIN
        ! close a
        a < POST 400
        a > POST-END 42["late"]
        ? not event *
        a > GET
        a < GET 200 40*
        a > GET
        a < GET 200 1
        = sessions 0
        "#,
    );
}

#[test]
fn packets_before_a_bad_one_are_answered_before_the_session_ends() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
        a > GET
        a > POST 42["good"]␞z
        ? event a good *
        a < POST 400
        a < GET 200 1
        ? disconnected a parse error
        = sessions 0
        "#,
    );
}
