//! What becomes of commits and questions when Redis is killed, hangs, loses something, is full, or is not ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hub::event::Position;
use hub::store::{Commit, Outcome, Page, Span, Store, StoreFault};
use store_redis::{Address, OpenFault, Options, RedisStore};
use testkit::contract::sample::{NOW, change, event, events, job, key, latest, logged, room, state};
use testkit::contract::wait;
use testkit::port::Port;
use testkit::redis::{RedisCluster, RedisSentinels, RedisServer, until};

/// Longer than any server of these tests is away.
const PATIENT: Duration = Duration::from_secs(180);

fn options(address: &str) -> Options {
    let address = Address::parse(address).unwrap();
    let longer = Duration::from_secs(30);
    Options { patience: PATIENT, connect_timeout: longer, command_timeout: longer, ..Options::new(address) }
}

/// Opens it, again if its time-outs are too short for a machine that stands still.
fn open(options: Options) -> RedisStore {
    let mut opened = None;
    until("it opens", || match RedisStore::open(options.clone()) {
        Ok(store) => {
            opened = Some(store);
            true
        }
        Err(OpenFault::Unreachable { .. }) => false,
        Err(fault) => panic!("{fault}"),
    });
    opened.expect("it is open")
}

fn numbered(n: u64) -> Commit {
    events(vec![logged("tasks", event("n", &n.to_string()))])
}

fn commit(store: &RedisStore, commit: Commit) -> Result<Outcome, StoreFault> {
    wait(store.commit(NOW, vec![commit])).map(|mut outcomes| outcomes.remove(0))
}

/// Order and place of the one event of a commit in its one room.
fn place(outcome: Outcome) -> (u64, Position) {
    let Outcome::Done(done) = outcome else { panic!("not done: {outcome:?}") };
    (done[0].0, done[0].1[0].position.unwrap())
}

fn log(store: &RedisStore) -> Page {
    wait(store.read(room("tasks"), Span::After { seq: 0, limit: usize::MAX })).unwrap()
}

fn data(page: &Page) -> Vec<u64> {
    page.events.iter().map(|kept| kept.event.data.get().parse().unwrap()).collect()
}

/// Commits numbers from 0 until it is told to end; where each that was answered was put.
fn publish(store: &RedisStore, answered: &AtomicU64, is_over: &AtomicBool) -> Vec<(u64, Position)> {
    let mut placed = Vec::new();
    while !is_over.load(Ordering::Acquire) {
        let n = placed.len() as u64;
        let (_, position) = place(commit(store, numbered(n)).unwrap());
        placed.push((n, position));
        answered.store(n + 1, Ordering::Release);
    }
    placed
}

/// Publishes while `disturb` does something; where each was put.
fn publish_while(store: &RedisStore, disturb: impl FnOnce()) -> Vec<(u64, Position)> {
    let (answered, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(store, &answered, &is_over));
        until("some are published", || answered.load(Ordering::Acquire) > 100);
        disturb();
        let then = answered.load(Ordering::Acquire);
        until("publishing goes on", || {
            answered.load(Ordering::Acquire) > then + 100 || publisher.is_finished()
        });
        is_over.store(true, Ordering::Release);
        publisher.join().unwrap()
    })
}

#[test]
#[ignore = "needs redis-server"]
fn what_was_answered_is_there_after_a_kill() {
    let mut server = RedisServer::start_durable();
    let impatient = Options { patience: Duration::ZERO, ..options(&server.address()) };
    let store = open(impatient);
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for n in 0.. {
                match commit(&store, numbered(n)) {
                    Ok(_) => answered.store(n + 1, Ordering::Release),
                    Err(fault) => return fault,
                }
            }
            unreachable!("it ends with a fault")
        });
        until("some are published", || answered.load(Ordering::Acquire) > 200);
        server.kill();
        assert!(matches!(publisher.join().unwrap(), StoreFault::Unavailable(_)));
    });
    assert!(wait(store.health()).unwrap().complaint.is_some());
    server.restart();
    // For a moment after it has failed nobody tries again.
    until("it is back", || wait(store.next_due()).is_ok());
    let answered = answered.load(Ordering::Acquire);
    let kept = data(&log(&store));
    // The last one may have been done without an answer.
    assert_eq!(kept[..answered as usize], (0..answered).collect::<Vec<_>>());
    assert!(kept.len() as u64 <= answered + 1, "{} of {answered}", kept.len());
    until("it is written again", || commit(&store, numbered(9)).is_ok());
    until("all is well", || wait(store.health()).is_ok_and(|health| health.complaint.is_none()));
}

