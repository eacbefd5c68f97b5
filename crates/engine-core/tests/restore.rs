//! Sockets that no shard knows any more, and the application gives back: after a crash of the process, or when the log of
//! events is too short.

use std::time::Duration;

use engine_core::{Config, Recovery};
use testkit::transcript::{check, check_on};

fn restoring() -> Config {
    Config {
        recovery: Some(Recovery::default()),
        restore_timeout: Some(Duration::from_secs(10)),
        ..Config::default()
    }
}

/// A socket in room `r` that has had the application's event 10; then the process crashes.
const CRASHED: &str = r#"
        a: js
        a > WS
        a < 0*
        a > 40
        a < 40{"sid":"*","pid":"*"}
        ? accepted a
        ! join a r
        ! cast / to=r m [10] order=10
        a < 42["m",10,"*-a"]
        ! crash 1
        ? crashed
"#;

const ASK: &str =
    "a > NEW\na > WS\na < 0*\na > 40{\"pid\":\"$pid\",\"offset\":\"$offset\",\"token\":\"t\"}\n";

const CONNECTED: &str = "a < 40{\"sid\":\"$sid\",\"pid\":\"$pid\"}\n? recovered a\n";

/// Plays it with a process that has the number of the one before it, and with one that has another: then the pid is
/// another node's.
fn check_crashed(script: &str) {
    check(restoring(), &format!("{CRASHED}{script}"));
    check(restoring(), &format!("{}{script}", CRASHED.replace("! crash 1", "! crash 1 5")));
}

/// A secret that shard 2 of node 7 has made.
const FOREIGN: &str = "AAcCAAAAAAAAAAAAAAAA";

#[test]
fn a_secret_of_another_node_is_not_asked_of_anybody_without_an_application() {
    let recovering = Config { restore_timeout: None, ..restoring() };
    check_on(
        3,
        recovering,
        &format!(
            r#"
        ! hold
        a: js shard=1
        a > WS
        a < 0*
        a > 40{{"pid":"{FOREIGN}","offset":"1-1"}}
        ? connect a *
        ? accepted a
        a < 40{{"sid":"*","pid":"*"}}
        = notes 0
        "#
        ),
    );
}

#[test]
fn of_two_who_show_a_secret_of_another_node_one_gets_the_socket() {
    let asking = |peer: &str, shard: u8| {
        format!("{peer}: js shard={shard}\n{peer} > WS\n{peer} < 0*\n{peer} > 40{{\"pid\":\"{FOREIGN}\"}}\n")
    };
    // On any shard, the home of the secret among them; on the same one, too.
    for (first, second) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 1), (2, 2)] {
        let (a, b) = (asking("a", first), asking("b", second));
        check_on(
            3,
            restoring(),
            &format!(
                r#"
            {a}
            ? restore a *
            {b}
            ? disconnected a transport close
            ? restore b *
            a < END
            ! restore a sid={FOREIGN} order=5 rooms=r
            ? fault nobody waits*
            ! restore b sid={FOREIGN} order=5 rooms=r
            b < 40{{"sid":"{FOREIGN}","pid":"{FOREIGN}"}}
            ? recovered b
            = rooms-of b r
            = sockets 1
            b > 41
            = notes 0
            = rooms 0
            "#
            ),
        );
    }
}

#[test]
fn connect_has_the_old_ids_and_what_was_missed_comes_with_it() {
    check_crashed(&format!(
        r#"
        {ASK}
        ? restore a 10 {{*"token":"t"}}
        ! restore a sid=$sid order=15 rooms=r,s,r,$sid 11:m 14:m
        ? connect a {{*"token":"t"}} recovering
        {CONNECTED}
        a < 42["m",11,"*-b"]
        a < 42["m",14,"*-e"]
        = rooms-of a r,s
        = counter sockets_restored 1
        = counter sockets_recovered 1
        ! cast / to=s m [16] order=16
        a < 42["m",16,"*-10"]
        ! cast / to=$sid m [17]
        a < 42["m",17,"*-10"]
        ! cast / except=$sid m [18]
        a > 41
        = rooms 0
        = namespaces 0
        = sockets 0
        "#
    ));
}

