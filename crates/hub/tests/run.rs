//! Runs: approvals, control commands, and that the newest event is the run.

use hub::event::Audience;
use hub::fault::Refusal;
use hub::record::{State, Step};
use hub::run::{self, Approval, ControlRequest, NewRun, Run, RunLimits, RunStatus, RunUpdate};
use hub::time::Timestamp;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp(1_000_000_000);

#[test]
fn a_run_waits_is_approved_and_goes_on() {
    let run = waiting();
    let step = approve(&run, json!({"approved": true, "checkpoint_id": "c1", "comment": "go"})).unwrap();
    let [to_room, to_admins] = &*step.events else { panic!("{:?}", step.events) };
    assert_eq!((to_room.audience, to_room.rooms[0].as_str()), (Audience::Rooms, "run:t"));
    assert_eq!((to_admins.audience, to_admins.rooms.len()), (Audience::Admin, 0));
    assert_eq!(to_room.data, to_admins.data);
    let data: Value = serde_json::from_str(to_room.data.get()).unwrap();
    let decision = json!({
        "approved": true, "comment": "go", "by": "ann", "at": NOW.to_string(), "checkpoint_id": "c1",
    });
    assert_eq!(
        data,
        json!({"type": "run_event", "data": {
            "thread_id": "t", "checkpoint_id": "c1", "metadata": {"topic": "x"}, "status": "approved",
            "decision": decision, "timestamp": NOW.to_string(),
        }})
    );
    let run = step.next.unwrap();
    let controls = serde_json::to_value(run.controls(0)).unwrap();
    let control = json!({
        "id": 1, "verb": "approve", "checkpoint_id": "c1", "comment": "go", "by": "ann", "timestamp": NOW.to_string(),
    });
    assert_eq!(controls, json!([control]));
    assert_eq!(approve(&run, json!({"approved": false})).unwrap_err().refusal, Refusal::WrongState);
    let run = update(&run, json!({"status": "running"})).unwrap().next.unwrap();
    let run = update(&run, json!({"status": "completed"})).unwrap().next.unwrap();
    assert_eq!(run.controls(0), []);
    assert_eq!(update(&run, json!({"status": "failed"})).unwrap_err().refusal, Refusal::WrongState);
}

#[test]
fn a_decision_on_an_old_checkpoint_is_refused() {
    let fault = approve(&waiting(), json!({"approved": true, "checkpoint_id": "c0"})).unwrap_err();
    assert_eq!(fault.to_string(), "wrong_state: the run waits at checkpoint `c1`");
    let rejected = approve(&waiting(), json!({"approved": false})).unwrap().next.unwrap();
    assert_eq!(rejected.told().status, RunStatus::Rejected);
    assert_eq!(&*rejected.controls(0)[0].verb, "reject");
}

#[test]
fn commands_wait_until_they_are_acknowledged() {
    let mut run = waiting();
    for verb in ["pause", "resume", "cancel"] {
        let step = control(&run, json!({"verb": verb, "data": {"n": 1}})).unwrap();
        assert_eq!(step.events, []);
        run = step.next.unwrap();
    }
    let verbs = |run: &Run, after| run.controls(after).iter().map(|c| c.verb.to_string()).collect::<Vec<_>>();
    assert_eq!(verbs(&run, 0), ["pause", "resume", "cancel"]);
    assert_eq!(verbs(&run, 2), ["cancel"]);
    let run = run::acknowledge(Some(&run), 2).unwrap().next.unwrap();
    assert_eq!(verbs(&run, 0), ["cancel"]);
    assert_eq!(run::acknowledge(Some(&run), 1), Ok(Step::quiet(run.clone())));
    assert_eq!(run::acknowledge(Some(&run), 4).unwrap_err().refusal, Refusal::BadPayload);
    for bad in ["approve", "reject", ""] {
        assert_eq!(control(&run, json!({"verb": bad})).unwrap_err().refusal, Refusal::BadPayload, "{bad}");
    }
}

#[test]
fn the_queue_of_commands_is_bounded() {
    let limits = RunLimits { controls_max: 2, ..RunLimits::default() };
    let ask = |run: &Run| run::control(Some(run), NOW, from(json!({"verb": "poke"})), None, &limits);
    let run = ask(&waiting()).unwrap().next.unwrap();
    let run = ask(&run).unwrap().next.unwrap();
    assert_eq!(ask(&run).unwrap_err().refusal, Refusal::TooMany);
    let approval = from(json!({"thread_id": "t", "approved": true}));
    let refused = run::approve(Some(&run), NOW, approval, None, &limits).unwrap_err();
    assert_eq!(refused.refusal, Refusal::TooMany);
    let run = run::acknowledge(Some(&run), 1).unwrap().next.unwrap();
    assert!(ask(&run).is_ok());
}

#[test]
fn a_thread_runs_again_once_it_has_ended() {
    let start =
        |present: Option<&Run>, now, body| run::start(present, now, "t", from(body), &RunLimits::default());
    let asked = json!({"input": 1, "metadata": {"a": null, "b": 1}});
    let first = start(None, NOW, asked.clone()).unwrap().next.unwrap();
    assert_eq!(start(Some(&first), NOW, asked), Ok(Step::quiet(first.clone())));
    let other = start(Some(&first), NOW, json!({"input": 2})).unwrap_err();
    assert_eq!(other.refusal, Refusal::AlreadyExists);
    let run = control(&first, json!({"verb": "poke"})).unwrap().next.unwrap();
    let ended = update(&run, json!({"status": "failed", "metadata": {"why": "x"}})).unwrap().next.unwrap();
    let later = Timestamp(NOW.0 + 5);
    let again = start(Some(&ended), later, json!({"input": 2})).unwrap().next.unwrap();
    assert_eq!(again.told().status, RunStatus::Started);
    assert!(again.told().metadata.is_empty());
    assert_eq!(again.created_at(), NOW);
    let again = control(&again, json!({"verb": "poke"})).unwrap().next.unwrap();
    assert_eq!(again.controls(0)[0].id, 2, "ids of commands are not used again");
}

