//! What happens to a process happens here to children of this one: it is killed at any moment, its disk is full, its
//! files may not be written. `cargo test -p store-sqlite --test disasters -- --rounds 20` kills twenty times instead of
//! three.
//!
//! No harness: the program is its own child, told what to do by its first argument.

#![allow(clippy::print_stdout, reason = "children tell by printing")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use hub::store::{Outcome, Span, Store, StoreFault};
use store_sqlite::{OpenFault, Options, SqliteStore};
use testkit::contract::sample::{NOW, change, event, events, job, logged, room, state};
use testkit::contract::wait;

const ROOMS: u64 = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["commit", path] => commit_for_ever(path),
        ["full", folder] => fill(Path::new(folder)),
        ["barred", path] => open_barred(path),
        _ => {
            let rounds = words.iter().position(|word| *word == "--rounds").and_then(|at| words.get(at + 1));
            let rounds = rounds.map_or(3, |rounds| rounds.parse().expect("--rounds takes a number"));
            what_was_answered_survives_being_killed(rounds);
            a_full_disk_refuses_and_recovers_by_itself();
            a_store_that_may_not_be_written_is_refused();
        }
    }
}

fn what_was_answered_survives_being_killed(rounds: u32) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fanfare.db");
    let mut told = BTreeMap::new();
    for round in 0..rounds {
        let mut child = itself().arg("commit").arg(&path).stdout(Stdio::piped()).spawn().expect("a child");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        // Between 20 and 400 ms after the first answer, by the clock's last digits.
        let chance = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").subsec_nanos();
        let mercy = Duration::from_millis(u64::from(20 + chance / 1_000 % 380));
        let mut lines = lines.lines();
        let first = lines.next().expect("an answer").expect("text");
        note(&mut told, &first);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(mercy);
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        });
        // What the pipe has is what was answered, up to the last whole line.
        for line in lines {
            note(&mut told, &line.expect("text"));
        }
        killer.join().expect("the killer ends");

        let store = SqliteStore::open(Options::new(&path)).expect("it opens again");
        let mut newest_order = 0;
        for at in 0..ROOMS {
            let name = format!("room:{at}");
            let page = wait(store.read(room(&name), Span::After { seq: 0, limit: 10_000_000 })).unwrap();
            let seqs = page.events.iter().map(|kept| kept.position.unwrap().seq);
            assert!(seqs.eq(1..=page.last_seq), "round {round}: {name} has a gap or a repeat");
            assert!(page.events.is_sorted_by(|a, b| a.order < b.order));
            newest_order = newest_order.max(page.events.last().map_or(0, |kept| kept.order));
            for kept in &page.events {
                let position = kept.position.unwrap();
                if let Some(data) = told.remove(&(name.clone(), position.epoch, position.seq)) {
                    assert_eq!(kept.event.data.get(), data);
                }
            }
            // The record that is committed with each event of its room tells the same.
            let record = wait(store.look(vec![job(&name)], vec![])).unwrap().records.remove(0);
            let version = record.map_or(0, |record| record.version);
            assert_eq!(version, page.last_seq, "round {round}: {name}'s record and log differ");
        }
        assert_eq!(wait(store.health()).unwrap().order, newest_order);
        assert!(told.is_empty(), "round {round}: answered and lost: {told:?}");
    }
    println!("test what_was_answered_survives_being_killed ... ok ({rounds} times)");
}

/// Takes down what a child said was done: `room epoch seq data`. What it did not say to the end does not count.
fn note(told: &mut BTreeMap<(String, u64, u64), String>, line: &str) {
    if let [name, epoch, seq, data, "."] = line.split(' ').collect::<Vec<_>>()[..] {
        let place = (name.to_owned(), epoch.parse().unwrap(), seq.parse().unwrap());
        assert_eq!(told.insert(place, data.to_owned()), None, "told twice: {line}");
    }
}

/// The child that is killed: commits and tells, until then.
fn commit_for_ever(path: &str) {
    let store = SqliteStore::open(Options::new(path)).expect("a store");
    let mut out = std::io::stdout().lock();
    let mut versions: Vec<Option<u64>> = (0..ROOMS)
        .map(|at| {
            let record =
                wait(store.look(vec![job(&format!("room:{at}"))], vec![])).unwrap().records.remove(0);
            record.map(|record| record.version)
        })
        .collect();
    for turn in 0_u64.. {
        let batch = (0..1 + turn % 40)
            .map(|at| {
                let at = (turn + at) % ROOMS;
                let (name, version) = (format!("room:{at}"), &mut versions[at as usize]);
                let mut commit = change(job(&name), *version, Some(state("{}")));
                *version = Some(version.unwrap_or(0) + 1);
                commit
                    .appends
                    .push(logged(&name, event("a", &format!("\"{turn}-{at}-{}\"", "x".repeat(100)))));
                commit
            })
            .collect::<Vec<_>>();
        let outcomes = wait(store.commit(NOW, batch.clone())).expect("a commit");
        for (outcome, commit) in outcomes.iter().zip(&batch) {
            let Outcome::Done(done) = outcome else { panic!("{outcome:?}") };
            let placed = &done[0].1[0];
            let position = placed.position.unwrap();
            let data = &commit.appends[0].event.data;
            // If nobody listens any more, this one is about to be killed.
            let _ = writeln!(out, "{} {} {} {data} .", placed.room, position.epoch, position.seq);
        }
    }
}

