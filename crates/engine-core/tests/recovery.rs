//! Connection state recovery on one shard: what comes back, in which order, and when it does not.

// Scripts with and without arguments look alike here: one form for all of them.
#![allow(clippy::useless_format)]

use std::time::Duration;

use engine_core::{Config, Recovery};
use sio_proto::Parser;
use testkit::transcript::check;

fn recovering() -> Config {
    Config { recovery: Some(Recovery::default()), ..Config::default() }
}

const OPEN: &str = r#"
        a: js
        a > WS
        a < 0*
        a > 40
        a < 40{"sid":"*","pid":"*"}
        ? accepted a
"#;

const BACK: &str = "a > NEW\na > WS\na < 0*\na > 40{\"pid\":\"$pid\",\"offset\":\"$offset\"}\n";

fn check_open(script: &str) {
    check(recovering(), &format!("{OPEN}{script}"));
}

#[test]
fn only_those_who_understand_it_get_a_pid_and_offsets() {
    check(
        recovering(),
        r#"
        p > WS
        p < 0*
        p > 40{}
        p < 40{"sid":"$p.sid"}
        ! emit p x [1]
        p < 42["x",1]
        q > WS
        q < 0*
        q > 40{"recovery":true}
        q < 40{"sid":"*","pid":"*"}
        ! emit q x [1]
        q < 42["x",1,"*"]
        n: js
        n > WS
        n < 0*
        n > 40{"recovery":false}
        n < 40{"sid":"$n.sid"}
        ! cast / y []
        n < 42["y"]
        p < 42["y"]
        q < 42["y","*"]
        "#,
    );
    check(Config::default(), "a: js\na > WS\na < 0*\na > 40\na < 40{\"sid\":\"$a.sid\"}\n");
}

#[test]
fn connect_has_the_old_ids_and_what_was_missed_comes_with_it() {
    check_open(&format!(
        r#"
        ! join a r
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        a > CUT
        ? disconnected a transport close rooms=r recoverable
        = lost 1
        ! emit a direct [2]
        ! cast / to=r,other room [3]
        ! cast / everyone ["x:0102"]
        ! cast / to=other no []
        ! cast / except=r no []
        ! cast / except=$a.sid no []
        ! cast / to=$a.sid own [4]
        {BACK}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["direct",2,"*"]
        a < 42["room",3,"*"]
        a < 451-["everyone",{{"_placeholder":true,"num":0}},"*"]
        a < x0102
        a < 42["own",4,"*"]
        ? connect a * recovering
        ? recovered a
        = lost 0
        = rooms-of a r
        ! cast / to=r after []
        a < 42["after","*"]
        = counter sockets_recovered 1
        "#
    ));
}

#[test]
fn missed_events_come_by_polling_too() {
    check_open(
        r#"
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        a > CUT
        ! emit a x [2]
        a > NEW
        a > GET
        a < GET 200 0*
        a > POST 40{"pid":"$pid","offset":"$offset"}
        a < POST 200 ok
        a > GET
        a < GET 200 42["x",2,"*"]␞40{"sid":"$sid","pid":"$pid"}
        "#,
    );
}

/// A socket that has missed so many events, and comes back by polling.
fn missed_by_polling(count: usize, script: &str) {
    let missed: String = (1..=count).map(|number| format!("! emit a m [{number}]\n")).collect();
    check(
        Config { poll_packets_max: 4, poll_bytes_max: 1_000, ..recovering() },
        &format!("{OPEN}a > CUT\n{missed}a > NEW\na > GET\na < GET 200 0*\n{script}"),
    );
}

