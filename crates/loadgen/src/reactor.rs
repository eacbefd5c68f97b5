//! One thread, one epoll, one shared read buffer, any number of TCP connections.
//!
//! Owns the descriptors and the two things a connection can be in the middle of: a message that has arrived in part and
//! bytes that the kernel did not take yet. Knows nothing about what the bytes mean. Invariant: a connection that is
//! idle holds no buffer, so its whole cost here is one `Wire`.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};

/// Room for one read. Large enough that a burst costs few system calls, small enough to stay in the L2 cache.
const READ_BYTES: usize = 256 << 10;
/// Connections looked at per wait.
const EVENTS_MAX: usize = 1024;
/// Connections the kernel may hold for us before they are accepted: more than any scenario has in flight.
const BACKLOG: i32 = 4096;
/// The event data that means "the listener", not a slot.
const LISTENER: u64 = u64::MAX;

/// What a protocol on top of the reactor answers to.
pub(crate) trait Driver {
    /// Bytes arrived on `slot`. Returns how many are done with; the rest is kept and given again, with more behind it.
    fn on_bytes(&mut self, reactor: &mut Reactor, slot: usize, bytes: &mut [u8]) -> usize;
    /// The peer closed, or the connection failed. The slot is free already.
    fn on_closed(&mut self, reactor: &mut Reactor, slot: usize);
    /// A connection was accepted into `slot`.
    fn on_accepted(&mut self, _reactor: &mut Reactor, _slot: usize) {}
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// An orderly FIN.
    Fin,
    /// An RST at once, as from a crashed peer; leaves no TIME-WAIT behind.
    Reset,
}

/// One connection, or a free place for one.
#[derive(Default)]
struct Wire {
    socket: Option<OwnedFd>,
    /// Counts the slot's tenants, so that an event for an earlier one is recognised.
    generation: u32,
    is_paused: bool,
    /// The start of a message whose end has not arrived.
    rest: Option<Box<[u8]>>,
    /// Bytes the kernel did not take, while it does not.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 32 in every idle connection")]
    unsent: Option<Box<VecDeque<u8>>>,
}

/// The event loop. Call `poll` again and again; everything else happens inside it or between two calls.
pub(crate) struct Reactor {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    wires: Vec<Wire>,
    vacant: Vec<usize>,
    listener: Option<OwnedFd>,
    buffer: Vec<u8>,
    staged: Vec<u8>,
    staged_for: usize,
    now: Instant,
    reads: u64,
    unsent_bytes_max: usize,
}