fn a_full_disk_refuses_and_recovers_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    // A small disk of its own for one child; it is gone when that ends.
    let script = "mount -t tmpfs -o size=8m none \"$1\" 2>/dev/null || exit 77; exec \"$0\" full \"$1\"";
    let child = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .args([std::env::current_exe().expect("a path").as_os_str(), folder.path().as_os_str()])
        .output();
    match child {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("recovered"), "{output:?}");
            println!("test a_full_disk_refuses_and_recovers_by_itself ... ok");
        }
        Ok(output) if output.status.code() == Some(101) => panic!("{output:?}"),
        // Where nobody may mount, `a_full_file_refuses_and_keeps_what_it_answered` has to do.
        refused => {
            println!("test a_full_disk_refuses_and_recovers_by_itself ... not possible here: {refused:?}")
        }
    }
}

/// The child with the small disk.
fn fill(folder: &Path) {
    let ballast = folder.join("ballast");
    fs::write(&ballast, vec![1; 3 << 20]).expect("room for it");
    let store = SqliteStore::open(Options::new(folder.join("fanfare.db"))).expect("a store");
    let large = format!("\"{}\"", "x".repeat(20_000));
    let commit = |store: &SqliteStore| {
        wait(store.commit(NOW, vec![events(vec![logged("tasks", event("a", &large))])]))
    };
    let mut answered = 0;
    let fault = loop {
        match commit(&store) {
            Ok(_) => answered += 1,
            Err(fault) => break fault,
        }
        assert!(answered < 1_000, "8 MB take no 20");
    };
    assert!(matches!(fault, StoreFault::Full(_)), "{fault:?}");
    assert!(answered > 20, "{answered}");
    let complaint = wait(store.health()).unwrap().complaint;
    assert!(complaint.is_some_and(|complaint| complaint.contains("cannot take more")));
    let last = |store: &SqliteStore| {
        let page = wait(store.read(room("tasks"), Span::After { seq: 0, limit: 10_000 })).unwrap();
        assert_eq!(page.events.len() as u64, page.last_seq);
        page.last_seq
    };
    assert_eq!(last(&store), answered);
    assert!(commit(&store).is_err());
    fs::remove_file(ballast).expect("it goes");
    commit(&store).expect("there is space again");
    assert_eq!(wait(store.health()).unwrap().complaint, None);
    assert_eq!(last(&store), answered + 1);
    drop(store);
    let store = SqliteStore::open(Options::new(folder.join("fanfare.db"))).expect("a store");
    assert_eq!(last(&store), answered + 1);
    println!("recovered");
}

fn a_store_that_may_not_be_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let path = folder.path().join("data/fanfare.db");
    drop(SqliteStore::open(Options::new(&path)).unwrap());
    // The program where whoever runs it may read it.
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().expect("a path"), &program).expect("a copy");
    set(&program, 0o755);
    set(folder.path(), 0o755);
    let barred = || {
        let mut child = Command::new(&program);
        // The superuser is barred from nothing.
        if is_superuser() {
            child.uid(65_534).gid(65_534);
        }
        let output = child.arg("barred").arg(&path).output().expect("a child");
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("writable"), "{output:?}");
    };
    set(path.parent().unwrap(), 0o555);
    set(&path, 0o444);
    barred();
    fs::remove_file(folder.path().join("data/fanfare.db.lock")).unwrap_or_default();
    barred();
    // The folder would do, the file does not.
    set(path.parent().unwrap(), 0o777);
    barred();
    set(&path, 0o644);
    drop(SqliteStore::open(Options::new(&path)).unwrap());
    println!("test a_store_that_may_not_be_written_is_refused ... ok");
}

/// The child that may not write.
fn open_barred(path: &str) {
    match SqliteStore::open(Options::new(path)) {
        Err(fault @ OpenFault::Unusable { .. }) => println!("{fault}"),
        other => panic!("{:?}", other.err()),
    }
}

fn is_superuser() -> bool {
    let probe = tempfile::tempdir().unwrap();
    fs::set_permissions(probe.path(), fs::Permissions::from_mode(0o555)).unwrap();
    fs::write(probe.path().join("x"), "").is_ok()
}

fn itself() -> Command {
    Command::new(std::env::current_exe().expect("a path"))
}
