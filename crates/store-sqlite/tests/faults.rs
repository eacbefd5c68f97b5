//! What the store says and does when its file is not as it should be.

use std::fs;
use std::path::{Path, PathBuf};

use hub::event::Position;
use hub::policy::Retention;
use hub::store::{Listing, Outcome, RecordKind, Span, Store, StoreFault};
use hub::time::Timestamp;
use rusqlite::Connection;
use store_sqlite::{OpenFault, Options, SqliteStore};
use tempfile::TempDir;
use testkit::contract::sample::{
    AMPLE, NOW, change, event, events, job, key, latest, logged, retained, room, state,
};
use testkit::contract::wait;

#[test]
fn a_database_in_use_is_refused_by_name_until_it_is_closed() {
    let (_folder, path) = place();
    let first = open(&path);
    let refused = SqliteStore::open(Options::new(&path)).err().unwrap();
    assert!(
        matches!(&refused, OpenFault::InUse { by: Some(by), .. } if *by == std::process::id()),
        "{refused:?}"
    );
    let said = refused.to_string();
    assert!(
        said.contains(path.to_str().unwrap()) && said.contains(&std::process::id().to_string()),
        "{said}"
    );
    first.close();
    let second = open(&path);
    assert_eq!(append(&second, "tasks", "1").seq, 1);
    // The one that was closed stays so, and says so.
    assert!(wait(first.health()).unwrap().complaint.unwrap().contains("closed"));
    let closed = |fault| assert!(matches!(fault, StoreFault::Unavailable(_)), "{fault:?}");
    closed(wait(first.commit(NOW, vec![])).unwrap_err());
    closed(wait(first.next_due()).unwrap_err());
    first.close();
}

#[test]
fn what_was_answered_is_there_after_closing_and_opening() {
    let (_folder, path) = place();
    let store = open(&path);
    let before = append(&store, "tasks", "1");
    drop(store);
    assert_eq!(wal_bytes(&path), 0, "one file is left");
    let store = open(&path);
    let after = append(&store, "tasks", "2");
    assert_eq!(after, Position { epoch: before.epoch, seq: 2 });
    let page = wait(store.read(room("tasks"), Span::Last { limit: 9 })).unwrap();
    assert!(page.events.is_sorted_by(|a, b| a.order < b.order));
    assert_eq!(page.events.len(), 2);
}

#[test]
fn another_database_has_other_epochs() {
    let epochs: std::collections::BTreeSet<u64> = (0..20)
        .map(|_| {
            let (_folder, path) = place();
            append(&open(&path), "tasks", "1").epoch
        })
        .collect();
    assert_eq!(epochs.len(), 20);
}

#[test]
fn an_epoch_that_is_used_up_is_followed_by_another() {
    let (_folder, path) = place();
    let store = open(&path);
    let first = append(&store, "tasks", "1");
    drop(store);
    // As if 2^32 - 3 events had come and gone.
    let last = (1_i64 << 32) - 2;
    let tables = Connection::open(&path).unwrap();
    tables.execute("UPDATE log SET place = place + ?", [last - 1]).unwrap();
    tables.execute("UPDATE rooms SET first_seq = ?", [last]).unwrap();
    drop(tables);
    let store = open(&path);
    let newest = append(&store, "tasks", "2");
    assert_eq!(newest, Position { epoch: first.epoch, seq: (1 << 32) - 1 });
    let order = wait(store.health()).unwrap().order;
    let page = wait(store.read(room("tasks"), Span::After { seq: last.cast_unsigned(), limit: 9 })).unwrap();
    assert_eq!(page.events.len(), 1);
    let anew = append(&store, "tasks", "3");
    assert_ne!(anew.epoch, first.epoch);
    assert_eq!((anew.seq, append(&store, "tasks", "4").seq), (1, 2));
    let page = wait(store.read(room("tasks"), Span::Last { limit: 9 })).unwrap();
    assert_eq!((page.epoch, page.first_seq, page.last_seq, page.events.len()), (anew.epoch, 1, 2, 2));
    assert!(wait(store.read_after_order(vec![room("tasks")], order - 1, 9)).unwrap().is_none());
    let since = wait(store.read_after_order(vec![room("tasks")], order, 9)).unwrap();
    assert_eq!(since.unwrap().len(), 2);
}

