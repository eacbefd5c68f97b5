//! Events out and in: acks, rooms, volatile, binary, the msgpack parser, and what a slow reader does.

use engine_core::Config;
use sio_proto::Parser;
use testkit::transcript::check;

const TWO: &str = r#"
        a > WS
        a < 0*
        a > 40
        a < 40*
        b > WS
        b < 0*
        b > 40
        b < 40*
"#;

fn check_two(script: &str) {
    check(Config::default(), &format!("{TWO}{script}"));
}

#[test]
fn the_application_answers_an_event() {
    check_two(
        r#"
        a > 42456["ask",1,"2",{"3":[false]}]
        ? event a ask [1,"2",{"3":[false]}] ack=456
        ! answer a 456 [1,"2",{"3":[false]}]
        a < 43456[1,"2",{"3":[false]}]
        a > 461-789["ask",{"_placeholder":true,"num":0}]
        ? not event *
        "#,
    );
}

#[test]
fn an_ack_may_bring_and_take_bytes() {
    check_two(
        r#"
        a > 452-789["ask",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]
        a > x010203
        a > x040506
        ? event a ask [{"$base64":"AQID"},{"$base64":"BAUG"}] ack=789
        ! answer a 789 ["x:010203"]
        a < 461-789[{"_placeholder":true,"num":0}]
        a < x010203
        ! emit a q [] ack=7
        a < 420["q"]
        a > 461-0[{"_placeholder":true,"num":0}]
        a > xcafe
        ? ack 7 a [{"_placeholder":true,"num":0}] xcafe last
        "#,
    );
}

#[test]
fn an_ack_counts_once_and_only_from_who_was_asked() {
    check_two(
        r#"
        ! emit a q [] ack=7
        a < 420["q"]
        b > 430["not me"]
        ? not ack *
        a > 430["yes",2]
        ? ack 7 a ["yes",2] last
        a > 430["again"]
        ? not ack *
        = acks 0
        "#,
    );
}

#[test]
fn the_wait_for_an_ack_ends() {
    check_two(
        r#"
        ! emit a q [] ack=7 timeout=5s
        a < 420["q"]
        @ +4999ms
        ? not timeout *
        @ +1ms
        ? timeout 7 a
        a > 430["late"]
        ? not ack *
        = acks 0
        "#,
    );
}

#[test]
fn a_socket_that_goes_owes_nothing() {
    check_two(
        r#"
        ! emit a q [] ack=7
        a < 420["q"]
        a > CUT
        ? acklost 7
        = acks 0
        ! cast / q [] ack=8 timeout=1s
        b < 421["q"]
        b > 41
        ? acklost 8
        @ +2s
        ? not timeout *
        "#,
    );
}

#[test]
fn a_broadcast_collects_acks() {
    check_two(
        r#"
        ! cast / q [1] ack=7 timeout=1s
        ? sent 2
        a < 420["q",1]
        b < 420["q",1]
        b > 430["b"]
        ? ack 7 b ["b"]
        a > 430["a"]
        ? ack 7 a ["a"] last
        ! cast / q [1] ack=8 timeout=1s
        a < 421["q",1]
        b < 421["q",1]
        b > 431["b"]
        @ +1s
        ? timeout 8 a
        ! cast / to=nowhere q [] ack=9 timeout=1s
        ? sent 0
        @ +2s
        ? not timeout *
        "#,
    );
}

#[test]
fn a_socket_can_owe_only_so_many_acks() {
    check(
        Config { acks_per_socket_max: 2, ..Config::default() },
        r#"
        a > WS
        a < 0*
        a > 40
        a < 40*
        ! emit a q [] ack=1
        ! emit a q [] ack=2
        ! emit a q [] ack=3
        ? fault the peer owes acks_per_socket_max of 2 acks already
        a < 420["q"]
        a < 421["q"]
        a > 431[]
        ! emit a q [] ack=4
        a < 422["q"]
        "#,
    );
}

#[test]
fn a_broadcast_that_awaits_acks_leaves_out_who_owes_too_many() {
    check(
        Config { acks_per_socket_max: 1, ..Config::default() },
        &format!(
            r#"{TWO}
        ! emit a q [] ack=1
        a < 420["q"]
        ! cast / r [] ack=2
        ? sent 1
        b < 421["r"]
        ! cast / s [] ack=3
        ? sent 0
        ! cast / t []
        ? sent 2
        a < 42["t"]
        b < 42["t"]
        a > 430[]
        b > 431[]
        ! cast / u [] ack=4
        ? sent 2
        a < 422["u"]
        b < 422["u"]
        "#
        ),
    );
}

