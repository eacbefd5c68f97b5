//! Owns what travels between threads and shards: the letters, the bounded mailboxes, and who is on which thread.
//! Does not know what shards do with letters. Invariant: no letter waits for its sender, and none is dropped
//! silently.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use eio_proto::{HandshakeFault, Revision, Sid};
use engine_core::{
    AckToken, BroadcastId, Claimant, Claimed, Flags, Offer, Opening, Reply, RequestId, SessionKey, SocketKey,
    Target,
};
use sio_proto::Body;
use tokio::sync::{mpsc, oneshot};

use crate::ack::AckSink;
use crate::handshake::Handshake;
use crate::joining::{Joined, JoinedAll};
use crate::listener::Counted;
use crate::refusal::Refusal;
use crate::restore::RestoreMail;
use crate::shard::ShardState;
use crate::socket::SocketShared;
use crate::stream::Stream;

/// Letters that one mailbox holds. Default 65,536, a few MiB at the most: at a million small emits a second, the
/// time that a shard may be busy with something else before publishers are told to wait is 65 ms.
pub(crate) const MAILBOX_LETTERS: usize = 65_536;

/// One letter to a shard.
pub(crate) enum Mail {
    /// An HTTP request for this shard's sessions.
    Request(Box<RequestMail>),
    /// A WebSocket that opens a session, or upgrades one.
    Link(Box<LinkMail>),
    /// Something for one socket, or for many.
    Command(Command),
    /// The verdict of a middleware that had to wait for something.
    Verdict {
        of: Arc<SocketShared>,
        verdict: Result<(), Refusal>,
    },
    /// A shard claims a lost socket on behalf of one of its sessions.
    Claim(ClaimMail),
    /// The socket is held for the claimant.
    Offered {
        socket: SocketKey,
        namespace: Arc<str>,
        holder: u8,
        offer: Offer,
    },
    /// Everyone knows what an [`engine_core::Output::Settle`] wanted known.
    Settled {
        pid: Sid,
    },
    /// What the claim has come to, with what handlers keep beside the socket.
    Claimed {
        socket: SocketKey,
        namespace: Arc<str>,
        claimed: Option<Box<Claimed>>,
        shared: Option<Arc<SocketShared>>,
    },
    /// No shard knows what was claimed.
    Unclaimed {
        socket: SocketKey,
        pid: Sid,
    },
    /// The application gives a socket back, or does not.
    Restore(Box<RestoreMail>),
    RestoreRefused {
        socket: SocketKey,
        pid: Sid,
    },
    /// Notes about sockets that were born here and live elsewhere.
    Adopted {
        pid: Sid,
        by: u8,
    },
    ReleaseClaim {
        pid: Sid,
    },
    /// Anything rare: runs on the shard's thread.
    Call(Box<dyn FnOnce(&mut ShardState) + Send>),
}

pub(crate) struct ClaimMail {
    pub(crate) pid: Sid,
    pub(crate) namespace: Arc<str>,
    pub(crate) offset: Option<String>,
    pub(crate) claimant: Claimant,
    /// How many shards have sent it on.
    pub(crate) hops: u8,
}

pub(crate) enum RequestMail {
    OpenPolling {
        request: RequestId,
        opening: Opening,
        handshake: Handshake,
        reply: oneshot::Sender<Reply>,
    },
    Get {
        request: RequestId,
        sid: Sid,
        revision: Revision,
        reply: oneshot::Sender<Reply>,
    },
    PostBegin {
        request: RequestId,
        sid: Sid,
        revision: Revision,
        reply: oneshot::Sender<Reply>,
    },
    /// `body` is `None` if it was too large.
    PostBody {
        request: RequestId,
        body: Option<Bytes>,
        is_octets: bool,
    },
    Lost {
        request: RequestId,
    },
    /// Who carries the session's waiting GET stops.
    EndPoll {
        sid: Sid,
    },
    CheckUpgrade {
        sid: Sid,
        revision: Revision,
        reply: oneshot::Sender<Result<(), HandshakeFault>>,
    },
}

