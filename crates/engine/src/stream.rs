//! Owns the byte streams under WebSocket links: plain TCP, TLS, or one end of a pair when somebody else's server
//! holds the real one. Does not know frames. Invariant: non-blocking throughout.

use std::io::{self, Read, Write};

use mio::event::Source;
use mio::{Interest, Registry, Token};

/// A non-blocking stream.
pub(crate) enum Stream {
    Tcp(mio::net::TcpStream),
    Pair(mio::net::UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<Tls>),
}

#[cfg(feature = "tls")]
pub(crate) struct Tls {
    pub(crate) tcp: mio::net::TcpStream,
    pub(crate) session: rustls::ServerConnection,
}

impl Stream {
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source().register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Pair(stream) => stream,
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => &mut tls.tcp,
        }
    }

    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buf),
            Stream::Pair(stream) => stream.read(buf),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => rustls::Stream::new(&mut tls.session, &mut tls.tcp).read(buf),
        }
    }

    /// Whether a read that filled less than its buffer means that there is nothing more for now. Not so with TLS,
    /// which hands out one record at a time.
    pub(crate) fn short_read_means_empty(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Pair(_) => true,
            #[cfg(feature = "tls")]
            Stream::Tls(_) => false,
        }
    }

    pub(crate) fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(buf),
            Stream::Pair(stream) => stream.write(buf),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => rustls::Stream::new(&mut tls.session, &mut tls.tcp).write(buf),
        }
    }

    /// Writes what TLS has encrypted and the kernel has not taken yet. `false`: there is still some.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Stream::Tcp(_) | Stream::Pair(_) => Ok(true),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => {
                while tls.session.wants_write() {
                    match tls.session.write_tls(&mut tls.tcp) {
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                        Err(error) => return Err(error),
                    }
                }
                Ok(true)
            }
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn shut_down(&mut self) {
        let outcome = match self {
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Stream::Pair(stream) => stream.shutdown(std::net::Shutdown::Write),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => {
                tls.session.send_close_notify();
                let _ = tls.session.write_tls(&mut tls.tcp);
                tls.tcp.shutdown(std::net::Shutdown::Write)
            }
        };
        // The peer may have gone first; then there is nobody to tell.
        let _ = outcome;
    }

    /// Drops the link at once, without a farewell: what a test of lost links needs.
    pub(crate) fn reset(&self) {
        let outcome = match self {
            Stream::Tcp(stream) => socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)),
            Stream::Pair(_) => Ok(()),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => socket2::SockRef::from(&tls.tcp).set_linger(Some(std::time::Duration::ZERO)),
        };
        let _ = outcome;
    }
}