#[test]
fn it_breaks_off_in_the_middle_of_what_it_missed_and_is_resumed_there() {
    check_crashed(&format!(
        r#"
        {ASK}
        ? restore a 10 *
        ! restore a sid=$sid order=15 rooms=r 11:m 14:m
        {CONNECTED}
        a < 42["m",11,"*"]
        a < 42["m",14,"*"]
        # On a shard that still knows it: by the position of the log.
        ! cast / to=r m [16] order=16
        a < 42["m",16,"*"]
        a > CUT
        ! cast / to=r m [17] order=17
        {ASK}
        {CONNECTED}
        a < 42["m",17,"*-11"]
        # And by the application's number once more, when there is no such shard.
        ! crash 1
        {ASK}
        ? restore a 17 *
        ! restore a sid=$sid order=17 rooms=r
        {CONNECTED}
        "#
    ));
    check_crashed(&format!(
        r#"
        {ASK}
        ! restore a sid=$sid order=15 rooms=r 11:m 14:m
        {CONNECTED}
        a < 42["m",11,"*"]
        a < 42["m",14,"*"]
        # The peer has acted on the first only.
        b: js
        b > WS
        b < 0*
        a > CUT
        a > NEW
        a > WS
        a < 0*
        a > 40{{"pid":"$pid"}}
        {CONNECTED}
        a < 42["m",11,"*-b"]
        a < 42["m",14,"*-e"]
        "#
    ));
}

#[test]
fn who_was_elsewhere_meanwhile_gets_nothing_numbered_twice() {
    check_crashed(&format!(
        r#"
        {ASK}
        ! restore a sid=$sid order=15 rooms=r 11:m 14:m
        {CONNECTED}
        a < 42["m",11,"*"]
        a < 42["m",14,"*"]
        a > CUT
        ! cast / to=r m [16] order=16
        ! cast / to=r m [17]
        ! cast / to=r m [18] order=18
        # Another node has given it everything up to 16 meanwhile, and could not tell this one.
        a > NEW
        a > WS
        a < 0*
        a > 40{{"pid":"$pid","offset":"abc-9-10"}}
        {CONNECTED}
        a < 42["m",17,"*-10"]
        a < 42["m",18,"*-12"]
        # The same with what it was given again here.
        a > CUT
        a > NEW
        a > WS
        a < 0*
        a > 40{{"pid":"$pid","offset":"abc-9-12"}}
        {CONNECTED}
        a < 42["m",17,"*-10"]
        "#
    ));
}

#[test]
fn an_offset_keeps_its_number_although_nothing_was_missed() {
    check_crashed(&format!(
        r#"
        {ASK}
        ? restore a 10 *
        ! restore a sid=$sid order=30 rooms=r
        {CONNECTED}
        ! emit a x [1]
        a < 42["x",1,"*-1e"]
        "#
    ));
}

#[test]
fn without_an_offset_there_is_no_number() {
    check(
        restoring(),
        r#"
        a: js
        a > WS
        a < 0*
        a > 40
        a < 40{"sid":"*","pid":"*"}
        ! crash 1
        a > NEW
        a > WS
        a < 0*
        a > 40{"pid":"$pid"}
        ? restore a {*}
        ! restore a sid=$sid order=5 4:m
        a < 40{"sid":"$sid","pid":"$pid"}
        a < 42["m",4,"*-4"]
        "#,
    );
}

#[test]
fn what_the_application_does_not_have_connects_as_new() {
    check_crashed(&format!(
        r#"
        {ASK}
        ! restore a no
        a < 40{{"sid":"*","pid":"*"}}
        ? accepted a
        = counter recoveries_refused 1
        = sockets 1
        = notes 0
        ! restore a no
        ? fault nobody waits for the socket any more
        "#
    ));
    // Without such an application nobody is asked.
    check(
        Config { restore_timeout: None, ..restoring() },
        &format!("{CRASHED}{ASK}a < 40{{\"sid\":\"*\",\"pid\":\"*\"}}\n? accepted a\n"),
    );
}