pub(crate) enum LinkMail {
    Open { wire: Wire, opening: Opening, handshake: Handshake },
    Upgrade { wire: Wire, sid: Sid, revision: Revision, deflate: bool },
}

/// A connection that HTTP has let go of.
pub(crate) struct Wire {
    pub(crate) stream: Stream,
    /// What was read from it too early.
    pub(crate) early: Bytes,
    /// `None` if it came by somebody else's listener.
    pub(crate) counted: Option<Counted>,
}

/// Something that handles of sockets and servers ask of a shard.
pub(crate) enum Command {
    Emit {
        socket: SocketKey,
        body: Body,
        flags: Flags,
        ack: Option<AckSink>,
    },
    Answer {
        socket: SocketKey,
        ack_id: u64,
        body: Body,
    },
    Broadcast(Arc<Broadcast>),
    /// With `done` it is all rooms or none, and whoever waits is told.
    Join {
        socket: SocketKey,
        rooms: Vec<Box<str>>,
        done: Option<oneshot::Sender<Joined>>,
    },
    Leave {
        socket: SocketKey,
        rooms: Vec<Box<str>>,
    },
    Disconnect {
        socket: SocketKey,
        close: bool,
    },
    /// Cuts the link without a word, as a failing network would.
    Sever {
        session: SessionKey,
    },
    JoinAll {
        target: Arc<Target>,
        rooms: Arc<[Box<str>]>,
        done: Option<oneshot::Sender<JoinedAll>>,
    },
    LeaveAll {
        target: Arc<Target>,
        rooms: Arc<[Box<str>]>,
    },
    DisconnectAll {
        target: Arc<Target>,
        close: bool,
    },
}

/// One broadcast on its way to every shard that has members for it.
pub(crate) struct Broadcast {
    pub(crate) id: BroadcastId,
    pub(crate) target: Target,
    pub(crate) body: Body,
    pub(crate) flags: Flags,
    pub(crate) ack: Option<BroadcastAck>,
}

pub(crate) struct BroadcastAck {
    pub(crate) timeout: Option<std::time::Duration>,
    pub(crate) sink: mpsc::UnboundedSender<crate::ack::Part>,
}

/// The way to one shard. Cloned with every handle of a socket; the count is touched by that shard's thread alone
/// on the data path.
pub(crate) struct Port {
    pub(crate) index: u8,
    mailbox: mpsc::Sender<Mail>,
    /// The mailbox has been full since it was last looked at.
    pub(crate) was_full: AtomicBool,
    pub(crate) refused: AtomicU64,
}

/// A mailbox was full, or its shard has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    pub(crate) stopped: bool,
}

impl Busy {
    /// The server has stopped: trying again is no use.
    #[must_use]
    pub fn is_stopped(self) -> bool {
        self.stopped
    }
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.stopped {
            f.write_str("the server has stopped")
        } else {
            write!(
                f,
                "a shard's mailbox of {MAILBOX_LETTERS} letters is full: try again in a few milliseconds"
            )
        }
    }
}

impl std::error::Error for Busy {}

impl Port {
    pub(crate) fn new(index: u8) -> (Arc<Self>, mpsc::Receiver<Mail>) {
        let (mailbox, letters) = mpsc::channel(MAILBOX_LETTERS);
        let port =
            Arc::new(Self { index, mailbox, was_full: AtomicBool::new(false), refused: AtomicU64::new(0) });
        (port, letters)
    }

