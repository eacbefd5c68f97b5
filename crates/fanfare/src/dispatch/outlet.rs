//! Owns the last step: events go to the sockets of this process, and watchers get their place among them.
//! Does not commit. Invariant: kept events leave in the order of the store, and whoever is attached misses nothing after
//! what it has read.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::Restored;
use hub::event::{Event, Position};
use hub::room::RoomName;
use serde_json::value::RawValue;

use super::fanout::{self, Delivery};
use super::recent::{Recent, Sent};
use super::{Attached, Attachment, Replay, Returning, Shared};
use crate::codes::{Code, Fault};
use crate::event::now;
use crate::filters::Channel;

/// Events that are read again at once for whoever is attached late.
const REREAD_MAX: usize = 2_048;

/// Where events leave for the sockets.
pub(super) struct Outlet {
    shared: Arc<Shared>,
    recent: Recent,
}

impl Outlet {
    /// Nothing has left yet.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, recent: Recent::default() }
    }

    /// Sends an event to those it is for.
    pub(super) async fn send(&mut self, delivery: Delivery) {
        fanout::send(&self.shared.server, &self.shared.filters, &delivery).await;
        if let Some(order) = delivery.order {
            self.shared.sent_order.store(order, Ordering::Release);
            self.recent.push(Sent { order, event: delivery.event, placed: delivery.placed });
        }
    }

    /// Lets watchers join, all of them together: each gets what it needs from the log, then its place in the room.
    pub(super) async fn attach_all(&mut self, attachments: Vec<Attachment>) {
        let mut joining: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
        for attach in attachments {
            let (socket, room, channel, replay, reply) = match attach {
                Attachment::Join { socket, room, channel, replay, reply } => {
                    (socket, room, channel, replay, reply)
                }
                Attachment::Restore(returning) => {
                    joining.extend(self.begin_restore(*returning).await);
                    continue;
                }
            };
            let outcome = self.replay(&socket, &room, channel.as_deref(), replay).await;
            match outcome {
                Ok(attached) => {
                    joining.push(Box::pin(async move {
                        // Nobody waits any more: the caller has gone.
                        let name = channel.as_deref().map_or(room.as_str(), Channel::name);
                        let _ = reply.send(match socket.join_waiting(name).await {
                            engine::Joined::TooManyRooms { max } => Err(Fault::new(
                                Code::TooManyRooms,
                                format!("a socket may be in {max} rooms; leave another one first"),
                            )),
                            // A socket that has gone hears nothing, whatever it is told.
                            engine::Joined::Done | engine::Joined::Gone => Ok(attached),
                        });
                    }));
                }
                Err(fault) => {
                    let _ = reply.send(Err(fault));
                }
            }
        }
        futures_util::future::join_all(joining).await;
    }

    /// Completes what a socket missed, and begins to give it back: in this turn, so that what is sent later finds it.
    async fn begin_restore(
        &self,
        mut returning: Returning,
    ) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        // What was read may be newer than all that has been heard, where nobody was in these rooms before. A fence has passed
        // since, so nothing up to there is still to come. The shard's offsets must tell as much: who showed an older number at
        // the next server would be given the same again.
        let heard = self.shared.sent_order.fetch_max(returning.read_order, Ordering::AcqRel);
        let sent = heard.max(returning.read_order);
        if returning.read_order < self.recent.since() {
            // The read is older than what is held here: rare, so the store is simply asked again.
            let names = returning.rooms.iter().map(|(room, _)| room.clone()).collect();
            let reading = self.shared.store.read_after_order(names, returning.read_order, REREAD_MAX).await;
            match reading.map_err(Fault::from).and_then(|more| more.ok_or_else(|| super::gone(REREAD_MAX))) {
                // This turn's events are in the store already, and those behind this step are sent out after it.
                Ok(more) => returning.missed.extend(more.into_iter().filter(|kept| kept.order <= sent)),
                Err(fault) => {
                    returning.request.refuse();
                    let _ = returning.reply.send(Err(fault));
                    return None;
                }
            }
        } else {
            let rooms = returning.rooms.iter().map(|(room, _)| room);
            returning.missed.extend(self.recent.of(returning.read_order, rooms));
        }
        let now = now();
        let mut restored = Restored::new(returning.sid, sent);
        let mut last = None;
        for kept in &returning.missed {
            // An event of several of its rooms comes once for each, one after the other.
            if last == Some(kept.order) || !returning.has_missed(kept) || kept.event.is_expired(now) {
                continue;
            }
            last = Some(kept.order);
            let argument = kept.event.argument(Some(&kept.room), kept.position);
            match returning.request.missed(kept.order, &kept.event.name, &engine::One(&*argument)) {
                Ok(missed) => restored.missed.push(missed),
                Err(error) => {
                    tracing::warn!(event = &*kept.event.name, %error, "an event cannot be sent again")
                }
            }
        }
        restored.rooms = returning.names();
        restored.state = Some(returning.state);
        let (request, reply) = (returning.request, returning.reply);
        Some(Box::pin(async move {
            let outcome = request.restore(restored).await;
            let outcome = outcome.map_err(|fault| Fault::new(Code::Busy, fault.to_string()));
            let _ = reply.send(outcome);
        }))
    }

    /// Gives a socket what it asked for of a log, up to what has been sent out.
    async fn replay(
        &mut self,
        socket: &engine::Socket,
        room: &RoomName,
        channel: Option<&Channel>,
        replay: Replay,
    ) -> Result<Attached, Fault> {
        let now = now();
        let is_wanted =
            |event: &Event| !event.is_expired(now) && channel.is_none_or(|channel| channel.lets_pass(event));
        let (read_order, mut position, events) = match replay {
            Replay::Unkept => {
                return Ok(Attached { position: Some(Position { epoch: 0, seq: 0 }), replayed: 0 });
            }
            Replay::Nothing(page) => {
                let position = Position { epoch: page.epoch, seq: page.last_seq };
                let position = self
                    .recent
                    .after(page.order, room)
                    .filter_map(|(_, position)| position)
                    .last()
                    .unwrap_or(position);
                return Ok(Attached { position: Some(position), replayed: 0 });
            }
            Replay::Log(page) => {
                (page.order, Some(Position { epoch: page.epoch, seq: page.last_seq }), page.events)
            }
            Replay::Latest(events, order) => (order, None, events),
        };
        let mut replayed = 0;
        // Of what was read, whoever read it has left out what is not wanted.
        for kept in &events {
            let argument = kept.event.argument(Some(room), kept.position);
            give(socket, &kept.event, &argument, kept.order).await;
            replayed += 1;
        }
        if read_order < self.recent.since() {
            // The read is older than what is held here: rare, so the store is simply asked again.
            let since = events.last().map_or(read_order, |kept| kept.order.max(read_order));
            let missing = self.shared.store.read_after_order(vec![room.clone()], since, REREAD_MAX);
            let missing = missing.await?;
            let Some(missing) = missing else {
                return Err(Fault::new(Code::Busy, "the room's log moves faster than it can be replayed"));
            };
            let sent = self.shared.sent_order.load(Ordering::Acquire);
            // What this turn has committed and not sent out yet comes by itself.
            for kept in missing.into_iter().take_while(|kept| kept.order <= sent) {
                position = kept.position.or(position);
                if is_wanted(&kept.event) {
                    let argument = kept.event.argument(Some(room), kept.position);
                    give(socket, &kept.event, &argument, kept.order).await;
                    replayed += 1;
                }
            }
        } else {
            let missing: Vec<(Arc<Event>, Option<Position>, u64)> = self
                .recent
                .after(read_order, room)
                .map(|(sent, position)| (sent.event.clone(), position, sent.order))
                .collect();
            for (event, at, order) in missing {
                position = at.or(position);
                if is_wanted(&event) {
                    give(socket, &event, &event.argument(Some(room), at), order).await;
                    replayed += 1;
                }
            }
        }
        Ok(Attached { position, replayed })
    }
}

async fn give(socket: &engine::Socket, event: &Event, argument: &RawValue, order: u64) {
    let flags = engine::Flags { order: engine::Order::Replay(order), ..engine::Flags::default() };
    if let Err(error) = socket.emit_args_waiting(&event.name, &engine::One(argument), flags).await {
        tracing::debug!(?socket, %error, "a socket could not be given what it missed");
    }
}
