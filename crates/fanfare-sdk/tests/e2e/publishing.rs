//! Events on their way: order, batches, repetitions, refusals, bounds.

use std::time::Duration;

use fanfare_sdk::{Error, Event, Publisher, Settings};
use serde_json::json;
use tokio::net::TcpSocket;

use crate::server::{Server, Trouble, busy, patient, until};

const BATCH: &str = "POST /api/v1/events/batch";

#[tokio::test]
async fn events_arrive_in_order_and_in_few_requests() {
    let server = Server::start().await;
    let publisher = server.publisher();
    for number in 0..2_000 {
        publisher.enqueue(Event::new(format!("e{number}"), number).room("r")).unwrap();
    }
    let last = publisher.publish(Event::new("last", json!(null)).room("r")).await.unwrap();
    assert_eq!(last.seq, Some(2_001));
    publisher.flush().await.unwrap();
    let expected: Vec<_> = (0..2_000).map(|number| format!("e{number}")).chain(["last".to_owned()]).collect();
    assert_eq!(server.names(), expected);
    // 2,001 events in batches of 500, and a small first one.
    assert!(server.count(BATCH) <= 6, "{} requests", server.count(BATCH));
}

#[tokio::test]
async fn what_was_done_but_not_answered_is_not_done_twice() {
    let server = Server::start().await;
    server.trouble(Trouble::DoAndHang);
    let published = server.hasty_publisher().publish(Event::new("e", 1).room("r")).await.unwrap();
    assert_eq!(published.seq, Some(1));
    assert!(server.names().len() == 1 && server.count(BATCH) >= 2);
}

