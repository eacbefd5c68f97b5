//! Owns the commands `ai_request`, `ai_cancel` and `approve`. Does not know how tools are reached, nor what a run may
//! become.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use engine::{Event, Namespace, Socket};
use hub::event::{Audience, Shape};
use hub::json::Json;
use hub::outgoing::Outgoing;
use hub::principal::Principal;
use hub::record::State as _;
use hub::room::{RoomKind, RoomName};
use hub::run::{Approval, Run};
use serde_json::{Map, Value, json};
use tools::wire::{Asked, WireEvent};
use tools::{Canceller, Failure, Request};
use uuid::Uuid;

use super::Hub;
use super::caller::{Caller, argument};
use crate::auth::principal_of;
use crate::codes::{Code, Fault};
use crate::event::now;

/// Bytes of a request's id.
const REQUEST_ID_BYTES_MAX: usize = 200;

/// The requests that are under way, to be cancelled by whoever asked.
#[derive(Default)]
pub(crate) struct Requests(Mutex<HashMap<(String, String), Canceller>>);

pub(super) fn register(namespace: &mut Namespace, hub: &Arc<Hub>) {
    let asker = hub.clone();
    namespace.on_raw("ai_request", move |socket, event| {
        let Some(caller) = Caller::admit(socket, event, &asker) else { return };
        let outcome = asker.ask(socket, event);
        caller.finish(outcome);
    });
    let canceller = hub.clone();
    namespace.on_raw("ai_cancel", move |socket, event| {
        let Some(caller) = Caller::admit(socket, event, &canceller) else { return };
        let outcome = canceller.cancel(socket, event);
        caller.finish(outcome);
    });
    let decider = hub.clone();
    namespace.on_raw("approve", move |socket, event| {
        let Some(caller) = Caller::admit(socket, event, &decider) else { return };
        let takes = "{thread_id, checkpoint_id?, approved, comment?}";
        let approval = match argument::<Approval>(event, takes) {
            Ok(approval) => approval,
            Err(fault) => return caller.refuse(&fault),
        };
        let worker = decider.clone();
        decider.in_turn(socket, caller, move |caller| async move {
            let outcome = worker.approve(&caller.socket, approval).await;
            caller.finish(outcome);
        });
    });
}