#[test]
fn a_broadcast_reaches_the_union_of_rooms_once_and_nobody_excepted() {
    check_two(
        r#"
        ! join a r1
        ! join a r2
        ! join b r2
        ! cast / to=r1,r2 x [1]
        ? sent 2
        a < 42["x",1]
        b < 42["x",1]
        ! cast / to=r1,r2 except=r1 x [2]
        ? sent 1
        b < 42["x",2]
        ! cast / except=$b.sid x [3]
        ? sent 1
        a < 42["x",3]
        ! cast / to=$b.sid,r2 x [4]
        ? sent 2
        a < 42["x",4]
        b < 42["x",4]
        ! cast / to=$b.sid x [5]
        b < 42["x",5]
        ! cast /other x [6]
        ! cast / to=r3 x [7]
        ? sent 0
        ! leave a r1
        ? left true
        ! cast / to=r1 x [8]
        ? sent 0
        = rooms 1
        = rooms-of a r2
        "#,
    );
}

#[test]
fn rooms_belong_to_a_namespace_and_to_their_members() {
    check_two(
        r#"
        a > 40/n,
        a < 40/n,*
        ! join a/n r
        ! join b r
        ! join b r
        ? joined true
        ? joined true
        ? joined false
        ! cast /n to=r x [1]
        a < 42/n,["x",1]
        ! cast / to=r x [2]
        b < 42["x",2]
        = rooms 2
        b > CUT
        = rooms 1
        a > 41/n,
        = rooms 0
        = namespaces 1
        ! leave a nothing
        ? left false
        "#,
    );
}

#[test]
fn members_keep_their_places_when_others_leave() {
    check(
        Config::default(),
        r#"
        a > WS
        a < 0*
        a > 40
        a < 40*
        b > WS
        b < 0*
        b > 40
        b < 40*
        c > WS
        c < 0*
        c > 40
        c < 40*
        ! join a r
        ! join b r
        ! join c r
        ! leave a r
        ! leave c r
        ! cast / to=r x [1]
        b < 42["x",1]
        ! join a r
        b > CUT
        ! cast / to=r x [2]
        a < 42["x",2]
        ! cast / x [3]
        a < 42["x",3]
        c < 42["x",3]
        "#,
    );
}

#[test]
fn a_socket_can_be_in_only_so_many_rooms() {
    check(
        Config { rooms_per_socket_max: 2, ..Config::default() },
        r#"
        a > WS
        a < 0*
        a > 40
        a < 40*
        ! join a r1
        ! join a r2
        ! join a r3
        ? fault the socket is in rooms_per_socket_max of 2 rooms already
        ! join a r2
        ? joined false
        "#,
    );
}

#[test]
fn volatile_events_are_for_those_who_can_take_them_now() {
    check_two(
        r#"
        p > GET
        p < GET 200 0*
        p > POST 40
        p < POST 200 ok
        p > GET
        p < GET 200 40*
        ! emit p pos [1] volatile
        p > GET
        ! emit p pos [2] volatile
        p < GET 200 42["pos",2]
        a > STALL 0
        ! emit a x []
        ! emit a pos [3] volatile
        ! cast / pos [4] volatile
        ? sent 1
        b < 42["pos",4]
        a > FLOW
        a < 42["x"]
        ! emit a pos [5] volatile
        a < 42["pos",5]
        = counter volatile_dropped 4
        "#,
    );
}

