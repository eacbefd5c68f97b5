//! Jobs, by transcripts and by random commands: what is told always adds up to what the record shows.
//!
//! In a transcript `@ 5s` moves the clock (and asks the due rule whenever it wanted to be asked), `> command` is done, and
//! each `< event` must have been told since, no more and no fewer.

use std::time::Duration;

use hub::event::Audience;
use hub::fault::{Fault, Refusal};
use hub::job::{self, Job, JobCommand, JobLimits, JobStatus, NewJob};
use hub::outgoing::Outgoing;
use hub::percent::Percent;
use hub::record::{State, Step};
use hub::time::Timestamp;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use serde_json::{Value, json};

const START: Timestamp = Timestamp(1_000_000_000);

#[test]
fn progress_is_throttled_and_the_newest_is_told() {
    check(
        r"
        > create {}
        < queued
        > status running
        < running
        > progress 10
        < 10
        @ 1s
        > progress 20 first
        > progress 30
        @ 3900ms
        @ 100ms
        < 30 first
        @ 60s
        > progress 40
        < 40
        @ 1s
        > progress 50
        > complete
        < 50
        < success
        @ 60s
        ",
    );
}

#[test]
fn an_interval_of_its_own_holds() {
    check(
        r#"
        > create {"min_update_interval": 0}
        < queued
        > progress 1
        < running
        < 1
        > progress 2
        < 2
        "#,
    );
}

#[test]
fn progress_does_not_go_back_unless_asked() {
    check(
        r"
        > create {}
        < queued
        > progress 50
        < running
        < 50
        @ 5s
        > progress 20 late
        < 50 late
        @ 5s
        > back 20
        < 20
        @ 5s
        > increment -5
        < 20
        @ 5s
        > progress 1000
        < 100
        ",
    );
}

#[test]
fn increments_add_up_whatever_is_told() {
    check(
        r"
        > create {}
        < queued
        > increment 0.1
        < running
        < 0.1
        > increment 0.1
        > increment 0.1
        > increment 33.3
        @ 5s
        < 33.6
        ",
    );
}

#[test]
fn nothing_follows_on_an_end() {
    check(
        r"
        > create {}
        < queued
        > fail it broke
        < error it broke
        ! complete
        ! fail again
        ! cancel
        ! status running
        ! progress 5
        ! heartbeat
        ",
    );
}

#[test]
fn running_jobs_are_not_queued_again_and_saying_it_twice_is_no_news() {
    check(
        r"
        > create {}
        < queued
        > status queued
        > status running
        < running
        > status running
        ! status queued
        > cancel
        < cancelled
        ",
    );
}

#[test]
fn silence_makes_a_job_stalled_then_lost() {
    check(
        r#"
        > create {"heartbeat_interval": 10}
        < queued
        @ 19s
        > status running
        < running
        @ 19900ms
        @ 100ms
        < stalled
        @ 29s
        > heartbeat
        < running
        @ 15s
        > progress 5
        < 5
        > progress 6
        @ 5s
        < 6
        @ 1s
        > progress 7
        @ 5s
        < 7
        @ 100s
        < stalled
        < lost
        ! heartbeat
        ! progress 8
        ! status running
        > complete
        < success
        "#,
    );
}

#[test]
fn a_stalled_job_that_never_ran_is_queued_again() {
    check(
        r#"
        > create {"heartbeat_interval": 1}
        < queued
        @ 2s
        < stalled
        > heartbeat
        < queued
        > status running
        < running
        "#,
    );
}

#[test]
fn a_clock_that_jumps_ahead_stalls_jobs_but_does_not_lose_them() {
    let job = create(json!({"heartbeat_interval": 10}));
    let later = START.plus(Duration::from_secs(86_400));
    let stalled = job::due(&job, later).next.unwrap();
    assert_eq!(stalled.told().status, JobStatus::Stalled);
    assert_eq!(stalled.due_at(), Some(later.plus(Duration::from_secs(30))));
    assert_eq!(job::due(&stalled, later), Step::quiet(stalled.clone()));
}

