//! Owns a WebSocket whose session lives on another node: bytes from one connection to the other, both ways.
//! Does not know what the bytes mean. Invariant: a tunnel ends when either side ends, and holds no more than its two buffers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

use crate::listener::Counted;
use crate::server::{Inner, Phase};

/// Bytes that are on their way through a tunnel, for each direction. Most messages fit; a burst takes several rounds. Held
/// also while nothing goes through, so an idle tunnel costs twice this.
const BUFFER_BYTES: usize = 4 * 1024;
/// Time the other direction has once one has ended: what is under way, such as an answer to a close frame, arrives.
const LINGER: Duration = Duration::from_secs(2);

/// A tunnel that is being agreed on.
pub(crate) struct Tunnel {
    pub(crate) server: Arc<Inner>,
    /// The peer's connection.
    pub(crate) near: OnUpgrade,
    /// The one to the other node.
    pub(crate) far: OnUpgrade,
    pub(crate) counted: Option<Counted>,
}

impl Tunnel {
    /// Waits until HTTP has let go of both connections, then carries bytes until one ends, or the server lets it go or ends.
    pub(crate) async fn run(self) {
        let Self { server, near, far, counted } = self;
        let Ok((near, far)) = tokio::try_join!(near, far) else { return };
        let (Ok(near), Ok(far)) = (take(near), take(far)) else { return };
        let Some(forwarding) = &server.forwarding else { return };
        let mut passage = forwarding.tunnels.enter();
        let _counted = counted;
        let mut phase = server.phase.subscribe();
        tokio::select! {
            () = carry(near, far) => {}
            // In turn with the sessions of this node: not all at once.
            () = passage.told_to_go() => {}
            _ = phase.wait_for(|phase| *phase == Phase::Stopped) => {}
        }
    }
}

/// A connection of whatever kind.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One side of a tunnel, and what HTTP has read of it too early.
struct Side {
    io: Box<dyn Io>,
    early: Bytes,
}

/// Takes a connection back from HTTP.
fn take(upgraded: Upgraded) -> std::io::Result<Side> {
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            // Watched by this runtime from now on, not by the thread that accepted it.
            let io = TcpStream::from_std(parts.io.into_inner().into_std()?)?;
            Ok(Side { io: Box::new(io), early: parts.read_buf })
        }
        // TLS, or somebody else's kind of connection: what was read too early is still in it.
        Err(upgraded) => Ok(Side { io: Box::new(TokioIo::new(upgraded)), early: Bytes::new() }),
    }
}

async fn carry(near: Side, far: Side) {
    let (near_reader, near_writer) = tokio::io::split(near.io);
    let (far_reader, far_writer) = tokio::io::split(far.io);
    let mut up = std::pin::pin!(pump(near.early, near_reader, far_writer));
    let mut down = std::pin::pin!(pump(far.early, far_reader, near_writer));
    tokio::select! {
        () = &mut up => drop(tokio::time::timeout(LINGER, down).await),
        () = &mut down => drop(tokio::time::timeout(LINGER, up).await),
    }
}

/// Carries bytes in one direction until that ends or fails, and then says so to the other end.
async fn pump(early: Bytes, mut from: ReadHalf<Box<dyn Io>>, mut to: WriteHalf<Box<dyn Io>>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    if to.write_all(&early).await.is_ok() {
        drop(early);
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    }
    // The other side may have gone first.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn side(early: &'static str) -> (Side, DuplexStream) {
        let (io, peer) = duplex(64);
        (Side { io: Box::new(io), early: Bytes::from_static(early.as_bytes()) }, peer)
    }

    #[tokio::test]
    async fn what_came_early_goes_first_and_either_end_ends_both() {
        let ((near, mut peer), (far, mut node)) = (side("ear"), side("la"));
        let tunnel = tokio::spawn(carry(near, far));
        peer.write_all(b"ly").await.unwrap();
        let mut heard = [0; 5];
        node.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"early");
        // More than both buffers hold, and then the end.
        let answer = vec![7; 100_000];
        let sent = answer.clone();
        tokio::spawn(async move { node.write_all(&sent).await });
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [b"la".as_slice(), &answer].concat());
        drop(peer);
        tunnel.await.unwrap();
    }
}
