//! Presence, against a list of sockets that is counted anew for each question.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hub::fault::Refusal;
use hub::presence::{Change, Party, Presence, PresenceLimits};
use hub::room::RoomName;
use hub::time::Timestamp;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

const GRACE: Duration = Duration::from_secs(10);

#[test]
fn users_are_told_of_once_however_many_sockets_they_have() {
    let (mut presence, now) = (Presence::new(PresenceLimits::default()), Instant::now());
    for (socket, party) in [(1, user("ann")), (2, user("ann")), (3, user("bob")), (4, Party::Anonymous)] {
        assert_eq!(presence.handle_connected(socket, party), Ok(()));
    }
    let tasks = room("tasks");
    let joined = |user: &str, users, connections| {
        Ok(Some(Change::Joined { room: room("tasks"), user: user.into(), users, connections }))
    };
    assert_eq!(presence.handle_joined(now, &1, &tasks), joined("ann", 1, 1));
    assert_eq!(presence.handle_joined(now, &1, &tasks), Ok(None));
    assert_eq!(presence.handle_joined(now, &2, &tasks), Ok(None));
    assert_eq!(presence.handle_joined(now, &4, &tasks), Ok(None));
    assert_eq!(presence.handle_joined(now, &3, &tasks), joined("bob", 2, 4));
    let crowd = presence.crowd(&tasks);
    assert_eq!((crowd.user_count(), crowd.connections(), crowd.is_named()), (2, 4, true));
    assert_eq!(crowd.users().collect::<Vec<_>>(), ["ann", "bob"]);
    let sockets: Vec<(&i32, Option<&str>)> = crowd.sockets().collect();
    assert_eq!(sockets, [(&1, Some("ann")), (&2, Some("ann")), (&3, Some("bob")), (&4, None)]);
    assert_eq!(presence.users().collect::<Vec<_>>(), [("ann", 2), ("bob", 1)]);
    assert_eq!(presence.handle_left(now, &1, &tasks), None);
    assert_eq!(presence.handle_left(now, &1, &tasks), None);
    let left = Change::Left { room: tasks.clone(), user: "ann".into(), users: 1, connections: 2 };
    assert_eq!(presence.handle_left(now, &2, &tasks), Some(left), "whoever asks to leave is gone at once");
    assert_eq!(presence.connections_of("ann"), 2, "the ones that are in no room");
}

