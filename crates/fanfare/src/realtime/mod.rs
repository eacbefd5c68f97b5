//! Owns the namespaces: what a socket is told when it connects, and the commands it may send.
//! Does not know HTTP. Invariant: a command always gets an answer, and a bad one never costs the connection.

mod agents;
mod asking;
mod caller;
mod dashboard;
mod inboxes;
mod lines;
mod members;
mod news;
mod peers;
mod presence;
mod rooms;
mod seats;
mod standing;
mod stay;
mod turns;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::{Builder, Namespace, RestoreRequest, Server, Socket};
use hub::principal::{Principal, PrincipalKind};
use hub::room::RoomName;
use hub::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tools::Tools;

use self::caller::{Caller, bad_payload, tell};
use self::stay::Stay;
use crate::auth::{self, Authenticator, Identity, principal_of};
use crate::codes::{Code, Fault};
use crate::dispatch::Dispatcher;
use crate::event::{now, timestamp};
use crate::filters::room_of;
use crate::limits::Limits;
use crate::runners::Runners;
use crate::tally::Tally;

pub(crate) use lines::log_event;
pub(crate) use members::{Member, due};
pub(crate) use presence::PresenceConfig;
pub(crate) use rooms::HISTORY_EVENTS_MAX;
pub(crate) use standing::{Standing, Standings};
pub(crate) use stay::Stays;
pub(crate) use turns::Turns;

/// The argument of `refresh_token`.
#[derive(Deserialize)]
struct TokenArgument {
    token: String,
}

/// What all commands and routes work on.
pub(crate) struct Hub {
    /// Set once the engine runs, before anybody can connect.
    engine: OnceLock<(Server, Dispatcher)>,
    /// The webhook of runners, if there is one.
    runners: OnceLock<Arc<Runners>>,
    control: Handle,
    pub(crate) tally: Arc<Tally>,
    pub(crate) limits: Arc<Limits>,
    auth: Arc<Authenticator>,
    /// Bytes that one replay may put into a socket's outbox.
    replay_bytes_max: usize,
    /// How long a lost socket may come back.
    away_max: Duration,
    began_at: Timestamp,
    tools: Tools,
    requests: asking::Requests,
    inboxes: inboxes::Inboxes,
    attendance: presence::Attendance,
    operators: news::Operators,
    glance: dashboard::Glance,
    /// How long an agent may be without a socket.
    agent_grace: Duration,
    /// How long it takes until a socket that still lives is known to have read everything.
    arrival: Duration,
}

impl Hub {
    pub(crate) fn new(
        tally: Arc<Tally>,
        limits: Arc<Limits>,
        auth: Arc<Authenticator>,
        engine: &engine::Config,
        presence: &PresenceConfig,
        tools: Tools,
    ) -> Self {
        Self {
            engine: OnceLock::new(),
            runners: OnceLock::new(),
            control: Handle::current(),
            tally,
            limits,
            auth,
            replay_bytes_max: engine.outbox_bytes_max / 2,
            away_max: engine.recovery.as_ref().map_or(Duration::ZERO, |recovery| recovery.disconnection_max),
            began_at: now(),
            tools,
            requests: asking::Requests::default(),
            inboxes: inboxes::Inboxes::default(),
            attendance: presence::Attendance::new(presence.limits.clone()),
            operators: news::Operators::default(),
            glance: dashboard::Glance::default(),
            agent_grace: presence.agent_grace,
            arrival: inboxes::arrival(engine),
        }
    }

    /// Hands over what is only there once the handlers are registered.
    pub(crate) fn run_on(&self, server: Server, dispatcher: Dispatcher) {
        let _ = self.engine.set((server, dispatcher));
    }

    /// Has runners told by a webhook what people decide.
    pub(crate) fn tell_runners_by(&self, runners: Arc<Runners>) {
        let _ = self.runners.set(runners);
    }

    /// Something was decided about a run: its runner hears of it, if by webhook.
    pub(crate) fn tell_runner(&self, run: &str) {
        if let Some(runners) = self.runners.get() {
            runners.tell(run);
        }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.engine.get().expect("invariant: set before the listeners are opened").0
    }

    pub(crate) fn dispatcher(&self) -> &Dispatcher {
        &self.engine.get().expect("invariant: set before the listeners are opened").1
    }

