//! WebSocket frames: faults and their close codes, control frames, compression, and bytes in any pieces.

use engine_core::Config;
use testkit::transcript::check;

const OPEN: &str = "a > WS\na < 0*\na > 40\na < 40*\n";

#[test]
fn every_fault_is_told_its_code() {
    for (bytes, code) in [
        ("8105 48656c6c6f", 1002),
        ("c180 00000000", 1002),
        ("8380 00000000", 1002),
        ("0980 00000000", 1002),
        ("89fe 007e00000000", 1002),
        ("8080 00000000", 1002),
        ("0180 00000000 0180 00000000", 1002),
        ("8182 00000000 c328", 1007),
        ("8881 00000000 03", 1002),
        ("8882 00000000 03ed", 1002),
        ("82ff 0000000000ffffff 00000000", 1009),
        ("82ff ffffffffffffffff 00000000", 1009),
    ] {
        check(
            Config::default(),
            &format!("{OPEN}a > RAW {bytes}\na < CLOSE {code}\na < END\n? disconnected a transport error\n"),
        );
    }
}

#[test]
fn a_fault_of_a_probing_websocket_ends_only_that() {
    check(
        Config::default(),
        r#"
        a > GET
        a < GET 200 0*
        a > WS
        a > RAW 8105
        a < CLOSE 1002
        a < END
        = sessions 1
        "#,
    );
}

#[test]
fn pings_are_answered_between_packets() {
    check(Config::default(), &format!("{OPEN}a > PING hi\na < PONG hi\na > PING \na < PONG\n"));
}

#[test]
fn a_message_may_come_in_fragments_with_pings_between() {
    // `42["x"]` as `42[`, ping, `"x"]`; masks of zero.
    check(
        Config::default(),
        &format!(
            "{OPEN}a > RAW 0183000000003432 5b 8980 00000000 808400000000 227822 5d\na < PONG\n? event a x []\n"
        ),
    );
}

#[test]
fn bytes_may_come_one_by_one() {
    let bytes = [
        "81", "8b", "00", "00", "00", "00", "34", "32", "5b", "22", "78", "22", "2c", "31", "32", "33", "5d",
    ];
    let reads: String = bytes.iter().map(|byte| format!("a > RAW {byte}\n")).collect();
    check(Config::default(), &format!("{OPEN}{reads}? event a x [123]\na > 42[\"y\"]\n? event a y []\n"));
}

#[test]
fn the_largest_message_passes_and_one_byte_more_does_not() {
    let config = || Config { payload_bytes_max: 200, ..Config::default() };
    let event = |len: usize| format!("42[\"{}\"]", "n".repeat(len - 6));
    check(config(), &format!("{OPEN}a > {}\n? event a n* []\n", event(200)));
    check(
        config(),
        &format!("{OPEN}a > {}\na < CLOSE 1009\na < END\n? closed a transport error\n", event(201)),
    );
}

#[test]
fn frames_of_a_fair_size_are_compressed_for_links_that_agreed() {
    check(
        Config { deflate_threshold: Some(100), ..Config::default() },
        &format!(
            r#"
            a: deflate
            {OPEN}
            b > WS
            b < 0*
            b > 40
            b < 40*
            ! cast / big ["long:500"]
            a < deflated 42["big","l*"]
            b < 42["big","l*"]
            ! cast / small [1]
            a < 42["small",1]
            b < 42["small",1]
            ! cast / big ["long:500"] uncompressed
            a < 42["big","l*"]
            b < 42["big","l*"]
            # `42["x"]`, deflated
            a > RAW c188 00000000 3231 8a56 aa50 8a05
            a < CLOSE 1007
            a < END
            "#
        ),
    );
}

#[test]
fn a_compressed_message_is_read() {
    // RFC 7692 §7.2.3.1 gives "Hello" as f2 48 cd c9 c9 07 00: no Engine.IO packet, but text.
    check(
        Config { deflate_threshold: Some(100), ..Config::default() },
        &format!(
            "a: deflate\n{OPEN}a > RAW c187 00000000 f248cdc9c90700\na < CLOSE\na < END\n? closed a parse error\n"
        ),
    );
}

#[test]
fn a_link_that_did_not_agree_may_not_compress() {
    check(
        Config { deflate_threshold: Some(100), ..Config::default() },
        &format!("{OPEN}a > RAW c187 00000000 f248cdc9c90700\na < CLOSE 1002\na < END\n"),
    );
}

#[test]
fn nothing_is_read_after_a_close() {
    check(
        Config::default(),
        &format!("{OPEN}a > 1␤42[\"late\"]\na < CLOSE\na < END\n? not event *\n? closed a transport close\n"),
    );
}