#[test]
#[ignore = "needs redis-server"]
fn a_restart_passes_unnoticed_and_nothing_comes_twice() {
    let mut server = RedisServer::start_durable();
    let store = open(options(&server.address()));
    let placed = publish_while(&store, || {
        for _ in 0..3 {
            server.kill();
            server.restart();
        }
    });
    assert_eq!(data(&log(&store)), (0..placed.len() as u64).collect::<Vec<_>>());
    assert!(placed.iter().all(|(n, position)| position.seq == n + 1 && position.epoch == placed[0].1.epoch));
}

#[test]
#[ignore = "needs redis-server"]
fn a_commit_whose_answer_is_lost_is_done_once() {
    let server = RedisServer::start();
    let short = Duration::from_millis(500);
    let store =
        open(Options { command_timeout: short, connect_timeout: short, ..options(&server.address()) });
    commit(&store, numbered(0)).unwrap();
    std::thread::scope(|scope| {
        server.set_frozen(true);
        let committing = scope.spawn(|| commit(&store, numbered(1)).unwrap());
        // The store complains once it has waited in vain; by then the server has the command without having read it.
        until("it is noticed", || wait(store.health()).unwrap().complaint.is_some());
        std::thread::sleep(4 * short);
        server.set_frozen(false);
        assert_eq!(place(committing.join().unwrap()).1.seq, 2);
    });
    assert_eq!(data(&log(&store)), [0, 1]);
    commit(&store, numbered(2)).unwrap();
    assert_eq!(data(&log(&store)), [0, 1, 2]);
}

#[test]
#[ignore = "needs redis-server"]
fn a_commit_that_was_given_up_is_not_done_late() {
    let server = RedisServer::start();
    let patient = options(&server.address());
    let impatient = Options { command_timeout: Duration::from_secs(1), patience: Duration::ZERO, ..patient };
    let store = open(impatient);
    let mut answered = Vec::new();
    let mut next = 0..;
    let mut attempt = || {
        let n = next.next().unwrap();
        let outcome = commit(&store, numbered(n));
        if outcome.is_ok() {
            answered.push(n);
        }
        outcome
    };
    until("it works", || attempt().is_ok());
    server.set_frozen(true);
    let fault = attempt().unwrap_err();
    assert!(fault.to_string().contains("whether it was done is not known"), "{fault}");
    server.set_frozen(false);
    for _ in 0..3 {
        until("it works again", || attempt().is_ok());
    }
    // Some may have been done without an answer, but none after one that was sent later.
    let kept = data(&log(&store));
    assert!(kept.is_sorted_by(|a, b| a < b), "{kept:?}");
    assert!(answered.iter().all(|n| kept.contains(n)), "{answered:?} of {kept:?}");
}

#[test]
#[ignore = "needs redis-server"]
fn a_failover_mixes_nothing_up() {
    let mut servers = RedisSentinels::start();
    let address = servers.address();
    let store = open(options(&address));
    let placed = publish_while(&store, || servers.first.kill());
    let page = log(&store);
    let kept = data(&page);
    assert!(kept.is_sorted_by(|a, b| a < b), "nothing comes twice: {kept:?}");
    assert_eq!(kept.last(), placed.last().map(|(n, _)| n));
    for (n, Position { epoch, seq }) in &placed {
        if *epoch == page.epoch {
            assert_eq!(kept[*seq as usize - 1], *n, "a place means one event");
        }
    }
    let role = servers.second.ask(&["ROLE"]);
    assert!(role.starts_with("master"), "{role}");
}

#[test]
#[ignore = "needs redis-server"]
fn a_master_that_becomes_a_replica_is_left() {
    let servers = RedisSentinels::start();
    let store = open(options(&servers.address()));
    let placed = publish_while(&store, || {
        let told = servers.sentinels[0].ask(&["SENTINEL", "FAILOVER", RedisSentinels::MASTER]);
        assert_eq!(told, "OK");
        until("roles have changed", || servers.first.ask(&["ROLE"]).starts_with("slave"));
    });
    let kept = data(&log(&store));
    assert!(kept.is_sorted_by(|a, b| a < b), "nothing comes twice");
    assert_eq!(kept.last(), placed.last().map(|(n, _)| n));
}

