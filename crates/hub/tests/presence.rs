//! Presence, against a list of sockets that is counted anew for each question.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hub::event::Shape;
use hub::fault::Refusal;
use hub::presence::{Change, Party, Presence, PresenceLimits};
use hub::room::RoomName;
use hub::time::Timestamp;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

#[test]
fn users_are_told_of_once_however_many_sockets_they_have() {
    let (mut presence, now) = (Presence::new(PresenceLimits::default()), Instant::now());
    for (socket, party) in [(1, user("ann")), (2, user("ann")), (3, user("bob")), (4, Party::Anonymous)] {
        assert_eq!(presence.handle_connected(now, socket, party), Ok(Vec::new()));
    }
    let tasks = room("tasks");
    let joined = |user: &str, users, connections| {
        Ok(Some(Change::Joined { room: room("tasks"), user: user.into(), users, connections }))
    };
    assert_eq!(presence.handle_joined(&1, &tasks), joined("ann", 1, 1));
    assert_eq!(presence.handle_joined(&1, &tasks), Ok(None));
    assert_eq!(presence.handle_joined(&2, &tasks), Ok(None));
    assert_eq!(presence.handle_joined(&4, &tasks), Ok(None));
    assert_eq!(presence.handle_joined(&3, &tasks), joined("bob", 2, 4));
    let crowd = presence.crowd(&tasks);
    assert_eq!((crowd.user_count(), crowd.connections()), (2, 4));
    assert_eq!(crowd.users_after(None).collect::<Vec<_>>(), [("ann", 2), ("bob", 1)]);
    assert_eq!(crowd.users_after(Some("ann")).collect::<Vec<_>>(), [("bob", 1)]);
    assert_eq!(presence.users().collect::<Vec<_>>(), [("ann", 2), ("bob", 1)]);
    assert_eq!(presence.handle_left(&1, &tasks), None);
    assert_eq!(presence.handle_left(&1, &tasks), None);
    let left = Change::Left { room: tasks.clone(), user: "ann".into(), users: 1, connections: 2 };
    assert_eq!(presence.handle_gone(now, &2), [left]);
    assert_eq!(presence.handle_gone(now, &2), []);
    assert_eq!(presence.connections_of("ann"), 1, "the one that is in no room");
}