#[test]
fn whoever_is_lost_may_come_back_for_a_while() {
    let (mut presence, start) = (Presence::new(PresenceLimits::default()), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let tasks = room("tasks");
    presence.handle_connected(1, user("ann")).unwrap();
    presence.handle_joined(start, &1, &tasks).unwrap();
    assert_eq!(presence.handle_gone(at(2), &1), []);
    assert_eq!(presence.handle_gone(at(2), &1), [], "it was not there any more");
    assert_eq!((presence.crowd(&tasks).user_count(), presence.crowd(&tasks).connections()), (1, 0));
    assert_eq!(presence.poll_deadline(), Some(at(12)));
    assert_eq!(presence.handle_timeout(at(11)), []);
    presence.handle_connected(2, user("ann")).unwrap();
    assert_eq!(presence.handle_joined(at(11), &2, &tasks), Ok(None), "nobody noticed");
    assert_eq!(presence.poll_deadline(), None);
    assert_eq!(presence.handle_gone(at(20), &2), []);
    let left = Change::Left { room: tasks.clone(), user: "ann".into(), users: 0, connections: 0 };
    assert_eq!(presence.handle_timeout(at(30)), std::slice::from_ref(&left));
    assert_eq!(presence.poll_deadline(), None);
    let hasty = PresenceLimits { grace: Duration::ZERO, ..PresenceLimits::default() };
    let mut presence = Presence::new(hasty);
    presence.handle_connected(1, user("ann")).unwrap();
    presence.handle_joined(start, &1, &tasks).unwrap();
    assert_eq!(presence.handle_gone(start, &1), [left], "there is no grace");
}

#[test]
fn large_rooms_are_counted_now_and_then() {
    let limits = PresenceLimits { named_max: 2, grace: Duration::ZERO, ..PresenceLimits::default() };
    let (mut presence, start) = (Presence::new(limits), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let tasks = room("tasks");
    let join = |presence: &mut Presence<u8>, when, socket: u8| {
        presence.handle_connected(socket, user(&format!("u{socket}"))).unwrap();
        presence.handle_joined(when, &socket, &room("tasks")).unwrap()
    };
    let counted = |users| Change::Counted { room: room("tasks"), users, connections: users };
    for socket in [1, 2] {
        assert!(matches!(join(&mut presence, start, socket), Some(Change::Joined { .. })));
    }
    assert_eq!(join(&mut presence, start, 3), Some(counted(3)));
    assert!(!presence.crowd(&tasks).is_named());
    for socket in 4..100 {
        assert_eq!(join(&mut presence, at(1), socket), None, "it was counted a moment ago");
    }
    assert_eq!(presence.poll_deadline(), Some(at(5)));
    assert_eq!(presence.handle_timeout(at(5)), [counted(99)]);
    assert_eq!(presence.poll_deadline(), None);
    for socket in 3..100 {
        assert_eq!(
            presence.handle_gone(at(6), &socket),
            [],
            "nobody was named, so nobody is told to have left"
        );
    }
    assert_eq!(presence.handle_timeout(at(10)), [counted(2)]);
    let left = Change::Left { room: tasks.clone(), user: "u2".into(), users: 1, connections: 1 };
    assert_eq!(presence.handle_gone(at(10), &2), [left]);
    assert_eq!(presence.handle_gone(at(10), &1).len(), 1);
    assert_eq!((presence.crowd(&tasks).user_count(), presence.poll_deadline()), (0, None));
}

#[test]
fn a_room_that_nobody_is_in_is_counted_no_more() {
    let limits = PresenceLimits { named_max: 0, grace: Duration::ZERO, ..PresenceLimits::default() };
    let (mut presence, now) = (Presence::new(limits), Instant::now());
    presence.handle_connected(1, user("ann")).unwrap();
    assert!(matches!(presence.handle_joined(now, &1, &room("tasks")), Ok(Some(Change::Counted { .. }))));
    assert_eq!(presence.handle_gone(now, &1), []);
    assert_eq!(presence.poll_deadline(), None);
}

#[test]
fn agents_are_known_by_their_sockets() {
    let mut presence = Presence::new(PresenceLimits::default());
    for socket in [1, 2] {
        presence.handle_connected(socket, Party::Agent("a".into())).unwrap();
    }
    presence.handle_gone(Instant::now(), &1);
    assert!(presence.has_agent("a"));
    presence.handle_gone(Instant::now(), &2);
    assert!(!presence.has_agent("a"));
}

#[test]
fn what_is_counted_is_bounded() {
    let limits =
        PresenceLimits { sockets_max: 2, memberships_max: 2, away_max: 1, ..PresenceLimits::default() };
    let (mut presence, now) = (Presence::new(limits), Instant::now());
    for (socket, name) in [(1, "a"), (2, "b")] {
        presence.handle_connected(socket, user(name)).unwrap();
        presence.handle_joined(now, &socket, &room("tasks")).unwrap();
    }
    assert_eq!(presence.handle_connected(3, user("ann")).unwrap_err().refusal, Refusal::TooMany);
    assert_eq!(presence.handle_joined(now, &1, &room("agents")).unwrap_err().refusal, Refusal::TooMany);
    assert_eq!(presence.handle_joined(now, &3, &room("tasks")).unwrap_err().refusal, Refusal::NotFound);
    assert_eq!(presence.handle_connected(1, user("x")).unwrap_err().refusal, Refusal::AlreadyExists);
    assert_eq!(presence.handle_gone(now, &1), [], "it is away");
    assert_eq!(presence.handle_gone(now, &2).len(), 1, "no room for another away");
}

#[test]
fn changes_are_told_in_their_rooms() {
    let joined = Change::Joined { room: room("tasks"), user: "ann".into(), users: 1, connections: 2 };
    let event = joined.outgoing(Timestamp(0));
    assert_eq!((&*event.name, event.rooms[0].as_str(), event.volatile), ("presence_joined", "tasks", true));
    assert_eq!(
        event.data.get(),
        r#"{"room":"tasks","user_id":"ann","users":1,"connections":2,"timestamp":"1970-01-01T00:00:00.000Z"}"#
    );
    let counted = Change::Counted { room: room("tasks"), users: 900, connections: 901 };
    let event = counted.outgoing(Timestamp(0));
    assert_eq!((&*event.name, event.volatile), ("presence_count", true));
    let data = r#"{"room":"tasks","users":900,"connections":901,"timestamp":"1970-01-01T00:00:00.000Z"}"#;
    assert_eq!(event.data.get(), data);
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

/// A room and a user.
type Stay = (String, String);

fn stays(sockets: &Sockets) -> BTreeSet<Stay> {
    let mut here = BTreeSet::new();
    for (party, rooms) in sockets.values() {
        let (Party::User(id) | Party::Agent(id)) = party else { continue };
        here.extend(rooms.iter().map(|room| ((*room).to_owned(), id.to_string())));
    }
    here
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whoever_follows_the_changes_knows_who_is_there(acts in proptest::collection::vec(act(), 0..80)) {
        let (mut presence, mut now) = (Presence::new(PresenceLimits::default()), Instant::now());
        let mut sockets = Sockets::new();
        let mut known: BTreeSet<Stay> = BTreeSet::new();
        let mut away: BTreeMap<Stay, Instant> = BTreeMap::new();
        for act in acts {
            let before = stays(&sockets);
            let changes: Vec<Change> = match act {
                Act::Connect(socket, party) => {
                    if presence.handle_connected(socket, party.clone()).is_ok() {
                        sockets.insert(socket, (party, BTreeSet::new()));
                    }
                    Vec::new()
                }
                Act::Join(socket, name) => {
                    let Ok(change) = presence.handle_joined(now, &socket, &room(name)) else { continue };
                    sockets.get_mut(&socket).unwrap().1.insert(name);
                    change.into_iter().collect()
                }
                Act::Leave(socket, name) => {
                    if let Some((_, rooms)) = sockets.get_mut(&socket) {
                        rooms.remove(name);
                    }
                    presence.handle_left(now, &socket, &room(name)).into_iter().collect()
                }
                Act::Go(socket) => {
                    sockets.remove(&socket);
                    let after = stays(&sockets);
                    let lost = before.difference(&after).cloned().map(|stay| (stay, now + GRACE));
                    away.extend(lost);
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
                    Change::Counted { .. } => false,
                };
                prop_assert!(is_news, "nothing is told twice, and everybody is named");
            }
            let mut here = stays(&sockets);
            away.retain(|stay, _| !here.contains(stay));
            here.extend(away.keys().cloned());
            prop_assert_eq!(&known, &here);
            prop_assert_eq!(presence.poll_deadline(), away.values().min().copied());
            prop_assert_eq!(presence.has_agent("a"), sockets.values().any(|(party, _)| *party == Party::Agent("a".into())));
            for name in ["tasks", "agents", "project:p"] {
                let connections = sockets.values().filter(|(_, rooms)| rooms.contains(name)).count();
                let of_room = room(name);
                let crowd = presence.crowd(&of_room);
                prop_assert_eq!(crowd.connections(), connections);
                prop_assert_eq!(crowd.sockets().count(), connections);
                prop_assert_eq!(crowd.user_count(), here.iter().filter(|(room, _)| room == name).count());
            }
        }
        let left: Vec<u8> = sockets.keys().copied().collect();
        for socket in left {
            presence.handle_gone(now, &socket);
        }
        presence.handle_timeout(now + GRACE);
        prop_assert_eq!((presence.users().len(), presence.poll_deadline()), (0, None));
        for name in ["tasks", "agents", "project:p"] {
            prop_assert_eq!(presence.crowd(&room(name)).user_count(), 0);
        }
    }
}

fn user(id: &str) -> Party {
    Party::User(id.into())
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}