#[test]
#[ignore = "needs redis-server"]
fn replicas_have_what_is_answered_if_that_is_asked_for() {
    let servers = RedisSentinels::start();
    let store = open(Options { replicas: 1, ..options(&servers.address()) });
    for n in 0..50 {
        commit(&store, numbered(n)).unwrap();
        let replica = servers.second.ask(&["XLEN", "{fanfare}:log:tasks"]);
        assert_eq!(replica, (n + 1).to_string());
    }
    drop(store);
    let many = Options {
        replicas: 2,
        // Half of it is for the replicas: long enough that the rest does for a busy machine.
        command_timeout: Duration::from_secs(20),
        patience: Duration::ZERO,
        ..options(&servers.address())
    };
    let fault = commit(&open(many), numbered(50)).unwrap_err();
    assert!(fault.to_string().contains("1 of 2 replicas"), "{fault}");
}

#[test]
#[ignore = "needs redis-server"]
fn what_the_database_has_lost_is_not_passed_over() {
    let mut server = RedisServer::start();
    let store = open(options(&server.address()));
    for n in 0..3 {
        commit(&store, numbered(n)).unwrap();
    }
    assert_eq!(server.ask(&["SAVE"]), "OK");
    let mut answered = Vec::new();
    for n in 3..5 {
        answered.push(place(commit(&store, numbered(n)).unwrap()));
    }
    server.kill();
    server.restart();
    // Nobody has written since, and all the same it is noticed.
    assert_eq!(data(&log(&store)), [0, 1, 2]);
    let rooms = || vec![room("tasks")];
    let (order, position) = answered[0];
    assert!(wait(store.read_after_order(rooms(), order - 1, 100)).unwrap().is_none());
    let (next, begun) = place(commit(&store, numbered(5)).unwrap());
    assert!(next > answered[1].0, "no order comes twice");
    assert_ne!(begun.epoch, position.epoch);
    assert_eq!((begun.seq, data(&log(&store))), (1, vec![5]));
    for order in [0, order, answered[1].0] {
        assert!(wait(store.read_after_order(rooms(), order, 100)).unwrap().is_none(), "after {order}");
    }
    assert!(wait(store.read_after_order(rooms(), next, 100)).unwrap().unwrap().is_empty());
    // Everything is gone.
    assert_eq!(server.ask(&["FLUSHALL"]), "OK");
    let (last, anew) = place(commit(&store, numbered(6)).unwrap());
    assert!(last > next && anew.epoch != begun.epoch);
    assert_eq!(data(&log(&store)), [6]);
}

#[test]
#[ignore = "needs redis-server"]
fn a_log_that_somebody_took_away_begins_anew() {
    let server = RedisServer::start();
    let store = open(options(&server.address()));
    let (order, position) = place(commit(&store, numbered(0)).unwrap());
    commit(&store, events(vec![latest("metrics", "k", event("a", "1"))])).unwrap();
    assert_eq!(server.ask(&["DEL", "{fanfare}:log:tasks", "{fanfare}:latest:metrics"]), "2");
    let read = wait(store.read(room("tasks"), Span::Last { limit: 1 }));
    assert!(matches!(read, Err(StoreFault::Corrupt(_))), "{read:?}");
    let (_, begun) = place(commit(&store, numbered(1)).unwrap());
    assert!(begun.epoch != position.epoch && begun.seq == 1);
    assert_eq!(data(&log(&store)), [1]);
    assert!(wait(store.read_after_order(vec![room("tasks")], order - 1, 9)).unwrap().is_none());
    assert!(wait(store.read_latest(room("metrics"))).unwrap().is_empty());
    commit(&store, events(vec![latest("metrics", "k", event("a", "2"))])).unwrap();
    assert_eq!(wait(store.read_latest(room("metrics"))).unwrap().len(), 1);
}