#[test]
fn what_was_missed_comes_before_connect_only_if_one_reply_takes_all() {
    // Stock clients keep what comes before CONNECT, and forget that they have it when the connection is lost in between.
    missed_by_polling(
        3,
        r#"
        a > POST 40{"pid":"$pid"}
        a < POST 200 ok
        a > GET
        a < GET 200 42["m",1,"*"]␞42["m",2,"*"]␞42["m",3,"*"]␞40{"sid":"$sid","pid":"$pid"}
        "#,
    );
    missed_by_polling(
        4,
        r#"
        a > POST 40{"pid":"$pid"}
        a < POST 200 ok
        a > GET
        a < GET 200 40{"sid":"$sid","pid":"$pid"}␞42["m",1,"*"]␞42["m",2,"*"]␞42["m",3,"*"]
        a > NEW
        a > GET
        a < GET 200 0*
        a > POST 40{"pid":"$pid","offset":"$offset"}
        a < POST 200 ok
        a > GET
        a < GET 200 42["m",4,"*"]␞40{"sid":"$sid","pid":"$pid"}
        "#,
    );
    // What is queued already takes room, too.
    missed_by_polling(
        3,
        r#"
        a > POST 40/other,␞40{"pid":"$pid"}
        a < POST 200 ok
        a > GET
        a < GET 200 40/other,*␞40{"sid":"$sid","pid":"$pid"}␞42["m",1,"*"]␞42["m",2,"*"]
        a > GET
        a < GET 200 42["m",3,"*"]
        "#,
    );
    missed_by_polling(
        0,
        r#"
        ! emit a m ["long:900"]
        a > POST 40{"pid":"$pid"}
        a < POST 200 ok
        a > GET
        a < GET 200 42["m","*"]␞40{"sid":"$sid","pid":"$pid"}
        ! emit a m ["long:900"]
        ! emit a m [2]
        a > NEW
        a > GET
        a < GET 200 0*
        a > POST 40{"pid":"$pid","offset":"$offset"}
        a < POST 200 ok
        a > GET
        a < GET 200 40{"sid":"$sid","pid":"$pid"}␞42["m","*"]
        a > GET
        a < GET 200 42["m",2,"*"]
        "#,
    );
}

#[test]
fn while_a_websocket_takes_over_what_was_missed_comes_before_connect_only_to_a_get_that_waits() {
    let open = r#"
        a: js
        a > WS
        a < 0*
        a > 40/later,
        ! accept a/later
        a < 40/later,{"sid":"*","pid":"*"}
        a > CUT
        ! emit a/later m [1]
        a > NEW
        a > GET
        a < GET 200 0*
        a > POST 40/later,{"pid":"$pid"}
        a < POST 200 ok
        a > GET
        a > WS
        a > 2probe
        a < 3probe
    "#;
    check(
        recovering(),
        &format!(
            r#"
        {open}
        ! accept a/later
        a < GET 200 42/later,["m",1,"*"]␞40/later,{{"sid":"$sid","pid":"$pid"}}
        a > 5
        "#
        ),
    );
    check(
        recovering(),
        &format!(
            r#"
        {open}
        @ +200ms
        a < GET 200 6
        ! accept a/later
        a > 5
        a < 40/later,{{"sid":"$sid","pid":"$pid"}}
        a < 42/later,["m",1,"*"]
        "#
        ),
    );
}

#[test]
fn msgpack_events_are_replayed_as_they_were() {
    check(
        Config { parser: Parser::Msgpack, ..recovering() },
        r#"
        a: js
        a > WS
        a < 0*
        a > x82a47479706500a36e7370a12f
        a < x83a47479706500a36e7370a12fa46461746182a3736964b4*a3706964b4*
        ! emit a x ["x:0102"]
        a < x83a47479706502a36e7370a12fa46461746193a178c4020102*
        "#,
    );
}

#[test]
fn no_event_yet_still_recovers() {
    check_open(
        r#"
        a > CUT
        ! emit a x [1]
        a > NEW
        a > WS
        a < 0*
        a > 40{"pid":"$pid"}
        a < 40{"sid":"$sid","pid":"$pid"}
        a < 42["x",1,"*"]
        "#,
    );
}

#[test]
fn written_but_never_read_is_replayed() {
    check_open(&format!(
        r#"
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        a > STALL 0
        ! emit a lost [2]
        a > CUT
        {BACK}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["lost",2,"*"]
        "#
    ));
}