#[test]
fn tables_of_a_newer_version_are_refused() {
    let (_folder, path) = place();
    drop(open(&path));
    let tables = Connection::open(&path).unwrap();
    let version: i64 = tables.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    tables.pragma_update(None, "user_version", version + 1).unwrap();
    drop(tables);
    let refused = SqliteStore::open(Options::new(&path)).err().unwrap();
    assert!(matches!(refused, OpenFault::Newer { .. }), "{refused:?}");
    assert!(
        refused.to_string().contains("newer") || refused.to_string().contains("at least as new"),
        "{refused}"
    );
}

#[test]
fn databases_of_others_and_other_files_are_refused_and_left_alone() {
    let (folder, path) = place();
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (a); PRAGMA user_version = 1")
        .unwrap();
    let refused = SqliteStore::open(Options::new(&path)).err().unwrap();
    assert!(matches!(refused, OpenFault::Foreign { .. }), "{refused:?}");
    let tables: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);

    let text = folder.path().join("notes.txt");
    fs::write(&text, "not a database at all, but long enough to look at: ".repeat(100)).unwrap();
    let refused = SqliteStore::open(Options::new(&text)).err().unwrap();
    assert!(matches!(refused, OpenFault::Corrupt { .. }), "{refused:?}");
    assert!(fs::read_to_string(&text).unwrap().starts_with("not a database"));

    let refused = SqliteStore::open(Options::new(folder.path())).err().unwrap();
    assert!(matches!(refused, OpenFault::Unusable { .. }), "a folder: {refused:?}");
    let under_a_file = text.join("fanfare.db");
    let refused = SqliteStore::open(Options::new(under_a_file)).err().unwrap();
    assert!(matches!(refused, OpenFault::Unusable { .. }), "{refused:?}");
}

#[test]
fn a_full_file_refuses_and_keeps_what_it_answered() {
    let (_folder, path) = place();
    let options = Options { bytes_max: Some(1 << 20), ..Options::new(&path) };
    let store = SqliteStore::open(options.clone()).unwrap();
    let large = format!("\"{}\"", "x".repeat(10_000));
    let mut answered = 0;
    let fault = loop {
        match wait(store.commit(NOW, vec![events(vec![logged("tasks", event("a", &large))])])) {
            Ok(outcomes) => assert!(matches!(outcomes[0], Outcome::Done(_))),
            Err(fault) => break fault,
        }
        answered += 1;
        assert!(answered < 200, "a megabyte takes no two");
    };
    assert!(matches!(fault, StoreFault::Full(_)), "{fault:?}");
    assert!(answered > 50);
    let complaint = wait(store.health()).unwrap().complaint.unwrap();
    assert!(complaint.contains("cannot take more"), "{complaint}");
    // It can be read, refuses again, and has lost nothing.
    let last =
        |store: &SqliteStore| wait(store.read(room("tasks"), Span::After { seq: 0, limit: 1_000 })).unwrap();
    assert_eq!((last(&store).last_seq, last(&store).events.len()), (answered, answered as usize));
    let again = wait(store.commit(NOW, vec![events(vec![logged("tasks", event("a", &large))])]));
    assert!(matches!(again, Err(StoreFault::Full(_))), "{again:?}");
    assert_eq!(last(&store).last_seq, answered);
    // Something small that makes room finds room, in the same process; the numbers go on without a gap.
    let few = Retention { events_max: 10, ..AMPLE };
    let small = events(vec![retained(logged("tasks", event("a", "1")), few)]);
    let outcomes = wait(store.commit(NOW, vec![small])).unwrap();
    let Outcome::Done(done) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(done[0].1[0].position.unwrap().seq, answered + 1);
    assert_eq!(wait(store.health()).unwrap().complaint, None);
    for next in 2..20 {
        let large = events(vec![retained(logged("tasks", event("a", &large)), few)]);
        wait(store.commit(NOW, vec![large])).unwrap();
        assert_eq!(last(&store).last_seq, answered + next);
    }
}

#[test]
fn nobody_fails_for_what_somebody_else_asked() {
    let (_folder, path) = place();
    let store = SqliteStore::open(Options { bytes_max: Some(4 << 20), ..Options::new(&path) }).unwrap();
    let many = |name: &str, count: usize, bytes: usize| {
        let data = format!("\"{}\"", "x".repeat(bytes));
        let append = |_| events(vec![logged(name, event("a", &data))]);
        wait(store.commit(NOW, (0..count).map(append).collect()))
    };
    // While the first is busy the others queue up, and are then joined into one transaction.
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| many("busy", 4_000, 10));
        let small: Vec<_> = (0..8)
            .map(|n| {
                let many = &many;
                scope.spawn(move || many(&format!("small:{n}"), 3, 10))
            })
            .collect();
        let large = scope.spawn(|| many("large", 100, 100_000));
        assert_eq!(busy.join().unwrap().unwrap().len(), 4_000);
        assert!(matches!(large.join().unwrap(), Err(StoreFault::Full(_))));
        for small in small {
            assert_eq!(small.join().unwrap().unwrap().len(), 3);
        }
    });
    let last = |name: &str| wait(store.read(room(name), Span::Last { limit: 1 })).unwrap().last_seq;
    assert_eq!((last("busy"), last("large"), last("small:0"), last("small:7")), (4_000, 0, 3, 3));
}

