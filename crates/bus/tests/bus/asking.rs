//! Questions to one node and to all.

use std::time::Duration;

use bus::{BusFault, NodeId, Requests};
use bytes::Bytes;
use testkit::redis::{RedisServer, until};

use crate::node::{LIMIT, Node};

/// Answers each question with itself and this word.
fn answer_all(mut requests: Requests, word: &'static str) {
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let body = [&request.body[..], word.as_bytes()].concat();
            request.answer(body.into());
        }
    });
}

async fn open(address: &str, word: Option<&'static str>) -> (Node, Option<Requests>) {
    let mut node = Node::open(address).await;
    let requests = node.requests.take();
    match (word, requests) {
        (Some(word), Some(requests)) => {
            answer_all(requests, word);
            (node, None)
        }
        (_, requests) => (node, requests),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn all_are_asked_and_who_does_not_answer_is_named() {
    let server = RedisServer::start();
    let address = server.address();
    let (asker, _own) = open(&address, Some(" never")).await;
    let nobody = asker.bus.ask_all(Bytes::from_static(b"who?"), LIMIT).await;
    assert_eq!(nobody, bus::Answers::default(), "the asker does not ask itself");
    let (first, _) = open(&address, Some(" first")).await;
    let (second, _) = open(&address, Some(" second")).await;
    let (silent, waiting) = open(&address, None).await;
    until("all are known", || asker.bus.nodes().len() == 4);
    let mut expected = vec![
        (first.bus.node(), Bytes::from_static(b"who? first")),
        (second.bus.node(), Bytes::from_static(b"who? second")),
    ];
    expected.sort();
    let mut asked = bus::Answers::default();
    // The silent one is waited for to the end; who is too slow for that has more time.
    for limit in [1, 5, 60].map(Duration::from_secs) {
        asked = asker.bus.ask_all(Bytes::from_static(b"who?"), limit).await;
        if asked.answers.len() == expected.len() {
            break;
        }
    }
    asked.answers.sort();
    assert_eq!(asked.answers, expected);
    assert_eq!(asked.missing, [silent.bus.node()]);
    // Who leaves is not waited for.
    let asking = {
        let bus = asker.bus.clone();
        tokio::spawn(async move { bus.ask_all(Bytes::from_static(b"again?"), LIMIT * 100).await })
    };
    let mut waiting = waiting.expect("its questions are not taken");
    while waiting.next().await.expect("the questions come").body != b"again?"[..] {}
    silent.bus.close().await;
    let asked = tokio::time::timeout(LIMIT, asking).await.expect("nobody is waited for").unwrap();
    assert_eq!((asked.answers.len(), asked.missing), (2, vec![silent.bus.node()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn one_is_asked_and_answers_or_does_not() {
    let server = RedisServer::start();
    let address = server.address();
    let (silent, _waiting) = open(&address, None).await;
    let (other, _) = open(&address, Some("!")).await;
    let (asker, _) = open(&address, None).await;
    let large = vec![0; 1 << 20];
    let answer = asker.bus.ask(other.bus.node(), large.clone().into(), LIMIT).await.unwrap();
    assert_eq!((answer.len(), &answer[1 << 20..]), (large.len() + 1, &b"!"[..]));
    let unanswered = asker.bus.ask(silent.bus.node(), Bytes::new(), Duration::from_millis(300)).await;
    assert_eq!(unanswered, Err(BusFault::NoAnswer));
    let taken = [&silent, &other, &asker].map(|node| node.bus.node());
    let free = (1..).map(NodeId).find(|id| !taken.contains(id)).unwrap();
    for nobody in [free, asker.bus.node()] {
        assert_eq!(asker.bus.ask(nobody, Bytes::new(), LIMIT).await, Err(BusFault::NoSuchNode(nobody)));
    }
    let questions = (0..200).map(|at| {
        let (bus, to) = (asker.bus.clone(), other.bus.node());
        tokio::spawn(async move { (at, bus.ask(to, at.to_string().into(), LIMIT).await) })
    });
    for question in questions.collect::<Vec<_>>() {
        let (at, answer) = question.await.unwrap();
        assert_eq!(answer.unwrap(), format!("{at}!"));
    }
}
