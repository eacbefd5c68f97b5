//! Owns ports of 127.0.0.1 that stay a test's own while nobody listens on them: for a server that is told its port, or is
//! started again on the one it had, and for peers that must find nobody. Does not know who listens.
//!
//! Invariant: as long as a port is held, the system gives it to nobody who asks for any. Whoever names it may listen on
//! it, provided that they reuse addresses (`SO_REUSEADDR`), as servers do.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port that is held until this is dropped.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    /// Bound, and never made to listen: connections are refused until somebody else listens.
    _bound: Socket,
}

impl Port {
    /// Takes one that the system gives.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn hold() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("a setting of the socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("some port is free");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        Self { address, _bound: socket }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.address.port()
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn nobody_is_there_until_somebody_listens_and_again_when_they_have_gone() {
        let port = Port::hold();
        for _ in 0..3 {
            assert!(TcpStream::connect(port.address()).is_err());
            let listener = TcpListener::bind(port.address()).unwrap();
            let peer = TcpStream::connect(port.address()).unwrap();
            let taken = listener.accept().unwrap();
            drop((peer, taken, listener));
        }
    }

    #[test]
    fn the_system_gives_it_to_nobody_else() {
        let port = Port::hold();
        let others: Vec<TcpListener> = (0..500).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        assert!(others.iter().all(|other| other.local_addr().unwrap() != port.address()));
    }
}