#[test]
fn an_application_that_takes_too_long_is_not_waited_for() {
    check_crashed(&format!(
        r#"
        {ASK}
        @ +9s
        ! cast / m [11] order=11
        @ +2s
        a < 40{{"sid":"*","pid":"*"}}
        ? accepted a
        ! restore a sid=$sid rooms=r
        ? fault nobody waits for the socket any more
        = notes 0
        "#
    ));
}

#[test]
fn a_peer_that_goes_while_the_application_is_asked_may_come_again() {
    check_crashed(&format!(
        r#"
        {ASK}
        a > CUT
        ? disconnected a transport close
        ! restore a sid=$sid rooms=r
        ? fault nobody waits for the socket any more
        = sockets 0
        = rooms 0
        = notes 0
        {ASK}
        ? restore a 10 *
        ! restore a sid=$sid order=11 rooms=r 11:m
        {CONNECTED}
        a < 42["m",11,"*"]
        "#
    ));
}

#[test]
fn the_newest_who_shows_a_pid_gets_the_socket() {
    // Its earlier connection is still there, and has not been answered.
    check_crashed(&format!(
        r#"
        {ASK}
        ? restore a 10 *
        {ASK}
        ? disconnected a transport close
        ? restore a 10 *
        ! restore a sid=$sid order=11 rooms=r 11:m
        {CONNECTED}
        a < 42["m",11,"*"]
        = sockets 1
        = sessions 1
        # And when it has been answered it is taken over, as ever.
        ! cast / to=r m [12] order=12
        a < 42["m",12,"*"]
        {ASK}
        {CONNECTED}
        = sockets 1
        = sessions 1
        "#
    ));
}

#[test]
fn what_cannot_be_given_back_connects_as_new() {
    let too_many = |script: &str| {
        let config = Config { rooms_per_socket_max: 2, outbox_bytes_max: 2_000, ..restoring() };
        check(
            config,
            &format!(
                "{CRASHED}{ASK}{script}a < 40{{\"sid\":\"*\",\"pid\":\"*\"}}\n? accepted a\n= notes 0\n"
            ),
        );
    };
    too_many(
        "! restore a sid=$sid rooms=r,s,t\n? fault the socket would be in more than rooms_per_socket_max of 2 rooms\n",
    );
    let many: String = (11..40).map(|number| format!(" {number}:m")).collect();
    too_many(&format!(
        "! restore a sid=$sid rooms=r{many}\n? fault what the socket missed exceeds outbox_bytes_max of 2000\n"
    ));
    check_crashed(&format!(
        r#"
        b: js
        b > WS
        b < 0*
        b > 40
        b < 40{{"sid":"*","pid":"*"}}
        {ASK}
        ! restore a sid=$b.sid rooms=r
        ? fault a socket with this id is connected already
        a < 40{{"sid":"*","pid":"*"}}
        = rooms 0
        "#
    ));
}

#[test]
fn a_middleware_may_refuse_it_and_it_waits_as_lost() {
    check(
        restoring(),
        r#"
        a: js
        a > WS
        a < 0*
        a > 40/later,
        ! accept a/later
        a < 40/later,{"sid":"*","pid":"*"}
        ! crash 1
        a > NEW
        a > WS
        a < 0*
        a > 40/later,{"pid":"$pid"}
        ? restore a/later *
        ! restore a/later sid=$sid order=5 rooms=r 4:m
        ? connect a/later * recovering
        ! cast /later to=r m [6] order=6
        ! refuse a/later no
        a < 44/later,{"message":"no"}
        = lost 1
        ! cast /later to=r m [7] order=7
        a > 40/later,{"pid":"$pid"}
        ? connect a/later * recovering
        ! accept a/later
        a < 40/later,{"sid":"$sid","pid":"$pid"}
        a < 42/later,["m",4,"*-4"]
        a < 42/later,["m",6,"*-6"]
        a < 42/later,["m",7,"*-7"]
        "#,
    );
}

