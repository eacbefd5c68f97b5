//! The benchmark fixture on socketioxide: `peer PORT` prints "ready" once it listens. Knows nothing about who measures it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::serve::ListenerExt;
use serde::Deserialize;
use serde_json::Value;
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
struct Join {
    room: String,
}

#[derive(Deserialize)]
struct Publication {
    room: String,
    data: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: peer PORT")?.parse()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(port))
}

async fn serve(port: u16) -> Result<(), Box<dyn std::error::Error>> {
    let (layer, io) = SocketIo::builder()
        .max_buffer_size(1024)
        .ping_interval(Duration::from_secs(25))
        .ping_timeout(Duration::from_secs(20))
        .max_payload(1_000_000)
        .build_layer();
    let sunk = Arc::new(AtomicU64::new(0));
    io.ns("/", async move |socket: SocketRef| {
        socket.on("join", async |socket: SocketRef, Data(join): Data<Join>, ack: AckSender| {
            socket.join(join.room);
            let _ = ack.send("ok");
        });
        socket.on("pub", async |io: SocketIo, Data(publication): Data<Publication>| {
            let _ = io.to(publication.room).emit("msg", &publication.data).await;
        });
        socket.on("echo", async |Data(value): Data<String>, ack: AckSender| {
            let _ = ack.send(&value);
        });
        let counter = sunk.clone();
        socket.on("sink", async move |Data(_): Data<String>| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let counter = sunk.clone();
        socket.on("sunk", async move |Data(_): Data<Value>, ack: AckSender| {
            let _ = ack.send(&counter.load(Ordering::Relaxed));
        });
    });
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    let listener = socket.listen(4096)?.tap_io(|stream| {
        // An error means that the connection is gone already.
        let _ = stream.set_nodelay(true);
    });
    println!("ready");
    axum::serve(listener, axum::Router::new().layer(layer)).await?;
    Ok(())
}
