//! What is kept is published, once for each room, with its place.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use hub::event::Audience;
use hub::policy::Delivery;
use hub::store::{Commit, Store};
use store_redis::bus::{channel, decode_message};
use store_redis::{Address, Options, RedisStore};
use testkit::contract::sample::{NOW, change, event, events, job, key, logged, placed, room, state};
use testkit::contract::wait;
use testkit::redis::RedisServer;

/// Whoever listens to some channels.
struct Listener {
    reader: BufReader<TcpStream>,
}

impl Listener {
    fn new(server: &RedisServer, channels: &[String]) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        for channel in channels {
            write!(stream, "*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{channel}\r\n", channel.len()).unwrap();
        }
        let mut listener = Self { reader: BufReader::new(stream) };
        for _ in channels {
            assert_eq!(listener.next()[0], b"subscribe");
        }
        listener
    }

    /// The next thing told, as its parts.
    fn next(&mut self) -> Vec<Vec<u8>> {
        let count = self.line();
        let count: usize = count.strip_prefix('*').expect("a list").parse().unwrap();
        (0..count)
            .map(|_| {
                let line = self.line();
                let Some(length) = line.strip_prefix('$') else { return line.into_bytes() };
                let mut bytes = vec![0; length.parse::<usize>().unwrap() + 2];
                self.reader.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                bytes
            })
            .collect()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

#[test]
#[ignore = "needs redis-server"]
fn what_is_kept_is_told_once_for_each_room() {
    let server = RedisServer::start();
    let channels = ["tasks", "dashboard"].map(|name| channel("fanfare", &room(name)));
    let mut listener = Listener::new(&server, &channels);
    let address = Address::parse(&server.address()).unwrap();
    let store = RedisStore::open(Options { publishes: true, ..Options::new(address) }).unwrap();
    let mut both = placed(event("a", "1"), &[("tasks", Delivery::Log), ("dashboard", Delivery::Latest)]);
    both.audience = Audience::Admin;
    let keyed = Commit { idempotency: Some(key("p", "1")), ..events(vec![both]) };
    let refused = Commit {
        appends: vec![logged("tasks", event("no", "0"))],
        ..change(job("1"), Some(7), Some(state("")))
    };
    let last = events(vec![logged("tasks", event("b", "2"))]);
    wait(store.commit(NOW, vec![keyed.clone(), keyed, refused, last])).unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        let [kind, channel, message] = listener.next().try_into().unwrap();
        assert_eq!(kind, b"message");
        let message = decode_message(&message).unwrap();
        let seq = message.position.map(|position| position.seq);
        told.push((
            String::from_utf8(channel).unwrap(),
            message.event.name,
            message.order,
            seq,
            message.audience,
        ));
    }
    let [tasks, dashboard] = channels;
    let expected = [
        (tasks.clone(), "a".into(), 1, Some(1), Audience::Admin),
        (dashboard, "a".into(), 1, None, Audience::Admin),
        (tasks, "b".into(), 2, Some(2), Audience::Rooms),
    ];
    assert_eq!(told, expected);
}

#[test]
#[ignore = "needs redis-server"]
fn nothing_is_told_unless_that_is_asked_for() {
    let server = RedisServer::start();
    let name = channel("fanfare", &room("tasks"));
    let mut listener = Listener::new(&server, std::slice::from_ref(&name));
    let store = RedisStore::open(Options::new(Address::parse(&server.address()).unwrap())).unwrap();
    wait(store.commit(NOW, vec![events(vec![logged("tasks", event("a", "1"))])])).unwrap();
    assert_eq!(server.ask(&["PUBLISH", &name, "mark"]), "1");
    assert_eq!(listener.next()[2], b"mark");
}
