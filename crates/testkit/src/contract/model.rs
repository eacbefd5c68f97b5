//! Owns the comparison of a store with the store in memory: random operations, and all that can be asked after each.
//! Does not know the store. Invariant: what differs between two stores by right, the numbers of epochs, is not compared.

use std::time::Duration;

use hub::event::{Audience, Position};
use hub::policy::{Delivery, Retention};
use hub::store::{
    Append, Change, Commit, Kept, Listing, Outcome, Page, Placed, Placement, RecordKind, RecordState,
    Repeated, Span, Store,
};
use hub::time::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::sample::{NOW, event, job, key, room};
use super::wait;
use crate::memory::MemoryStore;

const ROOMS: [&str; 4] = ["tasks", "agents", "metrics", "é"];
const IDS: [&str; 3] = ["1", "2", "3"];

/// What is done to both stores.
#[derive(Clone, Debug)]
pub enum Step {
    /// Time goes on so far, then a batch is committed.
    Commit(Duration, Vec<Commit>),
    /// The store is closed and opened again.
    Reopen,
    /// What came after so many orders before the newest, at most so many.
    After(u64, usize),
    /// A part of the log of each room.
    Read(u64, usize),
    /// A list with these filters.
    List(Listing),
}

/// Up to thirty steps.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..30)
}

/// Does the steps to a store, which `open` opens and opens again after it was dropped, and to the store in memory.
///
/// # Errors
/// They say something different, after which step.
///
/// # Panics
/// If a store fails.
pub fn compare(steps: &[Step], open: &mut dyn FnMut() -> Box<dyn Store>) -> Result<(), TestCaseError> {
    let model = MemoryStore::new();
    let mut subject = open();
    let mut now = NOW;
    for step in steps {
        match step {
            Step::Commit(pause, batch) => {
                now = now.plus(*pause);
                let batch = || -> Vec<Commit> { batch.iter().map(|commit| dated(commit, now)).collect() };
                let ours = wait(subject.commit(now, batch())).expect("the store works");
                let theirs = wait(model.commit(now, batch())).expect("memory works");
                prop_assert_eq!(outcomes(ours), outcomes(theirs));
            }
            Step::Reopen => {
                drop(subject);
                subject = open();
            }
            Step::After(back, limit) => {
                let order = wait(model.health()).expect("memory works").order.saturating_sub(*back);
                prop_assert_eq!(after(&*subject, order, *limit), after(&model, order, *limit));
            }
            Step::Read(seq, limit) => {
                for name in ROOMS {
                    for span in [Span::After { seq: *seq, limit: *limit }, Span::Last { limit: *limit }] {
                        prop_assert_eq!(part(&*subject, name, span), part(&model, name, span));
                    }
                }
            }
            Step::List(listing) => {
                prop_assert_eq!(jobs(&*subject, listing), jobs(&model, listing));
            }
        }
        prop_assert_eq!(everything(&*subject), everything(&model), "after {:?}", step);
    }
    Ok(())
}

fn after(store: &dyn Store, order: u64, limit: usize) -> Option<Vec<String>> {
    let kept = wait(store.read_after_order(ROOMS.map(room).to_vec(), order, limit)).expect("the store works");
    kept.map(|kept| kept.iter().map(told).collect())
}

fn part(store: &dyn Store, name: &str, span: Span) -> String {
    page(wait(store.read(room(name), span)).expect("the store works"))
}

fn jobs(store: &dyn Store, listing: &Listing) -> String {
    format!("{:?}", wait(store.list(RecordKind::Job, listing.clone())).expect("the store works"))
}

/// All that can be asked, as text: the numbers of epochs aside, which no two stores share.
fn everything(store: &dyn Store) -> Vec<String> {
    let mut all = Vec::new();
    for name in ROOMS {
        all.push(part(store, name, Span::After { seq: 0, limit: 1_000 }));
        let latest = wait(store.read_latest(room(name))).expect("the store works");
        all.extend(latest.iter().map(told));
    }
    all.push(jobs(store, &Listing { limit: 100, ..Listing::default() }));
    all.push(format!("{:?}", wait(store.due(Timestamp(u64::MAX), 100)).expect("the store works")));
    all.push(format!("{:?}", wait(store.next_due()).expect("the store works")));
    all.push(format!("{}", wait(store.health()).expect("the store works").order));
    let keys = IDS.map(|id| key("p", id)).to_vec();
    let found = wait(store.look(IDS.map(job).to_vec(), keys)).expect("the store works");
    all.push(format!("{:?}", found.records));
    all.extend(found.repeated.into_iter().map(|repeated| format!("{:?}", repeated.map(without_epochs))));
    all
}

fn page(page: Page) -> String {
    let events: Vec<String> = page.events.iter().map(told).collect();
    let has_epoch = page.epoch != 0;
    format!("{has_epoch} {}..={} at {} {events:?}", page.first_seq, page.last_seq, page.order)
}

fn told(kept: &Kept) -> String {
    let seq = kept.position.map(|position| position.seq);
    let Kept { room, order, event, audience, .. } = kept;
    format!("{room} {seq:?} {order} {} {} {} {:?} {audience:?}", event.name, event.data, event.at, event.id)
}