#[test]
#[ignore = "needs redis-server"]
fn a_full_server_refuses_whole_commits_and_recovers() {
    let server = RedisServer::start();
    let store = open(options(&server.address()));
    commit(&store, numbered(0)).unwrap();
    assert_eq!(server.ask(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    let mut both = change(job("1"), None, Some(state("{}")));
    both.appends.push(logged("tasks", event("n", "1")));
    both.idempotency = Some(key("a", "b"));
    let fault = commit(&store, both.clone()).unwrap_err();
    assert!(matches!(fault, StoreFault::Full(_)), "{fault}");
    assert!(wait(store.health()).unwrap().complaint.is_some());
    assert_eq!(data(&log(&store)), [0]);
    assert_eq!(server.ask(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert_eq!(place(commit(&store, both).unwrap()).1.seq, 2);
    let health = wait(store.health()).unwrap();
    assert_eq!((health.complaint, health.order), (None, 2));
    assert!(health.bytes.is_some_and(|bytes| bytes > 0));
    assert_eq!(server.ask(&["CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru"]), "OK");
    assert!(wait(store.health()).unwrap().complaint.unwrap().contains("noeviction"));
}

#[test]
#[ignore = "needs redis-server"]
fn keys_of_a_wrong_type_are_found_before_anything_is_written() {
    let server = RedisServer::start();
    let store = open(options(&server.address()));
    commit(&store, numbered(0)).unwrap();
    for bad in ["log:bad", "room:bad", "latest:bad", "record:job:1"] {
        let bad = format!("{{fanfare}}:{bad}");
        // A list is none of the types that a store uses.
        assert_eq!(server.ask(&["RPUSH", &bad, "x"]), "1");
        let mut first = change(job("2"), None, Some(state("{}")));
        first.appends = vec![logged("tasks", event("n", "1"))];
        let mut second = change(job("1"), None, Some(state("{}")));
        second.appends = vec![logged("bad", event("n", "1")), latest("bad", "k", event("n", "1"))];
        let fault = wait(store.commit(NOW, vec![first, second])).unwrap_err();
        assert!(matches!(fault, StoreFault::Corrupt(_)), "{bad}: {fault}");
        assert_eq!(server.ask(&["DEL", &bad]), "1");
        assert_eq!(data(&log(&store)), [0], "{bad}");
        assert_eq!(wait(store.look(vec![job("2")], vec![])).unwrap().records, [None], "{bad}");
    }
    assert_eq!(place(commit(&store, numbered(1)).unwrap()).0, 2);
}

#[test]
#[ignore = "needs redis-server"]
fn a_slot_may_move_to_another_node() {
    let cluster = RedisCluster::start();
    let store = open(options(&cluster.address()));
    let placed = publish_while(&store, || {
        for _ in 0..3 {
            cluster.move_slot_of("{fanfare}:store");
        }
    });
    assert_eq!(data(&log(&store)), (0..placed.len() as u64).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs redis-server"]
fn several_writers_share_one_order() {
    let server = RedisServer::start();
    let stores: Vec<Arc<RedisStore>> = (0..3).map(|_| Arc::new(open(options(&server.address())))).collect();
    let orders: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..)
            .zip(&stores)
            .map(|(writer, store)| {
                scope.spawn(move || -> Vec<u64> {
                    (0..100).map(|n| place(commit(store, numbered(writer * 100 + n)).unwrap()).0).collect()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let page = log(&stores[0]);
    assert_eq!((page.last_seq, page.order), (300, 300));
    let mut sorted = orders.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=300).collect::<Vec<_>>());
    // One changes what another has looked at.
    let bump = |expected| change(job("1"), expected, Some(state("{}")));
    assert_eq!(commit(&stores[0], bump(None)).unwrap(), Outcome::Done(vec![]));
    assert_eq!(commit(&stores[1], bump(None)).unwrap(), Outcome::Conflict);
    assert_eq!(commit(&stores[1], bump(Some(1))).unwrap(), Outcome::Done(vec![]));
}

#[test]
#[ignore = "needs redis-server"]
fn a_store_that_cannot_be_opened_says_why() {
    let mut server = RedisServer::start();
    assert_eq!(server.ask(&["ACL", "SETUSER", "watcher", "on", ">hidden", "~*", "+@read", "+info"]), "OK");
    assert_eq!(server.ask(&["ACL", "SETUSER", "me", "on", ">hidden", "~{fanfare}:*", "+@all"]), "OK");
    let host = server.address().replace("redis://", "");
    let why = |options: Options| RedisStore::open(options).err().expect("it cannot be opened");
    for user in ["nobody:hidden@", "me:wrong-hidden@", "watcher:hidden@"] {
        let fault = why(options(&format!("redis://{user}{host}")));
        assert!(matches!(fault, OpenFault::Unreachable { .. }), "{user}: {fault:?}");
        assert!(!format!("{fault} {fault:?}").contains("hidden"), "{fault:?}");
    }
    let mine = open(options(&format!("redis://me:hidden@{host}")));
    commit(&mine, numbered(0)).unwrap();
    assert!(matches!(
        why(Options { prefix: "a{b".to_owned(), ..options(&server.address()) }),
        OpenFault::Address(_)
    ));
    let of = |prefix: &str| Options { prefix: prefix.to_owned(), ..options(&server.address()) };
    assert_eq!(server.ask(&["SET", "{other}:store", "x"]), "OK");
    assert!(matches!(why(of("other")), OpenFault::Foreign { .. }));
    assert_eq!(server.ask(&["HSET", "{newer}:store", "version", "99"]), "1");
    assert!(matches!(why(of("newer")), OpenFault::Newer { found: 99, .. }));
    server.kill();
    let fault = why(options(&server.address()));
    assert!(
        matches!(&fault, OpenFault::Unreachable { .. }) && fault.to_string().contains("127.0.0.1"),
        "{fault}"
    );
}

#[test]
#[ignore = "needs redis-server"]
fn a_server_is_reached_by_tls() {
    let folder = std::env::temp_dir().join(format!("fanfare-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, secret) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&secret, made.signing_key.serialize_pem()).unwrap();
    // A second port with TLS, beside the one by which the server is watched.
    let port = Port::hold();
    let server = RedisServer::start_with(&["--save", ""]);
    let (certificate, secret) = (certificate.to_str().unwrap(), secret.to_str().unwrap());
    let set =
        ["CONFIG", "SET", "tls-auth-clients", "no", "tls-cert-file", certificate, "tls-key-file", secret];
    assert_eq!(
        server.ask(
            &[&set[..], &["tls-ca-cert-file", certificate, "tls-port", &port.number().to_string()]].concat()
        ),
        "OK"
    );
    let address = format!("rediss://localhost:{}", port.number());
    let with = |root: Option<Vec<u8>>| Options { tls_root: root, ..options(&address) };
    let store = open(with(Some(made.cert.pem().into_bytes())));
    commit(&store, numbered(0)).unwrap();
    assert_eq!(data(&log(&store)), [0]);
    // The machine trusts nobody who has signed this.
    assert!(matches!(RedisStore::open(with(None)), Err(OpenFault::Unreachable { .. })));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
#[ignore = "needs redis-server"]
fn no_script_runs_for_long() {
    let server = RedisServer::start();
    let store = open(options(&server.address()));
    // Ten thousand events in one batch, then as many to be pruned at once, and rooms to be swept.
    for size in [10_000, 1] {
        let batch: Vec<Commit> = (0..size).map(numbered).collect();
        assert!(
            wait(store.commit(NOW, batch)).unwrap().iter().all(|outcome| matches!(outcome, Outcome::Done(_)))
        );
    }
    let none = hub::policy::Retention { events_max: 0, bytes_max: 0, age_max: Duration::ZERO };
    let append = testkit::contract::sample::retained(logged("tasks", event("n", "1")), none);
    commit(&store, events(vec![append])).unwrap();
    assert_eq!(data(&log(&store)), [0_u64; 0]);
    // Calls, not time: a slow machine is no reason to fail. One call has no more than 512 steps.
    let stats = server.ask(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    let calls: u64 = calls.unwrap().parse().unwrap();
    assert!(calls >= 2 * 10_000 / 512, "{calls} calls");
}

#[test]
#[ignore = "needs redis-server"]
fn whoever_reads_while_the_same_store_writes_is_not_told_that_something_is_lost() {
    let server = RedisServer::start();
    let store = open(options(&server.address()));
    let mut last = 0;
    let mut read = Vec::new();
    let placed = publish_while(&store, || {
        while read.len() < 2_000 {
            let new = wait(store.read_after_order(vec![room("tasks")], last, usize::MAX)).unwrap();
            let Some(new) = new else { break };
            last = new.last().map_or(last, |kept| kept.order);
            read.extend(new.into_iter().map(|kept| kept.position.unwrap()));
        }
    });
    assert!(read.len() >= 2_000, "after order {last} something is said to be lost");
    let placed: Vec<Position> = placed.into_iter().map(|(_, position)| position).collect();
    assert_eq!(read, placed[..read.len()]);
}
