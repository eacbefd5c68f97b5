//! Owns what the tasks of a bus have in common, and what happens when a letter comes, when the connection is lost, and at
//! the end. Does not wait. Invariant: what comes is put where it belongs in the order in which it comes.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{PushInfo, PushKind, Value};
use store_redis::bus::decode_stamp;
use store_redis::link::Link;
use tokio::sync::{Notify, mpsc};

use crate::asking::{Questions, Request};
use crate::channel::Channel;
use crate::fault::BusFault;
use crate::feed::News;
use crate::fences::Fences;
use crate::health::{Status, Tally};
use crate::inbox::{Inbox, Put};
use crate::interest::Interest;
use crate::letter::Letter;
use crate::node::{NodeId, NodeInfo};
use crate::publisher::Publisher;
use crate::roster::Roster;
use crate::wishes::Wishes;

/// Between two complaints in the log about what cannot be read.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) prefix: String,
    pub(crate) me: NodeInfo,
    pub(crate) link: Arc<Link>,
    pub(crate) publisher: Publisher,
    pub(crate) inbox: Inbox,
    pub(crate) wishes: Wishes,
    pub(crate) interest: Interest,
    pub(crate) fences: Fences,
    pub(crate) questions: Questions,
    pub(crate) status: Status,
    pub(crate) tally: Arc<Tally>,
    pub(crate) cut: Cut,
    /// The list of nodes is to be looked at.
    pub(crate) look: Notify,
    /// A mark is to be sent without waiting for its time.
    pub(crate) canary: Notify,
    roster: Mutex<Roster>,
    /// The newest number of what this node tells; letters are queued in their order while it is held.
    pub(crate) turn: Mutex<u64>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    complained: Mutex<Option<Instant>>,
}

