//! Sockets that come back: letters about claims between shards, and what the application gives back.
//! Does not know what is recovered, which is the shard's; here its letters travel, and what handlers keep goes along.

use std::sync::{Arc, OnceLock};

use eio_proto::Sid;
use engine_core::{Claim, Claimant, Claimed, Moment, Released, SessionKey, SocketKey};
use tokio::sync::oneshot;

use super::{Entry, ShardState, put};
use crate::calls::contain;
use crate::handshake::Handshake;
use crate::mail::{ClaimMail, Mail};
use crate::restore::{RestoreMail, RestoreRequest};
use crate::socket::{Kept, Socket, SocketShared};

/// Shards that a claim may be sent on by. Four are enough for a socket that moves while it is claimed; more means that
/// notes lead in a circle, because a letter was lost.
const CLAIM_HOPS_MAX: u8 = 8;

impl ShardState {
    /// Has another shard asked for a socket.
    pub(super) fn send_claim(&mut self, now: Moment, shard: u8, claim: ClaimMail) {
        let (socket, namespace) = (claim.claimant.socket, claim.namespace.clone());
        let port = self.server.ports().get(usize::from(shard));
        if port.is_none_or(|port| port.send(Mail::Claim(claim)).is_err()) {
            self.core.handle_claimed(now, socket, &namespace, None);
        }
    }

    pub(super) fn handle_claim(&mut self, now: Moment, mut claim: ClaimMail) {
        let ClaimMail { pid, ref namespace, ref offset, claimant, hops } = claim;
        match self.core.handle_claim(now, namespace, pid, offset.as_deref(), claimant) {
            Claim::Unknown => {
                self.mail_to(claimant.shard, Mail::Unclaimed { socket: claimant.socket, pid });
            }
            Claim::Moved { shard } if hops < CLAIM_HOPS_MAX => {
                claim.hops += 1;
                self.mail_to(shard, Mail::Claim(claim));
            }
            Claim::Refused | Claim::Moved { .. } => self.give(claimant, claim.namespace, None),
            Claim::Offered(offer) => {
                let holder = self.port.index;
                let letter =
                    Mail::Offered { socket: claimant.socket, namespace: claim.namespace, holder, offer };
                self.mail_to(claimant.shard, letter);
            }
            Claim::Taken(claimed) => {
                let shared = self.entry(claimed.socket).map(|entry| entry.socket.shared.clone());
                self.handle_claimed(now, claimant.socket, &claim.namespace, Some(claimed), shared);
            }
        }
    }

    pub(super) fn handle_claimed(
        &mut self,
        now: Moment,
        socket: SocketKey,
        namespace: &str,
        claimed: Option<Box<Claimed>>,
        shared: Option<Arc<SocketShared>>,
    ) {
        let now_is = self.core.handle_claimed(now, socket, namespace, claimed.map(|claimed| *claimed));
        if let Some(old) = shared {
            let SocketShared { namespace, handshake, kept, sid, .. } = &*old;
            self.bring(now_is, namespace.clone(), handshake.clone(), kept.clone(), sid.clone());
        }
    }

    /// Mails a socket, or that there is none, to the shard that claims it.
    pub(super) fn give(&self, claimant: Claimant, namespace: Arc<str>, claimed: Option<Box<Claimed>>) {
        let entry = claimed.as_ref().and_then(|claimed| self.entry(claimed.socket));
        let shared = entry.map(|entry| entry.socket.shared.clone());
        self.mail_to(claimant.shard, Mail::Claimed { socket: claimant.socket, namespace, claimed, shared });
    }

    pub(super) fn mail_to(&self, shard: u8, letter: Mail) {
        // A full mailbox of another shard costs a recovery, or a note that is cleared when the process ends.
        if self.server.ports().get(usize::from(shard)).is_none_or(|port| port.send(letter).is_err()) {
            tracing::warn!(shard, "a letter between shards could not be delivered");
        }
    }

    pub(super) fn mail_home(&self, pid: Sid, letter: Mail) {
        self.mail_to(self.core.home_of(pid), letter);
    }

    /// A socket comes from another shard, or from the application's memory: its state and data come along.
    fn bring(
        &mut self,
        socket: SocketKey,
        name: Arc<str>,
        handshake: Arc<Handshake>,
        kept: Arc<Kept>,
        sid: OnceLock<Sid>,
    ) {
        // It is asked about in the outputs that follow; until then the entry holds only what it brings.
        let Some(namespace) = self.server.namespace(&name) else { return };
        let shared = Arc::new(SocketShared {
            server: self.server.clone(),
            port: self.port.clone(),
            key: socket,
            session: SessionKey::NONE,
            sid,
            pid: OnceLock::new(),
            namespace: name,
            auth: Box::default(),
            handshake,
            kept,
            recovered: false.into(),
            is_afresh: false.into(),
        });
        let entry = Entry { key: socket, socket: Socket { shared }, namespace, is_connected: false };
        put(&mut self.sockets, socket.slot(), entry);
    }

    /// Another node takes a socket over. Whoever asked is told when all that follows from it has been begun.
    pub(crate) fn release(&mut self, pid: Sid, done: oneshot::Sender<Released>) {
        let now = self.now();
        let outcome = self.core.handle_release(now, pid);
        self.announce(done, outcome);
    }

    /// The application gives a socket back.
    pub(super) fn restore(&mut self, now: Moment, letter: RestoreMail) {
        let RestoreMail { socket, pid, namespace, handshake, restored, done } = letter;
        let kept = Arc::new(Kept::new(restored.state, restored.data));
        let core = engine_core::Restored {
            sid: restored.sid,
            rooms: restored.rooms,
            order: restored.order,
            missed: restored.missed.into_iter().map(|missed| (missed.order, missed.body)).collect(),
        };
        let outcome = self.core.handle_restored(now, socket, pid, Some(core));
        if outcome.is_ok() {
            self.bring(socket, namespace, handshake, kept, restored.sid.into());
        }
        self.announce(done, outcome);
    }

    /// A peer asks for a socket that no shard knows: the application may.
    pub(super) fn ask_restorer(
        &mut self,
        now: Moment,
        (socket, session): (SocketKey, SessionKey),
        namespace: Arc<str>,
        (pid, order): (Sid, Option<u64>),
        auth: Box<[u8]>,
    ) {
        let handshake = self.handshakes.get(session.slot()).cloned().flatten();
        let (Some(handshake), Some(restorer), Some(_)) =
            (handshake, &self.server.restorer, self.server.namespace(&namespace))
        else {
            let _ = self.core.handle_restored(now, socket, pid, None);
            return;
        };
        let request = RestoreRequest {
            server: self.server.clone(),
            port: self.port.clone(),
            socket,
            pid,
            namespace,
            order,
            handshake,
            auth,
            is_answered: false,
        };
        contain(&self.server, || restorer.restore(request));
    }
}