#[test]
fn what_has_ended_is_forgotten_some_day() {
    let limits = JobLimits { kept: Duration::from_secs(60), ..JobLimits::default() };
    let queued = job::create(None, START, "j", new(json!({})), &limits).unwrap().next.unwrap();
    assert_eq!(queued.due_at(), None, "it has not ended");
    let end = |kept: &Job| {
        job::apply(Some(kept), START, JobCommand::Complete { result: None }, &limits).unwrap().next.unwrap()
    };
    let ended = end(&queued);
    let at = START.plus(Duration::from_secs(60));
    assert_eq!(ended.due_at(), Some(at));
    assert_eq!(job::due(&ended, Timestamp(at.0 - 1)).next.as_ref(), Some(&ended));
    assert_eq!(job::due(&ended, at), Step { next: None, events: Vec::new() });
    let for_ever = JobLimits { kept: Duration::ZERO, ..JobLimits::default() };
    let queued = job::create(None, START, "j", new(json!({})), &for_ever).unwrap().next.unwrap();
    assert_eq!(end(&queued).due_at(), None);
}

#[test]
fn a_clock_that_is_set_back_does_not_hold_progress_back() {
    let limits = JobLimits::default();
    let progress = |percent| JobCommand::Progress(from(json!({"progress": percent})));
    let job = job::apply(Some(&create(json!({}))), START, progress(10), &limits).unwrap().next.unwrap();
    let before = Timestamp(START.0 - 3_600_000);
    let step = job::apply(Some(&job), before, progress(11), &limits).unwrap();
    assert_eq!(step.events.len(), 1);
    let step = job::apply(step.next.as_ref(), before, progress(12), &limits).unwrap();
    assert_eq!(step.events, []);
    assert_eq!(step.next.unwrap().due_at(), Some(before.plus(Duration::from_secs(5))));
}

#[test]
fn creating_the_same_job_twice_is_no_news_and_another_is_refused() {
    let limits = JobLimits::default();
    let job = create(json!({"kind": "build", "meta": {"a": 1}}));
    let again = |body: Value| job::create(Some(&job), START, "j", new(body), &limits);
    assert_eq!(again(json!({"kind": "build", "meta": {"a": 1}})), Ok(Step::quiet(job.clone())));
    assert_eq!(again(json!({"kind": "test"})).unwrap_err().refusal, Refusal::AlreadyExists);
}

#[test]
fn what_is_beyond_the_limits_is_refused() {
    let limits = JobLimits {
        kind_bytes_max: 3,
        meta_bytes_max: 9,
        message_bytes_max: 3,
        error_bytes_max: 3,
        result_bytes_max: 4,
        ..JobLimits::default()
    };
    let create = |id: &str, body: Value| job::create(None, START, id, new(body), &limits);
    assert!(create("j", json!({"kind": "abc", "meta": {"a": 123}})).is_ok());
    for body in [
        json!({"kind": "abcd"}),
        json!({"meta": {"a": 12345}}),
        json!({"project_id": ""}),
        json!({"min_update_interval": 3_601}),
        json!({"heartbeat_interval": 0.01}),
        json!({"heartbeat_interval": 86_401}),
    ] {
        assert!(create("j", body.clone()).is_err(), "{body}");
    }
    assert!(create(&"j".repeat(200), json!({})).is_err());
    let job = create("j", json!({})).unwrap().next.unwrap();
    for (command, is_taken) in [
        (JobCommand::Fail { error: "abc".into() }, true),
        (JobCommand::Fail { error: "abcd".into() }, false),
        (JobCommand::Complete { result: Some(from(json!("ab"))) }, true),
        (JobCommand::Complete { result: Some(from(json!("abc"))) }, false),
        (JobCommand::Progress(from(json!({"message": "abc"}))), true),
        (JobCommand::Progress(from(json!({"message": "abcd"}))), false),
        (JobCommand::Progress(from(json!({}))), false),
        (JobCommand::Progress(from(json!({"progress": 1, "increment": 1}))), false),
        (JobCommand::Status(from(json!({"status": "stalled"}))), false),
        (JobCommand::Status(from(json!({"status": "lost"}))), false),
        (JobCommand::Status(from(json!({"status": "running", "result": 1}))), false),
        (JobCommand::Status(from(json!({"status": "success", "error": "e"}))), false),
        (JobCommand::Status(from(json!({"status": "error", "result": 1}))), false),
        (JobCommand::Status(from(json!({"status": "error", "error": "e"}))), true),
    ] {
        let outcome = job::apply(Some(&job), START, command.clone(), &limits);
        assert_eq!(outcome.is_ok(), is_taken, "{command:?}");
    }
    let missing = job::apply(None, START, JobCommand::Cancel { reason: None }, &limits);
    assert_eq!(missing.unwrap_err().refusal, Refusal::NotFound);
}