#[test]
fn agents_may_be_away_for_a_while() {
    let (mut presence, start) = (Presence::new(PresenceLimits::default()), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let agent = || Party::Agent("a".into());
    let connected = Change::AgentConnected { agent: "a".into() };
    let disconnected = Change::AgentDisconnected { agent: "a".into() };
    assert_eq!(presence.handle_connected(start, 1, agent()), Ok(vec![connected.clone()]));
    assert_eq!(presence.handle_connected(start, 2, agent()), Ok(Vec::new()));
    assert_eq!(presence.handle_gone(at(1), &1), []);
    assert_eq!(presence.poll_deadline(), None);
    assert_eq!(presence.handle_gone(at(2), &2), []);
    assert_eq!(presence.poll_deadline(), Some(at(12)));
    assert_eq!(presence.handle_timeout(at(11)), []);
    assert_eq!(presence.handle_connected(at(11), 3, agent()), Ok(Vec::new()), "nobody noticed");
    assert_eq!(presence.poll_deadline(), None);
    assert_eq!(presence.handle_gone(at(20), &3), []);
    assert!(presence.has_agent("a"));
    assert_eq!(presence.handle_timeout(at(30)), vec![disconnected.clone()]);
    assert!(!presence.has_agent("a"));
    assert_eq!(presence.handle_connected(at(31), 4, agent()), Ok(vec![connected.clone()]));
    assert_eq!(presence.handle_gone(at(31), &4), []);
    let late = presence.handle_connected(at(60), 5, agent());
    assert_eq!(late, Ok(vec![disconnected, connected]), "the timer was late, the story is the same");
}

#[test]
fn what_is_counted_is_bounded() {
    let limits = PresenceLimits {
        sockets_max: 2,
        memberships_max: 2,
        agents_away_max: 1,
        ..PresenceLimits::default()
    };
    let (mut presence, now) = (Presence::new(limits), Instant::now());
    for (socket, agent) in [(1, "a"), (2, "b")] {
        presence.handle_connected(now, socket, Party::Agent(agent.into())).unwrap();
        presence.handle_joined(&socket, &room("tasks")).unwrap();
    }
    let full = presence.handle_connected(now, 3, user("ann")).unwrap_err();
    assert_eq!(full.refusal, Refusal::TooMany);
    assert_eq!(presence.handle_joined(&1, &room("agents")).unwrap_err().refusal, Refusal::TooMany);
    assert_eq!(presence.handle_joined(&3, &room("tasks")).unwrap_err().refusal, Refusal::NotFound);
    assert_eq!(presence.handle_connected(now, 1, user("x")).unwrap_err().refusal, Refusal::AlreadyExists);
    assert_eq!(presence.handle_gone(now, &1).len(), 1, "it left the room, and is away");
    let told = presence.handle_gone(now, &2);
    assert_eq!(
        told.last(),
        Some(&Change::AgentDisconnected { agent: "b".into() }),
        "no room for another away"
    );
}

#[test]
fn changes_are_told_in_their_rooms() {
    let joined = Change::Joined { room: room("tasks"), user: "ann".into(), users: 1, connections: 2 };
    let event = joined.outgoing(Timestamp(0)).unwrap();
    assert_eq!((&*event.name, event.rooms[0].as_str(), event.volatile), ("presence_joined", "tasks", true));
    assert_eq!(
        event.data.get(),
        r#"{"room":"tasks","user_id":"ann","users":1,"connections":2,"timestamp":"1970-01-01T00:00:00.000Z"}"#
    );
    let agent = Change::AgentDisconnected { agent: "a".into() }.outgoing(Timestamp(0)).unwrap();
    assert_eq!((&*agent.name, agent.rooms[0].as_str()), ("agent.disconnected", "agent:a"));
    let data = r#"{"agent_id":"a","disconnected_at":"1970-01-01T00:00:00.000Z"}"#;
    assert_eq!((agent.shape, agent.volatile, agent.data.get()), (Shape::Wrapped, false, data));
    assert_eq!(Change::AgentConnected { agent: "".into() }.outgoing(Timestamp(0)), None);
}

#[derive(Clone, Debug)]
enum Act {
    Connect(u8, Party),
    Join(u8, &'static str),
    Leave(u8, &'static str),
    Go(u8),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let sockets = 0u8..8;
    let rooms = || prop_oneof![Just("tasks"), Just("agents"), Just("project:p")];
    let party = prop_oneof![
        Just(Party::Anonymous),
        Just(user("ann")),
        Just(user("bob")),
        Just(Party::Agent("a".into())),
        Just(Party::Agent("b".into())),
    ];
    prop_oneof![
        3 => (sockets.clone(), party).prop_map(|(socket, party)| Act::Connect(socket, party)),
        4 => (sockets.clone(), rooms()).prop_map(|(socket, room)| Act::Join(socket, room)),
        2 => (sockets.clone(), rooms()).prop_map(|(socket, room)| Act::Leave(socket, room)),
        2 => sockets.prop_map(Act::Go),
        1 => (0u64..15).prop_map(Act::Wait),
    ]
}

/// What there is: a list.
type Sockets = BTreeMap<u8, (Party, BTreeSet<&'static str>)>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whoever_follows_the_changes_knows_who_is_there(acts in proptest::collection::vec(act(), 0..80)) {
        let (mut presence, mut now) = (Presence::new(PresenceLimits::default()), Instant::now());
        let mut sockets = Sockets::new();
        let mut known: BTreeSet<(String, String)> = BTreeSet::new();
        let mut agents: BTreeSet<String> = BTreeSet::new();
        let mut away: BTreeMap<String, Instant> = BTreeMap::new();
        for act in acts {
            let changes = match act {
                Act::Connect(socket, party) => {
                    let Ok(changes) = presence.handle_connected(now, socket, party.clone()) else { continue };
                    if let Party::Agent(agent) = &party {
                        away.remove(&**agent);
                    }
                    sockets.insert(socket, (party, BTreeSet::new()));
                    changes
                }
                Act::Join(socket, name) => {
                    let Ok(change) = presence.handle_joined(&socket, &room(name)) else { continue };
                    sockets.get_mut(&socket).unwrap().1.insert(name);
                    change.into_iter().collect()
                }
                Act::Leave(socket, name) => {
                    if let Some((_, rooms)) = sockets.get_mut(&socket) {
                        rooms.remove(name);
                    }
                    presence.handle_left(&socket, &room(name)).into_iter().collect()
                }
                Act::Go(socket) => {
                    if let Some((Party::Agent(agent), _)) = sockets.remove(&socket)
                        && !sockets.values().any(|(party, _)| *party == Party::Agent(agent.clone()))
                    {
                        away.insert(agent.into(), now + Duration::from_secs(10));
                    }
                    presence.handle_gone(now, &socket)
                }
                Act::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    away.retain(|_, gone_at| *gone_at > now);
                    presence.handle_timeout(now)
                }
            };
            for change in changes {
                let is_news = match change {
                    Change::Joined { room, user, .. } => known.insert((room.as_str().to_owned(), user.into())),
                    Change::Left { room, user, .. } => known.remove(&(room.as_str().to_owned(), user.into())),
                    Change::AgentConnected { agent } => agents.insert(agent.into()),
                    Change::AgentDisconnected { agent } => agents.remove(&*agent),
                };
                prop_assert!(is_news, "nothing is told twice");
            }
            let mut here = BTreeSet::new();
            let mut agents_here: BTreeSet<String> = away.keys().cloned().collect();
            for (party, rooms) in sockets.values() {
                let (Party::User(id) | Party::Agent(id)) = party else { continue };
                here.extend(rooms.iter().map(|room| ((*room).to_owned(), id.to_string())));
                if matches!(party, Party::Agent(_)) {
                    agents_here.insert(id.to_string());
                }
            }
            prop_assert_eq!(&known, &here);
            prop_assert_eq!(&agents, &agents_here);
            prop_assert_eq!(presence.poll_deadline(), away.values().min().copied());
            for name in ["tasks", "agents", "project:p"] {
                let connections = sockets.values().filter(|(_, rooms)| rooms.contains(name)).count();
                let crowd = presence.crowd(&room(name));
                prop_assert_eq!(crowd.connections(), connections);
                prop_assert_eq!(crowd.user_count(), here.iter().filter(|(room, _)| room == name).count());
            }
        }
        let left: Vec<u8> = sockets.keys().copied().collect();
        for socket in left {
            presence.handle_gone(now, &socket);
        }
        prop_assert_eq!(presence.users().len(), 0);
        for name in ["tasks", "agents", "project:p"] {
            prop_assert_eq!(presence.crowd(&room(name)).connections(), 0);
        }
    }
}

fn user(id: &str) -> Party {
    Party::User(id.into())
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}