impl Reactor {
    /// An empty reactor. `unsent_bytes_max` bounds what is kept for a peer that does not read; above it the connection is reset.
    pub(crate) fn new(unsent_bytes_max: usize) -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
            wires: Vec::new(),
            vacant: Vec::new(),
            listener: None,
            buffer: vec![0; READ_BYTES],
            staged: Vec::new(),
            staged_for: 0,
            now: Instant::now(),
            reads: 0,
            unsent_bytes_max,
        })
    }

    /// When the bytes now being handled were read, or when the last wait ended.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Reads that brought bytes, since the start.
    pub(crate) fn reads(&self) -> u64 {
        self.reads
    }

    /// Whether `slot` has a connection.
    pub(crate) fn is_open(&self, slot: usize) -> bool {
        self.wires.get(slot).is_some_and(|w| w.socket.is_some())
    }

    /// Starts to listen; accepted connections get the lowest free slots.
    pub(crate) fn listen(&mut self, address: SocketAddr) -> io::Result<()> {
        let socket = stream_socket(&address)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &address)?;
        net::listen(&socket, BACKLOG)?;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        self.listener = Some(socket);
        Ok(())
    }

    /// Starts to connect `slot`, which must be free, from `source` if given. Bytes may be sent at once: they wait for the connection.
    pub(crate) fn open(
        &mut self,
        slot: usize,
        address: SocketAddr,
        source: Option<SocketAddr>,
    ) -> io::Result<()> {
        let socket = stream_socket(&address)?;
        if let Some(source) = source {
            // Several connections may share a port of ours as long as they differ in something else.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            net::bind(&socket, &source)?;
        }
        sockopt::set_tcp_nodelay(&socket, true)?;
        match net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        if self.wires.len() <= slot {
            self.wires.resize_with(slot + 1, Wire::default);
        }
        self.adopt(slot, socket)
    }

    fn adopt(&mut self, slot: usize, socket: OwnedFd) -> io::Result<()> {
        let wire = &mut self.wires[slot];
        debug_assert!(wire.socket.is_none(), "slot {slot} is taken");
        wire.generation = wire.generation.wrapping_add(1);
        wire.is_paused = false;
        epoll::add(&self.epoll, &socket, event_data(slot, wire.generation), epoll::EventFlags::IN)?;
        wire.socket = Some(socket);
        Ok(())
    }

    /// Sends now; what the kernel does not take is sent when it does. An error is left to the next read, which reports it.
    pub(crate) fn send(&mut self, slot: usize, bytes: &[u8]) {
        let Some(wire) = self.wires.get_mut(slot) else { return };
        let Some(socket) = &wire.socket else { return };
        if let Some(unsent) = &mut wire.unsent {
            unsent.extend(bytes);
            if unsent.len() > self.unsent_bytes_max {
                self.shut(slot);
            }
            return;
        }
        let sent = match net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(n) if n == bytes.len() => return,
            Ok(n) => n,
            Err(Errno::AGAIN) => 0,
            Err(_) => return,
        };
        wire.unsent = Some(Box::new(bytes[sent..].iter().copied().collect()));
        self.watch(slot);
    }

    /// Like `send`, but joins what is staged for one slot in a row into one `send(2)`, at the end of the read being handled at the latest.
    pub(crate) fn stage(&mut self, slot: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.staged_for != slot {
            self.flush();
            self.staged_for = slot;
        }
        encode(&mut self.staged);
    }

    /// Sends what is staged. `poll` does it after each read; outside of it the caller must.
    pub(crate) fn flush(&mut self) {
        if !self.staged.is_empty() {
            let mut staged = std::mem::take(&mut self.staged);
            self.send(self.staged_for, &staged);
            staged.clear();
            self.staged = staged;
        }
    }

    /// Bytes that wait for the kernel on `slot`.
    pub(crate) fn unsent_bytes(&self, slot: usize) -> usize {
        self.wires.get(slot).and_then(|w| w.unsent.as_ref()).map_or(0, |u| u.len())
    }

    /// Stops to read from `slot`, as a peer does that hangs without closing.
    pub(crate) fn pause(&mut self, slot: usize) {
        let wire = &mut self.wires[slot];
        wire.is_paused = true;
        if let Some(socket) = &wire.socket {
            // With the default of several MiB the kernel would hide the silence for long. If refused, it only takes longer.
            let _ = sockopt::set_socket_recv_buffer_size(socket, 4096);
        }
        self.watch(slot);
    }

    /// Ends a connection. The driver is not told.
    pub(crate) fn close(&mut self, slot: usize, ending: Ending) {
        if let Some(wire) = self.wires.get_mut(slot)
            && let Some(socket) = wire.socket.take()
        {
            if ending == Ending::Reset {
                // A failure here means that the peer was faster; the descriptor closes either way.
                let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
            }
            wire.rest = None;
            wire.unsent = None;
            if self.listener.is_some() {
                self.vacant.push(slot);
            }
        }
    }

    /// Makes the kernel report `slot` as closed, so that the driver hears of it in the usual way.
    fn shut(&mut self, slot: usize) {
        let wire = &mut self.wires[slot];
        wire.unsent = None;
        if let Some(socket) = &wire.socket {
            // Fails only when the connection is gone already, which is reported as well.
            let _ = net::shutdown(socket, net::Shutdown::Both);
        }
    }

    /// Tells the kernel what `slot` waits for.
    fn watch(&mut self, slot: usize) {
        let wire = &self.wires[slot];
        let Some(socket) = &wire.socket else { return };
        let mut flags = epoll::EventFlags::empty();
        if !wire.is_paused {
            flags |= epoll::EventFlags::IN;
        }
        if wire.unsent.is_some() {
            flags |= epoll::EventFlags::OUT;
        }
        // The descriptor is ours and registered, so this cannot fail in a way that a caller could mend.
        let _ = epoll::modify(&self.epoll, socket, event_data(slot, wire.generation), flags);
    }

    /// Waits up to `timeout` and hands everything that happened to `driver`.
    pub(crate) fn poll<D: Driver>(&mut self, timeout: Duration, driver: &mut D) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let wait = rustix::event::Timespec {
            tv_sec: timeout.as_secs().min(3600) as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        self.now = Instant::now();
        for event in &events {
            let data = event.data.u64();
            if data == LISTENER {
                self.accept(driver)?;
                continue;
            }
            let (slot, generation) = ((data & 0xffff_ffff) as usize, (data >> 32) as u32);
            let wire = &self.wires[slot];
            if wire.generation != generation || wire.socket.is_none() {
                continue;
            }
            let flags = event.flags;
            if flags.contains(epoll::EventFlags::OUT) {
                self.drain(slot);
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                self.read(slot, driver);
            }
        }
        self.events = events;
        Ok(())
    }

    fn accept<D: Driver>(&mut self, driver: &mut D) -> io::Result<()> {
        loop {
            let Some(listener) = &self.listener else { return Ok(()) };
            let socket = match net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                // Out of descriptors: the connection waits in the backlog until one is free.
                Err(Errno::AGAIN | Errno::MFILE | Errno::NFILE) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            if sockopt::set_tcp_nodelay(&socket, true).is_err() {
                continue;
            }
            let slot = self.vacant.pop().unwrap_or_else(|| {
                self.wires.push(Wire::default());
                self.wires.len() - 1
            });
            self.adopt(slot, socket)?;
            driver.on_accepted(self, slot);
        }
    }

    /// Gives the kernel what it did not take before.
    fn drain(&mut self, slot: usize) {
        let wire = &mut self.wires[slot];
        let (Some(socket), Some(unsent)) = (&wire.socket, &mut wire.unsent) else { return };
        while !unsent.is_empty() {
            match net::send(socket, unsent.as_slices().0, SendFlags::NOSIGNAL) {
                Ok(n) => drop(unsent.drain(..n)),
                Err(Errno::AGAIN) => return,
                // The read that follows reports it.
                Err(_) => break,
            }
        }
        wire.unsent = None;
        self.watch(slot);
    }

    /// One read. The shared buffer leaves `self` meanwhile, so that the driver may use the reactor.
    fn read<D: Driver>(&mut self, slot: usize, driver: &mut D) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let wire = &mut self.wires[slot];
        let kept = match wire.rest.take() {
            None => 0,
            Some(rest) => {
                if buffer.len() < rest.len() + READ_BYTES / 2 {
                    buffer.resize(rest.len() + READ_BYTES, 0);
                }
                buffer[..rest.len()].copy_from_slice(&rest);
                rest.len()
            }
        };
        let outcome = match &wire.socket {
            Some(socket) => rustix::io::read(socket, &mut buffer[kept..]),
            None => Err(Errno::AGAIN),
        };
        match outcome {
            Ok(n) if n > 0 => {
                self.reads += 1;
                self.now = Instant::now();
                let generation = self.wires[slot].generation;
                let used = driver.on_bytes(self, slot, &mut buffer[..kept + n]);
                self.flush();
                let wire = &mut self.wires[slot];
                if wire.socket.is_some() && wire.generation == generation && used < kept + n {
                    wire.rest = Some(buffer[used..kept + n].into());
                }
                self.buffer = buffer;
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                if kept > 0 {
                    self.wires[slot].rest = Some(buffer[..kept].into());
                }
                self.buffer = buffer;
            }
            Ok(_) | Err(_) => {
                self.buffer = buffer;
                self.close(slot, Ending::Fin);
                driver.on_closed(self, slot);
                self.flush();
            }
        }
    }
}

fn stream_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}

fn event_data(slot: usize, generation: u32) -> epoll::EventData {
    epoll::EventData::new_u64(u64::from(generation) << 32 | slot as u64)
}