    /// Has something done before all that the socket sends.
    fn first(&self, socket: &Socket, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(identity) = socket.state::<Identity>() {
            // The first of all always has a place.
            let _ = identity.turns.push(&self.control, work, |work| work);
        }
    }

    /// Has a command done after all that the socket sent before it.
    fn in_turn<F, Fut>(&self, socket: &Socket, caller: Caller, work: F)
    where
        F: FnOnce(Caller) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Some(identity) = socket.state::<Identity>() else { return };
        if let Err(caller) = identity.turns.push(&self.control, caller, work) {
            caller.refuse(&Fault::new(
                Code::Busy,
                "too many commands of this socket are waiting; send fewer at once",
            ));
        }
    }

    /// How each tool is doing.
    pub(crate) fn tool_stats(&self) -> Vec<tools::ToolStats> {
        self.tools.stats()
    }

    /// Whether a socket may join a room, or read its log.
    ///
    /// # Errors
    /// [`Code::Forbidden`], or the application could not be asked.
    pub(crate) async fn may_join(&self, socket: &Socket, room: &RoomName) -> Result<(), Fault> {
        self.auth.may_join(socket, room).await
    }
}

/// Whether someone may open a session now.
///
/// # Errors
/// The text of the refusal. EIO4 "Handshake" has no place for more: the peer gets 403 with it as `message`.
pub(crate) fn may_open(hub: &Hub, address: Option<IpAddr>) -> Result<(), String> {
    hub.limits.handshake(address).map_err(|fault| {
        hub.tally.count_fault(fault.code);
        let seconds = fault.retry_after.unwrap_or(1);
        format!("{}: {}; try again in {seconds} s", fault.code.as_str(), fault.message)
    })
}

/// Registers the namespaces and their commands.
pub(crate) fn register(builder: Builder, hub: &Arc<Hub>) -> Builder {
    let builder = builder
        .namespace("/", |namespace| room_namespace(namespace, hub, true))
        .namespace("/ws", |namespace| room_namespace(namespace, hub, false));
    let restorer = hub.clone();
    let builder = builder.restorer(move |request: RestoreRequest| {
        let hub = restorer.clone();
        restorer.control.spawn(async move { hub.restore(request).await });
    });
    lines::register(builder, hub)
}

fn room_namespace(namespace: &mut Namespace, hub: &Arc<Hub>, has_dashboard: bool) {
    with_basics(namespace, hub);
    let greeter = hub.clone();
    namespace.on_connect(move |socket| {
        let (hub, welcomed) = (greeter.clone(), socket.clone());
        let stay = socket.state::<Identity>().map(|identity| identity.stays.begin());
        hub.note_here(&socket);
        hub.tell_connected(&socket);
        // Before the commands that it has sent meanwhile: those find it welcomed.
        greeter.first(&socket, async move {
            hub.welcome(welcomed.clone(), stay, has_dashboard).await;
            hub.hand_over(&welcomed).await;
        });
        std::future::ready(())
    });
    let keeper = hub.clone();
    namespace.on_disconnect(move |socket, reason, _| {
        let hub = keeper.clone();
        if let Some(identity) = socket.state::<Identity>() {
            identity.stays.end();
        }
        hub.note_gone(&socket, reason);
        hub.note_away(&socket);
        hub.tell_disconnected(&socket, reason);
        async move { hub.remember_gone(&socket, reason).await }
    });
    rooms::register(namespace, hub);
    dashboard::register(namespace, hub);
    asking::register(namespace, hub);
    inboxes::register(namespace, hub);
}

