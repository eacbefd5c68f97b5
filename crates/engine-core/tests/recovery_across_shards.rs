//! Connection state recovery when the peer comes back to another shard than the one that lost it.

use engine_core::{Config, Recovery};
use testkit::transcript::check_on;

fn recovering() -> Config {
    Config { recovery: Some(Recovery::default()), ..Config::default() }
}

const OPEN: &str = r#"
        a: js shard=0
        a > WS
        a < 0*
        a > 40
        a < 40{"sid":"*","pid":"*"}
        ? accepted a
        ! join a r
        ! emit a seen [1]
        a < 42["seen",1,"*"]
"#;

fn back(shard: usize) -> String {
    format!("a > NEW\na: shard={shard}\na > WS\na < 0*\na > 40{{\"pid\":\"$pid\",\"offset\":\"$offset\"}}\n")
}

const CONNECTED: &str = "a < 40{\"sid\":\"$sid\",\"pid\":\"$pid\"}\n? recovered a\n";

fn check(script: &str) {
    check_on(3, recovering(), &format!("{OPEN}{script}"));
}

#[test]
fn a_lost_socket_moves_with_its_rooms_and_what_it_missed() {
    check(&format!(
        r#"
        a > CUT
        ! emit a m [2]
        ! cast 2:/ to=r m ["x:0102"]
        {}
        ? forgotten a
        ? connect a * recovering
        {CONNECTED}
        a < 42["m",2,"*"]
        a < 451-["m",{{"_placeholder":true,"num":0}},"*"]
        a < x0102
        = rooms-of a r
        = lost 0
        = sockets 1
        ! cast 2:/ to=r after [3]
        a < 42["after",3,"*"]
        ! cast 0:/ to=$sid own [4]
        a < 42["own",4,"*"]
        ! cast 2:/ to=$sid own [5]
        a < 42["own",5,"*"]
        ! emit a own [6]
        a < 42["own",6,"*"]
        a > 41
        = rooms 0
        = namespaces 0
        "#,
        back(1)
    ));
}

#[test]
fn a_connected_socket_whose_loss_was_not_noticed_moves_too() {
    check(&format!(
        r#"
        a > STALL 0
        ! emit a m [2]
        {}
        ? disconnected a transport close rooms=r recoverable
        {CONNECTED}
        a < 42["m",2,"*"]
        = sessions 1
        "#,
        back(1)
    ));
}

#[test]
fn it_moves_twice_and_comes_home() {
    check(&format!(
        r#"
        a > CUT
        ! emit a m [2]
        {}
        {CONNECTED}
        a < 42["m",2,"*"]
        ! emit a m [3]
        a < 42["m",3,"*"]
        a > CUT
        ! cast / to=r m [4]
        {}
        {CONNECTED}
        a < 42["m",4,"*"]
        a > CUT
        ! cast / to=r m [5]
        {}
        {CONNECTED}
        a < 42["m",5,"*"]
        a > CUT
        ! cast 2:/ to=r m [6]
        {}
        {CONNECTED}
        a < 42["m",6,"*"]
        a > CUT
        @ +121s
        ? forgotten a
        = lost 0
        = rooms 0
        = namespaces 0
        "#,
        back(1),
        back(2),
        back(0),
        back(1),
    ));
}

#[test]
fn it_moves_on_before_it_has_read_what_it_missed() {
    check(&format!(
        r#"
        a > CUT
        ! emit a m [2]
        ! emit a m [3]
        a > NEW
        a: shard=1
        a > WS
        a < 0*
        a > STALL 0
        a > 40{{"pid":"$pid","offset":"$offset"}}
        ? recovered a
        ! emit a m [4]
        a > CUT
        ! emit a m [5]
        {}
        {CONNECTED}
        a < 42["m",2,"*"]
        a < 42["m",3,"*"]
        a < 42["m",4,"*"]
        a < 42["m",5,"*"]
        "#,
        back(2)
    ));
}

