//! Owns what every implementation of [`Store`] must do: a function for each rule. Does not know what is behind the
//! port. Invariant: a rule makes stores of its own and depends on no other rule.

use std::any::Any;
use std::time::Duration;

use hub::event::{Audience, Position, Shape};
use hub::policy::{Delivery, Retention};
use hub::room::ROOM_NAME_BYTES_MAX;
use hub::store::{
    Append, Change, Commit, Kept, Listing, Outcome, Page, Placed, Record, RecordKind, Span, Store,
    event_bytes,
};
use hub::time::Timestamp;

use super::sample::{
    AMPLE, NOW, change, event, events, job, key, latest, logged, placed, retained, room, state,
};
use super::wait;

/// A store that is to be judged, and whatever must live as long.
pub struct Subject {
    /// The store, empty.
    pub store: Box<dyn Store>,
    /// Dropped after the store: the folder it is in, say.
    pub keep: Box<dyn Any>,
}

impl Subject {
    /// One that needs nothing beside it.
    pub fn alone(store: impl Store + 'static) -> Self {
        Self { store: Box::new(store), keep: Box::new(()) }
    }
}

/// Makes an empty store.
pub type Make<'a> = &'a dyn Fn() -> Subject;

/// Writes one test for each rule: `store_contract!(make)`, where `make` is a `fn() -> Subject`. With attributes behind it,
/// as in `store_contract!(make, #[ignore])`, each test has them.
#[macro_export]
macro_rules! store_contract {
    (@each $of_each:tt $make:expr; $($rule:ident)*) => {
        $($crate::store_contract! { @rule $of_each $make; $rule })*
    };
    (@rule [$(#[$of_each:meta])*] $make:expr; $rule:ident) => {
        #[test]
        $(#[$of_each])*
        fn $rule() {
            $crate::contract::store::$rule(&$make);
        }
    };
    ($make:expr $(, #[$of_each:meta])*) => {
        $crate::store_contract! { @each [$(#[$of_each])*] $make;
            an_empty_store_answers_with_nothing
            seqs_begin_at_one_and_have_no_gaps
            orders_grow_over_all_rooms
            an_event_is_kept_as_it_was_given
            one_event_has_one_order_in_several_rooms
            odd_names_and_large_data_are_kept
            rooms_are_told_apart_exactly
            empty_batches_and_commits_are_done
            a_conflict_leaves_nothing_of_its_commit
            later_commits_of_a_batch_see_earlier_ones
            changes_of_one_commit_follow_each_other
            versions_count_changes
            a_repeated_key_does_nothing_and_answers_as_before
            keys_are_forgotten_after_a_day
            the_latest_of_each_name_and_key_is_kept
            latest_rooms_keep_to_their_retention
            a_log_keeps_the_newest_by_count
            a_log_keeps_the_newest_by_bytes
            a_log_keeps_the_newest_by_age
            other_rooms_lose_what_is_too_old
            an_emptied_log_goes_on_in_its_epoch
            a_log_is_read_in_pages
            the_newest_are_read_oldest_first
            several_rooms_are_read_in_one_order
            what_was_pruned_is_not_passed_over
            records_are_found_by_key
            lists_are_filtered_and_paged
            due_records_come_most_urgent_first
            health_tells_the_newest_order
        }
    };
}

/// Nothing is found in an empty store, and every way to ask works.
pub fn an_empty_store_answers_with_nothing(make: Make<'_>) {
    let it = make();
    for span in
        [Span::After { seq: 0, limit: 10 }, Span::After { seq: 9, limit: 10 }, Span::Last { limit: 10 }]
    {
        let page = read(&it, "nowhere", span);
        assert_eq!((page.epoch, page.first_seq, page.last_seq, page.order), (0, 1, 0, 0), "{span:?}");
        assert!(page.events.is_empty());
    }
    assert!(wait(it.store.read_latest(room("nowhere"))).unwrap().is_empty());
    assert!(after_order(&it, &["nowhere"], 0, 10).unwrap().is_empty());
    assert!(after_order(&it, &[], 0, 0).unwrap().is_empty());
    assert_eq!(
        wait(it.store.list(RecordKind::Job, Listing { limit: 10, ..Listing::default() })).unwrap(),
        []
    );
    assert_eq!(wait(it.store.due(Timestamp(u64::MAX), 10)).unwrap(), []);
    assert_eq!(wait(it.store.next_due()).unwrap(), None);
    let found = wait(it.store.look(vec![job("1")], vec![key("a", "b")])).unwrap();
    assert_eq!((found.records, found.repeated), (vec![None], vec![None]));
    let found = wait(it.store.look(vec![], vec![])).unwrap();
    assert!(found.records.is_empty() && found.repeated.is_empty());
}

/// Each room counts its own events from 1, over commits and batches, in an epoch that is not 0 and stays.
pub fn seqs_begin_at_one_and_have_no_gaps(make: Make<'_>) {
    let it = make();
    let mut seen = Vec::new();
    for size in [1, 3, 2] {
        let batch: Vec<Commit> = (0..size)
            .map(|_| {
                events(vec![
                    logged("tasks", event("a", "1")),
                    logged("tasks", event("b", "2")),
                    logged("agents", event("c", "3")),
                ])
            })
            .collect();
        for outcome in commit(&it, batch) {
            seen.extend(done(outcome).into_iter().flat_map(|(_, placed)| placed));
        }
    }
    let seqs = |name: &str| -> Vec<u64> {
        let of_room = seen.iter().filter(|placed| placed.room == room(name));
        of_room.map(|placed| placed.position.unwrap().seq).collect()
    };
    assert_eq!(seqs("tasks"), (1..=12).collect::<Vec<_>>());
    assert_eq!(seqs("agents"), (1..=6).collect::<Vec<_>>());
    for name in ["tasks", "agents"] {
        let page = read(&it, name, ALL);
        assert_ne!(page.epoch, 0);
        assert!(page.epoch < 1 << 53, "programs that keep numbers as doubles must not mix epochs up");
        let positions = seen.iter().filter(|placed| placed.room == room(name)).map(|placed| placed.position);
        let kept: Vec<Option<Position>> = page.events.iter().map(|kept| kept.position).collect();
        assert_eq!(kept, positions.collect::<Vec<_>>());
        assert!(kept.iter().all(|position| position.unwrap().epoch == page.epoch));
    }
}

/// Orders grow from one append to the next, wherever it goes, and agree with seqs.
pub fn orders_grow_over_all_rooms(make: Make<'_>) {
    let it = make();
    let mut orders = Vec::new();
    for round in 0..4 {
        let batch = (0..3)
            .map(|at| {
                events(vec![
                    logged(["tasks", "agents"][(round + at) % 2], event("a", "1")),
                    latest("metrics", "k", event("b", "2")),
                    // An event that is kept nowhere has its order all the same.
                    placed(event("c", "3"), &[]),
                ])
            })
            .collect();
        for outcome in commit(&it, batch) {
            orders.extend(done(outcome).into_iter().map(|(order, _)| order));
        }
    }
    assert!(orders.is_sorted_by(|a, b| a < b), "{orders:?}");
    assert!(orders[0] > 0, "0 is before everything");
    for name in ["tasks", "agents"] {
        let page = read(&it, name, ALL);
        assert_eq!(page.order, *orders.last().unwrap());
        assert!(page.events.is_sorted_by(|a, b| a.order < b.order));
    }
}

/// What is read is what was given: name, data to the byte, id, time, shape, audience.
pub fn an_event_is_kept_as_it_was_given(make: Make<'_>) {
    let it = make();
    let mut given = Vec::new();
    for (shape, audience) in
        [(Shape::Wrapped, Audience::Rooms), (Shape::Flat, Audience::Logs), (Shape::Flat, Audience::Admin)]
    {
        let mut event = event("task_update", r#"{ "b":1.50, "a":[null,"é\u0000"],"b":2 }"#);
        event.shape = shape;
        event.expires_at = (shape == Shape::Flat).then(|| NOW.plus(Duration::from_secs(60)));
        event.at = NOW.plus(Duration::from_millis(given.len() as u64));
        let to = [("tasks", Delivery::Log), ("metrics", Delivery::Latest)];
        let append = Append { audience, key: given.len().to_string().into(), ..placed(event, &to) };
        commit(&it, vec![events(vec![append.clone()])]);
        given.push(append);
    }
    let logged = read(&it, "tasks", ALL).events;
    let newest = wait(it.store.read_latest(room("metrics"))).unwrap();
    assert_eq!((logged.len(), newest.len()), (3, 3));
    for (kept, given) in logged.iter().chain(&newest).zip(given.iter().cycle()) {
        assert_same(kept, given);
    }
    assert!(newest.iter().all(|kept| kept.position.is_none()));
}

/// An event in several rooms has one order, and in each its own position; placements are answered as they were named.
pub fn one_event_has_one_order_in_several_rooms(make: Make<'_>) {
    let it = make();
    commit(&it, vec![events(vec![logged("agents", event("first", "1"))])]);
    let to = [("tasks", Delivery::Log), ("dashboard", Delivery::Latest), ("agents", Delivery::Log)];
    let outcome = commit(&it, vec![events(vec![placed(event("both", "1"), &to)])]).remove(0);
    let (order, placed) = done(outcome).remove(0);
    let names: Vec<&str> = placed.iter().map(|placed| placed.room.as_str()).collect();
    let seqs: Vec<Option<u64>> = placed.iter().map(|placed| placed.position.map(|at| at.seq)).collect();
    assert_eq!((names, seqs), (vec!["tasks", "dashboard", "agents"], vec![Some(1), None, Some(2)]));
    for name in ["tasks", "agents"] {
        assert_eq!(read(&it, name, Span::Last { limit: 1 }).events[0].order, order);
    }
    assert_eq!(wait(it.store.read_latest(room("dashboard"))).unwrap()[0].order, order);
}

/// Names of any characters and the greatest length, empty names and keys, and a megabyte of data.
pub fn odd_names_and_large_data_are_kept(make: Make<'_>) {
    let it = make();
    let longest = "é".repeat(ROOM_NAME_BYTES_MAX / 2);
    let names = [
        "a",
        "user:' OR 1=1 --",
        "%_*?",
        "Räume 🎺",
        " ",
        "\u{200b}",
        "\u{feff}",
        "a/../b",
        "user:\"q\"",
        "\\",
        &longest,
    ];
    let large = format!("[\"{}\"]", "x".repeat(1_000_000));
    for name in names {
        for data in ["{}", "null", &large] {
            let append = logged(name, event("", data));
            let outcome = commit(&it, vec![events(vec![append.clone(), latest(name, "\0", append.event)])]);
            assert!(matches!(outcome[0], Outcome::Done(_)));
        }
    }
    for name in names {
        let page = read(&it, name, ALL);
        let data: Vec<&str> = page.events.iter().map(|kept| kept.event.data.get()).collect();
        assert_eq!(data.len(), 3, "{name}");
        assert!(data == ["{}", "null", &large], "{name}");
        assert!(page.events.iter().all(|kept| kept.room == room(name)));
        let newest = wait(it.store.read_latest(room(name))).unwrap();
        assert_eq!(newest.len(), 1, "{name}");
        assert!(newest[0].event.data.get() == large);
    }
    // Records are as odd.
    for id in ["", "' --", "é", "a\0b", "a\0c"] {
        commit(&it, vec![change(job(id), None, Some(state(&large)))]);
    }
    let keys = vec![job("a\0b"), job(""), job("a")];
    let found = wait(it.store.look(keys, vec![])).unwrap().records;
    assert_eq!(found[0].as_ref().unwrap().key, job("a\0b"));
    assert!(*found[1].as_ref().unwrap().state.json == *large);
    assert_eq!(found[2], None);
}

/// Names that differ by case, a blank, or how a letter is composed name different rooms.
pub fn rooms_are_told_apart_exactly(make: Make<'_>) {
    let it = make();
    let names = ["Tasks", "tasks", "tasks ", "e\u{301}", "é", "task"];
    for (at, name) in names.iter().enumerate() {
        let appends = (0..=at).map(|_| logged(name, event("a", "1"))).collect();
        commit(&it, vec![events(appends)]);
    }
    let counts: Vec<u64> = names.iter().map(|name| read(&it, name, ALL).last_seq).collect();
    assert_eq!(counts, [1, 2, 3, 4, 5, 6]);
}

/// A batch without commits, a commit without anything in it, and an event without rooms are all done.
pub fn empty_batches_and_commits_are_done(make: Make<'_>) {
    let it = make();
    assert!(commit(&it, vec![]).is_empty());
    assert_eq!(commit(&it, vec![Commit::default()]), [Outcome::Done(vec![])]);
    let outcome = commit(&it, vec![events(vec![placed(event("a", "1"), &[])])]).remove(0);
    assert_eq!(done(outcome)[0].1, []);
    assert_eq!(
        commit(&it, vec![change(job("absent"), None, None)]),
        [Outcome::Done(vec![])],
        "taking away what is not there, and was not expected, is done"
    );
}

/// A commit of which one change is not as expected does nothing at all; its neighbours are done.
pub fn a_conflict_leaves_nothing_of_its_commit(make: Make<'_>) {
    let it = make();
    let first = change(job("1"), None, Some(state("1")));
    let mut bad = change(job("2"), None, Some(state("2")));
    bad.changes.push(Change { key: job("1"), expected: Some(7), state: Some(state("x")) });
    bad.appends.push(logged("tasks", event("bad", "1")));
    bad.idempotency = Some(key("a", "bad"));
    let mut last = change(job("3"), None, Some(state("3")));
    last.appends.push(logged("tasks", event("good", "1")));
    let outcomes = commit(&it, vec![first, bad.clone(), last]);
    assert_eq!(outcomes[0], Outcome::Done(vec![]));
    assert_eq!(outcomes[1], Outcome::Conflict);
    assert_eq!(done(outcomes[2].clone())[0].1[0].position.unwrap().seq, 1);
    let found = wait(it.store.look(vec![job("1"), job("2"), job("3")], vec![key("a", "bad")])).unwrap();
    let json: Vec<Option<&str>> =
        found.records.iter().map(|record| record.as_ref().map(|record| &*record.state.json)).collect();
    assert_eq!(json, [Some("1"), None, Some("3")]);
    assert_eq!(found.repeated, [None], "a conflict uses no key up");
    for expected in [None, Some(0), Some(2)] {
        let again = change(job("1"), expected, Some(state("x")));
        assert_eq!(commit(&it, vec![again]), [Outcome::Conflict], "{expected:?}");
        let gone = change(job("1"), expected, None);
        assert_eq!(commit(&it, vec![gone]), [Outcome::Conflict], "{expected:?}");
    }
    assert_eq!(commit(&it, vec![change(job("9"), Some(1), Some(state("x")))]), [Outcome::Conflict]);
    // With the expectation mended the same commit is done, key and all.
    bad.changes[1].expected = Some(1);
    let outcome = commit(&it, vec![bad]).remove(0);
    assert_eq!(done(outcome)[0].1[0].position.unwrap().seq, 2);
    assert_eq!(record(&it, "1").unwrap().version, 2);
}

/// Within one batch a later commit meets what an earlier one did: versions, keys, logs.
pub fn later_commits_of_a_batch_see_earlier_ones(make: Make<'_>) {
    let it = make();
    let with_key = |json: &str| Commit {
        idempotency: Some(key("a", "once")),
        answer: json.into(),
        appends: vec![logged("tasks", event("a", json))],
        ..Commit::default()
    };
    let batch = vec![
        change(job("1"), None, Some(state("1"))),
        change(job("1"), Some(1), Some(state("2"))),
        change(job("1"), Some(1), Some(state("late"))),
        with_key("1"),
        with_key("2"),
        change(job("1"), Some(2), None),
        change(job("1"), None, Some(state("3"))),
    ];
    let outcomes = commit(&it, batch);
    let nothing = Outcome::Done(vec![]);
    assert_eq!(outcomes[..3], [nothing.clone(), nothing.clone(), Outcome::Conflict]);
    let Outcome::Repeated(repeated) = &outcomes[4] else { panic!("{:?}", outcomes[4]) };
    assert_eq!(&*repeated.answer, "1");
    assert_eq!(outcomes[5..], [nothing.clone(), nothing]);
    let record = record(&it, "1").unwrap();
    assert_eq!((record.version, &*record.state.json), (1, "3"));
    assert_eq!(read(&it, "tasks", ALL).last_seq, 1);
}

/// A commit may change one record twice; the second expects the version after the first.
pub fn changes_of_one_commit_follow_each_other(make: Make<'_>) {
    let it = make();
    let twice = |expected| {
        let mut commit = change(job("1"), None, Some(state("1")));
        commit.changes.push(Change { key: job("1"), expected, state: Some(state("2")) });
        commit
    };
    assert_eq!(commit(&it, vec![twice(None)]), [Outcome::Conflict]);
    assert_eq!(record(&it, "1"), None);
    assert_eq!(commit(&it, vec![twice(Some(1))]), [Outcome::Done(vec![])]);
    let record = record(&it, "1").unwrap();
    assert_eq!((record.version, &*record.state.json), (2, "2"));
}

/// A record's version is 1 when it is new, grows by one with each change, and begins again when it was taken away.
pub fn versions_count_changes(make: Make<'_>) {
    let it = make();
    let mut full = state(r#"{"n":1}"#);
    full.group = "project-1".into();
    full.status = "running".into();
    full.due_at = Some(NOW.plus(Duration::from_secs(5)));
    commit(&it, vec![change(job("1"), None, Some(full.clone()))]);
    assert_eq!(record(&it, "1"), Some(Record { key: job("1"), version: 1, state: full.clone() }));
    full.status = "".into();
    full.group = "".into();
    full.due_at = None;
    full.json = "".into();
    full.created_at = Timestamp(0);
    commit(&it, vec![change(job("1"), Some(1), Some(full.clone()))]);
    assert_eq!(record(&it, "1"), Some(Record { key: job("1"), version: 2, state: full }));
    commit(&it, vec![change(job("1"), Some(2), None)]);
    assert_eq!(record(&it, "1"), None);
    commit(&it, vec![change(job("1"), None, Some(state("{}")))]);
    assert_eq!(record(&it, "1").unwrap().version, 1);
}

/// A key that was committed answers as it did then and does nothing, whatever else the commit says; keys of another
/// scope are other keys.
pub fn a_repeated_key_does_nothing_and_answers_as_before(make: Make<'_>) {
    let it = make();
    let to = [("tasks", Delivery::Log), ("dashboard", Delivery::Latest)];
    let first = Commit {
        idempotency: Some(key("publisher", "1")),
        answer: r#"{"id":"first"}"#.into(),
        changes: vec![Change { key: job("1"), expected: None, state: Some(state("1")) }],
        appends: vec![placed(event("a", "1"), &to), placed(event("b", "2"), &[])],
    };
    let outcome = commit(&it, vec![first.clone()]).remove(0);
    let placed: Vec<Vec<Placed>> = done(outcome).into_iter().map(|(_, placed)| placed).collect();
    // The change would be a conflict by now; the repetition is noticed first.
    let again = Commit { answer: "other".into(), ..first.clone() };
    for _ in 0..2 {
        let Outcome::Repeated(repeated) = commit(&it, vec![again.clone()]).remove(0) else {
            panic!("not known again")
        };
        assert_eq!((&*repeated.answer, &repeated.placed), (r#"{"id":"first"}"#, &placed));
    }
    let look = wait(it.store.look(vec![], vec![key("publisher", "2"), key("publisher", "1")])).unwrap();
    assert_eq!(look.repeated[0], None);
    assert_eq!(look.repeated[1].as_ref().unwrap().placed, placed);
    for other in [key("publisher", "2"), key("another", "1"), key("", "publisher1"), key("publisher1", "")] {
        let commits = vec![Commit { idempotency: Some(other), ..Commit::default() }];
        assert_eq!(commit(&it, commits), [Outcome::Done(vec![])]);
    }
    assert_eq!(read(&it, "tasks", ALL).last_seq, 1);
}

/// A key is known for a day, and no longer.
pub fn keys_are_forgotten_after_a_day(make: Make<'_>) {
    let it = make();
    let keyed = |name: &str| vec![Commit { idempotency: Some(key("a", name)), ..Commit::default() }];
    let day = Duration::from_secs(24 * 60 * 60);
    let at = |now, batch| wait(it.store.commit(now, batch)).unwrap().remove(0);
    assert_eq!(at(NOW, keyed("1")), Outcome::Done(vec![]));
    assert_eq!(at(NOW, keyed("2")), Outcome::Done(vec![]));
    assert!(matches!(at(NOW.plus(day), keyed("1")), Outcome::Repeated(_)));
    let later = NOW.plus(day + Duration::from_millis(1));
    assert_eq!(at(later, keyed("1")), Outcome::Done(vec![]));
    assert!(matches!(at(later.plus(day), keyed("1")), Outcome::Repeated(_)), "its day began anew");
    let look = wait(it.store.look(vec![], vec![key("a", "2")])).unwrap();
    assert_eq!(look.repeated, [None]);
}

/// A room of the latest keeps one event for each name and key, in the order in which they came.
pub fn the_latest_of_each_name_and_key_is_kept(make: Make<'_>) {
    let it = make();
    let given =
        [("cpu", "a", "1"), ("cpu", "b", "2"), ("mem", "a", "3"), ("cpu", "", "4"), ("cpu", "a", "5")];
    for (name, of, data) in given {
        let outcome = commit(&it, vec![events(vec![latest("metrics", of, event(name, data))])]).remove(0);
        assert_eq!(done(outcome)[0].1, [Placed { room: room("metrics"), position: None }]);
    }
    let newest = || -> Vec<String> {
        let kept = wait(it.store.read_latest(room("metrics"))).unwrap();
        assert!(kept.is_sorted_by(|a, b| a.order < b.order));
        kept.iter().map(|kept| kept.event.data.get().to_owned()).collect()
    };
    assert_eq!(newest(), ["2", "3", "4", "5"]);
    // Several of one key in one batch: the last of them stays.
    let batch = vec![
        events(vec![latest("metrics", "b", event("cpu", "6")), latest("metrics", "b", event("cpu", "7"))]),
        events(vec![latest("metrics", "b", event("cpu", "8"))]),
    ];
    commit(&it, batch);
    assert_eq!(newest(), ["3", "4", "5", "8"]);
    let page = read(&it, "metrics", ALL);
    assert_eq!((page.epoch, page.first_seq, page.last_seq), (0, 1, 0), "there is no log");
    // A log in the same room is another matter.
    commit(&it, vec![events(vec![logged("metrics", event("cpu", "9"))])]);
    assert_eq!(newest().len(), 4);
    assert_eq!(read(&it, "metrics", ALL).last_seq, 1);
}

/// Bounds hold for rooms of the latest, too: the ones longest unchanged go.
pub fn latest_rooms_keep_to_their_retention(make: Make<'_>) {
    let it = make();
    let newest = |name: &str| -> Vec<String> {
        let kept = wait(it.store.read_latest(room(name))).unwrap();
        kept.iter().map(|kept| kept.event.data.get().to_owned()).collect()
    };
    let three = Retention { events_max: 3, ..AMPLE };
    for (of, data) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("d", "5")] {
        commit(&it, vec![events(vec![retained(latest("metrics", of, event("m", data)), three)])]);
    }
    assert_eq!(newest("metrics"), ["3", "4", "5"]);
    // 3 bytes each: one for the name, two for the data.
    let six_bytes = Retention { bytes_max: 6, ..AMPLE };
    for (of, data) in [("a", "10"), ("b", "20"), ("a", "30"), ("c", "40")] {
        commit(&it, vec![events(vec![retained(latest("dashboard", of, event("m", data)), six_bytes)])]);
    }
    assert_eq!(newest("dashboard"), ["30", "40"]);
    let minute = Retention { age_max: Duration::from_secs(60), ..AMPLE };
    let aged = |of: &str, seconds: u64| {
        let mut event = event("m", &seconds.to_string());
        event.at = NOW.plus(Duration::from_secs(seconds));
        let batch = vec![events(vec![retained(latest("system", of, event), minute)])];
        wait(it.store.commit(NOW.plus(Duration::from_secs(seconds)), batch)).unwrap();
    };
    aged("a", 0);
    aged("b", 30);
    aged("a", 60);
    assert_eq!(newest("system"), ["30", "60"]);
    aged("c", 91);
    assert_eq!(newest("system"), ["60", "91"]);
}

/// `events_max`: the oldest go, `first_seq` moves, seqs go on.
pub fn a_log_keeps_the_newest_by_count(make: Make<'_>) {
    let it = make();
    let four = Retention { events_max: 4, ..AMPLE };
    let mut last = 0;
    // Batches of one, of less and of more than is kept.
    for size in [1, 3, 1, 2, 9, 300, 1] {
        let batch =
            (0..size).map(|_| events(vec![retained(logged("tasks", event("a", "1")), four)])).collect();
        let outcomes = commit(&it, batch);
        last += size;
        assert_eq!(done(outcomes[size as usize - 1].clone())[0].1[0].position.unwrap().seq, last);
        let page = read(&it, "tasks", ALL);
        assert_eq!((page.last_seq, page.first_seq), (last, last.saturating_sub(3).max(1)), "after {last}");
        assert_eq!(seqs(&page), (page.first_seq..=last).collect::<Vec<_>>());
    }
    // The bound is that of the newest append: a wider one keeps more from now on, a narrower one takes at once.
    for _ in 0..4 {
        commit(&it, vec![events(vec![logged("tasks", event("a", "1"))])]);
    }
    assert_eq!(read(&it, "tasks", ALL).events.len(), 8);
    let one = Retention { events_max: 1, ..AMPLE };
    commit(&it, vec![events(vec![retained(logged("tasks", event("a", "1")), one)])]);
    assert_eq!(read(&it, "tasks", ALL).events.len(), 1);
}

/// `bytes_max` counts names and data.
pub fn a_log_keeps_the_newest_by_bytes(make: Make<'_>) {
    let it = make();
    let hundred = Retention { bytes_max: 100, ..AMPLE };
    let mut sizes: Vec<u64> = Vec::new();
    let mut page = read(&it, "tasks", ALL);
    for size in [10, 40, 50, 3, 97, 100, 30, 30, 30, 30, 4, 101, 5] {
        let event = event("ab", &"1".repeat(size - 2));
        assert_eq!(event_bytes(&event), size as u64);
        sizes.push(size as u64);
        commit(&it, vec![events(vec![retained(logged("tasks", event), hundred)])]);
        page = read(&it, "tasks", ALL);
        let sum = |first: u64| -> u64 { sizes[first as usize - 1..].iter().sum() };
        assert!(sum(page.first_seq) <= 100, "{page:?}");
        let before = page.first_seq - 1;
        assert!(before == 0 || sum(before) > 100, "more was dropped than had to be: {page:?}");
        assert_eq!(seqs(&page), (page.first_seq..=page.last_seq).collect::<Vec<_>>());
    }
    assert_eq!((page.first_seq, page.last_seq), (13, 13), "what is too large alone is not kept");
}

/// `age_max` counts from when an event was published until the batch's `now`.
pub fn a_log_keeps_the_newest_by_age(make: Make<'_>) {
    let it = make();
    let minute = Retention { age_max: Duration::from_secs(60), ..AMPLE };
    let at = |seconds: u64| NOW.plus(Duration::from_secs(seconds));
    for (seconds, first) in [(0, 1), (10, 1), (60, 1), (61, 2), (70, 2), (71, 3), (500, 7), (500, 7)] {
        let mut event = event("a", "1");
        event.at = at(seconds);
        let batch = vec![events(vec![retained(logged("tasks", event), minute)])];
        wait(it.store.commit(at(seconds), batch)).unwrap();
        let page = read(&it, "tasks", ALL);
        assert_eq!(page.first_seq, first, "at {seconds} s");
        assert_eq!(seqs(&page), (first..=page.last_seq).collect::<Vec<_>>());
    }
    // One that was published long ago goes when it is the oldest, not before.
    let mut old = event("old", "1");
    old.at = Timestamp(0);
    let batch = vec![events(vec![retained(logged("tasks", old.clone()), minute)])];
    wait(it.store.commit(at(501), batch)).unwrap();
    assert_eq!(read(&it, "tasks", ALL).first_seq, 7);
    wait(it.store.commit(at(600), vec![events(vec![retained(logged("tasks", old), minute)])])).unwrap();
    let page = read(&it, "tasks", ALL);
    assert_eq!((page.first_seq, page.last_seq), (11, 10));
}

/// Rooms that get nothing any more lose what is too old within a few commits to others, and those with nothing too old
/// lose nothing.
pub fn other_rooms_lose_what_is_too_old(make: Make<'_>) {
    let it = make();
    let minute = Retention { age_max: Duration::from_secs(60), ..AMPLE };
    let batch = vec![events(vec![
        retained(logged("tasks", event("a", "1")), minute),
        retained(latest("metrics", "k", event("a", "1")), minute),
        logged("agents", event("a", "1")),
    ])];
    commit(&it, batch);
    let later = NOW.plus(Duration::from_secs(61));
    for _ in 0..10 {
        wait(it.store.commit(later, vec![events(vec![logged("system", event("a", "1"))])])).unwrap();
    }
    let page = read(&it, "tasks", ALL);
    assert_eq!((page.first_seq, page.last_seq, page.events.len()), (2, 1, 0));
    assert_ne!(page.epoch, 0);
    assert!(wait(it.store.read_latest(room("metrics"))).unwrap().is_empty());
    assert_eq!(read(&it, "agents", ALL).events.len(), 1);
}

/// A log that keeps nothing counts on where it was, in the same epoch.
pub fn an_emptied_log_goes_on_in_its_epoch(make: Make<'_>) {
    let it = make();
    let none = Retention { events_max: 0, ..AMPLE };
    commit(&it, vec![events(vec![logged("tasks", event("a", "1")), logged("tasks", event("a", "2"))])]);
    let epoch = read(&it, "tasks", ALL).epoch;
    for last in 3..6 {
        let outcome =
            commit(&it, vec![events(vec![retained(logged("tasks", event("a", "3")), none)])]).remove(0);
        assert_eq!(done(outcome)[0].1[0].position, Some(Position { epoch, seq: last }));
        let page = read(&it, "tasks", ALL);
        assert_eq!((page.epoch, page.first_seq, page.last_seq), (epoch, last + 1, last));
        assert!(page.events.is_empty());
    }
    commit(&it, vec![events(vec![logged("tasks", event("a", "4"))])]);
    let page = read(&it, "tasks", ALL);
    assert_eq!((page.epoch, page.first_seq, page.last_seq, seqs(&page)), (epoch, 6, 6, vec![6]));
}

/// `After` reads on from a seq, page by page.
pub fn a_log_is_read_in_pages(make: Make<'_>) {
    let it = make();
    let ten = Retention { events_max: 10, ..AMPLE };
    let appends = (1..=12).map(|n| retained(logged("tasks", event("a", &n.to_string())), ten)).collect();
    commit(&it, vec![events(appends)]);
    let page = |seq, limit| read(&it, "tasks", Span::After { seq, limit });
    for (seq, limit, expected) in [
        (0, 4, vec![3, 4, 5, 6]),
        (2, 4, vec![3, 4, 5, 6]),
        (3, 4, vec![4, 5, 6, 7]),
        (10, 4, vec![11, 12]),
        (12, 4, vec![]),
        (99, 4, vec![]),
        (u64::MAX, usize::MAX, vec![]),
        (0, 0, vec![]),
        (11, usize::MAX, vec![12]),
    ] {
        let page = page(seq, limit);
        assert_eq!(seqs(&page), expected, "after {seq}, {limit} of them");
        assert_eq!((page.first_seq, page.last_seq), (3, 12));
        for kept in &page.events {
            assert_eq!(kept.event.data.get(), kept.position.unwrap().seq.to_string());
        }
    }
}

/// `Last` reads the newest, the oldest of them first.
pub fn the_newest_are_read_oldest_first(make: Make<'_>) {
    let it = make();
    let appends = (1..=12).map(|n| logged("tasks", event("a", &n.to_string()))).collect();
    commit(&it, vec![events(appends)]);
    for (limit, expected) in
        [(0, vec![]), (1, vec![12]), (3, vec![10, 11, 12]), (usize::MAX, (1..=12).collect())]
    {
        assert_eq!(seqs(&read(&it, "tasks", Span::Last { limit })), expected, "the last {limit}");
    }
}

/// What several rooms got is one sequence by order; an event comes once for each room that it went to.
pub fn several_rooms_are_read_in_one_order(make: Make<'_>) {
    let it = make();
    let both = [("tasks", Delivery::Log), ("agents", Delivery::Log)];
    let batch = vec![
        events(vec![logged("tasks", event("1", "1"))]),
        events(vec![logged("agents", event("2", "1")), placed(event("3", "1"), &both)]),
        events(vec![latest("metrics", "a", event("4", "1")), latest("metrics", "b", event("5", "1"))]),
        events(vec![logged("system", event("6", "1")), latest("metrics", "a", event("4", "7"))]),
        events(vec![logged("tasks", event("8", "1"))]),
    ];
    let orders: Vec<u64> = commit(&it, batch).into_iter().flat_map(done).map(|(order, _)| order).collect();
    let rooms = ["agents", "metrics", "tasks", "nowhere", "tasks"];
    let told = |order, limit| -> Option<Vec<String>> {
        let kept = after_order(&it, &rooms, order, limit)?;
        assert!(kept.is_sorted_by(|a, b| a.order <= b.order));
        Some(kept.iter().map(|kept| format!("{}@{}", kept.event.name, kept.room)).collect())
    };
    let all = ["1@tasks", "2@agents", "3@agents", "3@tasks", "5@metrics", "4@metrics", "8@tasks"];
    assert_eq!(told(0, 100).unwrap(), all);
    assert_eq!(told(0, 7).unwrap(), all);
    assert_eq!(told(0, 6), None, "there is more");
    assert_eq!(told(orders[0], 6).unwrap(), all[1..]);
    assert_eq!(told(orders[2], 6).unwrap(), all[4..]);
    assert_eq!(told(orders[7], 6).unwrap(), [""; 0]);
    assert_eq!(told(orders[7], 0).unwrap(), [""; 0]);
    assert_eq!(told(orders[6], 0), None);
    assert_eq!(told(orders[7] + 1, 6), None, "a number of some other store");
    let kept = after_order(&it, &["tasks"], orders[2], 9).unwrap();
    assert_eq!(kept[0].position.unwrap().seq, 3);
}

/// If any of the rooms has lost something that came after the order, there is no answer.
pub fn what_was_pruned_is_not_passed_over(make: Make<'_>) {
    let it = make();
    let two = Retention { events_max: 2, ..AMPLE };
    let mut orders = Vec::new();
    for n in 1..=4 {
        let append = retained(logged("tasks", event("a", &n.to_string())), two);
        let beside = logged("agents", event("b", &n.to_string()));
        let outcome = commit(&it, vec![events(vec![append, beside])]).remove(0);
        orders.extend(done(outcome).into_iter().map(|(order, _)| order));
    }
    // In `tasks` the events of orders[0] and orders[2] are gone.
    assert!(after_order(&it, &["tasks"], 0, 100).is_none());
    assert!(after_order(&it, &["agents", "tasks"], orders[1], 100).is_none());
    assert_eq!(after_order(&it, &["agents", "tasks"], orders[2], 100).unwrap().len(), 5);
    assert_eq!(after_order(&it, &["agents"], 0, 100).unwrap().len(), 4);
    let none = Retention { events_max: 0, ..AMPLE };
    let outcome = commit(&it, vec![events(vec![retained(logged("tasks", event("a", "5")), none)])]).remove(0);
    let newest = done(outcome)[0].0;
    assert!(after_order(&it, &["tasks"], newest - 1, 100).is_none());
    assert!(after_order(&it, &["tasks"], newest, 100).unwrap().is_empty());
}

/// Kinds are worlds of their own, and what is looked for is answered in the order of asking.
pub fn records_are_found_by_key(make: Make<'_>) {
    let it = make();
    let keys = RecordKind::ALL.map(|kind| hub::store::RecordKey { kind, id: "1".into() });
    for key in &keys {
        commit(&it, vec![change(key.clone(), None, Some(state(key.kind.as_str())))]);
    }
    let mut asked: Vec<_> = keys.iter().rev().cloned().collect();
    asked.insert(1, job("2"));
    asked.push(job("1"));
    let found = wait(it.store.look(asked.clone(), vec![])).unwrap().records;
    assert_eq!(found.len(), asked.len());
    for (asked, found) in asked.iter().zip(found) {
        match found {
            Some(record) => assert_eq!((&record.key, &*record.state.json), (asked, asked.kind.as_str())),
            None => assert_eq!(*asked, job("2")),
        }
    }
    for kind in RecordKind::ALL {
        assert_eq!(wait(it.store.list(kind, Listing { limit: 9, ..Listing::default() })).unwrap().len(), 1);
    }
}

/// Lists are newest first, by id where times are equal; filters narrow them; a page goes on after the last one seen.
pub fn lists_are_filtered_and_paged(make: Make<'_>) {
    let it = make();
    let given = [
        ("a", 1, "p", "queued"),
        ("b", 1, "p", "running"),
        ("c", 2, "q", "running"),
        ("d", 3, "p", "running"),
        ("e", 3, "", "queued"),
        ("f", 4, "p", ""),
    ];
    let at = |n: u64| Timestamp(NOW.0 + n);
    for (id, made, group, status) in given {
        let state = hub::store::RecordState {
            group: group.into(),
            status: status.into(),
            created_at: at(made),
            ..state("{}")
        };
        commit(&it, vec![change(job(id), None, Some(state))]);
    }
    let list = |listing: Listing| -> String {
        let found = wait(it.store.list(RecordKind::Job, listing)).unwrap();
        found.iter().map(|record| record.key.id.to_string()).collect()
    };
    let all = Listing { limit: 99, ..Listing::default() };
    let group = |group: &str| Listing { group: Some(group.into()), ..all.clone() };
    let status = |status: &str, listing: Listing| Listing { status: Some(status.into()), ..listing };
    assert_eq!(list(all.clone()), "fedcba");
    assert_eq!(list(group("p")), "fdba");
    assert_eq!(list(group("")), "e");
    assert_eq!(list(group("z")), "");
    assert_eq!(list(status("running", all.clone())), "dcb");
    assert_eq!(list(status("", all.clone())), "f");
    assert_eq!(list(status("running", group("p"))), "db");
    assert_eq!(list(status("queued", group(""))), "e");
    let since = |made, listing| Listing { created_since: Some(at(made)), ..listing };
    assert_eq!(list(since(3, all.clone())), "fed");
    assert_eq!(list(since(2, group("p"))), "fd");
    assert_eq!(list(since(9, all.clone())), "");
    assert_eq!(list(Listing { limit: 0, ..all.clone() }), "");
    assert_eq!(list(Listing { limit: usize::MAX, ..all.clone() }), "fedcba");
    // Pages, with every filter in turn: the same as the whole.
    for listing in [all.clone(), group("p"), status("running", all.clone()), since(1, group("p"))] {
        for limit in 1..=3 {
            let (mut paged, mut after) = (String::new(), None);
            loop {
                let page = Listing { limit, after: after.clone(), ..listing.clone() };
                let found = wait(it.store.list(RecordKind::Job, page)).unwrap();
                let Some(last) = found.last() else { break };
                assert!(found.len() <= limit);
                after = Some((last.state.created_at, last.key.id.clone()));
                paged.extend(found.iter().map(|record| &*record.key.id));
            }
            assert_eq!(paged, list(listing.clone()), "{limit} of {listing:?}");
        }
    }
    // A cursor need not name a record that is there.
    let after = |made, id: &str| list(Listing { after: Some((at(made), id.into())), ..all.clone() });
    assert_eq!(after(3, "dd"), "dcba");
    assert_eq!(after(0, "z"), "");
    // Lists follow changes.
    let moved = hub::store::RecordState { group: "q".into(), created_at: at(9), ..state("{}") };
    commit(&it, vec![change(job("a"), Some(1), Some(moved)), change(job("d"), Some(1), None)]);
    assert_eq!(list(all.clone()), "afecb");
    assert_eq!(list(group("q")), "ac");
    assert_eq!(list(group("p")), "fb");
}

/// Records that are due come by time, then kind, then id; those without a time never do.
pub fn due_records_come_most_urgent_first(make: Make<'_>) {
    let it = make();
    let at = |n: u64| Timestamp(NOW.0 + n);
    let due = |n| Some(hub::store::RecordState { due_at: n, ..state("{}") });
    let run = hub::store::RecordKey { kind: RecordKind::Run, id: "a".into() };
    let batch = vec![
        change(job("late"), None, due(Some(at(30)))),
        change(job("b"), None, due(Some(at(20)))),
        change(run, None, due(Some(at(20)))),
        change(job("a"), None, due(Some(at(20)))),
        change(job("never"), None, due(None)),
        change(job("soon"), None, due(Some(Timestamp(0)))),
    ];
    commit(&it, batch);
    let ids = |until, limit| -> Vec<String> {
        let due = wait(it.store.due(until, limit)).unwrap();
        due.iter().map(|record| format!("{}/{}", record.key.kind.as_str(), record.key.id)).collect()
    };
    assert_eq!(ids(at(30), 99), ["job/soon", "job/a", "job/b", "run/a", "job/late"]);
    assert_eq!(ids(at(20), 3), ["job/soon", "job/a", "job/b"]);
    assert_eq!(ids(at(19), 99), ["job/soon"]);
    assert_eq!(ids(at(19), 0), [""; 0]);
    assert_eq!(wait(it.store.next_due()).unwrap(), Some(Timestamp(0)));
    commit(&it, vec![change(job("soon"), Some(1), due(None)), change(job("a"), Some(1), None)]);
    assert_eq!(ids(Timestamp(u64::MAX), 99), ["job/b", "run/a", "job/late"]);
    assert_eq!(wait(it.store.next_due()).unwrap(), Some(at(20)));
    commit(&it, vec![change(job("b"), Some(1), due(Some(at(40))))]);
    assert_eq!(ids(Timestamp(u64::MAX), 99), ["run/a", "job/late", "job/b"]);
}

/// A store that works has no complaint and knows its newest order.
pub fn health_tells_the_newest_order(make: Make<'_>) {
    let it = make();
    assert_eq!(wait(it.store.health()).unwrap().order, 0);
    let outcome = commit(&it, vec![events(vec![logged("tasks", event("a", "1"))])]).remove(0);
    let health = wait(it.store.health()).unwrap();
    assert_eq!((health.order, health.complaint), (done(outcome)[0].0, None));
}

const ALL: Span = Span::After { seq: 0, limit: 10_000 };

fn commit(it: &Subject, batch: Vec<Commit>) -> Vec<Outcome> {
    let commits = batch.len();
    let outcomes = wait(it.store.commit(NOW, batch)).unwrap();
    assert_eq!(outcomes.len(), commits, "one outcome for each commit");
    outcomes
}

fn done(outcome: Outcome) -> Vec<(u64, Vec<Placed>)> {
    let Outcome::Done(placed) = outcome else { panic!("not done: {outcome:?}") };
    placed
}

fn read(it: &Subject, name: &str, span: Span) -> Page {
    wait(it.store.read(room(name), span)).unwrap()
}

fn after_order(it: &Subject, rooms: &[&str], order: u64, limit: usize) -> Option<Vec<Kept>> {
    let rooms = rooms.iter().map(|name| room(name)).collect();
    wait(it.store.read_after_order(rooms, order, limit)).unwrap()
}

fn record(it: &Subject, id: &str) -> Option<Record> {
    wait(it.store.look(vec![job(id)], vec![])).unwrap().records.remove(0)
}

fn seqs(page: &Page) -> Vec<u64> {
    page.events.iter().map(|kept| kept.position.unwrap().seq).collect()
}

fn assert_same(kept: &Kept, given: &Append) {
    let of = |event: &hub::event::Event| {
        let hub::event::Event { id, name, data, at, shape, expires_at } = event;
        (*id, name.clone(), data.get().to_owned(), *at, *shape, *expires_at)
    };
    assert_eq!(of(&kept.event), of(&given.event));
    assert_eq!(kept.audience, given.audience);
}
