//! Heartbeats in both revisions, and when exactly a silent session is gone.

use engine_core::Config;
use std::time::Duration;
use testkit::transcript::check;

fn suite() -> Config {
    Config {
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        ..Config::default()
    }
}

#[test]
fn three_pings_are_answered_by_polling() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        a > GET
        @ +310ms
        a < GET 200 2
        a > POST 3
        a < POST 200 ok
        a > GET
        @ +310ms
        a < GET 200 2
        a > POST 3
        a < POST 200 ok
        a > GET
        @ +310ms
        a < GET 200 2
        = sessions 1
        "#,
    );
}

#[test]
fn a_session_is_gone_at_exactly_interval_plus_timeout() {
    check(
        suite(),
        r#"
        a > GET
        a < GET 200 0*
        @ +499ms
        a > GET
        a < GET 200 2
        @ +1ms
        a > GET
        a < GET 400 {"code":1,*
        = sessions 0
        "#,
    );
}

#[test]
fn it_is_gone_even_if_no_deadline_was_handled() {
    check(
        Config::default(),
        r#"
        a > GET
        a < GET 200 0*
        @@ +44999ms
        a > POST 3
        a < POST 200 ok
        b > GET
        b < GET 200 0*
        @@ +45000ms
        b > GET
        b < GET 400 {"code":1,*
        a > GET
        a < GET 400 {"code":1,*
        "#,
    );
}

#[test]
fn a_pong_restarts_the_interval_from_its_arrival() {
    check(
        suite(),
        r#"
        a > WS
        a < 0*
        @ +310ms
        a < 2
        @ +90ms
        a > 3
        @ +295ms
        @ +15ms
        a < 2
        "#,
    );
}

#[test]
fn a_websocket_that_never_answers_is_closed() {
    check(
        suite(),
        r#"
        a > WS
        a < 0*
        a > 40
        a < 40*
        @ +310ms
        a < 2
        @ +195ms
        a < CLOSE
        a < END
        ? disconnected a ping timeout
        ? closed a ping timeout
        = counter ping_timeouts 1
        "#,
    );
}

#[test]
fn another_packet_extends_the_wait_once() {
    check(
        suite(),
        r#"
        a > WS
        a < 0*
        a > 40
        a < 40*
        @ +310ms
        a < 2
        @ +100ms
        a > 42["busy"]
        @ +150ms
        = sessions 1
        a > 42["busy"]
        @ +60ms
        a < CLOSE
        a < END
        ? closed a ping timeout
        "#,
    );
}

#[test]
fn a_pong_nobody_asked_for_only_restarts_the_interval() {
    check(
        suite(),
        r#"
        a > WS
        a < 0*
        @ +200ms
        a > 3
        @ +200ms
        @ +110ms
        a < 2
        = sessions 1
        "#,
    );
}

#[test]
fn a_ping_from_a_revision_four_peer_is_the_wrong_way_round() {
    check(
        suite(),
        r#"
        a > WS
        a < 0*
        a > 2
        a < CLOSE
        a < END
        ? closed a transport error
        b > GET
        b < GET 200 0*
        b > GET
        b > POST 2probe
        b < GET 200 1
        b < POST 200 ok
        ? closed b transport error
        "#,
    );
}

#[test]
fn revision_three_has_the_peer_ping() {
    check(
        suite(),
        r#"
        a: v3
        a > WS
        a < 0*
        a < 40
        @ +400ms
        a > 2
        a < 3
        @ +499ms
        = sessions 1
        @ +3ms
        a < CLOSE
        a < END
        ? closed a ping timeout
        "#,
    );
}

#[test]
fn a_long_sleep_of_the_server_ends_every_session_once() {
    let open: String = (0..50).map(|n| format!("p{n} > GET\np{n} < GET 200 0*\n")).collect();
    check(suite(), &format!("{open}\n@ +3600s\n= sessions 0\n= counter ping_timeouts 50\n"));
}

#[test]
fn a_session_that_joins_no_namespace_is_closed() {
    check(
        Config { connect_timeout: Duration::from_secs(1), ..Config::default() },
        r#"
        a > WS
        a < 0*
        @ +1100ms
        a < CLOSE
        a < END
        ? closed a forced close
        = counter connect_timeouts 1
        # A refusal does not stop the clock, a namespace that was left does.
        b > WS
        b < 0*
        b > 40/nope,
        b < 44/nope,{"message":"Invalid namespace"}
        c > WS
        c < 0*
        c > 40
        c < 40*
        c > 41
        @ +1100ms
        b < CLOSE
        b < END
        = sessions 1
        "#,
    );
}
