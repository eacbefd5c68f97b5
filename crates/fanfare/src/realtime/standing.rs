//! Owns as what a socket is in a room, where that is not the usual: brought there by an operator, or watching a part only. Does not know sockets or
//! rooms' policies. Lives with a socket's identity, and is kept with its record, so that it survives a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hub::room::RoomName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::filters::Channel;

/// As what a socket is in a room. The default is the usual.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// An operator has brought it there: it may be there whatever its own grants say, until it leaves.
    #[serde(default)]
    pub(crate) is_invited: bool,
    /// What it wants of the room, as it was asked for; everything if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) filter: Option<Value>,
    /// The same as it is served in this process.
    #[serde(skip)]
    pub(crate) channel: Option<Arc<Channel>>,
}

impl Standing {
    /// The engine's room that stands for being in `room` so.
    pub(crate) fn name_in<'a>(&'a self, room: &'a RoomName) -> &'a str {
        self.channel.as_deref().map_or(room.as_str(), Channel::name)
    }
}

/// The rooms in which one socket stands otherwise than usual. At most as many as it is in rooms, and one.
#[derive(Default)]
pub(crate) struct Standings(Mutex<BTreeMap<RoomName, Standing>>);

impl Standings {
    /// As what it is in a room.
    pub(crate) fn of(&self, room: &RoomName) -> Standing {
        self.held().get(room).cloned().unwrap_or_default()
    }

    /// It is that in a room from now on.
    pub(crate) fn set(&self, room: RoomName, standing: Standing) {
        if standing == Standing::default() {
            self.held().remove(&room);
        } else {
            self.held().insert(room, standing);
        }
    }

    /// It is in no room any more.
    pub(crate) fn clear(&self) {
        self.held().clear();
    }

    /// A panic of another thread has left nothing half done: each change is one call.
    fn held(&self) -> MutexGuard<'_, BTreeMap<RoomName, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
