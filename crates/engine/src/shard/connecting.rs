//! Sockets that connect and go: middlewares and their verdicts, the handlers of both ends, and what is kept between them.
//! Does not know the protocol. Invariant: an entry stands for the newest that was asked about its key.

use std::sync::Arc;
use std::task::Poll;

use engine_core::{Reason, SessionKey, SocketKey};

use super::{Entry, ShardState, put};
use crate::calls::{contain, poll_once, start};
use crate::mail::Mail;
use crate::refusal::Refusal;
use crate::socket::{ConnectRequest, Kept, Socket, SocketShared};

impl ShardState {
    pub(super) fn begin_connect(
        &mut self,
        socket: SocketKey,
        session: SessionKey,
        name: Arc<str>,
        auth: Box<[u8]>,
        recovering: bool,
    ) {
        let Some(namespace) = self.server.namespace(&name) else {
            self.core.refuse(socket, "Invalid namespace", None);
            return;
        };
        let Some(Some(handshake)) = self.handshakes.get(session.slot()) else {
            self.core.refuse(socket, "the session is closing", None);
            return;
        };
        // The new connection has its own request and auth; state and data are the old socket's.
        let kept = match self.entry(socket) {
            Some(old) if recovering => old.socket.shared.kept.clone(),
            _ => Arc::new(Kept::default()),
        };
        let shared = Arc::new(SocketShared {
            server: self.server.clone(),
            port: self.port.clone(),
            key: socket,
            session,
            sid: std::sync::OnceLock::new(),
            pid: std::sync::OnceLock::new(),
            namespace: name,
            auth,
            handshake: handshake.clone(),
            kept,
            recovered: false.into(),
            is_afresh: false.into(),
        });
        let skips = recovering && self.server.recovery_skips_middlewares;
        let entry = Entry {
            key: socket,
            socket: Socket { shared: shared.clone() },
            namespace: namespace.clone(),
            is_connected: false,
        };
        put(&mut self.sockets, socket.slot(), entry);
        if skips || namespace.middlewares.is_empty() {
            return self.conclude(&shared, Ok(()));
        }
        let of = shared.clone();
        let request = Arc::new(ConnectRequest { shared, recovering });
        let port = self.port.clone();
        let run = async move {
            let mut verdict = Ok(());
            for middleware in &namespace.middlewares {
                verdict = middleware(request.clone()).await;
                if verdict.is_err() {
                    break;
                }
            }
            verdict
        };
        let mut run: std::pin::Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>> = Box::pin(run);
        let broken = || Err(Refusal::new("internal error"));
        match contain(&self.server, || poll_once(&self.server, run.as_mut())) {
            None => self.conclude(&of, broken()),
            Some(Poll::Ready(verdict)) => self.conclude(&of, verdict),
            Some(Poll::Pending) => {
                let running = self.server.control.spawn(run);
                self.server.control.spawn(async move {
                    // A middleware that panics refuses, rather than leaving its peer without an answer.
                    let verdict = running.await.unwrap_or_else(|_| broken());
                    let _ = port.send_waiting(Mail::Verdict { of, verdict }).await;
                });
            }
        }
    }

    /// Middlewares have decided about a socket-to-be, of whom `of` is what they saw.
    pub(super) fn conclude(&mut self, of: &Arc<SocketShared>, verdict: Result<(), Refusal>) {
        let socket = of.key;
        // A lost socket may have been asked for again meanwhile: that peer has a verdict of its own to wait for.
        if self.entry(socket).is_none_or(|entry| !Arc::ptr_eq(&entry.socket.shared, of)) {
            return;
        }
        match verdict {
            Err(refusal) => {
                self.core.refuse(socket, &refusal.message, refusal.data.as_ref());
                // A socket that is still lost keeps what belongs to it.
                if self.core.sid_of(socket).is_none() {
                    self.forget(socket);
                }
            }
            Ok(()) => {
                let is_afresh = of.is_afresh.load(std::sync::atomic::Ordering::Relaxed);
                let accepted =
                    if is_afresh { self.core.accept_afresh(socket) } else { self.core.accept(socket) };
                let Some(accepted) = accepted else { return };
                if accepted.socket != socket {
                    self.rename(socket, accepted.socket);
                }
                let Some(Some(entry)) = self.sockets.get_mut(accepted.socket.slot()) else { return };
                entry.is_connected = true;
                let _ = entry.socket.shared.sid.set(accepted.sid);
                if let Some(pid) = accepted.pid {
                    let _ = entry.socket.shared.pid.set(pid);
                }
                entry.socket.shared.recovered.store(accepted.recovered, std::sync::atomic::Ordering::Relaxed);
                if let Some(on_connect) = &entry.namespace.on_connect
                    && let Some(task) = contain(&self.server, || on_connect(entry.socket.clone()))
                {
                    start(&self.server, task);
                }
            }
        }
    }

    /// A socket begins anew under another key: its connection, state and data go along.
    fn rename(&mut self, old: SocketKey, new: SocketKey) {
        let Some(entry) = self.sockets.get_mut(old.slot()).and_then(|slot| slot.take_if(|it| it.key == old))
        else {
            return;
        };
        let was = &entry.socket.shared;
        let shared = Arc::new(SocketShared {
            server: was.server.clone(),
            port: was.port.clone(),
            key: new,
            session: was.session,
            sid: std::sync::OnceLock::new(),
            pid: std::sync::OnceLock::new(),
            namespace: was.namespace.clone(),
            auth: was.auth.clone(),
            handshake: was.handshake.clone(),
            kept: was.kept.clone(),
            recovered: false.into(),
            is_afresh: false.into(),
        });
        let entry = Entry { key: new, socket: Socket { shared }, ..entry };
        put(&mut self.sockets, new.slot(), entry);
    }

    pub(super) fn end_socket(
        &mut self,
        socket: SocketKey,
        reason: Reason,
        rooms: Vec<String>,
        is_recoverable: bool,
    ) {
        let Some(Some(entry)) = self.sockets.get_mut(socket.slot()) else { return };
        if entry.key != socket {
            return;
        }
        let was_connected = std::mem::replace(&mut entry.is_connected, false);
        if was_connected
            && let Some(on_disconnect) = &entry.namespace.on_disconnect
            && let Some(task) = contain(&self.server, || on_disconnect(entry.socket.clone(), reason, rooms))
        {
            start(&self.server, task);
        }
        if !is_recoverable {
            self.forget(socket);
        }
    }

    pub(super) fn forget(&mut self, socket: SocketKey) {
        if let Some(slot) = self.sockets.get_mut(socket.slot())
            && slot.as_ref().is_some_and(|entry| entry.key == socket)
        {
            *slot = None;
        }
    }
}
