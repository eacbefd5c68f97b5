//! Notifications: none is lost before it is delivered, none is told twice to one who counts, and inboxes are bounded.

use std::collections::BTreeSet;
use std::time::Duration;

use hub::fault::Refusal;
use hub::notification::{self, Arrival, Inbox, Message, NotificationLimits};
use hub::outgoing::Outgoing;
use hub::record::{State, Step};
use hub::time::Timestamp;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp(1_000_000_000);

#[test]
fn somebody_who_is_there_is_told_at_once() {
    let step = push(None, "n1", true);
    let [event] = &*step.events else { panic!("{:?}", step.events) };
    assert_eq!((&*event.name, event.rooms[0].as_str(), event.volatile), ("notification", "user:ann", false));
    assert_eq!(
        event.data.get(),
        r#"{"id":"n1","title":"t","message":"m","level":"info","data":{"a":1},"timestamp":"1970-01-12T13:46:40.000Z"}"#
    );
    let inbox = step.next.unwrap();
    assert_eq!(ids(&inbox), ["n1"], "until it has arrived");
    assert_eq!(deliver(&inbox, &["n1", "n9"]), None);
}

#[test]
fn somebody_who_was_away_is_told_on_return() {
    let inbox = push(None, "n1", false);
    assert_eq!(inbox.events, []);
    let inbox = push(inbox.next.as_ref(), "n2", false).next.unwrap();
    let step = notification::hand_over(&inbox, NOW, Arrival::New, &NotificationLimits::default());
    assert_eq!(told(&step.events), [("n1".into(), false), ("n2".into(), false)]);
    let inbox = step.next.unwrap();
    let inbox = deliver(&inbox, &["n1"]).unwrap();
    let anew = notification::hand_over(&inbox, NOW, Arrival::New, &NotificationLimits::default());
    assert_eq!(told(&anew.events), [("n2".into(), true)], "again, but not into the log");
    let recovered = notification::hand_over(&inbox, NOW, Arrival::Recovered, &NotificationLimits::default());
    assert_eq!(recovered.events, [], "the log had it");
}

#[test]
fn the_same_again_is_no_news_and_another_under_its_id_is_refused() {
    let limits = NotificationLimits::default();
    let inbox = push(None, "n1", true).next.unwrap();
    assert_eq!(push(Some(&inbox), "n1", true), Step::quiet(inbox.clone()));
    let other = Message { title: "other".into(), ..message() };
    let fault = notification::push(Some(&inbox), NOW, "ann", ("n1", other), true, &limits).unwrap_err();
    assert_eq!(fault.refusal, Refusal::AlreadyExists);
}

#[test]
fn the_oldest_go_when_it_is_full_or_they_are_old() {
    let limits = NotificationLimits { waiting_max: 2, ..NotificationLimits::default() };
    let mut inbox = None;
    for id in ["n1", "n2", "n3"] {
        inbox = notification::push(inbox.as_ref(), NOW, "ann", (id, message()), false, &limits).unwrap().next;
    }
    let inbox = inbox.unwrap();
    assert_eq!((ids(&inbox), inbox.dropped()), (vec!["n2".to_owned(), "n3".to_owned()], 1));
    let tiny = NotificationLimits { waiting_bytes_max: 0, ..NotificationLimits::default() };
    let step = notification::push(Some(&inbox), NOW, "ann", ("n4", message()), false, &tiny).unwrap();
    assert_eq!(ids(step.next.as_ref().unwrap()), ["n4"], "the newest always waits");
    let old = inbox.due_at().unwrap();
    assert_eq!(old, NOW.plus(Duration::from_secs(30 * 86_400)));
    let before = Timestamp(old.0 - 1);
    assert_eq!(notification::due(&inbox, before, &limits), Step::quiet(inbox.clone()));
    assert_eq!(notification::due(&inbox, old, &limits), Step { next: None, events: Vec::new() });
}

#[test]
fn what_is_beyond_the_limits_is_refused() {
    let limits = NotificationLimits {
        id_bytes_max: 2,
        title_bytes_max: 1,
        message_bytes_max: 1,
        level_bytes_max: 4,
        data_bytes_max: 7,
        ..NotificationLimits::default()
    };
    let push = |user: &str, id: &str, message| {
        notification::push(None, NOW, user, (id, message), true, &limits).is_ok()
    };
    assert!(push("ann", "n1", message()));
    assert!(!push("", "n1", message()));
    assert!(!push("ann", "n10", message()));
    for body in [
        json!({"title": "tt", "message": "m"}),
        json!({"title": "t", "message": "mm"}),
        json!({"title": "t", "message": "m", "level": "level"}),
        json!({"title": "t", "message": "m", "data": {"a": 12}}),
    ] {
        assert!(!push("ann", "n1", serde_json::from_value(body.clone()).unwrap()), "{body}");
        let body = serde_json::from_value(body).unwrap();
        assert!(notification::announce(NOW, "a1", body, &limits).is_err());
    }
    let announcement = notification::announce(NOW, "a1", message(), &limits).unwrap();
    assert_eq!((&*announcement.name, announcement.rooms[0].as_str()), ("announcement", "global"));
}