#[test]
fn events_and_views_are_written_as_the_dashboards_read_them() {
    let step = job::create(None, START, "j", new(json!({})), &JobLimits::default()).unwrap();
    let event = &step.events[0];
    let rooms: Vec<_> = event.rooms.iter().map(hub::room::RoomName::as_str).collect();
    assert_eq!((&*event.name, rooms), ("agent_status", vec!["project:p", "job:j"]));
    assert_eq!(
        event.data.get(),
        r#"{"job_id":"j","status":"queued","timestamp":"1970-01-12T13:46:40.000Z","event":"status_change","result":null,"error":null}"#
    );
    let job = step.next.unwrap();
    let command = JobCommand::Progress(from(json!({"progress": 50, "message": "half"})));
    let step = job::apply(Some(&job), START, command, &JobLimits::default()).unwrap();
    let news = r#"{"type":"job_event","data":{"job_id":"j","project_id":"p","status":"running","error":null,"timestamp":"1970-01-12T13:46:40.000Z"}}"#;
    assert_eq!((&*step.events[1].name, step.events[1].data.get()), ("admin_event", news));
    assert_eq!(
        step.events[2].data.get(),
        r#"{"job_id":"j","progress":50,"timestamp":"1970-01-12T13:46:40.000Z","event":"progress_update","message":"half"}"#
    );
    let view = serde_json::to_value(step.next.unwrap().view()).unwrap();
    assert_eq!(view["status"], "running");
    assert_eq!(view["progress"], 50);
    assert_eq!(view["started_at"], "1970-01-12T13:46:40.000Z");
    assert_eq!(view["finished_at"], Value::Null);
    assert_eq!(view["min_update_interval"], 5);
}

/// What the random publisher does next.
#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    SetClockBack(u64),
    Command(Value, &'static str),
}

