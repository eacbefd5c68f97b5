//! The public API, used as an application uses it, against real peers on loopback: what its documentation promises.
//!
//! Peers are `sio_client` sockets, or bytes by hand where a well-behaved client would get in the way. Does not test the
//! protocol itself, which `conformance/` does. Every server listens on a port that the system gives.

mod connecting;
mod drain;
mod links;
mod nodes;
mod peers;
mod restore;
mod transports;
mod verdicts;

use std::sync::Arc;
use std::time::Duration;

use engine::{AckFault, Answered, Joined, JoinedAll, Many, NoArgs, One, Refusal, Server};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sio_client::{ConnectFault, Options, Transports};

use peers::{LIMITS, PATIENCE, auth, connect, connect_with, event, listen, next_event, quiet, until};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    x: i32,
    y: i32,
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_have_types_and_what_a_handler_returns_is_the_ack() {
    let server = Server::builder()
        .namespace("/", |ns| {
            ns.on("one", |_, text: String| async move { text.len() as u32 });
            ns.on("two", |_, (a, b): (i32, i32)| async move { Many((a + b, a - b)) });
            ns.on("none", |_, ()| async {});
            ns.on("own type", |_, Point { x, y }| async move { One(Point { x: y, y: x }) });
            ns.on("either", |_, even: u32| async move {
                if even.is_multiple_of(2) { Ok(even) } else { Err(json!({"odd": even})) }
            });
            ns.on("later", |_, millis: u64| async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                "waited"
            });
        })
        .build()
        .unwrap();
    let url = listen(&server).await;
    for transports in [Transports::WebSocket, Transports::Polling, Transports::Upgrade] {
        let client = connect_with(&url, |options| options.transports = transports).await;
        let ask = async |name: &str, args: Value| {
            let args: Vec<Value> = args.as_array().unwrap().clone();
            client.emit_with_ack(name, &Many(args), PATIENCE).await.unwrap().values().unwrap()
        };
        assert_eq!(ask("one", json!(["four"])).await, [json!(4)]);
        assert_eq!(ask("two", json!([5, 3])).await, [json!(8), json!(2)]);
        assert_eq!(ask("none", json!([])).await, Vec::<Value>::new());
        assert_eq!(ask("own type", json!([{"x": 1, "y": 2}])).await, [json!({"x": 2, "y": 1})]);
        assert_eq!(ask("either", json!([2])).await, [json!(2)]);
        assert_eq!(ask("either", json!([3])).await, [json!({"odd": 3})]);
        assert_eq!(ask("later", json!([20])).await, [json!("waited")]);
    }
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_do_not_fit_are_answered_and_cost_nothing_else() {
    let server = Server::builder()
        .namespace("/", |ns| {
            ns.on("number", |_, number: u32| async move { number });
        })
        .build()
        .unwrap();
    let url = listen(&server).await;
    let client = connect(&url).await;
    let answer: Value = client.emit_with_ack("number", &One("many"), PATIENCE).await.unwrap().args().unwrap();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["error"]["code"], "bad_payload");
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("number: "), "{answer}");
    let answer: u32 = client.emit_with_ack("number", &One(7), PATIENCE).await.unwrap().args().unwrap();
    assert_eq!(answer, 7);
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_middleware_refuses_with_data_or_attaches_a_state() {
    #[derive(Deserialize)]
    struct Token {
        token: String,
    }
    struct User(String);
    let server = Server::builder()
        .namespace("/", |ns| {
            ns.middleware(|request| async move {
                let Ok(Token { token }) = request.auth() else { return Err(Refusal::new("no token")) };
                // One that waits is asked on the other plane, and must come to the same end.
                tokio::task::yield_now().await;
                if token != "secret" {
                    let data = json!({"code": "UNAUTHORIZED"});
                    return Err(Refusal::new("not authorized").with_data(data));
                }
                assert!(request.set_state(User("ada".to_owned())));
                Ok(())
            });
            ns.on("whoami", |socket, ()| async move {
                socket.state::<User>().map(|user| user.0.clone()).unwrap()
            });
        })
        .build()
        .unwrap();
    let url = listen(&server).await;
    let refused = async |token: Value| match peers::try_connect(&url, |it| it.auth = auth(token)).await {
        Err(ConnectFault::Refused(refusal)) => (refusal.message, refusal.data),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(json!({})).await, ("no token".to_owned(), None));
    let data = Some(json!({"code": "UNAUTHORIZED"}));
    assert_eq!(refused(json!({"token": "x"})).await, ("not authorized".to_owned(), data));
    let client = connect_with(&url, |it| it.auth = auth(json!({"token": "secret"}))).await;
    let name: String = client.emit_with_ack("whoami", &NoArgs, PATIENCE).await.unwrap().args().unwrap();
    assert_eq!(name, "ada");
    server.shutdown(Duration::ZERO).await;
}