#[test]
fn it_comes_back_to_the_new_shard_having_read_half() {
    check(&format!(
        r#"
        a > CUT
        ! emit a m [2]
        ! emit a m [3]
        a > NEW
        a: shard=1
        a > WS
        a < 0*
        # CONNECT, the first of the two, and a bit of the second.
        a > STALL 95
        a > 40{{"pid":"$pid","offset":"$offset"}}
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["m",2,"*"]
        ? recovered a
        a > CUT
        {}
        {CONNECTED}
        a < 42["m",3,"*"]
        "#,
        back(1)
    ));
}

#[test]
fn a_peer_that_goes_while_its_socket_is_fetched_finds_it_where_it_asked() {
    check(&format!(
        r#"
        a > CUT
        ! emit a m [2]
        ! hold
        {}
        a > CUT
        ! release
        = lost 1
        {}
        {CONNECTED}
        a < 42["m",2,"*"]
        "#,
        back(1),
        back(2)
    ));
}

#[test]
fn a_claim_for_nobody_gives_a_fresh_session() {
    check(&format!(
        r#"
        a > 41
        {}
        ? accepted a
        a < 40*
        = sockets 1
        "#,
        back(1)
    ));
}

#[test]
fn a_claim_that_names_a_shard_there_is_not_gives_a_fresh_session() {
    check(
        r#"
        b: js shard=1
        b > WS
        b < 0*
        b > 40{"pid":"AAD_AAAAAAAAAAAAAAAA"}
        ? accepted b
        b < 40*
        "#,
    );
}

#[test]
fn the_note_at_home_goes_with_the_socket() {
    check(&format!(
        r#"
        a > CUT
        {}
        {CONNECTED}
        a > 41
        {}
        ? accepted a
        a < 40*
        = sockets 1
        = rooms 0
        "#,
        back(1),
        back(0)
    ));
}

#[test]
fn too_much_missed_elsewhere_gives_a_fresh_session() {
    let emits: String = (0..20).map(|n| format!("! emit a m [{n},\"long:1000\"]\n")).collect();
    check_on(
        2,
        Config { outbox_bytes_max: 10_000, ..recovering() },
        &format!("{OPEN}\na > CUT\n{emits}{}\n? accepted a\na < 40*\n= sockets 1\n", back(1)),
    );
}

#[test]
fn the_application_may_refuse_it_and_take_it_later() {
    check(
        r#"
        a > 40/later,
        ! accept a/later
        a < 40/later,*
        ! join a/later r
        a > CUT
        ! cast 2:/later to=r m [1]
        a > NEW
        a: shard=1
        a > WS
        a < 0*
        a > 40/later,{"pid":"$pid"}
        ? connect a/later * recovering
        ! cast 2:/later to=r m [2]
        ! refuse a/later not now
        a < 44/later,{"message":"not now"}
        ! cast 2:/later to=r m [3]
        a > 40/later,{"pid":"$pid"}
        ! accept a/later
        a < 40/later,{"sid":"$sid","pid":"$pid"}
        a < 42/later,["m",1,"*"]
        a < 42/later,["m",2,"*"]
        a < 42/later,["m",3,"*"]
        "#,
    );
}

#[test]
fn what_is_sent_while_a_socket_moves_is_not_lost() {
    // `m 2` is mailed to shard 0 alone, for shard 2 does not know yet that the socket is expected on shard 1.
    check(&format!(
        r#"
        a > CUT
        ! hold
        {}
        ! step 0
        ! cast 2:/ to=r m [2]
        ! cast 2:/ m [3]
        ! cast 0:/ to=r m [4]
        ! release
        {CONNECTED}
        a < 42["m",4,"*"]
        a < 42["m",2,"*"]
        a < 42["m",3,"*"]
        ! cast 2:/ to=r m [5]
        a < 42["m",5,"*"]
        "#,
        back(1)
    ));
}

