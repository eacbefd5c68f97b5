//! Owns the bodies of the HTTP interface as whoever calls it writes and reads them. Does not know routes, and does not
//! check anything beyond its form: that is for the rules behind.
//!
//! Answers are read leniently: fields that a newer server adds are kept in `extra`, or left out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::payload::Extra;

/// Declares bodies. A field that is `Option` is left out where it is `None`.
macro_rules! bodies {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident {
            $($(#[doc = $r_doc:literal])+ $(#[serde($r_serde:meta)])? $r:ident: $r_type:ty,)*
            $(? { $($(#[doc = $o_doc:literal])+ $(#[serde($o_serde:meta)])? $o:ident: $o_type:ty,)+ })?
        }
    )+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        pub struct $name {
            $($(#[doc = $r_doc])+ $(#[serde($r_serde)])? pub $r: $r_type,)*
            $($($(#[doc = $o_doc])+ $(#[serde($o_serde)])? #[serde(default, skip_serializing_if = "Option::is_none")] pub $o: Option<$o_type>,)+)?
        }
    )+};
}

bodies! {
    /// An event that is to be published. It goes to the rooms that are named; without any, to those that its data says.
    Publication {
        /// The event's name.
        event: String,
        ? {
            /// Its data; null if it is missing.
            data: Value,
            /// One room.
            room: String,
            /// Several rooms; a socket in more than one of them gets the event once.
            rooms: Vec<String>,
            /// A user: the room `user:<id>`.
            user: String,
            /// A project: the room `project:<id>`.
            project: String,
            /// Everybody in a namespace.
            namespace: String,
            /// Rooms whose members do not get it.
            except: Vec<String>,
            /// Whether it is kept nowhere, and sockets that are slow may miss it.
            volatile: bool,
            /// Seconds after which nobody needs it any more.
            ttl: f64,
            /// When it is to be published, in RFC 3339; at once if it is missing.
            deliver_at: String,
            /// The template that its data is rendered from; `data` fills the placeholders.
            template: String,
            /// The same request again is known by this, and publishes nothing.
            idempotency_key: String,
        }
    }

    /// An event that was published.
    Published {
        /// The event's id.
        id: String,
        ? {
            /// Which log of its first room that keeps one.
            epoch: u64,
            /// Which event of it.
            seq: u64,
            /// When it will be published, for one that is to be published later.
            deliver_at: String,
        }
    }

    /// Events that were published, in the order of the batch.
    PublishedBatch {
        /// One for each.
        events: Vec<Published>,
    }

    /// A part of a room's log, the oldest event first.
    LogPage {
        /// Which log; 0 if the room has never had an event.
        epoch: u64,
        /// The oldest event that is kept.
        first_seq: u64,
        /// The newest.
        last_seq: u64,
        /// What was asked for.
        events: Vec<LoggedEvent>,
    }

    /// An event as a log has it.
    LoggedEvent {
        /// Which event of the log.
        seq: u64,
        /// Its id.
        id: String,
        /// Its name.
        event: String,
        /// Its data.
        data: Value,
        /// When it was published, in RFC 3339.
        timestamp: String,
    }

    /// A refusal.
    ErrorAnswer {
        /// What is wrong.
        error: ErrorBody,
    }

    /// What is wrong.
    ErrorBody {
        /// What to compare with.
        code: String,
        /// What to read.
        message: String,
        ? {
            /// Seconds after which the same request may succeed.
            retry_after: f64,
        }
    }

    /// A job that is to be tracked.
    NewJob {
        /// The project whose members watch it.
        project_id: String,
        ? {
            /// Its id; one is made if it is missing.
            job_id: String,
            /// What sort of work it is.
            kind: String,
            /// Whatever its publisher wants to keep with it.
            meta: Value,
            /// Seconds between two updates of progress at least. Default 5.
            min_update_interval: f64,
            /// Promises a sign of life at least each so many seconds.
            heartbeat_interval: f64,
        }
    }

    /// What a job is now.
    JobStatusUpdate {
        /// `queued`, `running`, `success`, `error` or `cancelled`.
        status: String,
        ? {
            /// What it came to; only with `success`.
            result: Value,
            /// Why; only with `error` or `cancelled`.
            error: String,
            /// Promises a sign of life at least each so many seconds.
            heartbeat_interval: f64,
        }
    }

    /// How far a job has come.
    JobProgressUpdate {
        ? {
            /// How much is done: 0 to 100. Not together with `increment`.
            progress: f64,
            /// How much more is done.
            increment: f64,
            /// What is being done.
            message: String,
            /// Whether it may become less than it was.
            allow_decrease: bool,
        }
    }

    /// A job has come to a good end.
    JobCompletion {
        ? {
            /// What it came to.
            result: Value,
        }
    }

    /// A job has come to a bad end.
    JobFailure {
        /// Why.
        error: String,
    }

    /// Nobody wants a job any more.
    JobCancellation {
        ? {
            /// Why.
            reason: String,
        }
    }

    /// Somebody still works at a job.
    JobHeartbeat {
        ? {
            /// Promises the next ones at least each so many seconds; without it the promise stays as it is.
            heartbeat_interval: f64,
        }
    }

    /// A job.
    Job {
        /// Its id.
        job_id: String,
        /// Its project.
        project_id: String,
        /// `queued`, `running`, `success`, `error`, `cancelled`, `stalled` or `lost`.
        status: String,
        /// How much is done: 0 to 100.
        progress: f64,
        /// When it was made, in RFC 3339.
        created_at: String,
        ? {
            /// What sort of work it is.
            kind: String,
            /// What its publisher keeps with it.
            meta: Value,
            /// What the last update of progress said.
            message: String,
            /// What it came to.
            result: Value,
            /// Why it failed or was cancelled.
            error: String,
            /// Progress that is yet to be told.
            pending_progress: Value,
            /// When it last changed, in RFC 3339.
            updated_at: String,
            /// When it first ran, in RFC 3339.
            started_at: String,
            /// When it ended, in RFC 3339.
            finished_at: String,
            /// Seconds between two updates of progress at least.
            min_update_interval: f64,
            /// The promise of signs of life, in seconds.
            heartbeat_interval: f64,
        }
    }

    /// A page of jobs, the newest first.
    JobPage {
        /// The jobs.
        jobs: Vec<Job>,
        ? {
            /// What to give as `after` for the next page.
            next: String,
        }
    }

    /// A run that begins.
    NewRun {
        ? {
            /// Its id; one is made if it is missing.
            thread_id: String,
            /// What it is given.
            input: Value,
            /// What its publisher wants to keep with it.
            metadata: Extra,
        }
    }

    /// A run.
    Run {
        /// Its id.
        thread_id: String,
        /// `started`, `running`, `waiting_approval`, `approved`, `rejected`, `completed` or `failed`.
        status: String,
        ? {
            /// Where it is.
            checkpoint_id: String,
            /// What its publisher keeps with it.
            metadata: Extra,
            /// What it was given.
            input: Value,
            /// What was last decided about it: whether it may go on, by whom and when.
            decision: Value,
            /// Commands that it has not yet fetched.
            waiting_controls: u64,
            /// When it was made, in RFC 3339.
            created_at: String,
            /// When it last started, in RFC 3339.
            started_at: String,
            /// When it last changed, in RFC 3339.
            updated_at: String,
        }
    }

    /// A page of runs, the newest first.
    RunPage {
        /// The runs.
        runs: Vec<Run>,
        ? {
            /// What to give as `after` for the next page.
            next: String,
        }
    }

    /// What a run is now.
    RunUpdate {
        ? {
            /// `started`, `running`, `waiting_approval`, `completed` or `failed`; as it was if it is missing.
            status: String,
            /// Where it is.
            checkpoint_id: String,
            /// What is to be kept with it.
            metadata: Extra,
        }
    }

    /// The answer to a run that waits for approval.
    Approval {
        /// Whether it may go on.
        approved: bool,
        ? {
            /// Which run; not where the path says it.
            thread_id: String,
            /// Where it waits.
            checkpoint_id: String,
            /// For people.
            comment: String,
        }
    }

    /// Something that a run is to be told to do.
    NewControlCommand {
        /// What to do, such as `pause`.
        verb: String,
        ? {
            /// For people.
            comment: String,
            /// Whatever goes with it.
            data: Value,
        }
    }

    /// What a run is told to do; empty if there was nothing until the wait ended.
    RunControl {
        /// In the order in which they came.
        commands: Vec<ControlCommand>,
    }

    /// Something that a run is told to do.
    ControlCommand {
        /// Its id; asking again with it as `after` says that it has arrived.
        id: Value,
        /// What to do, such as `approve` or `reject`.
        verb: String,
        /// Whatever goes with it.
        #[serde(flatten)]
        extra: Extra,
    }

    /// A line of a log.
    LogLine {
        /// What it says.
        text: String,
        ? {
            /// The run that it belongs to.
            thread_id: String,
            /// `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.
            level: String,
            /// When, in RFC 3339; now if it is missing.
            timestamp: String,
        }
    }

    /// How many were taken.
    Accepted {
        /// So many.
        accepted: u64,
    }

    /// A room that is to be made, by name.
    NewRoom {
        /// Its name.
        room: String,
    }

    /// Whose live sockets are to join or leave a room: a user's or a session's.
    RoomMove {
        /// Which room.
        room: String,
        ? {
            /// A user.
            #[serde(rename = "userId")]
            user_id: String,
            /// A session.
            #[serde(rename = "sessionId")]
            session_id: String,
        }
    }

    /// How many sockets were moved.
    Moved {
        /// So many.
        sockets: u64,
    }

    /// An event for the members of a room.
    RoomMessage {
        /// Which room.
        room: String,
        /// The event's name.
        event: String,
        ? {
            /// Its data; null if it is missing.
            data: Value,
        }
    }

    /// A room as it is now.
    RoomState {
        /// Its name.
        room: String,
        /// Sockets that are in it.
        members: u64,
    }

    /// The rooms that somebody is in or that were made by hand.
    RoomList {
        /// By name.
        rooms: Vec<RoomState>,
    }

    /// A user who is connected.
    UserState {
        /// The id.
        #[serde(rename = "userId")]
        user_id: String,
        /// Sockets.
        connections: u64,
    }

    /// The users who are connected.
    UserList {
        /// By id.
        users: Vec<UserState>,
    }

    /// Whether a user is connected.
    Connected {
        /// Whether there is a socket.
        connected: bool,
        /// How many there are.
        connections: u64,
    }

    /// Something that a user should know.
    NewNotification {
        /// Which user.
        #[serde(rename = "userId")]
        user_id: String,
        /// What it is about.
        title: String,
        /// What it says.
        message: String,
        ? {
            /// How much it matters, such as `info`, `warning` or `error`.
            level: String,
            /// Whatever goes with it.
            data: Value,
            /// When it is to be given, in RFC 3339; at once if it is missing.
            deliver_at: String,
        }
    }

    /// Something that everybody should know.
    NewAnnouncement {
        /// What it is about.
        title: String,
        /// What it says.
        message: String,
        ? {
            /// How much it matters, such as `info`, `warning` or `error`.
            level: String,
            /// Whatever goes with it.
            data: Value,
            /// When it is to be delivered, in RFC 3339.
            deliver_at: String,
        }
    }

    /// An event that is to be published later.
    Scheduled {
        /// Its id, by which it can be cancelled.
        id: String,
        /// The event's name.
        event: String,
        /// When, in RFC 3339.
        deliver_at: String,
    }

    /// A page of events that are to be published later.
    ScheduledPage {
        /// The events.
        schedules: Vec<Scheduled>,
        ? {
            /// What to give as `after` for the next page.
            next: String,
        }
    }

    /// What events are rendered from: `{{placeholders}}` in its texts are filled from the data of a publication.
    Template {
        /// The event's name.
        event: String,
        /// Its data, with placeholders.
        data: Value,
        ? {
            /// The template's name; in requests the path says it.
            name: String,
        }
    }

    /// The templates there are.
    TemplateList {
        /// By name.
        templates: Vec<Template>,
    }

    /// What a webhook has come to.
    WebhookAnswer {
        ? {
            /// The event that was published.
            event: String,
            /// Its id.
            id: String,
            /// Why none was.
            ignored: String,
        }
    }

    /// How the server is doing.
    Health {
        /// `healthy`, `degraded` or `unhealthy`.
        status: String,
        /// Always `socketio`.
        service: String,
        /// The port that was asked.
        port: u16,
        /// Seconds since it was started.
        uptime_s: f64,
        /// The server's version.
        version: String,
        /// Sockets.
        connections: HealthConnections,
        /// Part by part.
        checks: Extra,
    }

    /// Sockets by purpose.
    HealthConnections {
        /// In `/logs`.
        log_connections: u64,
        /// In `/admin`.
        admin_connections: u64,
        /// In all namespaces.
        total_connections: u64,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_said_is_left_out() {
        let publication =
            Publication { event: "e".to_owned(), room: Some("r".to_owned()), ..Publication::default() };
        assert_eq!(serde_json::to_value(&publication).unwrap(), json!({"event": "e", "room": "r"}));
        let moved = RoomMove { room: "r".to_owned(), user_id: Some("u".to_owned()), session_id: None };
        assert_eq!(serde_json::to_value(&moved).unwrap(), json!({"room": "r", "userId": "u"}));
    }

    #[test]
    fn answers_of_a_newer_server_are_read() {
        let text = r#"{"commands":[{"id":7,"verb":"approve","comment":"ok","checkpoint_id":"c"}],"more":1}"#;
        let control: RunControl = serde_json::from_str(text).unwrap();
        assert_eq!(control.commands[0].extra["comment"], json!("ok"));
        let job = json!({"job_id": "j", "project_id": "p", "status": "queued", "progress": 0, "created_at": "", "x": 1,
            "result": null});
        assert_eq!(serde_json::from_value::<Job>(job).unwrap().result, None);
    }
}