#[test]
fn a_quiet_connection_recovers_long_after_its_last_event() {
    // `b` makes the log move on, and age.
    check(
        Config { ping_interval: Duration::from_secs(3600), ..recovering() },
        &format!(
            r#"{OPEN}
            b: js
            b > WS
            b < 0*
            b > 40
            b < 40*
            ! emit a old [1]
            a < 42["old",1,"*"]
            @ +3000s
            ! emit b x []
            b < 42*
            @ +610s
            a < 2
            b < 2
            a > 3
            b > 3
            @ +3500s
            ! emit b x []
            b < 42*
            a > CUT
            ! emit a new [2]
            {BACK}
            a < 40{{"sid":"$sid","pid":"$pid"}}
            a < 42["new",2,"*"]
            "#
        ),
    );
}

#[test]
fn coming_back_before_the_loss_was_noticed_takes_over() {
    check_open(&format!(
        r#"
        ! join a r
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        a > NEW
        ! emit a lost [2]
        a > WS
        a < 0*
        a > 40{{"pid":"$pid","offset":"$offset"}}
        ? disconnected a transport close rooms=r recoverable
        ? recovered a
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["lost",2,"*"]
        = sessions 1
        = sockets 1
        @ +44s
        a < 2
        a > 3
        @ +10s
        # The old session's end did not touch the new one.
        = rooms-of a r
        = sockets 1
        "#
    ));
}

#[test]
fn twice_in_a_row_loses_nothing() {
    check_open(&format!(
        r#"
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        a > CUT
        ! emit a m [2]
        # The replay never arrives.
        a > NEW
        a > WS
        a < 0*
        a > STALL 0
        a > 40{{"pid":"$pid","offset":"$offset"}}
        ? recovered a
        ! emit a m [3]
        a > CUT
        {BACK}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["m",2,"*"]
        a < 42["m",3,"*"]
        a > CUT
        {BACK}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        "#
    ));
}

#[test]
fn volatile_events_are_not_replayed_and_do_not_spoil_the_offset() {
    check_open(&format!(
        r#"
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        ! emit a pos ["text"] volatile
        a < 42["pos","text","*"]
        a > CUT
        ! cast / pos ["text"] volatile
        ! emit a m [2]
        {BACK}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["m",2,"*"]
        "#
    ));
}

#[test]
fn transient_events_reach_everybody_who_is_there_and_nobody_later() {
    check_open(&format!(
        r#"
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        ! emit a now [2] transient
        a < 42["now",2,"*"]
        ! cast / now [3] transient
        a < 42["now",3,"*"]
        a > CUT
        ! cast / now [4] transient
        ! emit a m [5]
        {BACK}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["m",5,"*"]
        "#
    ));
}

#[test]
fn emits_with_ack_carry_no_offset_and_are_not_replayed() {
    check_open(&format!(
        r#"
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        ! emit a q ["x"] ack=7
        a < 420["q","x"]
        a > CUT
        ? acklost 7
        ! emit a q [] ack=8
        ? fault the socket is not connected
        ! cast / q [] ack=9
        ? sent 0
        {BACK}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        "#
    ));
}

#[test]
fn a_log_that_lost_what_was_missed_gives_a_fresh_session() {
    let emits: String = (0..20).map(|n| format!("! emit a m [{n},\"long:1000\"]\n")).collect();
    check(
        Config {
            recovery: Some(Recovery { log_bytes_max: 10_000, ..Recovery::default() }),
            ..Config::default()
        },
        &format!(
            r#"{OPEN}
            ! emit a seen [1]
            a < 42["seen",1,"*"]
            a > CUT
            {emits}
            b: js
            b > WS
            b < 0*
            b > 40{{"pid":"$a.pid","offset":"$a.offset"}}
            b < 40{{"sid":"*","pid":"*"}}
            ? accepted b
            = counter recoveries_refused 1
            = lost 1
            @ +44s
            b < 2
            b > 3
            @ +44s
            b < 2
            b > 3
            @ +34s
            b < 2
            ? forgotten a
            = lost 0
            "#
        ),
    );
}