#[test]
fn metadata_is_merged_and_bounded() {
    let run = update(&waiting(), json!({"metadata": {"a": 1, "topic": null}})).unwrap().next.unwrap();
    assert_eq!(Value::from(run.told().metadata.clone()), json!({"a": 1}));
    let limits = RunLimits {
        metadata_keys_max: 2,
        metadata_bytes_max: 20,
        checkpoint_bytes_max: 3,
        ..RunLimits::default()
    };
    for (body, is_taken) in [
        (json!({"metadata": {"b": 1}}), true),
        (json!({"metadata": {"b": 1, "c": 1}}), false),
        (json!({"metadata": {"b": "0123456789abcdef"}}), false),
        (json!({"checkpoint_id": "abc"}), true),
        (json!({"checkpoint_id": "abcd"}), false),
        (json!({}), false),
    ] {
        let outcome = run::update(Some(&run), NOW, from(body.clone()), &limits);
        assert_eq!(outcome.is_ok(), is_taken, "{body}");
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let limits = RunLimits::default();
    let update = from(json!({"status": "running"}));
    assert_eq!(run::update(None, NOW, update, &limits).unwrap_err().refusal, Refusal::NotFound);
    assert_eq!(run::acknowledge(None, 0).unwrap_err().refusal, Refusal::NotFound);
    let start = run::start(None, NOW, &"t".repeat(200), NewRun::default(), &limits);
    assert_eq!(start.unwrap_err().refusal, Refusal::BadRoomName);
}

#[derive(Clone, Debug)]
enum Act {
    Start,
    Update(Value),
    Approve(bool),
    Control,
    Acknowledge(u64),
}

const STATUSES: &[&str] =
    &["started", "running", "waiting_approval", "approved", "rejected", "completed", "failed"];

fn act() -> impl Strategy<Value = Act> {
    let status = proptest::option::of(proptest::sample::select(STATUSES));
    let value = prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from)];
    let metadata = proptest::option::of(proptest::collection::btree_map("[a-c]", value, 0..3));
    let update =
        (status, proptest::option::of("[a-z]{1,3}"), metadata).prop_map(|(status, checkpoint, metadata)| {
            Act::Update(json!({"status": status, "checkpoint_id": checkpoint, "metadata": metadata}))
        });
    prop_oneof![
        1 => Just(Act::Start),
        6 => update,
        2 => any::<bool>().prop_map(Act::Approve),
        1 => Just(Act::Control),
        1 => (0u64..9).prop_map(Act::Acknowledge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_newest_event_is_the_run(acts in proptest::collection::vec(act(), 0..50)) {
        let limits = RunLimits::default();
        let first = run::start(None, NOW, "t", NewRun::default(), &limits).unwrap();
        let (mut run, mut told) = (first.next.unwrap(), first.events);
        for act in acts {
            let step = match act {
                Act::Start => run::start(Some(&run), NOW, "t", NewRun::default(), &limits),
                Act::Update(body) => update(&run, body),
                Act::Approve(approved) => approve(&run, json!({"approved": approved})),
                Act::Control => control(&run, json!({"verb": "poke"})),
                Act::Acknowledge(id) => run::acknowledge(Some(&run), id),
            };
            let Ok(step) = step else { continue };
            run = step.next.unwrap();
            told.extend(step.events);
            let in_room = told.iter().filter(|event| event.audience == Audience::Rooms);
            let folded = run::fold(in_room.map(|event| (&*event.name, event.data.get()))).unwrap();
            prop_assert_eq!(folded.as_ref(), Some(run.told()));
            prop_assert_eq!(&Run::from_record(&run.to_record()).unwrap(), &run);
            prop_assert!(run.controls(0).windows(2).all(|pair| pair[0].id < pair[1].id));
        }
    }
}

fn waiting() -> Run {
    let new = from(json!({"metadata": {"topic": "x"}}));
    let run = run::start(None, NOW, "t", new, &RunLimits::default()).unwrap().next.unwrap();
    update(&run, json!({"status": "waiting_approval", "checkpoint_id": "c1"})).unwrap().next.unwrap()
}

fn update(run: &Run, body: Value) -> Result<Step<Run>, hub::fault::Fault> {
    run::update(Some(run), NOW, from::<RunUpdate>(body), &RunLimits::default())
}

fn approve(run: &Run, mut body: Value) -> Result<Step<Run>, hub::fault::Fault> {
    body["thread_id"] = "t".into();
    run::approve(Some(run), NOW, from::<Approval>(body), Some("ann"), &RunLimits::default())
}

fn control(run: &Run, body: Value) -> Result<Step<Run>, hub::fault::Fault> {
    run::control(Some(run), NOW, from::<ControlRequest>(body), Some("ann"), &RunLimits::default())
}

fn from<T: serde::de::DeserializeOwned>(body: Value) -> T {
    serde_json::from_value(body).unwrap()
}