/// Three shards; sockets join what they ask for and relay to whom they name.
fn rooms() -> Server {
    #[derive(Deserialize)]
    struct Relay {
        to: Vec<String>,
        except: Vec<String>,
        text: String,
    }
    Server::builder()
        .shards(3)
        .namespace("/", |ns| {
            ns.on("join", |socket, rooms: Vec<String>| async move { socket.join(rooms) });
            ns.on("relay", |socket, relay: Relay| async move {
                let target = socket.to(relay.to).except(relay.except);
                target.emit("relayed", &relay.text).unwrap();
            });
            ns.on("id", |socket, ()| async move { socket.id().to_string() });
        })
        .build()
        .unwrap()
}

async fn join(client: &sio_client::Client, rooms: &[&str]) {
    let rooms = vec![rooms];
    client.emit_with_ack("join", &Many(rooms), PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_rooms_get_an_event_once_and_excepted_ones_not() {
    let server = rooms();
    let url = listen(&server).await;
    let sender = connect(&url).await;
    let (mut in_both, mut in_one, mut excepted, mut outside) =
        (connect(&url).await, connect(&url).await, connect(&url).await, connect(&url).await);
    join(&sender, &["a"]).await;
    join(&in_both, &["a", "b"]).await;
    join(&in_one, &["b"]).await;
    join(&excepted, &["a", "muted"]).await;
    let relay = json!({"to": ["a", "b"], "except": ["muted"], "text": "hello"});
    sender.emit_with_ack("relay", &One(relay), PATIENCE).await.unwrap();
    server.of("/").emit("end", &()).unwrap();
    assert_eq!(event(&mut in_both, "relayed").await.args::<String>().unwrap(), "hello");
    assert_eq!(event(&mut in_one, "relayed").await.args::<String>().unwrap(), "hello");
    for client in [&mut in_both, &mut in_one, &mut excepted, &mut outside] {
        assert_eq!(next_event(client).await.name, "end");
    }
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_task_may_broadcast_and_order_is_kept() {
    let server = rooms();
    let url = listen(&server).await;
    let mut clients = [connect(&url).await, connect(&url).await, connect(&url).await];
    let publisher = server.clone();
    tokio::spawn(async move {
        for number in 0..100 {
            publisher.emit("tick", &number).unwrap();
        }
    });
    for client in &mut clients {
        for number in 0..100 {
            assert_eq!(event(client, "tick").await.args::<u32>().unwrap(), number);
        }
    }
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_passes_acks_on_gets_each_as_it_comes_and_how_many_there_will_be() {
    let server = rooms();
    let url = listen(&server).await;
    let mut clients = Vec::new();
    for room in ["r", "r", "r", "other"] {
        let client = connect(&url).await;
        join(&client, &[room]).await;
        clients.push(client);
    }
    let in_rooms = [("other".to_owned(), 1), ("r".to_owned(), 3)];
    assert_eq!(server.rooms("/").await.into_iter().collect::<Vec<_>>(), in_rooms);
    assert!(server.rooms("/nowhere").await.is_empty());
    let mut acks = server.to("r").emit_for_acks("ask", &One(1), PATIENCE).unwrap();
    // One after the other: the next answers when the last has been heard.
    for (number, client) in clients.iter_mut().take(3).enumerate() {
        event(client, "ask").await.ack(&One(number)).await.unwrap();
        if number > 0 {
            assert_eq!(acks.asked().await, 3);
        }
        let answer = acks.recv().await.expect("an answer as soon as there is one");
        assert_eq!(answer.decode::<usize>().unwrap(), number);
    }
    assert!(acks.recv().await.is_none() && !acks.has_timed_out());
    // The count comes first also for whoever looks when answers are in.
    let mut was_in_time = false;
    for limit in LIMITS {
        let mut acks = server.to("r").emit_for_acks("ask", &One(2), limit).unwrap();
        event(&mut clients[0], "ask").await.ack(&One("in")).await.unwrap();
        assert_eq!(acks.asked().await, 3);
        if let Some(answer) = acks.recv().await {
            assert_eq!(answer.decode::<String>().unwrap(), "in");
            assert!(acks.recv().await.is_none());
            was_in_time = true;
        }
        assert!(acks.has_timed_out(), "two have said nothing");
        if was_in_time {
            break;
        }
    }
    assert!(was_in_time);
    let mut nobody = server.to("nowhere").emit_for_acks("ask", &One(3), PATIENCE).unwrap();
    assert_eq!((nobody.asked().await, nobody.recv().await.is_none()), (0, true));
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_come_from_one_or_from_many_or_time_out() {
    let server = rooms();
    let url = listen(&server).await;
    let (mut willing, mut silent) = (connect(&url).await, connect(&url).await);
    join(&willing, &["all"]).await;
    join(&silent, &["all"]).await;
    let willing_id: String = willing.emit_with_ack("id", &NoArgs, PATIENCE).await.unwrap().args().unwrap();
    let silent_id: String = silent.emit_with_ack("id", &NoArgs, PATIENCE).await.unwrap().args().unwrap();
    let answering = tokio::spawn(async move {
        loop {
            event(&mut willing, "ask").await.ack(&One("yes")).await.unwrap();
        }
    });
    let socket = async |id: &str| {
        let found = server.to(id).fetch_sockets().await;
        assert_eq!(found.len(), 1);
        found[0].socket().clone()
    };
    let text = |answer: &Answered| answer.decode::<String>().unwrap();
    let one = socket(&willing_id).await.emit_with_ack("ask", &One(1), PATIENCE).await.unwrap();
    assert_eq!(text(&one), "yes");
    let none = socket(&silent_id).await.emit_with_ack("ask", &One(1), LIMITS[0]).await;
    assert_eq!(none.unwrap_err(), AckFault::TimedOut);
    let mut answers = Vec::new();
    for limit in LIMITS {
        let acks = server.to("all").emit_with_acks("ask", &One(2), limit).await.unwrap();
        assert_eq!((acks.asked, acks.timed_out), (2, true));
        answers = acks.answers.iter().map(text).collect();
        if !answers.is_empty() {
            break;
        }
    }
    assert_eq!(answers, ["yes"]);
    let nobody = server.to("nowhere").emit_with_acks("ask", &One(3), PATIENCE).await.unwrap();
    assert_eq!((nobody.asked, nobody.timed_out, nobody.answers.len()), (0, false, 0));
    // A socket that goes owes nothing, and whoever waits for it is told at once.
    let leaver = socket(&silent_id).await;
    let waiting = tokio::spawn(async move { leaver.emit_with_ack("ask", &One(4), PATIENCE).await });
    while event(&mut silent, "ask").await.args::<u32>().unwrap() != 4 {}
    silent.close().await;
    assert_eq!(waiting.await.unwrap().unwrap_err(), AckFault::Disconnected);
    assert!(!answering.is_finished());
    answering.abort();
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_all_shards_are_found_moved_between_rooms_and_disconnected() {
    let server = rooms();
    let url = listen(&server).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        // No request of theirs is under way that could tell of the end before the socket does.
        let client = connect_with(&url, |options| options.transports = Transports::WebSocket).await;
        join(&client, &["first"]).await;
        clients.push(client);
    }
    server.to("first").sockets_join(["second", "third"]).unwrap();
    // Every shard has made the rooms when it has answered: from then on they can be named.
    assert_eq!(server.to("second").fetch_sockets().await.len(), 6);
    server.to("third").sockets_leave("first").unwrap();
    let found = server.to("second").fetch_sockets().await;
    assert_eq!(found.len(), 6);
    for info in &found {
        let id = info.id().to_string();
        assert_eq!(info.rooms(), [&id, "second", "third"]);
        info.socket().set_data(json!({"seen": true}));
    }
    assert_eq!(server.to("first").fetch_sockets().await.len(), 0);
    let one = clients[0].sid().unwrap();
    let again = server.to(one.as_str()).fetch_sockets().await;
    assert_eq!((again.len(), again[0].data()), (1, json!({"seen": true})));
    assert_eq!(server.stats(true).await.rooms[&("/".to_owned(), "second".to_owned())], 6);
    server.to("second").except(one.as_str()).disconnect_sockets(true).unwrap();
    for client in &mut clients[1..] {
        peers::disconnected(client).await;
    }
    assert!(quiet(&mut clients[0]).await);
    assert_eq!(server.of("/").fetch_sockets().await.len(), 1);
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_handler_relays_arguments_unread_and_a_fallback_takes_the_rest() {
    let server = Server::builder()
        .namespace("/", |ns| {
            ns.on_raw("relay", |socket, event| {
                let relay = event.relay("relayed").unwrap();
                socket.within(socket.id()).emit_relay(relay).unwrap();
                event.answer_same(socket);
            });
            ns.fallback(|socket, event| event.answer(socket, event.name().to_owned()));
        })
        .build()
        .unwrap();
    let url = listen(&server).await;
    let mut client = connect(&url).await;
    let args = vec![json!({"deep": [1, "zwei", null]}), json!(2)];
    let same = client.emit_with_ack("relay", &Many(args.clone()), PATIENCE).await.unwrap();
    assert_eq!(same.values().unwrap(), args);
    assert_eq!(event(&mut client, "relayed").await.values().unwrap(), args);
    let name: String = client.emit_with_ack("unheard of", &NoArgs, PATIENCE).await.unwrap().args().unwrap();
    assert_eq!(name, "unheard of");
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_be_refused_before_it_becomes_a_session() {
    let server = Server::builder()
        .allow_request(|request| async move {
            let header = http::HeaderName::from_static("x-key");
            request.header(header).filter(|key| *key == "open").map(|_| ()).ok_or("wrong key".to_owned())
        })
        .build()
        .unwrap();
    let url = listen(&server).await;
    for transports in [Transports::WebSocket, Transports::Polling] {
        let refused = peers::try_connect(&url, |it| it.transports = transports).await;
        assert!(matches!(&refused, Err(ConnectFault::Engine(_))), "{refused:?}");
        let key = ("x-key".to_owned(), "open".to_owned());
        let client = connect_with(&url, |it| {
            it.transports = transports;
            it.headers = vec![key];
        });
        assert!(client.await.sid().is_some());
    }
    let stats = server.stats(false).await;
    assert_eq!(stats.total(|it| it.sessions_opened_polling + it.sessions_opened_websocket), 2);
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_outlives_its_socket_harmlessly() {
    let (to, mut handles) = tokio::sync::mpsc::unbounded_channel();
    let to = Arc::new(to);
    let server = Server::builder()
        .shards(1)
        .namespace("/", |ns| {
            ns.on_disconnect(move |socket, reason, rooms| {
                let to = to.clone();
                async move { to.send((socket, reason, rooms)).unwrap() }
            });
            ns.on("join", |socket, room: String| async move { socket.join(room) });
        })
        .build()
        .unwrap();
    let url = listen(&server).await;
    let client = connect(&url).await;
    client.emit_with_ack("join", &One("last"), PATIENCE).await.unwrap();
    client.close().await;
    let (socket, reason, rooms) = handles.recv().await.unwrap();
    assert_eq!((reason.as_str(), rooms), ("client namespace disconnect", vec!["last".to_owned()]));
    socket.emit("too late", &()).unwrap();
    socket.join("elsewhere");
    socket.disconnect();
    assert_eq!(socket.emit_with_ack("ask", &NoArgs, PATIENCE).await.unwrap_err(), AckFault::Disconnected);
    assert_eq!(server.stats(true).await.rooms.len(), 0);
    server.shutdown(Duration::ZERO).await;
    // The shard's thread ends a moment after it was told to.
    until("it has stopped", async || server.emit("after the end", &()).is_err()).await;
    assert_eq!(server.emit("again", &()).unwrap_err().to_string(), "the server has stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handlers_broadcast_finds_the_room_that_it_has_just_joined() {
    // With several shards, too: the room is announced to them only after the handler.
    for shards in [1, 3] {
        let server = Server::builder()
            .shards(shards)
            .namespace("/", |ns| {
                ns.on("enter", |socket, room: String| async move {
                    socket.join(&room);
                    socket.within(&room).emit("entered", &room).unwrap();
                });
            })
            .build()
            .unwrap();
        let url = listen(&server).await;
        let mut client = connect(&url).await;
        client.emit_with_ack("enter", &One("new"), PATIENCE).await.unwrap();
        assert_eq!(event(&mut client, "entered").await.args::<String>().unwrap(), "new");
        assert!(quiet(&mut client).await, "it comes once");
        server.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_after_a_join_that_was_awaited_finds_the_socket_on_any_shard() {
    let server = Server::builder().shards(4).build().unwrap();
    let url = listen(&server).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(connect(&url).await);
    }
    let found = server.of("/").fetch_sockets().await;
    let sockets: Vec<_> = clients
        .iter()
        .map(|client| {
            let is_it = |info: &&engine::SocketInfo| Some(info.id().to_string()) == client.sid();
            found.iter().find(is_it).unwrap().socket().clone()
        })
        .collect();
    for round in 0..50 {
        for (socket, client) in sockets.iter().zip(&mut clients) {
            let room = format!("{round} of {}", socket.id());
            assert_eq!(socket.join_waiting(&room).await, Joined::Done);
            server.to(&room).emit("joined", &round).unwrap();
            assert_eq!(event(client, "joined").await.args::<u32>().unwrap(), round);
        }
        let room = format!("all in {round}");
        let all = server.of("/").sockets_join_waiting(&room).await.unwrap();
        assert_eq!(all, JoinedAll { joined: 8, refused: 0 });
        server.to(&room).emit_waiting("all", &round).await.unwrap();
        for client in &mut clients {
            assert_eq!(event(client, "all").await.args::<u32>().unwrap(), round);
        }
    }
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_awaited_join_is_all_rooms_or_none() {
    let server =
        Server::builder().shards(2).configure(|config| config.rooms_per_socket_max = 3).build().unwrap();
    let url = listen(&server).await;
    let client = connect(&url).await;
    let socket = server.of("/").fetch_sockets().await[0].socket().clone();
    assert_eq!(socket.join_waiting(["a", "b"]).await, Joined::Done);
    assert_eq!(socket.join_waiting(["b", "c", "d"]).await, Joined::TooManyRooms { max: 3 });
    let refused = server.of("/").sockets_join_waiting(["c", "d"]).await.unwrap();
    assert_eq!(refused, JoinedAll { joined: 0, refused: 1 });
    assert_eq!(socket.rooms().await, [&client.sid().unwrap(), "a", "b"]);
    assert_eq!(socket.join_waiting("c").await, Joined::Done);
    client.close().await;
    until("the socket is gone", async || server.of("/").fetch_sockets().await.is_empty()).await;
    assert_eq!(socket.join_waiting("a").await, Joined::Gone);
    assert_eq!(server.stats(true).await.rooms.len(), 0, "nobody is in any room");
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_task_sends_and_awaits_comes_in_its_order() {
    let server = Server::builder().shards(4).build().unwrap();
    let url = listen(&server).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(connect(&url).await);
    }
    let sockets = server.of("/").fetch_sockets().await;
    for round in 0..200u64 {
        server.of("/").order(round + 1).emit_waiting("n", &(3 * round)).await.unwrap();
        for info in &sockets {
            info.socket().emit_waiting("n", &(3 * round + 1)).await.unwrap();
        }
        server.of("/").emit("n", &(3 * round + 2)).unwrap();
    }
    for client in &mut clients {
        for number in 0..600u64 {
            assert_eq!(event(client, "n").await.args::<u64>().unwrap(), number);
        }
    }
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_of_lost_sockets_are_no_statistics() {
    let server = Server::builder().recovery(engine::Recovery::default()).build().unwrap();
    let url = listen(&server).await;
    let client = connect_with(&url, |options| {
        options.auth = auth(json!({"recovery": true}));
        (options.transports, options.reconnect) = (Transports::WebSocket, None);
    })
    .await;
    let socket = server.of("/").fetch_sockets().await[0].socket().clone();
    assert!(socket.recovery_id().is_some());
    assert_eq!(format!("{:?}", socket.recovery_id()), "Some(RecoveryId(secret))");
    assert_eq!(socket.join_waiting("r").await, Joined::Done);
    assert_eq!(server.stats(true).await.rooms.len(), 1);
    socket.sever();
    until("the loss", async || server.stats(false).await.held(|it| it.sockets_lost) == 1).await;
    let stats = server.stats(true).await;
    assert_eq!((stats.rooms.len(), stats.held(|it| it.rooms)), (0, 1), "the shard holds it all the same");
    drop(client);
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_sessions_are_closed_over_the_whole_time_of_a_shutdown() {
    let server = Server::builder().shards(4).build().unwrap();
    let url = listen(&server).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        // No request of theirs is under way that could tell of the end before the session does.
        let change = |options: &mut Options| {
            (options.transports, options.reconnect) = (Transports::WebSocket, None);
        };
        clients.push(connect_with(&url, change).await);
    }
    let begun = std::time::Instant::now();
    let (ends, ()) = tokio::join!(
        async {
            let mut ends = Vec::new();
            for client in clients {
                let mut client = client;
                ends.push(tokio::spawn(async move {
                    peers::disconnected(&mut client).await;
                    begun.elapsed()
                }));
            }
            let mut times = Vec::new();
            for end in ends {
                times.push(end.await.unwrap());
            }
            times.sort_unstable();
            times
        },
        server.shutdown(Duration::from_millis(1_200)),
    );
    // One at once, one after a third of the time, one after two thirds: whoever is late, none is early.
    assert!(ends[1] >= Duration::from_millis(390) && ends[2] >= Duration::from_millis(790), "{ends:?}");
}
