//! A TCP proxy for tests: takes connections in turn to its targets, and breaks as networks break.
//! Does not know what goes through it. Invariant: bytes arrive whole and in order, late, or not at all.
//!
//! For tests with real connections only: it has a port that the system gives, and two threads for each connection.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

/// Bytes of what a connection has sent that are remembered for [`Silence::WhoeverSaid`].
const SAID_MAX: usize = 64 << 10;

/// Who hears nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// Everything passes.
    #[default]
    Nobody,
    /// Nothing passes, either way.
    Everybody,
    /// Nothing passes to or from whoever has sent these bytes, among its first 64 KiB.
    WhoeverSaid(&'static str),
}

/// A listener that carries what comes to one of several targets. Dropped, it is as a process that was killed: its
/// connections end and new ones are refused.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when the proxy speaks again, or stops.
    spoken: Condvar,
    accepted: AtomicU64,
    is_stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    targets: Vec<SocketAddr>,
    /// Where the next connections go, out of turn.
    next: VecDeque<SocketAddr>,
    /// Whose turn it is.
    turn: usize,
    silence: Silence,
    open: Vec<Weak<Pair>>,
}

/// A connection and the one to its target.
#[derive(Debug)]
struct Pair {
    near: TcpStream,
    far: TcpStream,
    /// What has come from the near side, as far as it is remembered.
    said: Mutex<Vec<u8>>,
}

impl Pair {
    fn note(&self, bytes: &[u8]) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let room = SAID_MAX - said.len();
        said.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn has_said(&self, words: &str) -> bool {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.windows(words.len().max(1)).any(|window| window == words.as_bytes())
    }

    fn cut(&self) {
        // Either may be gone already.
        let _ = self.near.shutdown(Shutdown::Both);
        let _ = self.far.shutdown(Shutdown::Both);
    }
}

impl Proxy {
    /// Begins to listen on a port of 127.0.0.1 that the system gives.
    ///
    /// # Errors
    /// The environment's: no port to be had.
    pub fn start(targets: impl Into<Vec<SocketAddr>>) -> io::Result<Self> {
        Self::start_on(([127, 0, 0, 1], 0).into(), targets)
    }