#[test]
fn a_damaged_file_is_told_and_nothing_panics() {
    let (_folder, path) = place();
    let store = open(&path);
    for n in 0..60 {
        let name = format!("room:{}", n % 7);
        let data = format!("\"{}\"", "x".repeat(n * 50));
        let mut commit = change(job(&n.to_string()), None, Some(state(&data)));
        commit.idempotency = Some(key("p", &n.to_string()));
        commit.appends =
            vec![logged(&name, event("a", &data)), latest(&name, &n.to_string(), event("b", &data))];
        wait(store.commit(NOW, vec![commit])).unwrap();
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages > 20);
    let (mut refused_to_open, mut told) = (0, 0);
    for page in 0..pages {
        let mut damaged = whole.clone();
        for (at, byte) in damaged[page * 4096..][..4096].iter_mut().enumerate() {
            *byte = (at as u8).wrapping_mul(31) ^ 0xa5;
        }
        fs::write(&path, &damaged).unwrap();
        match SqliteStore::open(Options::new(&path)) {
            Err(fault) => {
                assert!(matches!(fault, OpenFault::Corrupt { .. }), "page {page}: {fault:?}");
                refused_to_open += 1;
            }
            Ok(store) => {
                let faults = ask_everything(&store);
                assert!(
                    faults.iter().all(|fault| matches!(fault, StoreFault::Corrupt(_))),
                    "page {page}: {faults:?}"
                );
                if !faults.is_empty() {
                    told += 1;
                    let complaint = wait(store.health()).unwrap().complaint.unwrap();
                    assert!(complaint.contains("damaged"), "{complaint}");
                }
            }
        }
        let _ = fs::remove_file(beside(&path, "-wal"));
    }
    assert!(refused_to_open >= 1, "the first page");
    assert!(told > pages / 3, "{told} of {pages} pages");
}

/// Every question there is, and a commit to every room; what went wrong.
fn ask_everything(store: &SqliteStore) -> Vec<StoreFault> {
    let mut faults = Vec::new();
    let rooms: Vec<_> = (0..7).map(|n| room(&format!("room:{n}"))).collect();
    for name in &rooms {
        faults.extend(wait(store.read(name.clone(), Span::After { seq: 0, limit: 100 })).err());
        faults.extend(wait(store.read(name.clone(), Span::Last { limit: 100 })).err());
        faults.extend(wait(store.read_latest(name.clone())).err());
    }
    faults.extend(wait(store.read_after_order(rooms.clone(), 1, 1_000)).err());
    faults.extend(wait(store.list(RecordKind::Job, Listing { limit: 100, ..Listing::default() })).err());
    faults.extend(wait(store.due(Timestamp(u64::MAX), 100)).err());
    faults.extend(wait(store.next_due()).err());
    for n in 0..60 {
        faults.extend(wait(store.look(vec![job(&n.to_string())], vec![key("p", &n.to_string())])).err());
    }
    let few = Retention { events_max: 3, ..AMPLE };
    for name in &rooms {
        let appends = vec![
            retained(logged(name.as_str(), event("a", "1")), few),
            retained(latest(name.as_str(), "k", event("a", "1")), few),
        ];
        faults.extend(wait(store.commit(NOW, vec![events(appends)])).err());
    }
    faults
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/fanfare.db");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    (folder, path)
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(Options::new(path)).unwrap()
}

fn append(store: &SqliteStore, name: &str, data: &str) -> Position {
    let outcomes = wait(store.commit(NOW, vec![events(vec![logged(name, event("a", data))])])).unwrap();
    let Outcome::Done(done) = &outcomes[0] else { panic!("{outcomes:?}") };
    done[0].1[0].position.unwrap()
}

fn wal_bytes(path: &Path) -> u64 {
    fs::metadata(beside(path, "-wal")).map_or(0, |metadata| metadata.len())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