#[test]
fn a_lost_socket_is_forgotten_when_its_time_is_up() {
    check_open(
        r#"
        ! join a r
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        a > CUT
        @ +119s
        = lost 1
        = rooms 1
        = namespaces 1
        @ +1s
        ? forgotten a
        = lost 0
        = rooms 0
        = namespaces 0
        a > NEW
        a > WS
        a < 0*
        a > 40{"pid":"$pid","offset":"$offset"}
        ? accepted a
        ? not recovered *
        a < 40{"sid":"*","pid":"*"}
        "#,
    );
}

#[test]
fn going_away_while_the_application_decides_leaves_it_lost() {
    check_open(
        r#"
        a > 40/later,
        ! accept a/later
        a < 40/later,{"sid":"*","pid":"*"}
        a > CUT
        a > NEW
        a > WS
        a < 0*
        a > 40/later,{"pid":"$pid"}
        a > CUT
        ! emit a/later m [1]
        a > NEW
        a > WS
        a < 0*
        a > 40/later,{"pid":"$pid"}
        ! accept a/later
        a < 40/later,{"sid":"$sid","pid":"$pid"}
        a < 42/later,["m",1,"*"]
        "#,
    );
}

#[test]
fn too_much_missed_gives_a_fresh_session() {
    let emits: String = (0..20).map(|n| format!("! emit a m [{n},\"long:1000\"]\n")).collect();
    check(
        Config { outbox_bytes_max: 10_000, ..recovering() },
        &format!(
            r#"{OPEN}
            ! join a r
            ! emit a seen [1]
            a < 42["seen",1,"*"]
            a > CUT
            {emits}
            b: js
            b > WS
            b < 0*
            b > 40{{"pid":"$a.pid","offset":"$a.offset"}}
            ? accepted b
            b < 40{{"sid":"*","pid":"*"}}
            = rooms 0
            = lost 0
            ! emit b x []
            b < 42["x","*"]
            "#
        ),
    );
}

#[test]
fn ends_that_were_meant_are_not_recoverable() {
    for (end, reason) in [
        ("a > 41", "client namespace disconnect"),
        ("! disconnect a\na < 41", "server namespace disconnect"),
        ("! disconnect a close\na < 41\n@ +10ms\na < CLOSE\na < END", "server namespace disconnect"),
        ("a > abc\na < CLOSE\na < END", "parse error"),
    ] {
        check_open(&format!(
            r#"
            ! emit a seen [1]
            a < 42["seen",1,"*"]
            {end}
            ? disconnected a {reason}
            = lost 0
            b: js
            b > WS
            b < 0*
            b > 40{{"pid":"$a.pid","offset":"$a.offset"}}
            ? accepted b
            b < 40*
            "#
        ));
    }
}

#[test]
fn an_unknown_pid_or_a_strange_offset_gives_a_fresh_session() {
    for auth in [
        r#"{"pid":"AAAAAAAAAAAAAAAAAAAA","offset":"$a.offset"}"#,
        r#"{"pid":"x","offset":"$a.offset"}"#,
        r#"{"pid":7}"#,
        r#"{"pid":"$a.pid","offset":"nonsense"}"#,
        r#"{"pid":"$a.sid","offset":"$a.offset"}"#,
    ] {
        check_open(&format!(
            r#"
            ! emit a seen [1]
            a < 42["seen",1,"*"]
            a > CUT
            b: js
            b > WS
            b < 0*
            b > 40{auth}
            ? accepted b
            b < 40{{"sid":"*","pid":"*"}}
            "#
        ));
    }
}

#[test]
fn a_pid_is_good_for_its_namespace_only() {
    check_open(
        r#"
        a > CUT
        b: js
        b > WS
        b < 0*
        b > 40/other,{"pid":"$a.pid"}
        ? accepted b/other
        b < 40/other,*
        = lost 1
        "#,
    );
}