    /// Begins to listen on this address.
    ///
    /// # Errors
    /// The environment's: it cannot be bound.
    pub fn start_on(address: SocketAddr, targets: impl Into<Vec<SocketAddr>>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        shared.lock().targets = targets.into();
        let accepting = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(near) = stream else { continue };
                let shared = accepting.clone();
                thread::spawn(move || shared.serve(near));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that it has taken so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Has other targets from the next connection on. With none, connections are taken and closed.
    pub fn set_targets(&self, targets: impl Into<Vec<SocketAddr>>) {
        self.shared.lock().targets = targets.into();
    }

    /// Has the next connection go to this target, out of turn; called again, the one after it.
    pub fn send_next_to(&self, target: SocketAddr) {
        self.shared.lock().next.push_back(target);
    }

    /// Ends all connections that are open; new ones are taken as before.
    pub fn cut(&self) {
        let open = std::mem::take(&mut self.shared.lock().open);
        for pair in open.iter().filter_map(Weak::upgrade) {
            pair.cut();
        }
        self.shared.spoken.notify_all();
    }

    /// Says who hears nothing from now on, in neither direction, and is told nothing of it: connections stay open, new ones
    /// are taken, and what was sent waits. Whoever hears again gets what has waited first.
    pub fn set_silence(&self, silence: Silence) {
        self.shared.lock().silence = silence;
        self.shared.spoken.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        // The listener is closed by its own thread, which waits for a connection.
        let _ = TcpStream::connect(self.address);
        self.cut();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The targets from the one whose turn it is on: who cannot be reached makes way for the next.
    fn next_targets(&self) -> Vec<SocketAddr> {
        let mut state = self.lock();
        if let Some(target) = state.next.pop_front() {
            return vec![target];
        }
        let mut targets = state.targets.clone();
        if !targets.is_empty() {
            let first = state.turn % targets.len();
            targets.rotate_left(first);
        }
        state.turn += 1;
        targets
    }

    fn serve(self: Arc<Self>, near: TcpStream) {
        let Some(far) = self.next_targets().into_iter().find_map(|target| TcpStream::connect(target).ok())
        else {
            return;
        };
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
        let pair = Arc::new(Pair { near, far, said: Mutex::default() });
        {
            let mut state = self.lock();
            state.open.retain(|pair| pair.strong_count() > 0);
            state.open.push(Arc::downgrade(&pair));
        }
        if self.is_stopped.load(Ordering::SeqCst) {
            return pair.cut();
        }
        let (shared, back) = (self.clone(), pair.clone());
        let answering = thread::spawn(move || shared.carry(&back, false));
        self.carry(&pair, true);
        let _ = answering.join();
    }

    /// Carries bytes to or from the target until either side ends, and tells the other.
    fn carry(&self, pair: &Pair, is_there: bool) {
        let (mut from, mut to) = if is_there { (&pair.near, &pair.far) } else { (&pair.far, &pair.near) };
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if is_there {
                pair.note(&buffer[..count]);
            }
            self.wait_out_silence(pair);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        self.wait_out_silence(pair);
        let _ = to.shutdown(Shutdown::Write);
    }

    fn wait_out_silence(&self, pair: &Pair) {
        let is_silent = |state: &mut State| {
            let is_meant = match state.silence {
                Silence::Nobody => false,
                Silence::Everybody => true,
                Silence::WhoeverSaid(words) => pair.has_said(words),
            };
            is_meant && !self.is_stopped.load(Ordering::SeqCst)
        };
        drop(self.spoken.wait_while(self.lock(), is_silent));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::port::Port;

    const PATIENCE: Duration = Duration::from_secs(120);

    /// Greets with a letter, then sends back what comes.
    fn echo(letter: u8) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    stream.write_all(&[letter]).unwrap();
                    let mut answering = stream.try_clone().unwrap();
                    io::copy(&mut stream, &mut answering)
                });
            }
        });
        address
    }

    fn connect(proxy: &Proxy) -> (TcpStream, u8) {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let letter = read(&mut stream);
        (stream, letter)
    }

    fn read(stream: &mut TcpStream) -> u8 {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    #[test]
    fn connections_go_to_the_targets_in_turn_and_past_those_that_are_gone() {
        let gone = Port::hold();
        let proxy = Proxy::start([echo(b'a'), echo(b'b')]).unwrap();
        let letters: Vec<u8> = (0..4).map(|_| connect(&proxy).1).collect();
        assert_eq!(letters, b"abab");
        assert_eq!(proxy.accepted(), 4);
        proxy.set_targets([gone.address(), echo(b'c')]);
        proxy.send_next_to(echo(b'd'));
        assert_eq!([connect(&proxy).1, connect(&proxy).1, connect(&proxy).1], *b"dcc");
    }

    #[test]
    fn what_was_sent_into_silence_arrives_when_it_is_over() {
        let proxy = Proxy::start([echo(b'a')]).unwrap();
        let (mut stream, _) = connect(&proxy);
        proxy.set_silence(Silence::Everybody);
        stream.write_all(b"x").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let fault = stream.read(&mut [0]).unwrap_err();
        assert!(matches!(fault.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        proxy.set_silence(Silence::Nobody);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(read(&mut stream), b'x');
    }

    #[test]
    fn who_has_said_something_may_be_silenced_alone() {
        let proxy = Proxy::start([echo(b'a')]).unwrap();
        let ((mut one, _), (mut two, _)) = (connect(&proxy), connect(&proxy));
        proxy.set_silence(Silence::WhoeverSaid("yes"));
        for byte in b"yet" {
            two.write_all(&[*byte]).unwrap();
            assert_eq!(read(&mut two), *byte);
        }
        one.write_all(b"yes").unwrap();
        one.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(one.read(&mut [0]).is_err());
        proxy.set_silence(Silence::WhoeverSaid("no"));
        one.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!([read(&mut one), read(&mut one), read(&mut one)], *b"yes");
    }

    #[test]
    fn a_cut_ends_what_is_open_and_a_drop_ends_all() {
        let proxy = Proxy::start([echo(b'a')]).unwrap();
        let (mut stream, _) = connect(&proxy);
        proxy.cut();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        let (mut stream, letter) = connect(&proxy);
        assert_eq!(letter, b'a');
        // Nobody else gets its port when it is free.
        let port = Port::hold();
        let other = Proxy::start_on(port.address(), []).unwrap();
        drop(proxy);
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        drop(other);
        // Refused, as soon as the listener's thread has seen it.
        while TcpStream::connect(port.address()).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
