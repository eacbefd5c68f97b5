//! What the load generator measures: `fixture PORT`. Every peer that it is compared with does the same.
//!
//! `join` {room} is acked, `pub` {room, data} becomes `msg` to the room, `echo` is acked with its argument, `sink`
//! is counted, and `sunk` is acked with the count.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::Server;
use serde::Deserialize;
use serde_json::value::RawValue;

static SUNK: AtomicU64 = AtomicU64::new(0);

/// Who is there, if the peer says so: what a real server keeps with each socket.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Principal {
    #[allow(dead_code)] // Kept, as a server keeps it; nothing here asks who somebody is.
    user_id: String,
}

#[derive(Deserialize)]
struct Join {
    room: String,
}

#[derive(Deserialize)]
struct Publication<'a> {
    room: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: fixture PORT [SHARDS]")?.parse()?;
    let shards = std::env::args().nth(2).map_or(Ok(1), |text| text.parse())?;
    let server = Server::builder()
        .shards(shards)
        .namespace("/", |ns| {
            ns.on_connect(|socket| async move {
                if let Ok(principal) = socket.auth::<Principal>() {
                    socket.set_state(principal);
                }
            });
            ns.on("join", |socket, join: Join| async move {
                socket.join(join.room);
                "ok"
            });
            ns.on_raw("pub", |socket, event| {
                if let Ok(publication) = event.decode_borrowed::<Publication<'_>>() {
                    let _ = socket.within(publication.room).emit("msg", publication.data);
                }
            });
            ns.on_raw("echo", |socket, event| event.answer_same(socket));
            ns.on("sunk", |_, _: serde::de::IgnoredAny| async { SUNK.load(Ordering::Relaxed) });
            ns.on_raw("sink", |_, _| {
                SUNK.fetch_add(1, Ordering::Relaxed);
            });
        })
        .build()?;
    server.listen(([127, 0, 0, 1], port).into()).await?;
    #[allow(clippy::print_stdout)] // Whoever started this waits for the line.
    {
        println!("ready");
    }
    std::future::pending::<()>().await;
    Ok(())
}