#[test]
fn rooms_joined_later_bring_no_earlier_events() {
    check_open(&format!(
        r#"
        b > WS
        b < 0*
        b > 40{{"recovery":true}}
        b < 40*
        ! join b r
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        ! cast / to=r early [1]
        b < 42["early",1,"*"]
        ! join a r
        ! cast / to=r late [2]
        a < 42["late",2,"*"]
        b < 42["late",2,"*"]
        a > CUT
        # As if it had not read `late`.
        c: js
        c > WS
        c < 0*
        c > 40{{"pid":"$a.pid"}}
        ? recovered *
        c < 40{{"sid":"$a.sid","pid":"$a.pid"}}
        c < 42["seen",1,"*"]
        c < 42["late",2,"*"]
        "#
    ));
}

#[test]
fn whoever_is_accepted_afresh_has_nothing_of_what_was() {
    check_open(
        r#"
        a > 40/later,
        ! accept a/later
        a < 40/later,{"sid":"*","pid":"*"}
        ! join a/later r
        a > CUT
        ! cast /later to=r m [1]
        a > NEW
        a > WS
        a < 0*
        a > 40/later,{"pid":"$pid"}
        ? connect a/later * recovering
        ! afresh a/later
        ? accepted a/later
        ? forgotten a/later'
        a < 40/later,{"sid":"*","pid":"*"}
        # A handler that still has the old one speaks to nobody, and brings nobody into a room.
        ! emit a/later' m [1]
        ? fault *
        ! join a/later' r
        ? fault *
        = rooms-of a/later
        ! cast /later to=r m [2]
        ! emit a/later m [3]
        a < 42/later,["m",3,"*"]
        "#,
    );
}

#[test]
fn refusing_a_recovering_socket_leaves_it_lost() {
    check_open(
        r#"
        a > 40/later,
        ! accept a/later
        a < 40/later,{"sid":"*","pid":"*"}
        ! join a/later r
        a > CUT
        ! cast /later to=r m [1]
        a > NEW
        a > WS
        a < 0*
        a > 40/later,{"pid":"$pid"}
        ? connect a/later * recovering
        ! cast /later to=r m [2]
        ! refuse a/later not now
        a < 44/later,{"message":"not now"}
        ! cast /later to=r m [3]
        = lost 2
        a > 40/later,{"pid":"$pid"}
        ! cast /later to=r m [4]
        ! cast /later to=$sid m [5]
        ! emit a/later m [6]
        ! accept a/later
        a < 40/later,{"sid":"$sid","pid":"$pid"}
        a < 42/later,["m",1,"*"]
        a < 42/later,["m",2,"*"]
        a < 42/later,["m",3,"*"]
        a < 42/later,["m",4,"*"]
        a < 42/later,["m",5,"*"]
        a < 42/later,["m",6,"*"]
        "#,
    );
}

#[test]
fn unread_replays_are_kept_until_they_are_read() {
    // Each round the loss is noticed late and the peer comes back late: the event grows older than any one round.
    let round = r#"
        a > NEW
        a > WS
        a < 0*
        a > STALL 0
        a > 40{"pid":"$pid","offset":"$offset"}
        ? recovered a
        @ +44s
        a > CUT
        @ +110s
    "#;
    check_open(&format!(
        r#"
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        a > CUT
        ! emit a m [2]
        @ +110s
        {round}
        {round}
        {BACK}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["m",2,"*"]
        "#
    ));
}

#[test]
fn leaving_a_room_does_not_change_what_was_missed_before() {
    check_open(&format!(
        r#"
        ! join a r
        ! join a x
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        a > STALL 0
        ! cast / to=r in [2]
        ! cast / except=x not [3]
        ! leave a r
        ! leave a x
        ! cast / to=r out [4]
        ! cast / except=x both [5]
        a > CUT
        {BACK}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["in",2,"*"]
        a < 42["both",5,"*"]
        "#
    ));
}

