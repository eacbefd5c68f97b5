//! Owns the commands by which sockets send updates to the topics of the dashboard, and the look at it that everybody is given who
//! connects. Does not know what updates say: the
//! vocabulary checks them and says where they go.

use std::borrow::Cow;
use std::sync::Arc;

use engine::{Event, Namespace};
use hub::access::{Access, Action, decide};
use hub::json::Json;
use hub::outgoing::Outgoing;
use hub::room::{RoomKind, RoomName};
use hub::schema;
use hub::store::Kept;
use serde_json::value::RawValue;

use super::Hub;
use super::caller::{Caller, argument};
use crate::auth::principal_of;
use crate::codes::{Code, Fault};
use crate::dispatch::position_json;
use crate::event::check_depth;

pub(super) fn register(namespace: &mut Namespace, hub: &Arc<Hub>) {
    for event in hub::dashboard::EVENTS {
        let hub = hub.clone();
        namespace.on_raw(event.name, move |socket, event| {
            let Some(caller) = Caller::admit(socket, event, &hub) else { return };
            let update = match hub.update(socket, event) {
                Ok(update) => update,
                Err(fault) => return caller.refuse(&fault),
            };
            // Its place in the order is taken here, so that updates of one socket stay in theirs.
            match hub.dispatcher().publish(None, vec![update]) {
                Ok(underway) => {
                    hub.control.spawn(async move {
                        let outcome = underway.done().await.map(|committed| {
                            let placed = committed.placed.first().map_or(&[][..], Vec::as_slice);
                            let mut answer = position_json(placed.iter().find_map(|placed| placed.position));
                            answer["id"] = committed.ids.first().map(ToString::to_string).into();
                            answer
                        });
                        caller.finish(outcome);
                    });
                }
                Err(fault) => caller.refuse(&fault),
            }
        });
    }
}

/// The latest of the dashboard as it was read last. Read again only when something was sent since: many pages that connect
/// at once share a look.
#[derive(Default)]
pub(crate) struct Glance(tokio::sync::Mutex<Option<(u64, Vec<Kept>)>>);

impl Hub {
    /// The latest of a room that keeps no more, and the order before it was read.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) async fn latest_of(&self, room: &RoomName) -> Result<(Vec<Kept>, u64), Fault> {
        if room.kind() != RoomKind::Dashboard {
            // Asked for before the read, so that nothing can come between.
            let order = self.dispatcher().newest_order().await;
            return Ok((self.dispatcher().store().read_latest(room.clone()).await?, order));
        }
        let mut held = self.glance.0.lock().await;
        if let Some((read_at, latest)) = &*held
            && self.dispatcher().sent_order() <= *read_at
        {
            return Ok((latest.clone(), *read_at));
        }
        let order = self.dispatcher().newest_order().await;
        let latest = self.dispatcher().store().read_latest(room.clone()).await?;
        *held = Some((order, latest.clone()));
        Ok((latest, order))
    }

    fn update(&self, socket: &engine::Socket, event: &Event<'_>) -> Result<Outgoing, Fault> {
        let data: Box<RawValue> = argument(event, "an object")?;
        check_depth(&data)?;
        let known = schema::find(event.name())
            .ok_or_else(|| Fault::new(Code::Internal, format!("`{}` is in no vocabulary", event.name())))?;
        let inspected = schema::inspect(event.name(), &data)?
            .ok_or_else(|| Fault::new(Code::Internal, format!("`{}` has no schema", event.name())))?;
        let rooms = inspected.rooms?;
        let principal = principal_of(socket);
        let may_not = |room: &&RoomName| {
            decide(&principal, room, self.dispatcher().policies().of(room), Action::Publish)
                != Access::Allowed
        };
        if let Some(room) = rooms.iter().find(may_not) {
            return Err(Fault::new(Code::Forbidden, format!("you may not publish into `{room}`")));
        }
        Ok(Outgoing {
            name: Cow::Borrowed(known.name),
            data: Json(data.into()),
            shape: known.shape,
            audience: known.audience,
            rooms,
            except: Vec::new(),
            key: inspected.key,
            volatile: false,
            ttl: None,
        })
    }
}