fn act() -> impl Strategy<Value = Act> {
    let percent = -20i32..130;
    let message = proptest::option::of("[a-z]{0,4}");
    let advance =
        (any::<bool>(), percent, message, any::<bool>()).prop_map(|(sets, percent, message, back)| {
            let key = if sets { "progress" } else { "increment" };
            Act::Command(
                json!({key: f64::from(percent) / 4.0, "message": message, "allow_decrease": back}),
                "progress",
            )
        });
    let status =
        prop_oneof![Just("queued"), Just("running"), Just("success"), Just("error"), Just("cancelled")]
            .prop_map(|status| Act::Command(json!({"status": status}), "status"));
    prop_oneof![
        4 => (0u64..9_000).prop_map(Act::Wait),
        1 => (0u64..20_000).prop_map(Act::SetClockBack),
        6 => advance,
        1 => status,
        1 => Just(Act::Command(json!({}), "heartbeat")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_was_told_is_what_the_record_shows(
        acts in proptest::collection::vec(act(), 0..60),
        beats in proptest::option::of(1u32..20),
    ) {
        let limits = JobLimits::default();
        let body = beats.map_or(json!({}), |seconds| json!({"heartbeat_interval": seconds}));
        let mut now = START;
        let first = job::create(None, now, "j", new(body), &limits).unwrap();
        let mut job = first.next.unwrap();
        let mut told: Vec<Outgoing> = first.events;
        for act in acts {
            let has_ended = job.told().status.is_terminal();
            let before = job.clone();
            let step = match act {
                Act::Wait(millis) => {
                    now = Timestamp(now.0 + millis);
                    job::due(&job, now)
                }
                Act::SetClockBack(millis) => {
                    now = Timestamp(now.0 - millis);
                    job::due(&job, now)
                }
                Act::Command(body, verb) => {
                    let may_go_back = body["allow_decrease"] == true;
                    match job::apply(Some(&job), now, command(verb, body), &limits) {
                        Ok(step) => {
                            let latest = |job: &Job| {
                                job.pending_progress().map_or(job.told().progress, |pending| pending.progress)
                            };
                            let next = step.next.as_ref().unwrap();
                            prop_assert!(may_go_back || latest(next) >= latest(&before));
                            step
                        }
                        Err(_) => Step::quiet(job),
                    }
                }
            };
            job = step.next.unwrap();
            prop_assert!(!has_ended || (job == before && step.events.is_empty()), "an end is the end");
            prop_assert!(!job.told().status.is_terminal() || job.pending_progress().is_none());
            prop_assert!(job.pending_progress().is_none() || job.due_at().is_some(), "what waits is told some day");
            told.extend(step.events);
            let folded = job::fold(told.iter().map(|event| (&*event.name, event.data.get()))).unwrap();
            prop_assert_eq!(folded.as_ref(), Some(job.told()));
            prop_assert_eq!(&Job::from_record(&job.to_record()).unwrap(), &job);
        }
    }

    /// Without an end and with a clock that only goes forward.
    #[test]
    fn no_two_updates_are_closer_than_the_interval_and_the_last_is_told(
        updates in proptest::collection::vec((0u64..4_000, 0u32..=100), 1..80),
    ) {
        let limits = JobLimits::default();
        let (mut job, mut now) = (create(json!({})), START);
        let mut told = Vec::new();
        let mut highest = Percent::ZERO;
        for (wait, percent) in updates {
            let until = Timestamp(now.0 + wait);
            while let Some(at) = job.due_at().filter(|at| *at <= until) {
                let step = job::due(&job, at);
                told.extend(step.events.iter().map(|_| at));
                job = step.next.unwrap();
            }
            now = until;
            let step = job::apply(Some(&job), now, command("progress", json!({"progress": percent})), &limits).unwrap();
            told.extend(step.events.iter().filter(|event| event.name == job::AGENT_PROGRESS).map(|_| now));
            job = step.next.unwrap();
            highest = highest.max(Percent::new(f64::from(percent)));
        }
        prop_assert!(told.windows(2).all(|pair| pair[1].since(pair[0]) >= limits.min_update_interval));
        if let Some(at) = job.due_at() {
            job = job::due(&job, at).next.unwrap();
        }
        prop_assert_eq!(job.told().progress, highest);
        prop_assert_eq!(job.due_at(), None);
    }
}

fn check(transcript: &str) {
    let limits = JobLimits::default();
    let mut now = START;
    let mut job: Option<Job> = None;
    let mut told = Vec::new();
    for line in transcript.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (mark, rest) = line.split_once(' ').unwrap();
        let (verb, argument) = rest.split_once(' ').unwrap_or((rest, ""));
        if mark != "<" {
            assert_eq!(told, Vec::<String>::new(), "before `{line}`");
        }
        match mark {
            "@" => {
                let until = now.plus(span(rest));
                while let Some(at) = job.as_ref().and_then(State::due_at).filter(|at| *at <= until) {
                    let step = job::due(job.as_ref().unwrap(), at);
                    told.extend(briefs(&step));
                    job = step.next;
                }
                now = until;
            }
            "<" => {
                assert!(!told.is_empty(), "nothing was told for `{line}`");
                assert_eq!(told.remove(0), rest);
            }
            ">" => {
                let step = run(job.as_ref(), now, verb, argument, &limits)
                    .unwrap_or_else(|fault| panic!("`{line}`: {fault}"));
                told.extend(briefs(&step));
                job = step.next;
            }
            "!" => {
                let fault = run(job.as_ref(), now, verb, argument, &limits).expect_err(line);
                assert_eq!(fault.refusal, Refusal::WrongState, "{line}");
            }
            _ => panic!("`{line}`"),
        }
    }
    assert_eq!(told, Vec::<String>::new(), "at the end");
}

fn run(
    job: Option<&Job>,
    now: Timestamp,
    verb: &str,
    argument: &str,
    limits: &JobLimits,
) -> Result<Step<Job>, Fault> {
    let number = || argument.split(' ').next().unwrap().parse::<f64>().unwrap();
    let message = argument.split_once(' ').map(|(_, message)| message);
    let command = match verb {
        "create" => {
            return job::create(job, now, "j", new(serde_json::from_str(argument).unwrap()), limits);
        }
        "progress" => command(verb, json!({"progress": number(), "message": message})),
        "increment" => command("progress", json!({"increment": number(), "message": message})),
        "back" => command("progress", json!({"progress": number(), "allow_decrease": true})),
        "status" => command(verb, json!({"status": argument})),
        "heartbeat" => command(verb, json!({})),
        "complete" => JobCommand::Complete { result: None },
        "fail" => JobCommand::Fail { error: argument.into() },
        "cancel" => JobCommand::Cancel { reason: None },
        _ => panic!("{verb}"),
    };
    job::apply(job, now, command, limits)
}

fn command(verb: &str, body: Value) -> JobCommand {
    match verb {
        "progress" => JobCommand::Progress(from(body)),
        "status" => JobCommand::Status(from(body)),
        "heartbeat" => JobCommand::Heartbeat(from(body)),
        _ => panic!("{verb}"),
    }
}

/// What watchers of the job are told; operators hear of each status, too.
fn briefs(step: &Step<Job>) -> Vec<String> {
    let (watched, news): (Vec<_>, Vec<_>) =
        step.events.iter().partition(|event| event.audience == Audience::Rooms);
    let statuses = watched.iter().filter(|event| event.name == job::AGENT_STATUS).count();
    assert_eq!(news.len(), statuses, "a job_event for each status");
    watched.into_iter().map(brief).collect()
}

/// An event in a few words: the status and error, or the progress and message.
fn brief(event: &Outgoing) -> String {
    let data: Value = serde_json::from_str(event.data.get()).unwrap();
    let (what, why) = match &*event.name {
        job::AGENT_STATUS => (&data["status"], &data["error"]),
        _ => (&data["progress"], &data["message"]),
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if why.is_null() { text(what) } else { format!("{} {}", text(what), text(why)) }
}

fn span(text: &str) -> Duration {
    match text.strip_suffix("ms") {
        Some(millis) => Duration::from_millis(millis.parse().unwrap()),
        None => Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap()),
    }
}

fn create(body: Value) -> Job {
    job::create(None, START, "j", new(body), &JobLimits::default()).unwrap().next.unwrap()
}

fn new(mut body: Value) -> NewJob {
    if body.get("project_id").is_none() {
        body["project_id"] = "p".into();
    }
    from(body)
}

fn from<T: serde::de::DeserializeOwned>(body: Value) -> T {
    serde_json::from_value(body).unwrap()
}