    /// Sends a letter, from any thread. On the shard's own thread, during a turn, commands take the short way.
    pub(crate) fn send(&self, mail: Mail) -> Result<(), Busy> {
        let mail = match mail {
            Mail::Command(command) => match try_local(self, command) {
                Ok(()) => return Ok(()),
                Err(command) => Mail::Command(command),
            },
            other => other,
        };
        self.mailbox.try_send(mail).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.was_full.store(true, Ordering::Relaxed);
                self.refused.fetch_add(1, Ordering::Relaxed);
                Busy { stopped: false }
            }
            mpsc::error::TrySendError::Closed(_) => Busy { stopped: true },
        })
    }

    /// Sends a letter that must arrive, waiting for room.
    pub(crate) async fn send_waiting(&self, mail: Mail) -> Result<(), Busy> {
        self.mailbox.send(mail).await.map_err(|_| Busy { stopped: true })
    }

    /// As [`Port::send`], but waits for room. In a turn of the shard there always is room, and no waiting.
    pub(crate) async fn send_command_waiting(&self, command: Command) -> Result<(), Busy> {
        match try_local(self, command) {
            Ok(()) => Ok(()),
            Err(command) => self.send_waiting(Mail::Command(command)).await,
        }
    }

    /// Takes a place in the mailbox, if there is one.
    pub(crate) fn try_reserve(&self) -> Result<mpsc::Permit<'_, Mail>, Busy> {
        self.mailbox
            .try_reserve()
            .map_err(|error| Busy { stopped: matches!(error, mpsc::error::TrySendError::Closed(())) })
    }

    /// Waits for a place in the mailbox.
    pub(crate) async fn reserve(&self) -> Result<mpsc::Permit<'_, Mail>, Busy> {
        self.was_full.store(true, Ordering::Relaxed);
        self.mailbox.reserve().await.map_err(|_| Busy { stopped: true })
    }
}

/// The shard whose turn it is on this thread, and what its handlers have asked for so far.
struct Turn {
    port: *const Port,
    commands: Vec<Command>,
}

thread_local! {
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
    /// Whether the turn has commands: asked after every event, so it must cost nothing.
    static HAS_COMMANDS: Cell<bool> = const { Cell::new(false) };
}

/// Hands a command to the shard whose turn it is on this thread, if that is `port`'s. Order is kept: the shard
/// takes them when the handler that is running returns.
fn try_local(port: &Port, command: Command) -> Result<(), Command> {
    TURN.with_borrow_mut(|turn| match turn {
        Some(turn) if std::ptr::eq(turn.port, port) => {
            turn.commands.push(command);
            HAS_COMMANDS.set(true);
            Ok(())
        }
        _ => Err(command),
    })
}

/// Whether `port`'s shard has its turn on this thread: what its handlers have asked for so far is still to be done.
pub(crate) fn is_turn_of(port: &Port) -> bool {
    TURN.with_borrow(|turn| turn.as_ref().is_some_and(|turn| std::ptr::eq(turn.port, port)))
}

/// Marks this thread as being in a turn of `port`'s shard.
pub(crate) fn begin_turn(port: &Arc<Port>, commands: Vec<Command>) {
    TURN.set(Some(Turn { port: Arc::as_ptr(port), commands }));
}

/// Ends the turn; answers what was asked for meanwhile.
pub(crate) fn end_turn() -> Vec<Command> {
    TURN.take().map_or_else(Vec::new, |turn| turn.commands)
}

/// Whether anything has been asked for since [`take_commands`].
#[inline]
pub(crate) fn has_commands() -> bool {
    HAS_COMMANDS.get()
}

/// Takes what has been asked for so far, in exchange for an empty list.
pub(crate) fn take_commands(empty: &mut Vec<Command>) {
    HAS_COMMANDS.set(false);
    TURN.with_borrow_mut(|turn| {
        if let Some(turn) = turn {
            std::mem::swap(&mut turn.commands, empty);
        }
    });
}

/// Makes numbers that are unique in this process.
#[derive(Default)]
pub(crate) struct Numbers(AtomicU64);

impl Numbers {
    pub(crate) fn request(&self) -> RequestId {
        RequestId(self.0.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn broadcast(&self) -> BroadcastId {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        BroadcastId(NonZeroU64::new(number + 1).unwrap_or(NonZeroU64::MIN))
    }

    pub(crate) fn token(&self) -> AckToken {
        AckToken(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