#[test]
fn attachments_follow_their_event_on_both_transports() {
    check(
        Config::default(),
        r#"
        a > WS
        a < 0*
        a > 40
        a < 40*
        b: b64
        b > WS
        b < 0*
        b > 40
        b < 40*
        p > GET
        p < GET 200 0*
        p > POST 40
        p < POST 200 ok
        p > GET
        p < GET 200 40*
        ! cast / bin [1,"x:010203","x:0405"]
        a < 452-["bin",1,{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]
        a < x010203
        a < x0405
        b < 452-*
        b < bAQID
        b < bBAU=
        p > GET
        p < GET 200 452-["bin",1,{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]␞bAQID␞bBAU=
        p > POST 451-["up",{"_placeholder":true,"num":0}]␞bAQID
        p < POST 200 ok
        ? event p up [{"$base64":"AQID"}]
        p > POST 451-["up",{"_placeholder":true,"num":0}]
        p < POST 200 ok
        p > POST bBAU=
        p < POST 200 ok
        ? event p up [{"$base64":"BAU="}]
        b > 451-["up",{"_placeholder":true,"num":0}]
        b > bAQ==
        ? event b up [{"$base64":"AQ=="}]
        "#,
    );
}

#[test]
fn msgpack_is_one_binary_message_per_packet() {
    check(
        Config { parser: Parser::Msgpack, ..Config::default() },
        r#"
        a > WS
        a < 0*
        # CONNECT to "/" with data undefined
        a > x83a47479706500a464617461d40000a36e7370a12f
        a < x83a47479706500a36e7370a12fa46461746181a3736964b4*
        # ["tick",7,<ca fe>] with ack 3
        a > x85a47479706502a46461746193a47469636b07c402cafea76f7074696f6e7381a8636f6d7072657373c3a2696403a36e7370a12f
        ? event a tick [7,{"$base64":"yv4="}] ack=3
        ! answer a 3 ["ok"]
        a < x84a47479706503a36e7370a12fa2696403a46461746191a26f6b
        ! emit a x ["x:0102",{"a":1}]
        a < x83a47479706502a36e7370a12fa46461746193a178c402010281a16101
        ! emit a q [] ack=7
        a < x84a47479706502a36e7370a12fa2696400a46461746191a171
        a > x84a2696400a47479706503a46461746191a26f6ba36e7370a12f
        ? ack 7 a [a26f6b] last
        # DISCONNECT
        a > x82a47479706501a36e7370a12f
        ? disconnected a client namespace disconnect
        a > 42["text"]
        a < CLOSE
        a < END
        "#,
    );
}

#[test]
fn msgpack_travels_in_base64_by_polling() {
    check(
        Config { parser: Parser::Msgpack, ..Config::default() },
        r#"
        a > GET
        a < GET 200 0*
        a > POST bg6R0eXBlAKRkYXRh1AAAo25zcKEv
        a < POST 200 ok
        a > GET
        a < GET 200 bg6R0eXBlAKNuc3ChL6RkYXRhgaNzaWS0*
        "#,
    );
}

#[test]
fn a_reader_that_is_too_slow_is_closed_and_the_others_are_not() {
    check(
        Config { outbox_bytes_max: 20_000, ..Config::default() },
        &format!(
            r#"{TWO}
            a > STALL 100
            ! cast / big ["long:15000"]
            b < 42["big"*
            ! cast / big ["long:15000"]
            b < 42["big"*
            ! cast / big ["long:15000"]
            b < 42["big"*
            = sessions 2
            ! cast / big ["long:15000"]
            b < 42["big"*
            ? disconnected a outbox full
            ? closed a outbox full
            a < END
            = sessions 1
            = counter outboxes_full 1
            "#
        ),
    );
}

#[test]
fn a_stalled_link_goes_on_where_it_stopped() {
    check_two(
        r#"
        a > STALL 5
        ! emit a one ["long:300"]
        ! emit a two [2]
        a > PING hi
        a > STALL 7
        a > STALL 50
        a > FLOW
        a < 42["one"*
        a < PONG hi
        a < 42["two",2]
        "#,
    );
}

#[test]
fn a_room_may_be_named_like_an_id() {
    check_two(
        r#"
        ! join b $a.sid
        ? joined true
        ! join b $b.sid
        ? joined false
        ! cast / to=$a.sid x [1]
        a < 42["x",1]
        b < 42["x",1]
        ! cast / except=$a.sid x [2]
        ? sent 0
        "#,
    );
}

#[test]
fn a_volatile_broadcast_awaits_acks_only_from_those_it_was_sent_to() {
    check_two(
        r#"
        a > STALL 0
        ! emit a x []
        ! cast / q [] volatile ack=7 timeout=1s
        ? sent 1
        b < 420["q"]
        b > 430[]
        ? ack 7 b [] last
        b > STALL 0
        ! emit b x []
        ! cast / q [] volatile ack=8 timeout=1s
        ? sent 0
        @ +2s
        ? not timeout *
        = acks 0
        a > FLOW
        a < 42["x"]
        b > FLOW
        b < 42["x"]
        "#,
    );
}
