//! The move from polling to WebSocket, in all its branches.

use engine_core::Config;
use testkit::transcript::check;

const OPEN: &str = r#"
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40*
"#;

fn check_open(script: &str) {
    check(Config::default(), &format!("{OPEN}{script}"));
}

#[test]
fn probe_upgrade_and_traffic() {
    check_open(
        r#"
        a > WS
        a > GET
        a > 2probe
        a < 3probe
        @ +200ms
        a < GET 200 6
        a > 5
        ! emit a x [1]
        a < 42["x",1]
        a > 42["y"]
        ? event a y []
        = websockets 1
        = counter upgrades 1
        a > GET
        a < GET 400 {"code":3,"message":"Bad request"}
        a > POST 42["z"]
        a < POST 400 {"code":3,"message":"Bad request"}
        = sessions 1
        "#,
    );
}

#[test]
fn probe_and_upgrade_back_to_back() {
    check_open(
        r#"
        a > WS
        a > 2probe␤5␤42["y"]
        a < 3probe
        ? event a y []
        a > GET
        a < GET 400 {"code":3,*
        ! emit a x [1]
        a < 42["x",1]
        "#,
    );
}

#[test]
fn an_upgrade_needs_no_probe() {
    check_open("a > WS\na > 5\n! emit a x []\na < 42[\"x\"]\n");
}

#[test]
fn a_get_that_still_waits_at_the_upgrade_gets_a_noop() {
    check_open(
        r#"
        a > WS
        a > GET
        a > 2probe␤5
        a < GET 200 6
        a < 3probe
        "#,
    );
}

#[test]
fn packets_queued_during_the_probe_leave_by_polling_until_the_upgrade() {
    check_open(
        r#"
        a > WS
        a > 2probe
        a < 3probe
        ! emit a x [1]
        a > GET
        a < GET 200 42["x",1]
        ! emit a x [2]
        a > 5
        a < 42["x",2]
        "#,
    );
}

#[test]
fn posts_work_during_the_probe() {
    check_open("a > WS\na > 2probe\na < 3probe\na > POST 42[\"y\"]\na < POST 200 ok\n? event a y []\n");
}

#[test]
fn anything_else_before_the_upgrade_closes_only_the_websocket() {
    for packet in ["2", "42[\"x\"]", "3probe", "zzz", "x0102", "6"] {
        check_open(&format!(
            r#"
            a > WS
            a > {packet}
            a < CLOSE
            a < END
            ? not event *
            = sessions 1
            = counter upgrades_failed 1
            ! emit a x [1]
            a > GET
            a < GET 200 42["x",1]
            "#
        ));
    }
}

#[test]
fn losing_the_probing_websocket_leaves_the_session_polling() {
    check_open(
        r#"
        a > WS
        a > 2probe
        a < 3probe
        a > CUT
        = sessions 1
        a > WS
        a > 2probe␤5
        a < 3probe
        = websockets 1
        "#,
    );
}

#[test]
fn an_upgrade_that_takes_too_long_is_given_up() {
    check_open(
        r#"
        a > WS
        a > 2probe
        a < 3probe
        @ +10100ms
        a < CLOSE
        a < END
        = sessions 1
        ! emit a x [1]
        a > GET
        a < GET 200 42["x",1]
        "#,
    );
}

#[test]
fn a_second_websocket_is_shown_out_and_the_first_is_unharmed() {
    check_open(
        r#"
        a > WS
        a > 2probe
        a < 3probe
        b: sid=a
        b > WS
        b < CLOSE
        b < END
        a > 5
        ! emit a x [1]
        a < 42["x",1]
        c: sid=a
        c > WS
        c < CLOSE
        c < END
        ! emit a x [2]
        a < 42["x",2]
        = sessions 1
        "#,
    );
}

#[test]
fn a_session_closed_during_the_probe_closes_the_probing_websocket() {
    check_open(
        r#"
        a > WS
        a > 2probe
        a < 3probe
        a > GET
        a > POST 1
        a < GET 200 6
        a < POST 200 ok
        a < CLOSE
        a < END
        = sessions 0
        "#,
    );
}

#[test]
fn a_session_lost_during_the_probe_closes_the_probing_websocket() {
    check_open(
        r#"
        a > WS
        a > GET
        a > CUT GET
        a < CLOSE
        a < END
        = sessions 0
        "#,
    );
}

#[test]
fn upgrades_that_are_not_allowed_are_shown_out() {
    check(
        Config { allow_upgrades: false, ..Config::default() },
        "a > GET\na < GET 200 0*\na > WS\na < CLOSE\na < END\n= sessions 1\n",
    );
}

#[test]
fn an_upgrade_of_no_session_is_refused() {
    check_open(
        r#"
        a > POST 1
        a < POST 200 ok
        a > WS
        a < WS 400 {"code":1,"message":"Session ID unknown"}
        "#,
    );
}

#[test]
fn a_ping_that_was_due_by_polling_may_be_answered_on_the_websocket() {
    check_open(
        r#"
        a > WS
        a > 2probe
        a < 3probe
        @ +9s
        a > 5
        @ +24s
        @ +1100ms
        a < 2
        a > 3
        = sessions 1
        "#,
    );
}

#[test]
fn a_waiting_get_is_released_every_hundred_milliseconds() {
    check_open(
        r#"
        a > WS
        a > 2probe
        a < 3probe
        a > GET
        @ +200ms
        a < GET 200 6
        a > GET
        @ +200ms
        a < GET 200 6
        "#,
    );
}

#[test]
fn a_post_that_outlives_its_upgraded_session_is_replied_to() {
    check_open(
        r#"
        a > WS
        a > POST-BEGIN
        a > 2probe␤5
        a < 3probe
        a > CUT
        ? closed a transport close
        a < POST 400
        a > POST-END 42["late",1]
        ? not event *
        "#,
    );
}

#[test]
fn a_post_that_is_underway_at_the_upgrade_is_still_heard() {
    check_open(
        r#"
        a > WS
        a > POST-BEGIN
        a > 2probe␤5
        a < 3probe
        a > POST-END 42["late",1]
        a < POST 200 ok
        ? event a late [1]
        = sessions 1
        "#,
    );
}