/// What every namespace has: who somebody is, `ping`, and an answer to what nobody knows.
fn with_basics(namespace: &mut Namespace, hub: &Arc<Hub>) {
    auth::register(namespace, &hub.auth, &hub.limits, &hub.tally);
    let refresher = hub.clone();
    namespace.on_raw("refresh_token", move |socket, event| {
        let Some(caller) = Caller::admit(socket, event, &refresher) else { return };
        match event.decode::<TokenArgument>() {
            Ok(argument) => {
                let hub = refresher.clone();
                refresher.in_turn(socket, caller, move |caller| async move {
                    let outcome = hub.auth.refresh(&caller.socket, argument.token).await;
                    if let Ok(refreshed) = &outcome {
                        hub.note_left_all(&caller.socket, &refreshed.left).await;
                    }
                    let outcome = outcome.map(
                        |refreshed| json!({ "expires_at": refreshed.expires_at, "left": refreshed.left }),
                    );
                    caller.finish(outcome);
                });
            }
            // What does not fit may still be a token, and is not repeated.
            Err(_) => caller.refuse(&Fault::new(Code::BadPayload, "`refresh_token` takes {token}")),
        }
    });
    let ponger = hub.clone();
    namespace.on_raw("ping", move |socket, event| {
        let Some(caller) = Caller::admit(socket, event, &ponger) else { return };
        match event.values() {
            Ok(values) => {
                let echo = values.into_iter().next().unwrap_or_default();
                let pong = json!({ "timestamp": timestamp(), "echo": echo });
                tell(socket, "pong", &pong);
                caller.succeed(pong);
            }
            Err(fault) => caller.refuse(&bad_payload(event, "anything that JSON can hold", &fault)),
        }
    });
    let refuser = hub.clone();
    namespace.fallback(move |socket, event| {
        let Some(caller) = Caller::admit(socket, event, &refuser) else { return };
        let message = format!("there is no command `{}`", event.name());
        caller.refuse(&Fault::new(Code::UnknownCommand, message));
    });
}

impl Hub {
    async fn welcome(&self, socket: Socket, stay: Option<Stay>, has_dashboard: bool) {
        let (Some(principal), Some(stay)) = (self.admit(&socket), stay) else { return };
        // A recovered socket brings its rooms along, also the lack of one that it left.
        if !socket.recovered() {
            let mut rooms = vec!["global".to_owned()];
            if principal.kind != PrincipalKind::Key {
                // A key is nobody's user: nothing is sent to it by name.
                rooms.extend(principal.own_rooms().map(|room| room.as_str().to_owned()));
            }
            let dashboard = RoomName::parse("dashboard").ok().filter(|_| has_dashboard);
            let mut names: Vec<RoomName> =
                rooms.iter().filter_map(|room| RoomName::parse(&**room).ok()).collect();
            names.extend(dashboard.clone());
            self.hear(&names).await;
            self.remember(&socket, stay, &names).await;
            socket.join_waiting(rooms).await;
            self.note_rooms(&socket, &names);
            self.greet(&socket, dashboard.as_ref()).await;
            if let Some(dashboard) = dashboard {
                self.show_dashboard(&socket, &dashboard).await;
            }
            return;
        } else {
            self.remember(&socket, stay, &[]).await;
            let left = self.auth.enforce_rooms(&socket).await;
            self.note_left_all(&socket, &left).await;
            let rooms = socket.rooms().await;
            let rooms: Vec<RoomName> =
                rooms.iter().skip(1).filter_map(|room| RoomName::parse(room_of(room)).ok()).collect();
            self.note_rooms(&socket, &rooms);
        }
        self.greet(&socket, None).await;
    }

    /// Lets a socket that has just been greeted into the dashboard, with the latest of everything there.
    async fn show_dashboard(&self, socket: &Socket, dashboard: &RoomName) {
        let shown = self.attach(socket, dashboard, None, None, None).await;
        if let Err(fault) = shown {
            // What comes from now on it gets all the same.
            tracing::debug!(?socket, message = fault.message, "a dashboard begins empty");
            socket.join_waiting(dashboard.as_str()).await;
        }
    }

    /// Who a socket is that has just connected; `None` if that holds no more, and then it is disconnected.
    fn admit(&self, socket: &Socket) -> Option<Arc<Principal>> {
        auth::admit(&self.auth, socket)
    }

    /// Tells a socket what it is in, and who it is. `soon`: a room that it will be in right after.
    async fn greet(&self, socket: &Socket, soon: Option<&RoomName>) {
        let principal = principal_of(socket);
        let own = socket.id().to_string();
        let mut rooms = socket.rooms().await;
        rooms.retain(|room| *room != own);
        for room in &mut rooms {
            room.truncate(room_of(room).len());
        }
        rooms.extend(soon.map(|room| room.as_str().to_owned()));
        rooms.sort_unstable();
        let mut established = json!({
            "type": "connection.established",
            "connection_id": own,
            "rooms": rooms,
            "server_time": timestamp(),
            "recovered": socket.recovered(),
        });
        for (field, value) in [("user_id", &principal.user), ("session_id", &principal.session)] {
            established[field] = value.as_deref().map_or(Value::Null, Value::from);
        }
        tell(socket, "connection_established", &established);
        auth::watch_expiry(&self.auth, socket);
    }
}