#[derive(Clone, Debug)]
enum Act {
    Push(bool),
    HandOver(Arrival),
    Deliver(Vec<u32>),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => any::<bool>().prop_map(Act::Push),
        1 => prop_oneof![Just(Arrival::New), Just(Arrival::Recovered)].prop_map(Act::HandOver),
        1 => proptest::collection::vec(0u32..40, 0..9).prop_map(Act::Deliver),
        1 => (0u64..60_000).prop_map(Act::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn each_waits_until_it_is_delivered_or_counted_as_dropped(acts in proptest::collection::vec(act(), 0..60)) {
        let limits = NotificationLimits {
            waiting_max: 5,
            age_max: Duration::from_secs(100),
            ..NotificationLimits::default()
        };
        let (mut inbox, mut now, mut pushed) = (None::<Inbox>, NOW, 0u32);
        let mut logged = BTreeSet::new();
        for act in acts {
            let before: Vec<String> = inbox.as_ref().map(ids).unwrap_or_default();
            let dropped = inbox.as_ref().map_or(0, Inbox::dropped);
            let step = match (act, &inbox) {
                (Act::Push(is_present), inbox) => {
                    pushed += 1;
                    let id = format!("n{pushed}");
                    notification::push(inbox.as_ref(), now, "ann", (&id, message()), is_present, &limits).unwrap()
                }
                (Act::Wait(millis), inbox) => {
                    now = now.plus(Duration::from_millis(millis));
                    match inbox {
                        Some(inbox) => notification::due(inbox, now, &limits),
                        None => continue,
                    }
                }
                (_, None) => continue,
                (Act::HandOver(arrival), Some(inbox)) => notification::hand_over(inbox, now, arrival, &limits),
                (Act::Deliver(numbers), Some(inbox)) => {
                    let numbers: Vec<String> = numbers.iter().map(|n| format!("n{n}")).collect();
                    let delivered = numbers.iter().map(String::as_str).collect();
                    let step = notification::deliver(inbox, &delivered, &limits);
                    let rest: Vec<String> =
                        before.iter().filter(|id| !delivered.contains(id.as_str())).cloned().collect();
                    prop_assert_eq!(step.next.as_ref().map(ids).unwrap_or_default(), rest);
                    step
                }
            };
            for (id, is_volatile) in told(&step.events) {
                prop_assert!(is_volatile || logged.insert(id), "each is in the log once");
            }
            inbox_is_bounded(&step);
            if let Some(next) = &step.next {
                prop_assert!(next.dropped() >= dropped);
                prop_assert_eq!(&Inbox::from_record(&next.to_record()).unwrap(), next);
            }
            inbox = step.next;
        }
    }
}

fn inbox_is_bounded(step: &Step<Inbox>) {
    let waiting = step.next.as_ref().map_or(1, |inbox| inbox.waiting().len());
    assert!((1..=5).contains(&waiting), "an inbox that is kept is neither empty nor too full: {waiting}");
}

fn message() -> Message {
    Message {
        title: "t".into(),
        message: "m".into(),
        level: None,
        data: Some(serde_json::from_value(json!({"a": 1})).unwrap()),
    }
}

fn push(present: Option<&Inbox>, id: &str, is_present: bool) -> Step<Inbox> {
    let limits = NotificationLimits::default();
    notification::push(present, NOW, "ann", (id, message()), is_present, &limits).unwrap()
}

fn deliver(inbox: &Inbox, ids: &[&str]) -> Option<Inbox> {
    let step = notification::deliver(inbox, &ids.iter().copied().collect(), &NotificationLimits::default());
    assert_eq!(step.events, []);
    step.next
}

fn ids(inbox: &Inbox) -> Vec<String> {
    inbox.waiting().map(|notification| notification.id.to_string()).collect()
}

/// Ids, and whether outside of the log.
fn told(events: &[Outgoing]) -> Vec<(String, bool)> {
    let id = |event: &Outgoing| {
        serde_json::from_str::<Value>(event.data.get()).unwrap()["id"].as_str().unwrap().to_owned()
    };
    events.iter().map(|event| (id(event), event.volatile)).collect()
}
