//! A clock for everybody: `broadcast [PORT]`. A task of its own emits `tick` twice a second through the [`Server`].
//!
//! Shows that a `Server` is a handle which any task may hold, rooms by choice, and what to do when it is too busy.

use std::time::Duration;

use engine::{EmitError, Server};
use serde::Serialize;

/// The argument of `tick`.
#[derive(Serialize)]
struct Tick {
    number: u64,
}

/// Emits until the server stops.
async fn tick(server: Server) {
    let mut interval = tokio::time::interval(Duration::from_millis(500));
    for number in 0.. {
        interval.tick().await;
        // Volatile: a peer that cannot take this tick is better off with the next one.
        match server.to("clock").volatile().emit("tick", &Tick { number }) {
            Ok(()) => {}
            Err(EmitError::Busy(busy)) if busy.is_stopped() => return,
            Err(fault) => tracing::warn!(%fault, "a tick was not sent"),
        }
        if number % 20 == 0 {
            let stats = server.stats(false).await;
            tracing::info!(sockets = stats.held(|gauges| gauges.sockets), number, "ticking");
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let port: u16 = std::env::args().nth(1).map_or(Ok(3000), |port| port.parse())?;
    let server = Server::builder()
        .namespace("/", |ns| {
            ns.on_connect(|socket| async move { socket.join("clock") });
            ns.on("mute", |socket, ()| async move { socket.leave("clock") });
        })
        .build()?;
    let address = server.listen(([127, 0, 0, 1], port).into()).await?;
    tracing::info!("listening on http://{address}");
    let ticking = tokio::spawn(tick(server.clone()));
    tokio::signal::ctrl_c().await?;
    ticking.abort();
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