#[test]
fn what_reaches_both_shards_while_a_socket_moves_comes_once() {
    check(&format!(
        r#"
        b: shard=1
        b > WS
        b < 0*
        b > 40
        b < 40*
        ! join b r
        a > CUT
        ! hold
        ! cast 2:/ to=r m [2]
        {}
        ! step 0
        ! step 0
        ! cast 2:/ to=r m [3]
        ! cast 1:/ to=r m [4]
        ! release
        b < 42["m",4]
        b < 42["m",2]
        b < 42["m",3]
        {CONNECTED}
        a < 42["m",2,"*"]
        a < 42["m",3,"*"]
        a < 42["m",4,"*"]
        "#,
        back(1)
    ));
}

#[test]
fn an_offset_from_an_earlier_stay_does_not_hide_what_was_missed_elsewhere() {
    check(&format!(
        r#"
        a > CUT
        {}
        {CONNECTED}
        a > CUT
        ! cast 1:/ to=r m [2]
        a > NEW
        a: shard=0
        a > WS
        a < 0*
        a > STALL 0
        a > 40{{"pid":"$pid","offset":"$offset"}}
        ? recovered a
        a > CUT
        {}
        {CONNECTED}
        a < 42["m",2,"*"]
        "#,
        back(1),
        back(0)
    ));
}

#[test]
fn a_room_left_while_its_socket_moves_stops_the_move() {
    check(&format!(
        r#"
        a > CUT
        ! hold
        b: js shard=1
        b > WS
        b < 0*
        b > 40{{"pid":"$a.pid","offset":"$a.offset"}}
        ! step 0
        ! leave a r
        ! release
        ? accepted b
        b < 40{{"sid":"*","pid":"*"}}
        ! cast / m []
        b < 42["m","*"]
        = lost 1
        {}
        ? recovered a
        a < 40{{"sid":"$sid","pid":"$pid"}}
        a < 42["m","*"]
        "#,
        back(2)
    ));
}

#[test]
fn the_newest_number_of_the_application_comes_along() {
    check(&format!(
        r#"
        ! emit a m [2] order=300
        a < 42["m",2,"*-2-12c"]
        a > CUT
        {}
        {CONNECTED}
        ! emit a m [3]
        a < 42["m",3,"*-12c"]
        "#,
        back(1)
    ));
}

#[test]
fn a_late_claim_of_an_older_offset_brings_nothing_again() {
    // The claim of `b`, an earlier connection of the same peer, arrives when `a` is back home already. The volatile
    // event has the offset of one that was for `c` alone.
    check(&format!(
        r#"
        c: js shard=0
        c > WS
        c < 0*
        c > 40
        c < 40{{"sid":"*","pid":"*"}}
        a > CUT
        ! emit a m [2]
        ! hold
        b: js shard=1
        b > WS
        b < 0*
        b > 40{{"pid":"$a.pid","offset":"$a.offset"}}
        b > CUT
        {}
        {CONNECTED}
        a < 42["m",2,"*"]
        ! emit c m [3]
        c < 42["m",3,"*"]
        ! emit a m [4] volatile
        a < 42["m",4,"*"]
        a > CUT
        ! emit a m [5]
        ! release
        {}
        {CONNECTED}
        a < 42["m",5,"*"]
        "#,
        back(0),
        back(1)
    ));
}

#[test]
fn a_late_claim_does_not_bring_again_what_came_from_elsewhere_before_a_volatile_event() {
    // The offset of `m 3` is of this log and `m 2` of another: that `m 2` was given before it is known by the place
    // that stands behind it among what the socket carries.
    check_on(
        2,
        recovering(),
        &format!(
            r#"
            a: js shard=0
            a > WS
            a < 0*
            a > 40
            a < 40{{"sid":"*","pid":"*"}}
            a > CUT
            ! emit a m [2]
            a > NEW
            a: shard=1
            a > WS
            a < 0*
            a > 40{{"pid":"$pid"}}
            {CONNECTED}
            a < 42["m",2,"*"]
            ! emit a m [3] volatile
            a < 42["m",3,"*"]
            a > CUT
            ! emit a m [4]
            b: js shard=1
            b > WS
            b < 0*
            b > STALL 0
            b > 40{{"pid":"$a.pid"}}
            b > CUT
            {}
            {CONNECTED}
            a < 42["m",4,"*"]
            "#,
            back(1)
        ),
    );
}
