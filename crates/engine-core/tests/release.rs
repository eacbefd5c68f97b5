//! Sockets that another node takes over: who has one gives it up, wherever it is, and nothing brings it back.

use std::time::Duration;

use engine_core::{Config, Recovery};
use testkit::transcript::{check, check_on};

fn recovering() -> Config {
    Config { recovery: Some(Recovery::default()), ..Config::default() }
}

fn restoring() -> Config {
    Config { restore_timeout: Some(Duration::from_secs(10)), ..recovering() }
}

const OPEN: &str = r#"
        a: js shard=0
        a > WS
        a < 0*
        a > 40
        a < 40{"sid":"*","pid":"*"}
        ? accepted a
        ! join a r
"#;

/// Comes back with what it was given, to a shard.
fn back(shard: usize) -> String {
    format!("a > NEW\na: shard={shard}\na > WS\na < 0*\na > 40{{\"pid\":\"$pid\"}}\n")
}

const NOTHING_LEFT: &str = "= sockets 0\n= lost 0\n= rooms 0\n= namespaces 0\n= sessions 0\n= notes 0\n";

#[test]
fn a_connected_socket_is_ended_without_a_packet_and_its_link_is_closed() {
    check(
        recovering(),
        &format!(
            r#"
            {OPEN}
            ! yield a
            a < END
            ? disconnected a taken over rooms=r
            ? closed a transport close
            ? released held
            {NOTHING_LEFT}
            # It is nobody's any more.
            ! yield a
            ? released unknown
            {}
            ? connect a *
            ? not *recovering*
            a < 40{{"sid":"*","pid":"*"}}
            "#,
            back(0)
        ),
    );
}

#[test]
fn a_polling_session_is_closed_too() {
    check(
        recovering(),
        r#"
        a: js
        a > GET
        a < GET 200 0*
        a > POST 40
        a < POST 200 ok
        a > GET
        a < GET 200 40{"sid":"*","pid":"*"}
        a > GET
        ! yield a
        ? disconnected a taken over
        ? released held
        a < GET 200 1
        a > GET
        a < GET 400 *
        = sessions 0
        "#,
    );
}

#[test]
fn other_sockets_of_the_session_are_lost_and_may_come_back() {
    check(
        recovering(),
        &format!(
            r#"
            {OPEN}
            a > 40/other,
            a < 40/other,{{"sid":"*","pid":"*"}}
            b: js
            b > WS
            b < 0*
            b > 40
            b < 40*
            ! yield a
            a < END
            ? disconnected a/other taken over
            ? disconnected a transport close rooms=r recoverable
            ? released held
            = lost 1
            = sockets 1
            "#
        ),
    );
}

#[test]
fn a_lost_socket_is_forgotten_wherever_it_lives_now() {
    let gone = "? forgotten a\n? released held\n";
    check_on(3, recovering(), &format!("{OPEN}\na > CUT\n! yield a\n{gone}{NOTHING_LEFT}"));
    // Born on shard 0, it has moved to 1, then to 2.
    let moved = "a < 40{\"sid\":\"$sid\",\"pid\":\"$pid\"}\n? recovered a\n";
    let script = format!(
        "{OPEN}\na > CUT\n{}{moved}a > CUT\n{}{moved}a > CUT\n! yield a\n{gone}{NOTHING_LEFT}",
        back(1),
        back(2)
    );
    check_on(3, recovering(), &script);
}

#[test]
fn whoever_waits_for_a_verdict_here_makes_way() {
    check(
        recovering(),
        &format!(
            r#"
            a: js
            a > WS
            a < 0*
            a > 40/later,
            ! accept a/later
            a < 40/later,{{"sid":"*","pid":"*"}}
            a > CUT
            a > NEW
            a > WS
            a < 0*
            a > 40/later,{{"pid":"$pid"}}
            ? connect a/later * recovering
            ! yield a
            a < END
            ? disconnected a/later transport close recoverable
            ? forgotten a/later
            ? released held
            ! accept a/later
            ? gone a/later
            {NOTHING_LEFT}
            "#
        ),
    );
}

