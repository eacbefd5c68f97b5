//! What is kept is published as one message to the rooms of its route, with its places.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use hub::event::Audience;
use hub::policy::Delivery;
use hub::store::{Append, Commit, Outcome, Route, Store};
use store_redis::bus::{Message, Stamp, channel, decode_message, decode_stamp};
use store_redis::{Address, Options, RedisStore};
use testkit::contract::sample::{NOW, change, event, events, job, key, logged, placed, room, state};
use testkit::contract::wait;
use testkit::redis::{RedisCluster, RedisServer};

/// Whoever listens to some channels.
struct Listener {
    reader: BufReader<TcpStream>,
}

impl Listener {
    fn new(server: &RedisServer, channels: &[String]) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(180))).unwrap();
        for channel in channels {
            write!(stream, "*2\r\n$10\r\nSSUBSCRIBE\r\n${}\r\n{channel}\r\n", channel.len()).unwrap();
        }
        let mut listener = Self { reader: BufReader::new(stream) };
        for _ in channels {
            assert_eq!(listener.next()[0], b"ssubscribe");
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

fn publishing(server: &RedisServer) -> RedisStore {
    let address = Address::parse(&server.address()).unwrap();
    RedisStore::open(Options { publishes: true, ..Options::new(address) }).unwrap()
}

/// The same, with a route to these rooms.
fn routed(append: Append, rooms: &[&str]) -> Append {
    let rooms = rooms.iter().map(|name| room(name)).collect();
    Append { route: Some(Route { origin: 513, rooms, except: vec![room("but")] }), ..append }
}

#[test]
#[ignore = "needs redis-server"]
fn what_is_kept_is_told_to_each_room_of_its_route() {
    let server = RedisServer::start();
    let channels = ["tasks", "dashboard", "passing"].map(|name| channel("fanfare", &room(name)));
    let mut listener = Listener::new(&server, &channels);
    let store = publishing(&server);
    let to = [("tasks", Delivery::Log), ("dashboard", Delivery::Latest)];
    let mut both = routed(placed(event("a", "1"), &to), &["passing", "dashboard", "tasks"]);
    both.audience = Audience::Admin;
    let keyed = Commit { idempotency: Some(key("p", "1")), ..events(vec![both]) };
    let refused = Commit {
        appends: vec![routed(logged("tasks", event("no", "0")), &["tasks"])],
        ..change(job("1"), Some(7), Some(state("")))
    };
    let unrouted = events(vec![logged("tasks", event("silent", "0"))]);
    let last = events(vec![routed(logged("tasks", event("b", "2")), &["tasks"])]);
    let batch = vec![keyed.clone(), keyed, refused, unrouted, last];
    let outcomes = wait(store.commit(NOW, batch)).unwrap();
    let (Outcome::Done(first), Outcome::Repeated(again), Outcome::Done(newest)) =
        (&outcomes[0], &outcomes[1], &outcomes[4])
    else {
        panic!("{outcomes:?}");
    };
    assert_eq!(again.placed[0], first[0].1);
    let mut told = Vec::new();
    for _ in 0..4 {
        let [kind, channel, bytes] = listener.next().try_into().unwrap();
        assert_eq!(kind, b"smessage");
        let Message { origin, order, placed, rooms, except, is_volatile, audience, event } =
            decode_message(&bytes).unwrap();
        assert_eq!((origin, except, is_volatile), (513, vec![room("but")], false));
        let stamp = decode_stamp(&bytes).unwrap();
        assert_eq!(stamp, Stamp { origin, is_kept: true, number: order.unwrap() });
        let places = if &*event.name == "a" { &first[0] } else { &newest[0] };
        assert_eq!((order, &placed), (Some(places.0), &places.1));
        let rooms: Vec<_> = rooms.iter().map(ToString::to_string).collect();
        told.push((
            String::from_utf8(channel).unwrap(),
            rooms.join(" "),
            audience,
            event.data.get().to_owned(),
        ));
    }
    let [tasks, dashboard, passing] = channels;
    let of_first = |channel| (channel, "passing dashboard tasks".into(), Audience::Admin, "1".into());
    let second = (tasks.clone(), "tasks".into(), Audience::Rooms, "2".into());
    assert_eq!(told, [of_first(passing), of_first(dashboard), of_first(tasks), second]);
}

#[test]
#[ignore = "needs redis-server"]
fn nothing_is_told_unless_that_is_asked_for() {
    let server = RedisServer::start();
    let name = channel("fanfare", &room("tasks"));
    let mut listener = Listener::new(&server, std::slice::from_ref(&name));
    let store = RedisStore::open(Options::new(Address::parse(&server.address()).unwrap())).unwrap();
    wait(store.commit(NOW, vec![events(vec![routed(logged("tasks", event("a", "1")), &["tasks"])])]))
        .unwrap();
    assert_eq!(server.ask(&["SPUBLISH", &name, "mark"]), "1");
    assert_eq!(listener.next()[2], b"mark");
}

#[test]
#[ignore = "needs redis-server"]
fn a_cluster_tells_whoever_listens_where_the_keys_are() {
    let cluster = RedisCluster::start();
    let address = Address::parse(&cluster.address()).unwrap();
    let store = RedisStore::open(Options { publishes: true, ..Options::new(address) }).unwrap();
    let name = channel("fanfare", &room("tasks"));
    let owner = cluster.nodes.iter().find(|node| node.try_ask(&["SSUBSCRIBE", &name]).is_ok());
    let mut listener = Listener::new(owner.expect("one has the slot"), std::slice::from_ref(&name));
    let append = routed(logged("tasks", event("a", "1")), &["tasks"]);
    wait(store.commit(NOW, vec![events(vec![append])])).unwrap();
    assert_eq!(decode_message(&listener.next()[2]).unwrap().event.data.get(), "1");
}