/// What a bus is made of.
pub(crate) struct Parts {
    pub(crate) prefix: String,
    pub(crate) me: NodeInfo,
    pub(crate) link: Arc<Link>,
    pub(crate) publisher: Publisher,
    pub(crate) tally: Arc<Tally>,
    pub(crate) requests: mpsc::Sender<Request>,
    /// A number that no other process has, as far as chance allows.
    pub(crate) nonce: u64,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { prefix, me, link, publisher, tally, requests, nonce } = parts;
        // Numbers of a node begin with the time, so that they grow over its restarts; there is room for a million in a
        // millisecond.
        let turn = me.since.0 << 20;
        Self {
            prefix,
            me,
            link,
            publisher,
            inbox: Inbox::new(),
            wishes: Wishes::default(),
            interest: Interest::default(),
            fences: Fences::new(nonce),
            questions: Questions::new(nonce),
            status: Status::default(),
            tally,
            cut: Cut::default(),
            look: Notify::new(),
            canary: Notify::new(),
            roster: Mutex::default(),
            turn: Mutex::new(turn),
            requests: Mutex::new(Some(requests)),
            complained: Mutex::default(),
        }
    }

    /// The channel of a node.
    pub(crate) fn node_channel(&self, node: NodeId) -> String {
        format!("{{{}}}:node:{node}", self.prefix)
    }

    pub(crate) fn own_channel(&self) -> String {
        self.node_channel(self.me.id)
    }

    /// The channel of all nodes.
    pub(crate) fn common_channel(&self) -> String {
        format!("{{{}}}:nodes", self.prefix)
    }

    /// Publishes a letter; how many connections got it.
    pub(crate) async fn publish_letter(&self, channel: String, letter: &Letter) -> Result<u64, BusFault> {
        let payload = letter.encode(self.me.id, &self.prefix);
        Ok(self.publisher.publish(vec![channel], payload).await?.into_iter().sum())
    }

    /// The other nodes that live, by number.
    pub(crate) fn others(&self) -> Vec<NodeInfo> {
        self.roster().others().cloned().collect()
    }

    pub(crate) fn has_node(&self, node: NodeId) -> bool {
        self.roster().has(node)
    }

    /// Notes who is there, and puts what is new into the feed.
    pub(crate) fn note_nodes(&self, change: impl FnOnce(&mut Roster) -> Vec<News>) {
        // Under one lock, so that the feed tells them in the order in which they happened.
        let mut roster = self.roster();
        for news in change(&mut roster) {
            if let News::NodeGone(info) = &news {
                self.inbox.forget(info.id.0);
                self.questions.handle_gone(info.id);
            }
            self.inbox.put_news(news);
        }
    }

    /// Takes in what the server sends unasked, by the connection of this generation.
    pub(crate) fn hear(self: &Arc<Self>, generation: u64, push: PushInfo) {
        match push.kind {
            PushKind::SMessage => {
                if let Ok([Value::BulkString(channel), Value::BulkString(bytes)]) =
                    <[Value; 2]>::try_from(push.data)
                {
                    self.hear_message(generation, &channel, bytes);
                }
            }
            PushKind::Disconnection => self.cut.cut(generation, "the connection broke"),
            PushKind::SUnsubscribe => {
                // Nobody asked: in a Cluster another server has the channels by now.
                let channel = match push.data.first() {
                    Some(Value::BulkString(name)) => self.channel(name),
                    _ => None,
                };
                if !channel.is_some_and(|channel| self.wishes.is_left(&channel)) {
                    self.cut.cut(generation, "another server has the channels");
                }
            }
            // What we did not ask for, and confirmations, which whoever asked gets.
            _ => {}
        }
    }

    fn hear_message(self: &Arc<Self>, generation: u64, channel: &[u8], bytes: Vec<u8>) {
        if self.channel(channel).is_none() {
            match Letter::decode(bytes) {
                Ok((from, letter)) if generation == self.inbox.generation() => {
                    self.handle_letter(from, letter)
                }
                Ok(_) => {}
                Err(why) => self.complain(&why),
            }
            return;
        }
        let stamp = match decode_stamp(&bytes) {
            Ok(stamp) => stamp,
            Err(why) => return self.complain(&why),
        };
        if !stamp.is_kept && stamp.origin == self.me.id.0 {
            // It was given to our own sockets when we told it.
            return;
        }
        match self.inbox.put_event(generation, stamp, bytes) {
            Put::Taken => self.tally.messages_in.add(1),
            Put::Repeat => self.tally.repeats.add(1),
            Put::Overflow => {
                self.tally.overflows.add(1);
                tracing::warn!("what other servers tell is not taken in time: what waited was dropped");
            }
            Put::Late => {}
        }
    }

    /// The channel of events of this name, if it is one.
    pub(crate) fn channel(&self, name: &[u8]) -> Option<Channel> {
        let rest = name.strip_prefix(b"{")?.strip_prefix(self.prefix.as_bytes())?;
        Channel::parse(rest.strip_prefix(b"}:")?)
    }

    fn handle_letter(self: &Arc<Self>, from: NodeId, letter: Letter) {
        let is_own = from == self.me.id;
        match letter {
            Letter::Mark { nonce, number } => {
                if let Some(fence) = self.fences.arrive(nonce, number) {
                    self.inbox.put_news(fence);
                }
            }
            Letter::Answer { number, body } => self.questions.handle_answer(number, from, body),
            // What one tells all, one tells oneself, too.
            Letter::Question { .. } | Letter::Interest(_) | Letter::Came(_) | Letter::Gone(_) if is_own => {}
            Letter::Question { number, body } => {
                let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
                let request = Request::new(from, body, number, Arc::clone(self));
                if let Some(requests) = &*requests
                    && requests.try_send(request).is_err()
                {
                    self.tally.requests_dropped.add(1);
                }
            }
            Letter::Interest(channels) => {
                self.interest.announce(channels);
                if self.interest.is_stale() {
                    // Whoever wants nothing new would not look either, while the others tell what they want.
                    self.wishes.changed.notify_one();
                }
            }
            Letter::Came(info) => self.note_nodes(|roster| roster.handle_came(info)),
            Letter::Gone(name) => self.note_nodes(|roster| roster.handle_gone(from, &name)),
        }
    }

    /// Counts what cannot be read, and says so, but not too often.
    pub(crate) fn complain(&self, why: &str) {
        self.tally.undecodable.add(1);
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
            *complained = Some(Instant::now());
            tracing::warn!("what another server tells cannot be read: {why}");
        }
    }

    /// The connection is lost, or could not be completed: nothing that it has told from now on counts.
    pub(crate) fn lose(&self, why: &str) {
        self.status.cut(why);
        self.inbox.cut();
        self.interest.lose();
        self.wishes.cut(&BusFault::Down(why.to_owned()));
        self.fences.cut();
    }

    /// Ends everything that waits. The tasks are ended by whoever has them.
    pub(crate) fn end(&self) {
        self.inbox.end();
        self.wishes.close();
        self.fences.end();
        self.cut.cut(self.inbox.generation(), "it is closed");
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("me", &self.me).finish_non_exhaustive()
    }
}

/// That a connection is of no use any more, and why.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    said: Mutex<Option<(u64, String)>>,
    came: Notify,
}

impl Cut {
    /// Says so of the connection of this generation. The first reason counts.
    pub(crate) fn cut(&self, generation: u64, why: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref().is_none_or(|(last, _)| *last < generation) {
            *said = Some((generation, why.to_owned()));
        }
        drop(said);
        self.came.notify_one();
    }

    /// Waits until it is said of this one: why.
    pub(crate) async fn wait(&self, generation: u64) -> String {
        loop {
            {
                let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((of, why)) = &*said
                    && *of == generation
                {
                    return why.clone();
                }
            }
            self.came.notified().await;
        }
    }
}
