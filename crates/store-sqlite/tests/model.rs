//! Whatever is done to it, the store in a file says what the store in memory says, also after it was opened anew.

use std::time::Duration;

use hub::event::{Audience, Position};
use hub::policy::{Delivery, Retention};
use hub::store::{
    Append, Change, Commit, Kept, Listing, Outcome, Page, Placed, Placement, RecordKey, RecordKind,
    RecordState, Repeated, Span, Store,
};
use hub::time::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use store_sqlite::{Options, SqliteStore, Synchronous};
use testkit::contract::sample::{NOW, event, key, room};
use testkit::contract::wait;
use testkit::memory::MemoryStore;

const ROOMS: [&str; 4] = ["tasks", "agents", "metrics", "é"];
const IDS: [&str; 3] = ["1", "2", "3"];

#[derive(Clone, Debug)]
enum Step {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_file_says_what_the_memory_says(steps in vec(step(), 1..30)) {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            synchronous: Synchronous::Normal,
            readers: 1,
            ..Options::new(folder.path().join("fanfare.db"))
        };
        let model = MemoryStore::new();
        let mut file = SqliteStore::open(options.clone()).unwrap();
        let mut now = NOW;
        for step in steps {
            match &step {
                Step::Commit(pause, batch) => {
                    now = now.plus(*pause);
                    let batch = || -> Vec<Commit> { batch.iter().map(|commit| dated(commit, now)).collect() };
                    let ours: Vec<Outcome> = wait(file.commit(now, batch())).unwrap();
                    let theirs = wait(model.commit(now, batch())).unwrap();
                    prop_assert_eq!(outcomes(ours), outcomes(theirs));
                }
                Step::Reopen => {
                    file.close();
                    file = SqliteStore::open(options.clone()).unwrap();
                }
                Step::After(back, limit) => {
                    let order = wait(model.health()).unwrap().order.saturating_sub(*back);
                    let rooms = || ROOMS.map(room).to_vec();
                    let told = |kept: Option<Vec<Kept>>| kept.map(|kept| kept.iter().map(told).collect::<Vec<_>>());
                    prop_assert_eq!(
                        told(wait(file.read_after_order(rooms(), order, *limit)).unwrap()),
                        told(wait(model.read_after_order(rooms(), order, *limit)).unwrap())
                    );
                }
                Step::Read(seq, limit) => {
                    for name in ROOMS {
                        for span in [Span::After { seq: *seq, limit: *limit }, Span::Last { limit: *limit }] {
                            prop_assert_eq!(
                                page(wait(file.read(room(name), span)).unwrap()),
                                page(wait(model.read(room(name), span)).unwrap())
                            );
                        }
                    }
                }
                Step::List(listing) => prop_assert_eq!(
                    wait(file.list(RecordKind::Job, listing.clone())).unwrap(),
                    wait(model.list(RecordKind::Job, listing.clone())).unwrap()
                ),
            }
            prop_assert_eq!(everything(&file), everything(&model), "after {:?}", step);
        }
    }
}

/// All that can be asked, as text: the numbers of epochs aside, which no two stores share.
fn everything(store: &dyn Store) -> Vec<String> {
    let mut all = Vec::new();
    for name in ROOMS {
        all.push(page(wait(store.read(room(name), Span::After { seq: 0, limit: 1_000 })).unwrap()));
        let latest = wait(store.read_latest(room(name))).unwrap();
        all.extend(latest.iter().map(told));
    }
    let list = Listing { limit: 100, ..Listing::default() };
    all.push(format!("{:?}", wait(store.list(RecordKind::Job, list)).unwrap()));
    all.push(format!("{:?}", wait(store.due(Timestamp(u64::MAX), 100)).unwrap()));
    all.push(format!("{:?}", wait(store.next_due()).unwrap()));
    all.push(format!("{}", wait(store.health()).unwrap().order));
    let keys = IDS.map(|id| key("p", id)).to_vec();
    let found = wait(store.look(IDS.map(job).to_vec(), keys)).unwrap();
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

fn job(id: &str) -> RecordKey {
    RecordKey { kind: RecordKind::Job, id: id.into() }
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
            Append { event, audience, placements, key }
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