#[test]
fn one_that_is_on_its_way_to_another_shard_is_given_up_by_who_has_it() {
    let connects_as_new =
        "? connect a *\na < 40{\"sid\":\"*\",\"pid\":\"*\"}\n? accepted a\n= lost 0\n= sockets 1\n";
    // The claim comes second, and finds nothing.
    let script = format!("{OPEN}\na > CUT\n! hold\n! yield a\n{}\n! release\n? released held\n", back(1));
    check_on(2, recovering(), &format!("{script}{connects_as_new}"));
    // It has been offered to the claimant, which takes its place in the rooms for nothing.
    let script = format!("{OPEN}\na > CUT\n! hold\n{}\n! step 0\n! yield a\n! release\n", back(1));
    check_on(2, recovering(), &format!("{script}? released held\n{connects_as_new}= rooms 0\n"));
}

#[test]
fn one_that_is_neither_here_nor_there_is_asked_for_again() {
    check_on(
        2,
        recovering(),
        &format!(
            r#"
            {OPEN}
            a > CUT
            ! hold
            {}
            # The claim, its offer, three rooms that the claimant opens, and that everybody knows of them.
            ! step 0
            ! step 1
            ! step 0
            ! step 0
            ! step 0
            ! step 0
            ! step 1
            ! step 1
            # And once more; now it is handed over, but not yet received.
            ! step 0
            ! step 1
            ! step 0
            ! yield a
            ! step 0
            ! step 1
            ! step 1
            ! step 1
            ! step 1
            ? released moving
            ! release
            ? recovered a
            a < 40{{"sid":"$sid","pid":"$pid"}}
            ! yield a
            a < END
            ? disconnected a taken over rooms=r
            ? released held
            {NOTHING_LEFT}
            "#,
            back(1)
        ),
    );
}

#[test]
fn one_that_the_application_is_asked_for_is_not_given_to_who_asked_before() {
    check_on(
        2,
        restoring(),
        &format!(
            r#"
            {OPEN}
            ! crash 2 5
            ? crashed
            {}
            ? restore a *
            ! yield a
            a < END
            ? released unknown
            ! restore a sid=$sid order=0 rooms=r
            ? fault nobody*
            = notes 0
            = rooms 0
            "#,
            back(1)
        ),
    );
}

#[test]
fn one_that_was_restored_here_can_be_taken_again() {
    check_on(
        3,
        restoring(),
        &format!(
            r#"
            {OPEN}
            ! crash 3 5
            {}
            ? restore a *
            ! restore a sid=$sid order=0 rooms=r
            a < 40{{"sid":"$sid","pid":"$pid"}}
            ? recovered a
            ! yield a
            a < END
            ? disconnected a taken over rooms=r
            ? released held
            {NOTHING_LEFT}
            "#,
            back(2)
        ),
    );
}

#[test]
fn whoever_has_been_given_all_back_elsewhere_is_not_given_it_again() {
    // An earlier connection of the same peer is served late, and gets what the later one has had already.
    check_on(
        2,
        restoring(),
        &format!(
            r#"
            {OPEN}
            ! crash 2 5
            {}
            ! restore a sid=$sid order=14 rooms=r 11:m 14:m
            a < 40{{"sid":"$sid","pid":"$pid"}}
            a < 42["m",11,"*"]
            a < 42["m",14,"*"]
            ! yield a
            a < END
            b: js shard=1
            b > WS
            b < 0*
            b > 40{{"pid":"$a.pid"}}
            ? restore b *
            ! cast / to=r m [15] order=15
            ! restore b sid=$a.sid order=15 rooms=r 11:m 14:m 15:m
            b < 40*
            b < 42["m",11,"*"]
            b < 42["m",14,"*"]
            b < 42["m",15,"*"]
            a > NEW
            a > WS
            a < 0*
            a > 40{{"pid":"$pid","offset":"$offset"}}
            b < END
            a < 40{{"sid":"$sid","pid":"$pid"}}
            a < 42["m",15,"*"]
            "#,
            back(0)
        ),
    );
}
