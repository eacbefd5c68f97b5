//! How fast events are decoded, on one core: `cargo bench -p sio-proto`. The bound to keep is 8 million events of 128 bytes a second.

use sio_proto::{Limits, Many, Parser, decode_msgpack, decode_text, encode_event};
use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

fn main() -> std::io::Result<()> {
    let limits = Limits::default();
    let mixed = r#"2["order",{"id":48213,"user":"ada@example.org","lines":[{"sku":"A-17","n":2},{"sku":"B-09","n":11}],"total":129.5,"ok":true}]"#;
    let text = format!(r#"2["chat","{}"]"#, "word ".repeat(22) + "end");
    let acked = r#"2/chat,1234["ask",{"q":"name"}]"#;
    for (name, packet) in [("mixed", mixed), ("text", &text), ("small", r#"2["tick",7]"#), ("acked", acked)] {
        report(name, packet.len(), || {
            black_box(decode_text(black_box(packet), &limits)).expect("an event");
        })?;
    }

    let value: serde_json::Value =
        serde_json::from_str(&mixed[10..mixed.len() - 1]).expect("the event's argument");
    let body = Parser::Msgpack.encode_event_args("order", &Many([&value])).expect("plain values");
    let mut packed = Vec::new();
    encode_event(&mut packed, Parser::Msgpack, "/", None, &body, None);
    report("mixed, msgpack", packed.len(), || {
        black_box(decode_msgpack(black_box(&packed), &limits)).expect("an event");
    })?;
    let mut out = Vec::new();
    let body = Parser::Json.encode_event_args("order", &Many([&value])).expect("plain values");
    report("mixed, header and copy", mixed.len(), || {
        out.clear();
        encode_event(black_box(&mut out), Parser::Json, "/", None, black_box(&body), None);
    })?;
    report("mixed, arguments from a value", mixed.len(), || {
        black_box(Parser::Json.encode_event_args("order", &Many([black_box(&value)]))).expect("plain values");
    })
}

/// The best of several short runs, since other work on the machine only ever adds time.
fn report(name: &str, bytes: usize, mut f: impl FnMut()) -> std::io::Result<()> {
    const ROUNDS: u32 = 200_000;
    let mut best = f64::INFINITY;
    for _ in 0..15 {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            f();
        }
        best = best.min(start.elapsed().as_secs_f64() / f64::from(ROUNDS));
    }
    let (nanos, millions) = (best * 1e9, 1e-6 / best);
    writeln!(std::io::stdout(), "{name:32} {bytes:4} bytes {nanos:7.1} ns {millions:7.2} million/s")
}
