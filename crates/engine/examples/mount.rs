//! The engine in somebody else's application: `mount [PORT]`. An axum router with a route of its own, and the engine
//! under `/socket.io/`; axum accepts the connections.
//!
//! Shows [`Server::service`], both transports through it, and how handshakes get to know the peer's address.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use engine::{PeerAddress, Server};

/// Tells the engine where a request came from: only axum, which accepted the connection, knows.
async fn pass_address(mut request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    if let Some(address) = address {
        request.extensions_mut().insert(PeerAddress(address));
    }
    next.run(request).await
}

/// An ordinary route that talks to sockets.
async fn ring(State(server): State<Server>) -> String {
    match server.emit("ring", "somebody asked for /ring") {
        Ok(()) => format!("rang for {} sockets\n", server.of("/").fetch_sockets().await.len()),
        Err(fault) => format!("{fault}\n"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let port: u16 = std::env::args().nth(1).map_or(Ok(3000), |port| port.parse())?;
    let server = Server::builder()
        .namespace("/", |ns| {
            ns.on("where", |socket, ()| async move {
                socket.handshake().address().map_or("unknown".to_owned(), |address| address.ip().to_string())
            });
        })
        .build()?;
    let app = Router::new()
        .route("/ring", get(ring))
        .route_service("/socket.io/", server.service())
        .layer(from_fn(pass_address))
        .with_state(server.clone())
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    tokio::select! {
        served = axum::serve(listener, app) => served?,
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    // Nobody is accepted any more; those who are connected are sent away in order.
    server.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(())
}