impl Hub {
    /// Asks a tool; what comes of it is told to the asker's rooms.
    fn ask(self: &Arc<Self>, socket: &Socket, event: &Event<'_>) -> Result<Value, Fault> {
        let mut fields: Map<String, Value> = argument(event, "{toolId, message, requestId?, sessionId?}")?;
        let bad = |complaint: String| Fault::new(Code::BadPayload, format!("`ai_request`: {complaint}"));
        let mut text = |name: &str| match fields.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(bad(format!("`{name}` is a text that is not empty"))),
        };
        let tool_id = text("toolId")?.ok_or_else(|| bad("`toolId` is missing".into()))?;
        let message = text("message")?.ok_or_else(|| bad("`message` is missing".into()))?;
        let request_id = text("requestId")?.unwrap_or_else(|| Uuid::now_v7().to_string());
        if request_id.len() > REQUEST_ID_BYTES_MAX {
            return Err(bad(format!("`requestId` exceeds {REQUEST_ID_BYTES_MAX} bytes")));
        }
        let named_session = text("sessionId")?;
        let principal = principal_of(socket);
        // Answers go to the asker's own rooms, whatever else the request says.
        let session_id = principal.session.as_deref().map(str::to_owned);
        if let (Some(named), Some(own)) = (&named_session, &session_id)
            && named != own
        {
            return Err(Fault::new(Code::Forbidden, "`sessionId` is another session than this socket's"));
        }
        let rooms = asker_rooms(socket, &principal)?;
        let request = Request {
            tool_id,
            message,
            request_id: request_id.clone(),
            session_id: session_id.or(named_session),
            user: principal.user.as_deref().map(str::to_owned),
            extra: fields,
        };
        let asked = Asked::of(&request);
        let owner = owner(socket, &principal);
        let running = self.tools.start(request).map_err(refusal)?;
        if let Ok(mut requests) = self.requests.0.lock() {
            requests.insert((owner.clone(), request_id.clone()), running.canceller());
        }
        self.send_step(&rooms, asked.accepted(now()))?;
        let hub = self.clone();
        let key = (owner, request_id.clone());
        self.control.spawn(async move {
            let mut running = running;
            while let Some(step) = running.next().await {
                if let Err(fault) = hub.send_step(&rooms, asked.event(&step, now())) {
                    tracing::warn!(
                        code = fault.code.as_str(),
                        message = fault.message,
                        "a tool's answer was lost"
                    );
                }
            }
            if let Ok(mut requests) = hub.requests.0.lock() {
                requests.remove(&key);
            }
        });
        Ok(json!({ "requestId": request_id }))
    }

    fn send_step(&self, rooms: &[RoomName], event: WireEvent) -> Result<(), Fault> {
        let outgoing = Outgoing {
            name: Cow::Borrowed(event.name),
            data: Json(event.data.into()),
            shape: Shape::Flat,
            audience: Audience::Rooms,
            rooms: rooms.to_vec(),
            except: Vec::new(),
            key: Box::default(),
            volatile: false,
            ttl: None,
        };
        self.dispatcher().publish(None, vec![outgoing]).map(|_| ())
    }

    fn cancel(&self, socket: &Socket, event: &Event<'_>) -> Result<Value, Fault> {
        let fields: Map<String, Value> = argument(event, "{requestId}")?;
        let Some(request_id) = fields.get("requestId").and_then(Value::as_str) else {
            return Err(Fault::new(Code::BadPayload, "`ai_cancel` takes {requestId}"));
        };
        let key = (owner(socket, &principal_of(socket)), request_id.to_owned());
        let canceller = self.requests.0.lock().ok().and_then(|requests| requests.get(&key).cloned());
        let canceller = canceller
            .ok_or_else(|| Fault::new(Code::NotFound, format!("no request `{request_id}` is under way")))?;
        canceller.cancel();
        Ok(json!({ "requestId": request_id }))
    }

    async fn approve(&self, socket: &Socket, approval: Approval) -> Result<Value, Fault> {
        // Who may watch a run closely enough to see what it waits for may decide on it.
        let room = RoomName::of(RoomKind::Run, &approval.thread_id)?;
        self.may_join(socket, &room).await?;
        let by = principal_of(socket).user.clone();
        let run = approval.thread_id.clone();
        let rule = crate::rest::approval_rule(approval, by);
        let committed = self.dispatcher().change(Some(Run::key_of(&run)), None, rule).await?;
        self.tell_runner(&run);
        Ok(json!({ "run": committed.answer }))
    }
}

/// Where the answers go: the rooms of the user and the session, or for nobody in particular the socket alone.
fn asker_rooms(socket: &Socket, principal: &Principal) -> Result<Vec<RoomName>, Fault> {
    let rooms: Vec<RoomName> = principal.own_rooms().collect();
    if rooms.is_empty() {
        return Ok(vec![RoomName::parse(socket.id().to_string())?]);
    }
    Ok(rooms)
}

/// Whose requests they are: ids of one asker mean nothing to another.
fn owner(socket: &Socket, principal: &Principal) -> String {
    match (&principal.user, &principal.session) {
        (Some(user), _) => format!("user:{user}"),
        (None, Some(session)) => format!("session:{session}"),
        (None, None) => socket.id().to_string(),
    }
}

fn refusal(failure: Failure) -> Fault {
    let code = match failure.code {
        tools::Code::UnknownTool => Code::UnknownTool,
        tools::Code::ToolBusy => Code::ToolBusy,
        _ => Code::BadPayload,
    };
    Fault::new(code, failure.message)
}
