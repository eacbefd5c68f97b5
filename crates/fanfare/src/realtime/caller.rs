//! Owns who awaits the outcome of a command, and how it is told. Does not know commands.
//! Invariant: a command gets exactly one answer: the ack's, or if there is none and it failed an `error` event.

use std::sync::Arc;

use engine::{ArgsFault, Event, PendingAnswer, Socket};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Hub;
use crate::auth::Identity;
use crate::codes::{Code, Fault};
use crate::tally::Tally;

/// Who awaits the outcome of a command.
pub(crate) struct Caller {
    pub(crate) socket: Socket,
    command: String,
    answering: Option<PendingAnswer>,
    tally: Arc<Tally>,
}

impl Caller {
    /// Takes a command; `None` if it was refused at once, because its sender has sent too many.
    pub(crate) fn admit(socket: &Socket, event: &Event<'_>, hub: &Hub) -> Option<Self> {
        hub.tally.count_command(event.name());
        let caller = Self {
            socket: socket.clone(),
            command: event.name().to_owned(),
            answering: event.reserve_answer(socket),
            tally: hub.tally.clone(),
        };
        let identity = socket.state::<Identity>();
        match identity.as_deref().and_then(Identity::seat).map_or(Ok(()), |seat| hub.limits.command(seat)) {
            Ok(()) => Some(caller),
            Err(fault) => {
                caller.refuse(&fault);
                None
            }
        }
    }

    /// Answers the ack with `ok: true` and these fields; without an ack nothing more is said.
    pub(crate) fn succeed(self, mut fields: Value) {
        fields["ok"] = true.into();
        if let Some(answering) = self.answering {
            answering.answer(fields);
        }
    }

    /// Answers the ack with the fault; without an ack it is an `error` event.
    pub(crate) fn refuse(self, fault: &Fault) {
        self.tally.count_fault(fault.code);
        tracing::debug!(socket = ?self.socket, command = self.command, code = fault.code.as_str(), "command refused");
        if let Some(answering) = self.answering {
            return answering.answer(json!({ "ok": false, "error": fault.to_json() }));
        }
        let mut error = fault.to_json();
        error["command"] = self.command.into();
        tell(&self.socket, "error", &error);
    }

    /// Either.
    pub(crate) fn finish(self, outcome: Result<Value, Fault>) {
        match outcome {
            Ok(fields) => self.succeed(fields),
            Err(fault) => self.refuse(&fault),
        }
    }
}

/// Sends a socket an event of the connection's own, which no log keeps.
pub(crate) fn tell(socket: &Socket, event: &str, payload: &Value) {
    if let Err(error) = socket.emit(event, payload) {
        tracing::debug!(?socket, event, %error, "a socket could not be told");
    }
}

/// Reads a command's argument.
///
/// # Errors
/// The peer's fault: [`Code::BadPayload`], saying what the command takes.
pub(crate) fn argument<T: DeserializeOwned>(event: &Event<'_>, takes: &str) -> Result<T, Fault> {
    event.decode().map_err(|fault| bad_payload(event, takes, &fault))
}

/// The refusal of an argument that does not fit.
pub(crate) fn bad_payload(event: &Event<'_>, takes: &str, fault: &ArgsFault) -> Fault {
    Fault::new(Code::BadPayload, format!("`{}` takes {takes}: {fault}", event.name()))
}
