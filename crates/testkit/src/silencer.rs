//! Owns a relay between somebody and a server on this machine, which can fall silent: connections stay open, and nothing
//! passes, as when a cable is cut. Does not know protocols. Invariant: what was held back while it was silent passes, in
//! order, when it no longer is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Who hears nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Everything passes.
    Nobody,
    /// Nothing passes, either way.
    Everybody,
    /// Nothing passes to or from whoever has ever sent these bytes.
    WhoeverSaid(&'static str),
}

/// A relay. Connections end when either side ends them; it takes new ones for as long as the process runs.
#[derive(Debug)]
pub struct Silencer {
    port: u16,
    silence: Arc<Mutex<Silence>>,
}

impl Silencer {
    /// Begins to relay to a port of this machine.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("some port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let silence = Arc::new(Mutex::new(Silence::Nobody));
        let shared = Arc::clone(&silence);
        std::thread::spawn(move || {
            for peer in listener.incoming().flatten() {
                // Where there is no server, there is no connection.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)) {
                    relay(&peer, &server, &shared);
                }
            }
        });
        Self { port, silence }
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Says who hears nothing from now on.
    pub fn set_silence(&self, silence: Silence) {
        *self.silence.lock().unwrap_or_else(PoisonError::into_inner) = silence;
    }
}

fn relay(peer: &TcpStream, server: &TcpStream, silence: &Arc<Mutex<Silence>>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    for (from, to, is_peer) in [(peer, server, true), (server, peer, false)] {
        let (from, to) = (from.try_clone(), to.try_clone());
        let (Ok(from), Ok(to)) = (from, to) else { return };
        let (silence, said) = (Arc::clone(silence), Arc::clone(&said));
        std::thread::spawn(move || copy(from, to, is_peer, &silence, &said));
    }
}

fn copy(
    mut from: TcpStream,
    mut to: TcpStream,
    is_peer: bool,
    silence: &Mutex<Silence>,
    said: &Mutex<Vec<u8>>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if is_peer {
            said.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
        }
        let is_held = || match *silence.lock().unwrap_or_else(PoisonError::into_inner) {
            Silence::Nobody => false,
            Silence::Everybody => true,
            Silence::WhoeverSaid(words) => {
                let said = said.lock().unwrap_or_else(PoisonError::into_inner);
                said.windows(words.len()).any(|window| window == words.as_bytes())
            }
        };
        while is_held() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side learns of it; if it knows already, so much the better.
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_passes_later() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Silencer::to(server.local_addr().unwrap().port());
        let mut peer = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        let (mut end, _) = server.accept().unwrap();
        let limit = Some(Duration::from_secs(30));
        end.set_read_timeout(limit).unwrap();
        peer.set_read_timeout(limit).unwrap();
        let mut read = [0; 5];
        peer.write_all(b"hello").unwrap();
        end.read_exact(&mut read).unwrap();
        proxy.set_silence(Silence::WhoeverSaid("hell"));
        end.write_all(b"there").unwrap();
        peer.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(peer.read_exact(&mut read).is_err());
        peer.set_read_timeout(limit).unwrap();
        proxy.set_silence(Silence::WhoeverSaid("other"));
        peer.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"there");
        drop(peer);
        assert_eq!(end.read(&mut read).unwrap(), 0);
    }
}
