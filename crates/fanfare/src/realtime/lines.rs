//! Owns the namespaces `/logs` and `/admin`: who hears what there. Does not know where lines and events come from.
//!
//! Every socket of `/logs` is in one room, that of its filter, and a line goes to the rooms of all filters that let it
//! pass: so nobody gets what they did not ask for, and nothing is looked at once for each socket.

use std::sync::Arc;

use engine::{Builder, Namespace, Socket};
use hub::log_line::{LogFilter, LogLimits, LogLine};
use hub::outgoing::Outgoing;
use hub::room::RoomName;
use serde_json::{Value, json};

use super::caller::{Caller, argument};
use super::{Hub, with_basics};
use crate::codes::Fault;

pub(super) fn register(builder: Builder, hub: &Arc<Hub>) -> Builder {
    builder.namespace("/logs", |namespace| logs(namespace, hub)).namespace("/admin", |namespace| {
        with_basics(namespace, hub);
        watch_ends(namespace, hub);
        let greeter = hub.clone();
        namespace.on_connect(move |socket| {
            let hub = greeter.clone();
            hub.tell_connected(&socket);
            async move {
                if hub.admit(&socket).is_some() {
                    hub.greet(&socket, None).await;
                }
            }
        });
    })
}

fn watch_ends(namespace: &mut Namespace, hub: &Arc<Hub>) {
    let hub = hub.clone();
    namespace.on_disconnect(move |socket, reason, _| {
        hub.tell_disconnected(&socket, reason);
        std::future::ready(())
    });
}

fn logs(namespace: &mut Namespace, hub: &Arc<Hub>) {
    with_basics(namespace, hub);
    watch_ends(namespace, hub);
    let greeter = hub.clone();
    namespace.on_connect(move |socket| {
        let hub = greeter.clone();
        hub.tell_connected(&socket);
        async move { hub.welcome_to_logs(socket).await }
    });
    let hub = hub.clone();
    namespace.on_raw("filter", move |socket, event| {
        let Some(caller) = Caller::admit(socket, event, &hub) else { return };
        let asked = argument::<Value>(event, "{thread_id?, level?}");
        match asked.and_then(|asked| Ok(LogFilter::parse(&asked, &LogLimits::default())?)) {
            Ok(filter) => {
                let worker = hub.clone();
                let hub = worker.clone();
                worker.in_turn(socket, caller, move |caller| async move {
                    hub.hear_channel(&filter).await;
                    set_filter(&caller.socket, &filter).await;
                    caller.succeed(json!({ "filter": filter }));
                });
            }
            Err(fault) => caller.refuse(&fault),
        }
    });
}

impl Hub {
    async fn welcome_to_logs(&self, socket: Socket) {
        if self.admit(&socket).is_none() {
            return;
        }
        if !socket.recovered() {
            // Whatever else is in there is for others to read; a filter that is none lets everything pass.
            let auth: Value = socket.auth().unwrap_or_default();
            let filter = LogFilter::parse(&auth, &LogLimits::default());
            let filter = filter.unwrap_or_else(|fault| {
                super::caller::tell(
                    &socket,
                    "error",
                    &json!({ "code": fault.refusal.code(), "message": fault.message, "command": "filter" }),
                );
                LogFilter::default()
            });
            self.hear_channel(&filter).await;
            socket.join(filter.channel());
        }
        self.greet(&socket, None).await;
    }

    /// What is published for a filter's channel is heard from now on, also from other nodes.
    async fn hear_channel(&self, filter: &LogFilter) {
        if let Ok(channel) = RoomName::parse(filter.channel()) {
            self.hear(&[channel]).await;
        }
    }
}

async fn set_filter(socket: &Socket, filter: &LogFilter) {
    let own = socket.id().to_string();
    let wanted = filter.channel();
    for room in socket.rooms().await {
        if room != own && room != wanted {
            socket.leave(room);
        }
    }
    socket.join_waiting(wanted).await;
}

/// A line on its way to those whose filters let it pass.
///
/// # Errors
/// The publisher's fault: the thread's id makes no room's name.
pub(crate) fn log_event(line: &LogLine) -> Result<Outgoing, Fault> {
    let rooms = line.channels().map(RoomName::parse).collect::<Result<_, _>>()?;
    Ok(Outgoing { rooms, ..line.outgoing() })
}