#[test]
fn what_came_while_the_application_made_up_its_mind_is_not_for_a_new_socket() {
    check_open(
        r#"
        b: js
        b > WS
        b < 0*
        b > 40
        b < 40*
        c > WS
        c < 0*
        c > 40/later,
        a > 40/later,
        ! accept c/later
        c < 40/later,*
        b > 40/later,{"recovery":true}
        ! accept b/later
        b < 40/later,*
        ! cast /later early []
        b < 42/later,["early","*"]
        c < 42/later,["early"]
        ! accept a/later
        a < 40/later,*
        a > NEW
        a > WS
        a < 0*
        a > 40/later,{"pid":"$pid"}
        ! accept a/later
        a < 40/later,{"sid":"$sid","pid":"$pid"}
        "#,
    );
}

#[test]
fn a_loss_that_is_noticed_late_gives_a_fresh_session() {
    check_open(
        r#"
        b: js
        b > WS
        b < 0*
        b > 40
        b < 40*
        ! emit a seen [1]
        a < 42["seen",1,"*"]
        a > STALL 0
        ! emit a m [2]
        # The machine sleeps, and `b` is heard first.
        @@ +200s
        b > 3
        ! emit b x []
        b < 42*
        @ +1s
        c: js
        c > WS
        c < 0*
        c > 40{"pid":"$a.pid","offset":"$a.offset"}
        ? accepted c
        c < 40*
        "#,
    );
}

#[test]
fn a_log_that_runs_over_while_the_application_decides_gives_a_fresh_session() {
    let emits: String = (0..20).map(|n| format!("! emit b m [{n},\"long:1000\"]\nb < 42*\n")).collect();
    check(
        Config {
            recovery: Some(Recovery { log_bytes_max: 10_000, ..Recovery::default() }),
            ..Config::default()
        },
        &format!(
            r#"
            b: js
            b > WS
            b < 0*
            b > 40
            b < 40*
            a: js
            a > WS
            a < 0*
            a > 40/later,
            ! accept a/later
            a < 40/later,*
            a > CUT
            ! emit a/later m []
            c: js
            c > WS
            c < 0*
            c > 40/later,{{"pid":"$a.pid"}}
            {emits}
            ! accept c/later
            ? accepted c/later
            c < 40/later,*
            "#
        ),
    );
}

#[test]
fn a_pong_while_the_application_decides_says_nothing_about_what_was_missed() {
    check_open(
        r#"
        a > 40/later,
        ! accept a/later
        a < 40/later,*
        a > CUT
        ! emit a/later m [1]
        a > NEW
        a > WS
        a < 0*
        a > STALL 0
        a > 40/later,{"pid":"$pid"}
        ! accept a/later
        a > CUT
        a > NEW
        a > WS
        a < 0*
        @ +24s
        a > 40/later,{"pid":"$pid"}
        @ +1100ms
        a < 2
        a > 3
        ! accept a/later
        a < 40/later,{"sid":"$sid","pid":"$pid"}
        a < 42/later,["m",1,"*"]
        "#,
    );
}

#[test]
fn offsets_tell_the_newest_number_of_the_application_and_replays_their_own() {
    check_open(&format!(
        r#"
        ! emit a x [1]
        a < 42["x",1,"*-1"]
        ! cast / x [2] order=10
        a < 42["x",2,"*-2-a"]
        ! cast / to=nobody x [3] order=17
        ! emit a x [4]
        a < 42["x",4,"*-3-11"]
        ! emit a x [5] volatile
        a < 42["x",5,"*-3-11"]
        ! emit a x [6] replay=12
        a < 42["x",6,"*-4-c"]
        ! emit a x [7] replay=16
        a < 42["x",7,"*-5-10"]
        ! cast / x [8] order=3
        a < 42["x",8,"*-6-11"]
        ! cast /none x [9] order=32
        ! emit a x [10]
        a < 42["x",10,"*-7-20"]
        a > CUT
        ! emit a x [11] replay=9
        ! cast / x [12]
        {BACK}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["x",11,"*-8-9"]
        a < 42["x",12,"*-9-20"]
        "#
    ));
}