#[test]
fn a_socket_of_which_too_little_is_kept_is_restored() {
    let config =
        Config { recovery: Some(Recovery { log_bytes_max: 1_000, ..Recovery::default() }), ..restoring() };
    check(
        config,
        &format!(
            r#"
        a: js
        a > WS
        a < 0*
        a > 40
        a < 40{{"sid":"*","pid":"*"}}
        ! join a r
        ! cast / to=r m [1] order=1
        a < 42["m",1,"*"]
        a > CUT
        ! cast / to=r m ["long:900"] order=2
        ! cast / to=r m ["long:900"] order=3
        {ASK}
        ? forgotten a
        ? restore a 1 *
        = lost 0
        ! restore a sid=$sid order=3 rooms=r 2:m 3:m
        {CONNECTED}
        a < 42["m",2,"*"]
        a < 42["m",3,"*"]
        "#
        ),
    );
}

#[test]
fn any_shard_restores_and_all_shards_find_the_socket_then() {
    let back = |shard: usize| format!("a > NEW\na: shard={shard}\n{}", &ASK[8..]);
    for home in 0..3 {
        for first in 0..3 {
            let second = (first + 1) % 3;
            check_on(
                3,
                restoring(),
                &format!(
                    r#"
        a: js shard={home}
        a > WS
        a < 0*
        a > 40
        a < 40{{"sid":"*","pid":"*"}}
        ! join a r
        ! cast / to=r m [10] order=10
        a < 42["m",10,"*-a"]
        ! crash 3
        {}
        ? restore a 10 *
        ! restore a sid=$sid order=11 rooms=r 11:m
        {CONNECTED}
        a < 42["m",11,"*-b"]
        ! cast {second}:/ to=$sid m [12] order=12
        a < 42["m",12,"*-c"]
        a > CUT
        ! cast {second}:/ to=r m [13] order=13
        {}
        {CONNECTED}
        a < 42["m",13,"*-d"]
        ! cast {home}:/ to=$sid,r m [14] order=14
        a < 42["m",14,"*-e"]
        {}
        {CONNECTED}
        ! cast {home}:/ to=$sid,r m [15] order=15
        a < 42["m",15,"*-f"]
        = sockets 1
        = sessions 1
        a > 41
        = sockets 0
        = rooms 0
        = namespaces 0
        = notes 0
        "#,
                    back(first),
                    back(second),
                    back(home),
                ),
            );
        }
    }
}

#[test]
fn two_shards_are_asked_at_once_and_one_restores() {
    let back = |shard: usize| format!("a > NEW\na: shard={shard}\n{}", &ASK[8..]);
    for home in 0..3 {
        for first in 0..3 {
            // The home shard hears of its own peers at once, and of others when their mail comes.
            for second in (0..3).filter(|&second| second != first && second != home) {
                check_on(
                    3,
                    restoring(),
                    &format!(
                        r#"
        a: js shard={home}
        a > WS
        a < 0*
        a > 40
        a < 40{{"sid":"*","pid":"*"}}
        ! cast / m [10] order=10
        a < 42["m",10,"*-a"]
        ! crash 3
        ! hold
        {}
        {}
        ! release
        ! restore a sid=$sid order=11 rooms=r 11:m
        {CONNECTED}
        a < 42["m",11,"*-b"]
        = sockets 1
        = rooms 1
        a > 41
        = sockets 0
        = rooms 0
        = notes 0
        "#,
                        back(first),
                        back(second),
                    ),
                );
            }
        }
    }
}

#[test]
fn a_process_with_fewer_shards_restores_those_of_one_with_more() {
    check_on(
        3,
        restoring(),
        &format!(
            r#"
        a: js shard=2
        a > WS
        a < 0*
        a > 40
        a < 40{{"sid":"*","pid":"*"}}
        ! cast / m [10] order=10
        a < 42["m",10,"*-a"]
        ! crash 2
        a: shard=1
        {ASK}
        ! restore a sid=$sid order=11 rooms=r 11:m
        {CONNECTED}
        a < 42["m",11,"*-b"]
        ! cast 0:/ to=$sid m [12] order=12
        a < 42["m",12,"*-c"]
        a: shard=0
        {ASK}
        {CONNECTED}
        ! cast 1:/ to=$sid m [13] order=13
        a < 42["m",13,"*-d"]
        = sockets 1
        a > 41
        = notes 0
        = rooms 0
        "#
        ),
    );
}