#[tokio::test]
async fn a_busy_server_is_given_the_time_that_it_asks_for() {
    let server = Server::start().await;
    server.trouble(busy(0.4));
    server.publisher().publish(Event::new("e", 1).room("r")).await.unwrap();
    let world = server.world();
    assert_eq!(world.seen.len(), 2);
    assert!(world.seen[1].at - world.seen[0].at >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_bad_event_does_not_keep_the_others_of_its_batch_back() {
    let server = Server::start().await;
    // While the first request is under way, the others become one batch.
    let slow = server.hold_next();
    let publisher = server.publisher();
    let events = [
        Event::new("first", 0).room("r"),
        Event::new("good", 1).room("r"),
        Event::new("task_update", json!({"status": "no id"})),
        Event::new("better", 2).room("r"),
    ];
    let answers = async {
        server.until_counted(BATCH, 1).await;
        slow.notify_one();
    };
    let (answers, ()) = tokio::join!(publisher.publish_batch(events), answers);
    let codes: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().and_then(Error::code)).collect();
    assert_eq!(codes, [None, None, Some("bad_payload"), None]);
    let Err(Error::Refused { message, .. }) = &answers[2] else { panic!("{:?}", answers[2]) };
    assert!(message.contains("task_id"), "{message}");
    assert_eq!(server.names(), ["first", "good", "better"]);
}

#[tokio::test]
async fn one_bad_event_among_many_is_found_in_few_requests() {
    let server = Server::start().await;
    let slow = server.hold_next();
    let publisher = server.publisher();
    for number in 0..500 {
        let event = Event::new(format!("e{number}"), number).room("r");
        publisher.enqueue(if number == 333 { Event::new("pr.merged", json!({})) } else { event }).unwrap();
    }
    slow.notify_one();
    assert_eq!(publisher.flush().await, Err(Error::Lost(1)));
    let expected: Vec<_> =
        (0..500).filter(|number| *number != 333).map(|number| format!("e{number}")).collect();
    assert_eq!(server.names(), expected);
    assert!(server.count(BATCH) <= 20, "{} requests", server.count(BATCH));
}

#[tokio::test]
async fn what_nobody_waits_for_is_counted_when_it_is_refused() {
    let server = Server::start().await;
    let publisher = server.publisher();
    publisher.enqueue(Event::new("task_update", json!({}))).unwrap();
    publisher.emit_task_update("t", "done", json!({"result": 5})).unwrap();
    assert_eq!(publisher.flush().await, Err(Error::Lost(1)));
    assert_eq!(publisher.flush().await, Ok(()), "it is told once");
    assert_eq!(server.names(), ["task_update"]);
}

#[tokio::test]
async fn a_server_that_stays_away_is_given_up() {
    // Bound, and never made to listen.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    let mut attempts = 0;
    // A machine that cannot try twice in the time is given more of it.
    for give_up_after in [100, 2_000, 20_000].map(Duration::from_millis) {
        let publisher = Publisher::with_settings(&url, Settings { give_up_after, ..patient() }).unwrap();
        publisher.enqueue(Event::new("lost", 1).room("r")).unwrap();
        let error = publisher.publish(Event::new("e", 1).room("r")).await.unwrap_err();
        let Error::Unavailable { attempts: made, .. } = error else { panic!("{error}") };
        assert_eq!(publisher.flush().await, Err(Error::Lost(1)));
        attempts = made;
        if attempts > 1 {
            break;
        }
    }
    assert!(attempts > 1, "{attempts}");
}

#[tokio::test]
async fn why_the_server_is_not_reached_is_known_until_it_answers() {
    let server = Server::start().await;
    let publisher = server.publisher();
    assert_eq!(publisher.failure(), None);
    server.trouble(busy(0.0));
    let slow = server.hold_next();
    publisher.enqueue(Event::new("e", 1).room("r")).unwrap();
    until("why is known", || publisher.failure().is_some()).await;
    assert_eq!(publisher.failure().as_deref(), Some("503 busy: come back"));
    slow.notify_one();
    publisher.flush().await.unwrap();
    assert_eq!(publisher.failure(), None);
}

#[tokio::test]
async fn a_full_buffer_refuses_what_cannot_wait_and_lets_the_rest_wait() {
    let server = Server::start().await;
    let slow = server.hold_next();
    let settings = Settings { buffer_bytes_max: 4_000, ..patient() };
    let publisher = Publisher::with_settings(&server.url, settings).unwrap();
    let event = || Event::new("e", "x".repeat(1_000)).room("r");
    let taken = (0..10).take_while(|_| publisher.enqueue(event()).is_ok()).count();
    assert_eq!(taken, 3);
    assert_eq!(publisher.enqueue(event()), Err(Error::Full { bytes_max: 4_000 }));
    let waiting = publisher.publish(event());
    let letting_go = async {
        server.until_counted(BATCH, 1).await;
        slow.notify_one();
    };
    tokio::join!(waiting, letting_go).0.unwrap();
    assert_eq!(server.names().len(), 4);
    let huge = Event::new("e", "x".repeat(4_000)).room("r");
    assert!(matches!(publisher.publish(huge).await, Err(Error::TooLarge { bytes_max: 4_000, .. })));
}

#[tokio::test]
async fn a_key_is_sent_and_a_wrong_one_is_not_tried_again() {
    let server = Server::start().await;
    let publisher = server.publisher().api_key("k1").unwrap();
    publisher.publish(Event::new("e", 1).room("r")).await.unwrap();
    assert_eq!(server.world().seen[0].authorization.as_deref(), Some("Bearer k1"));
    let refusal = json!({"error": {"code": "unauthorized", "message": "no such key"}});
    server.trouble(Trouble::Refuse(401, refusal));
    let error = publisher.publish(Event::new("e", 1).room("r")).await.unwrap_err();
    assert_eq!(error.code(), Some("unauthorized"));
    assert_eq!(server.count(BATCH), 2);
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_told() {
    let server = Server::start().await;
    for body in [json!({"events": []}), json!("hello")] {
        server.trouble(Trouble::Refuse(200, body));
        let error = server.publisher().publish(Event::new("e", 1).room("r")).await.unwrap_err();
        assert!(matches!(error, Error::BadAnswer(_)), "{error}");
    }
}

#[tokio::test]
async fn notifications_name_their_user() {
    let server = Server::start().await;
    let notification = fanfare_sdk::rest::NewNotification {
        user_id: "u".into(),
        title: "t".into(),
        message: "m".into(),
        ..Default::default()
    };
    let published = server.publisher().notify(&notification).await.unwrap();
    assert_eq!(published.id, "n1");
    assert_eq!(server.world().seen[0].values[0]["userId"], json!("u"));
}