fn outcomes(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let aside = |outcome| match outcome {
        Outcome::Done(done) => {
            Outcome::Done(done.into_iter().map(|(order, placed)| (order, place(placed))).collect())
        }
        Outcome::Repeated(repeated) => Outcome::Repeated(without_epochs(repeated)),
        Outcome::Conflict => Outcome::Conflict,
    };
    outcomes.into_iter().map(aside).collect()
}

fn without_epochs(repeated: Repeated) -> Repeated {
    Repeated { placed: repeated.placed.into_iter().map(place).collect(), ..repeated }
}

fn place(placed: Vec<Placed>) -> Vec<Placed> {
    let aside = |position: Position| Position { epoch: u64::from(position.epoch != 0), ..position };
    placed.into_iter().map(|placed| Placed { position: placed.position.map(aside), ..placed }).collect()
}

/// Samples carry how old their events are; here that becomes when they were published.
fn dated(commit: &Commit, now: Timestamp) -> Commit {
    let mut commit = commit.clone();
    for append in &mut commit.appends {
        append.event.at = Timestamp(now.0 - append.event.at.0);
    }
    commit
}

fn step() -> impl Strategy<Value = Step> {
    // Hours, so that keys grow old as well.
    let pause =
        prop_oneof![8 => 0..20_u64, 2 => 20..100_u64, 1 => 40_000..50_000_u64].prop_map(Duration::from_secs);
    prop_oneof![
        8 => (pause, vec(commit(), 0..5)).prop_map(|(pause, batch)| Step::Commit(pause, batch)),
        1 => Just(Step::Reopen),
        2 => (0..20_u64, 0..20_usize).prop_map(|(back, limit)| Step::After(back, limit)),
        2 => (0..30_u64, 0..10_usize).prop_map(|(seq, limit)| Step::Read(seq, limit)),
        1 => listing().prop_map(Step::List),
    ]
}

fn commit() -> impl Strategy<Value = Commit> {
    let idempotency = option::weighted(0.2, select(&IDS[..]).prop_map(|id| key("p", id)));
    let answer = select(vec!["", "{}", "[1]"]).prop_map(Box::from);
    // Some commits of many events, so that pruning passes over more than it holds in memory.
    let appends = prop_oneof![8 => vec(append(), 0..4), 1 => (append(), 60..150_usize).prop_map(|(append, n)| vec![append; n])];
    (idempotency, answer, vec(change(), 0..3), appends)
        .prop_map(|(idempotency, answer, changes, appends)| Commit { idempotency, answer, changes, appends })
}

fn change() -> impl Strategy<Value = Change> {
    (select(&IDS[..]), option::of(1..3_u64), option::weighted(0.8, state()))
        .prop_map(|(id, expected, state)| Change { key: job(id), expected, state })
}

fn state() -> impl Strategy<Value = RecordState> {
    let text = || select(vec!["", "a", "b"]).prop_map(Box::from);
    (text(), text(), 0..3_u64, option::of(0..9_u64)).prop_map(|(group, status, made, due)| RecordState {
        json: format!("{made}").into(),
        group,
        status,
        created_at: Timestamp(made),
        due_at: due.map(Timestamp),
    })
}

fn append() -> impl Strategy<Value = Append> {
    let name = select(vec!["a", "bb"]);
    let data = select(vec!["1", r#"{"n":1}"#, r#"["xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"]"#]);
    let rooms = subsequence(ROOMS.to_vec(), 0..=2);
    let delivery = prop_oneof![3 => Just(Delivery::Log), 1 => Just(Delivery::Latest)];
    let audience = select(vec![Audience::Rooms, Audience::Logs]);
    // Older than now by so many milliseconds, in no order.
    let age = prop_oneof![Just(0), 0..30_000_u64];
    let key = select(vec!["", "k"]).prop_map(Box::from);
    (name, data, rooms, delivery, retention(), audience, age, key).prop_map(
        |(name, data, rooms, delivery, retention, audience, age, key)| {
            let mut event = event(name, data);
            event.at = Timestamp(age);
            let placements =
                rooms.iter().map(|name| Placement { room: room(name), delivery, retention }).collect();
            Append { event, audience, placements, key, route: None }
        },
    )
}

fn retention() -> impl Strategy<Value = Retention> {
    let age = prop_oneof![Just(Duration::MAX), (0..60_u64).prop_map(Duration::from_secs)];
    let events = prop_oneof![Just(u64::MAX), 0..8_u64, 60..140_u64];
    let bytes = prop_oneof![3 => Just(u64::MAX), 1 => 0..400_u64];
    (events, bytes, age).prop_map(|(events_max, bytes_max, age_max)| Retention {
        events_max,
        bytes_max,
        age_max,
    })
}

fn listing() -> impl Strategy<Value = Listing> {
    let text = || option::of(select(vec!["", "a", "b"]).prop_map(Box::from));
    let after = option::of((0..4_u64, select(&IDS[..])).prop_map(|(made, id)| (Timestamp(made), id.into())));
    let since = option::of((0..3_u64).prop_map(Timestamp));
    (text(), text(), after, since, 0..4_usize).prop_map(|(group, status, after, created_since, limit)| {
        Listing { group, status, after, created_since, limit }
    })
}
