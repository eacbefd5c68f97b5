//! Tools against a real HTTP server that answers by script: slowly, in odd pieces, wrongly, too long, or not at all.

mod server;

use std::time::Duration;

use server::{Act, Reply, Seen, Server};
use tools::{Code, Health, Request, Running, Step, ToolConfig, ToolSettings, Tools};

/// Longer than any test takes: text that is held that long comes out for another reason than time.
const NEVER: &str = "1h";

fn config(toml: &str) -> ToolConfig {
    let settings: ToolSettings = toml::from_str(toml).unwrap();
    settings.into_config("t", &|_| None).unwrap()
}

fn tools(toml: &str) -> Tools {
    Tools::new([("t".to_owned(), config(toml))].into(), tokio::runtime::Handle::current()).unwrap()
}

fn http(server: &Server, more: &str) -> Tools {
    tools(&format!("kind = \"http\"\nurl = \"{}/ask\"\nretry_delay = \"5ms\"\n{more}", server.url))
}

fn openai(server: &Server, more: &str) -> Tools {
    tools(&format!(
        "kind = \"openai\"\nmodel = \"m\"\nurl = \"{}/v1\"\nretry_delay = \"5ms\"\n{more}",
        server.url
    ))
}

fn request(user: &str) -> Request {
    Request {
        tool_id: "t".into(),
        message: "Why is the sky blue?".into(),
        request_id: "r1".into(),
        session_id: Some("s1".into()),
        user: Some(user.into()),
        ..Request::default()
    }
}

async fn next(running: &mut Running) -> Option<String> {
    let step =
        tokio::time::timeout(Duration::from_secs(120), running.next()).await.expect("a step in time")?;
    Some(match step {
        Step::Started => "started".into(),
        Step::Delta(text) => format!("delta {text}"),
        Step::Progress(progress) => {
            format!("progress {} {}", progress.percent, progress.message.unwrap_or_default())
        }
        Step::Message(message) => format!("message {}", message.text),
        Step::Failed(failure) => format!("failed {failure}"),
        Step::Done(done) => {
            let tokens = done.usage.map_or(0, |usage| usage.total_tokens);
            format!("done {tokens} {}", done.finish_reason.unwrap_or_default())
        }
    })
}

async fn rest(running: &mut Running) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some(step) = next(running).await {
        steps.push(step);
    }
    steps
}

/// All steps of one request, those that were not passed on at once joined.
async fn ask(tools: &Tools) -> Vec<String> {
    rest(&mut tools.start(request("ann")).unwrap()).await
}

fn joined(steps: &[String]) -> String {
    steps.iter().filter_map(|step| step.strip_prefix("delta ")).collect()
}

fn chunk(text: &str) -> String {
    format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text:?}}},\"finish_reason\":null}}]}}\n\n"
    )
}

const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}\n\n\
    data: [DONE]\n\n";

fn sse(body: &str) -> Reply {
    Reply::stream("text/event-stream").send(body)
}

fn ndjson(body: &str) -> Reply {
    Reply::stream("application/x-ndjson").send(body)
}

#[tokio::test]
async fn a_chat_is_streamed_from_its_first_word_to_its_costs() {
    let text = format!("{}: OPENROUTER PROCESSING\n\n{}{STOP}", chunk("Grü"), chunk("ße 🎺!"));
    let mut server = Server::start([Reply::stream("text/event-stream").send_in_pieces_of(1, &text)]).await;
    let tools = openai(
        &server,
        "api_key = \"sk-secret\"\nsystem = \"Be brief.\"\nparameters = { temperature = 0.5 }\nheaders = { x-team = \"blue\" }",
    );
    let steps = ask(&tools).await;
    assert_eq!((&*steps[0], joined(&steps)), ("started", "Grüße 🎺!".into()));
    assert_eq!(steps[1], "delta Grü");
    assert_eq!(steps[steps.len() - 2..], ["message Grüße 🎺!", "done 12 stop"]);

    let Seen::Asked { path, headers, body } = server.seen().await else { panic!("no request") };
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(
        (&headers["authorization"], &headers["x-team"]),
        (&"Bearer sk-secret".parse().unwrap(), &"blue".parse().unwrap())
    );
    assert_eq!(headers["idempotency-key"].len(), 32);
    let expected = serde_json::json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.5,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}],
    });
    assert_eq!(body, expected);
    let shown = format!("{tools:?}");
    assert!(!shown.contains("sk-secret") && !shown.contains("blue"), "{shown}");
    assert_eq!((tools.stats()[0].completed, tools.stats()[0].health), (1, Health::Healthy));
}

#[tokio::test]
async fn an_endpoint_that_does_not_stream_is_understood() {
    let body =
        r#"{"choices":[{"message":{"content":"Whole."},"finish_reason":"stop"}],"usage":{"total_tokens":3}}"#;
    let server = Server::start([Reply::whole(200, "application/json", body)]).await;
    assert_eq!(ask(&openai(&server, "")).await, ["started", "message Whole.", "done 3 stop"]);
}

#[tokio::test]
async fn a_backend_answers_in_one_piece() {
    for (content_type, body, message) in [
        ("application/json", r#"{"message": "Scattering.", "score": 1}"#, "message Scattering."),
        ("application/json", r#"{"score": 1}"#, r#"message {"score": 1}"#),
        ("text/plain; charset=utf-8", "Scattering.", "message Scattering."),
        ("text/plain", "", "message "),
    ] {
        let mut server = Server::start([Reply::whole(200, content_type, body)]).await;
        assert_eq!(ask(&http(&server, "")).await, ["started", message, "done 0 "]);
        let Seen::Asked { path, headers, body } = server.seen().await else { panic!("no request") };
        assert_eq!((&*path, &headers["content-type"]), ("/ask", &"application/json".parse().unwrap()));
        let expected = serde_json::json!({"requestId": "r1", "toolId": "t", "sessionId": "s1", "userId": "ann",
            "message": "Why is the sky blue?", "extra": {}});
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn text_of_unknown_length_comes_as_it_is_made() {
    // If the machine is too slow to read it in pieces, they come more slowly.
    let mut steps = Vec::new();
    for pause in [1, 50, 500] {
        let mut reply = Reply::stream("text/plain");
        for piece in ["Bl", "au, ", "weil ", "🎺 ", "漢", "字…"] {
            reply = reply.send(piece).pause(pause);
        }
        let server = Server::start([reply]).await;
        steps = ask(&http(&server, "delta_window = \"0s\"")).await;
        assert_eq!(joined(&steps), "Blau, weil 🎺 漢字…");
        assert_eq!(steps[steps.len() - 2..], ["message Blau, weil 🎺 漢字…", "done 0 "]);
        if steps.len() > 5 {
            break;
        }
    }
    assert!(steps.len() > 5, "{steps:?}");
}

#[tokio::test]
async fn the_first_text_comes_at_once_and_held_text_before_whatever_follows() {
    let reply = ndjson("{\"delta\":\"a\"}\n").pause(20).send("{\"delta\":\"b\"}\n{\"delta\":\"c\"}\n").pause(20).send(
        "{\"progress\":50,\"message\":\"half\"}\n{\"delta\":\"d\"}\n{\"delta\":\"e\"}\n{\"done\":true,\"usage\":{\"total_tokens\":9}}\n",
    );
    let server = Server::start([reply]).await;
    let steps = ask(&http(&server, &format!("delta_window = \"{NEVER}\""))).await;
    assert_eq!(
        steps,
        ["started", "delta a", "delta bc", "progress 50 half", "delta de", "message abcde", "done 9 "]
    );
}

#[tokio::test]
async fn of_many_progresses_the_newest_come() {
    // If the machine is too slow to see any between the first and the last, they come more slowly.
    for pause in [5, 50] {
        let mut reply = Reply::stream("application/x-ndjson");
        for percent in 1..=90 {
            reply = reply.send(&format!("{{\"progress\":{percent}}}\n")).pause(pause);
        }
        let reply = reply.send("{\"delta\":\"a\"}\n{\"progress\":91}\n{\"done\":true}\n");
        let server = Server::start([reply]).await;
        let began = std::time::Instant::now();
        let steps = ask(&http(&server, "")).await;
        let progresses: Vec<&String> = steps.iter().filter(|step| step.starts_with("progress")).collect();
        assert_eq!((&**progresses[0], &**progresses[progresses.len() - 1]), ("progress 1 ", "progress 91 "));
        // One in a fifth of a second, the first, the one that other text lets go, and the last.
        let most = began.elapsed().as_millis() / 200 + 3;
        assert!(progresses.len() as u128 <= most, "{progresses:?}, {most} at most");
        assert_eq!(steps[steps.len() - 2..], ["message a", "done 0 "]);
        if progresses.len() >= 3 {
            return;
        }
    }
    panic!("none between the first and the last");
}

#[tokio::test]
async fn many_small_pieces_become_few_events() {
    let words: Vec<String> = (0..100).map(|n| format!("wörd{n} ")).collect();
    // If the machine is too slow to see the windows pass, words come more slowly.
    for pause in [5, 50] {
        let mut reply = Reply::stream("text/event-stream");
        for word in &words {
            reply = reply.send(&chunk(word)).pause(pause);
        }
        let server = Server::start([reply.send(STOP)]).await;
        let began = std::time::Instant::now();
        let steps = ask(&openai(&server, "delta_window = \"50ms\"")).await;
        assert_eq!(joined(&steps), words.concat());
        let deltas = steps.len() as u128 - 3;
        // One each window, the first, and the one that the end lets go.
        let most = began.elapsed().as_millis() / 50 + 2;
        assert!(deltas <= most, "{deltas} deltas, {most} at most");
        if deltas >= 3 {
            return;
        }
    }
    panic!("all came at once");
}

#[tokio::test]
async fn a_listener_who_is_slow_gets_every_byte() {
    let mut reply = Reply::stream("application/x-ndjson");
    let text = "0123456789abcdef🎺".repeat(50);
    for _ in 0..200 {
        reply = reply.send(&format!("{{\"delta\":{text:?}}}\n"));
    }
    let server = Server::start([reply]).await;
    let tools = http(&server, "delta_window = \"0s\"");
    let mut running = tools.start(request("ann")).unwrap();
    let mut steps = Vec::new();
    while let Some(step) = next(&mut running).await {
        tokio::time::sleep(Duration::from_millis(2)).await;
        steps.push(step);
    }
    assert_eq!(joined(&steps), text.repeat(200));
    assert_eq!(steps[steps.len() - 2], format!("message {}", text.repeat(200)));
}

#[tokio::test]
async fn refusals_are_told_with_the_backends_own_words() {
    for (status, body, told) in [
        (
            404,
            r#"{"error":{"message":"no such shelf"}}"#,
            "failed tool_failed: the tool answered 404: no such shelf",
        ),
        (500, r#"{"error":"stack trace"}"#, "failed tool_failed: the tool answered 500"),
        (307, "", "failed tool_failed: the tool answered 307; redirects are not followed"),
    ] {
        let mut server = Server::start([Reply::whole(status, "application/json", body)]).await;
        assert_eq!(ask(&http(&server, "")).await, ["started", told]);
        server.expect_asked(1).await;
    }
    let mut server =
        Server::start([Reply::whole(401, "application/json", r#"{"error":{"message":"key sk-1"}}"#)]).await;
    assert_eq!(ask(&openai(&server, "")).await, ["started", "failed tool_failed: the tool answered 401"]);
    server.expect_asked(1).await;
}

#[tokio::test]
async fn a_busy_tool_is_asked_again_with_the_same_key() {
    let busy = Reply::whole(429, "text/plain", "slow down");
    let mut server = Server::start([
        busy.clone(),
        busy.clone().header("retry-after", "1"),
        ndjson("{\"delta\":\"ok\"}\n"),
    ])
    .await;
    let tools = http(&server, "");
    let began = std::time::Instant::now();
    assert_eq!(ask(&tools).await, ["started", "delta ok", "message ok", "done 0 "]);
    assert!(began.elapsed() >= Duration::from_secs(1), "the second refusal asked for a second");
    let keys: Vec<_> =
        server.expect_asked(3).await.iter().map(|headers| headers["idempotency-key"].clone()).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let stats = tools.stats().remove(0);
    assert_eq!((stats.retried, stats.completed, stats.failed), (2, 1, 0));

    let mut server = Server::start([busy.clone()]).await;
    assert_eq!(ask(&openai(&server, "")).await, ["started", "failed tool_busy: the tool answered 429"]);
    server.expect_asked(3).await;

    let mut server = Server::start([busy.header("retry-after", "999")]).await;
    let mut running = http(&server, "").start(request("ann")).unwrap();
    assert_eq!(next(&mut running).await.unwrap(), "started");
    let Some(Step::Failed(failure)) = running.next().await else { panic!("no failure") };
    assert_eq!((failure.code, failure.may_retry), (Code::ToolBusy, true));
    assert_eq!(failure.retry_after, Some(Duration::from_secs(999)));
    server.expect_asked(1).await;
}

#[tokio::test]
async fn a_broken_answer_is_asked_for_again_only_where_that_does_no_harm_and_nothing_was_said() {
    let broken = "failed tool_failed: the tool closed its connection before the answer was complete";
    let good = sse(&format!("{}{STOP}", chunk("ok")));
    // Before any text.
    let early = Reply::stream("text/event-stream").send(": hello\n\n").pause(5).act(Act::Break);
    let mut server = Server::start([early.clone(), good.clone()]).await;
    assert_eq!(ask(&openai(&server, "")).await, ["started", "delta ok", "message ok", "done 12 stop"]);
    server.expect_asked(2).await;
    let mut server = Server::start([early]).await;
    assert_eq!(ask(&http(&server, "")).await, ["started", broken]);
    server.expect_asked(1).await;
    // After some.
    let late = sse(&chunk("so far")).pause(5).act(Act::Break);
    let mut server = Server::start([late, good.clone()]).await;
    assert_eq!(ask(&openai(&server, "")).await, ["started", "delta so far", broken]);
    server.expect_asked(1).await;
    // A clean end of the body that is no end of the answer.
    let mut server = Server::start([sse(""), good]).await;
    assert_eq!(ask(&openai(&server, "")).await.last().unwrap(), "done 12 stop");
    server.expect_asked(2).await;
    // No answer at all.
    let mut server = Server::start([Reply::none()]).await;
    assert_eq!(ask(&openai(&server, "retries = 1")).await, ["started", broken]);
    server.expect_asked(2).await;
}

#[tokio::test]
async fn errors_within_a_stream_end_it_after_the_text_before_them() {
    let body =
        "{\"delta\":\"a\"}\n{\"delta\":\"b\"}\n{\"error\":{\"message\":\"out of ink\"}}\n{\"delta\":\"c\"}\n";
    let server = Server::start([ndjson(body)]).await;
    let steps = ask(&http(&server, &format!("delta_window = \"{NEVER}\""))).await;
    assert_eq!(steps, ["started", "delta a", "delta b", "failed tool_failed: out of ink"]);

    let error = "data: {\"error\":{\"message\":\"org-1 \",\"type\":\"server_error\"}}\n\n";
    let mut server = Server::start([sse(&format!("{}{error}", chunk("a")))]).await;
    let failed = "failed tool_failed: the model's endpoint reported an error: server_error";
    assert_eq!(ask(&openai(&server, "")).await, ["started", "delta a", failed]);
    server.expect_asked(1).await;
}

#[tokio::test]
async fn silence_is_noticed_wherever_it_falls() {
    // Before the head, after the head, within the text.
    let cases = [
        (
            Reply::hung(),
            "first_byte_timeout = \"2s\"",
            vec!["failed tool_timeout: the tool was silent for 2s"],
        ),
        (
            Reply::stream("application/x-ndjson").act(Act::Hang),
            "first_byte_timeout = \"2s\"",
            vec!["failed tool_timeout: the tool was silent for 2s"],
        ),
        (
            ndjson("{\"delta\":\"a\"}\n{\"delta\":\"b\"}\n").act(Act::Hang),
            "idle_timeout = \"2s\"\ndelta_window = \"1h\"",
            vec!["delta a", "delta b", "failed tool_timeout: the tool was silent for 2s"],
        ),
    ];
    for (reply, settings, steps) in cases {
        let mut server = Server::start([reply]).await;
        let tools = http(&server, settings);
        assert_eq!(ask(&tools).await[1..], steps);
        server.expect_asked(1).await;
        server.expect_gone().await;
        assert_eq!(tools.stats()[0].last_failure.as_ref().unwrap().code, "tool_timeout");
    }
    // A model is asked again.
    let mut server = Server::start([Reply::hung(), sse(&format!("{}{STOP}", chunk("ok")))]).await;
    assert_eq!(ask(&openai(&server, "first_byte_timeout = \"2s\"")).await[1..3], ["delta ok", "message ok"]);
    server.expect_gone_among(2).await;
}

#[tokio::test]
async fn signs_of_life_keep_a_request_up_to_its_total_time() {
    let mut reply = Reply::stream("text/event-stream");
    for _ in 0..1_000 {
        reply = reply.send(": still here\n\n").pause(10);
    }
    let mut server = Server::start([reply]).await;
    let tools = openai(&server, "idle_timeout = \"3s\"\nfirst_byte_timeout = \"3s\"\ntotal_timeout = \"5s\"");
    let steps = ask(&tools).await;
    assert_eq!(steps, ["started", "failed tool_timeout: the tool has not finished within 5s"]);
    server.expect_asked(1).await;
    server.expect_gone().await;
}

#[tokio::test]
async fn what_is_too_long_is_not_read_to_its_end() {
    let endless = |piece: String| {
        let mut reply = Reply::stream("application/x-ndjson");
        for _ in 0..2_000 {
            reply = reply.send(&piece);
        }
        reply.act(Act::Hang)
    };
    let long = "a".repeat(9_000);
    for piece in [format!("{{\"delta\":{long:?}}}\n"), long] {
        let mut server = Server::start([endless(piece)]).await;
        let steps = ask(&http(&server, "answer_bytes_max = 20000")).await;
        let failed = "failed tool_answer_too_large: the tool's answer exceeds answer_bytes_max of 20000";
        assert_eq!(steps.last().unwrap(), failed);
        assert!(joined(&steps).len() <= 20_000);
        server.expect_asked(1).await;
        server.expect_gone().await;
    }
    let server =
        Server::start([Reply::whole(200, "application/json", &format!("{:?}", "a".repeat(30_000)))]).await;
    let steps = ask(&http(&server, "answer_bytes_max = 20000")).await;
    assert!(steps[1].starts_with("failed tool_answer_too_large"), "{steps:?}");
}

#[tokio::test]
async fn cancelling_lets_held_text_go_and_closes_the_connection() {
    let reply = ndjson("{\"delta\":\"a\"}\n")
        .pause(5)
        .send("{\"delta\":\"b\"}\n{\"progress\":1}\n{\"delta\":\"c\"}\n");
    let mut server = Server::start([reply.act(Act::Hang)]).await;
    let tools = http(&server, &format!("delta_window = \"{NEVER}\""));
    let mut running = tools.start(request("ann")).unwrap();
    for expected in ["started", "delta a", "delta b", "progress 1 "] {
        assert_eq!(next(&mut running).await.unwrap(), expected);
    }
    let canceller = running.canceller();
    canceller.cancel();
    canceller.cancel();
    assert_eq!(rest(&mut running).await, ["delta c", "failed tool_cancelled: the request was cancelled"]);
    server.expect_asked(1).await;
    server.expect_gone().await;
    let stats = tools.stats().remove(0);
    assert_eq!((stats.cancelled, stats.failed, stats.running, stats.health), (1, 0, 0, Health::Healthy));
    running.cancel();
    assert_eq!(running.next().await.map(|_| ()), None);
}

#[tokio::test]
async fn a_request_that_is_dropped_closes_the_connection_and_frees_its_place() {
    for reply in [Reply::hung(), ndjson("{\"delta\":\"a\"}\n").act(Act::Hang)] {
        let mut server = Server::start([reply]).await;
        let tools = http(&server, "concurrency = 1");
        let running = tools.start(request("ann")).unwrap();
        server.expect_asked(1).await;
        drop(running);
        server.expect_gone().await;
        let mut second = tools.start(request("bob")).unwrap();
        assert_eq!(next(&mut second).await.unwrap(), "started");
        let stats = tools.stats().remove(0);
        assert_eq!((stats.cancelled, stats.running, stats.accepted), (1, 1, 2));
    }
}

#[tokio::test]
async fn places_are_shared_and_the_queue_is_bounded() {
    let mut server = Server::start([Reply::hung()]).await;
    let tools = http(&server, "concurrency = 2\nconcurrency_per_user = 1\nqueue = 2\nqueue_per_user = 1");
    let mut ann = tools.start(request("ann")).unwrap();
    assert_eq!(next(&mut ann).await.unwrap(), "started");
    let mut ann_again = tools.start(request("ann")).unwrap();
    let refused = tools.start(request("ann")).unwrap_err();
    assert_eq!((refused.code, refused.may_retry), (Code::ToolBusy, true));
    assert!(refused.message.contains("1 of your requests"), "{refused}");
    let mut bob = tools.start(request("bob")).unwrap();
    assert_eq!(next(&mut bob).await.unwrap(), "started");
    let mut eve = tools.start(request("eve")).unwrap();
    let refused = tools.start(request("zoe")).unwrap_err();
    assert!(refused.message.contains("2 requests wait"), "{refused}");
    server.expect_asked(2).await;
    let stats = tools.stats().remove(0);
    assert_eq!((stats.running, stats.waiting, stats.refused, stats.accepted), (2, 2, 2, 4));
    // Bob's place goes to Eve, since Ann has one already; Ann's own goes to Ann.
    bob.cancel();
    assert_eq!(next(&mut eve).await.unwrap(), "started");
    drop(ann);
    assert_eq!(next(&mut ann_again).await.unwrap(), "started");
    // Whoever waits can be cancelled, too.
    let mut waiting = tools.start(request("ann")).unwrap();
    waiting.cancel();
    assert_eq!(rest(&mut waiting).await, ["failed tool_cancelled: the request was cancelled"]);
    assert_eq!(tools.stats()[0].waiting, 0);
}

#[tokio::test]
async fn waiting_has_an_end_that_is_not_the_tools_failure() {
    let server = Server::start([Reply::hung()]).await;
    let tools = http(&server, "concurrency = 1\nqueue_timeout = \"50ms\"");
    let mut first = tools.start(request("ann")).unwrap();
    assert_eq!(next(&mut first).await.unwrap(), "started");
    let mut second = tools.start(request("bob")).unwrap();
    let steps = rest(&mut second).await;
    assert_eq!(steps, ["failed tool_busy: the request's turn did not come within 50ms"]);
    let stats = tools.stats().remove(0);
    assert_eq!((stats.failed, stats.consecutive_failures, stats.health), (1, 0, Health::Healthy));
}

#[tokio::test]
async fn a_tool_that_cannot_be_reached_is_shown_as_failing() {
    let (url, _nobody) = Server::closed_url();
    let tools = tools(&format!("kind = \"http\"\nurl = \"{url}\"\nretries = 1\nretry_delay = \"5ms\""));
    for health in [Health::Degraded, Health::Degraded, Health::Failing] {
        assert_eq!(ask(&tools).await, ["started", "failed tool_failed: the tool cannot be reached"]);
        assert_eq!(tools.stats()[0].health, health);
    }
    let stats = tools.stats().remove(0);
    assert_eq!((stats.retried, stats.failed, stats.consecutive_failures), (3, 3, 3));
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    // The rest of the body comes after the answer: if the machine is too slow, it has more time for it.
    let mut connections = 0;
    for rest in [60, 1_000, 10_000].map(Duration::from_millis) {
        let reply = sse(&format!("{}{STOP}", chunk("ok"))).pause(10).send("\n");
        let mut server = Server::start([reply]).await;
        let tools = openai(&server, "");
        for _ in 0..3 {
            assert_eq!(ask(&tools).await.last().unwrap(), "done 12 stop");
            tokio::time::sleep(rest).await;
        }
        server.expect_asked(3).await;
        connections = server.connections();
        if connections == 1 {
            break;
        }
    }
    assert_eq!(connections, 1);
}

#[tokio::test]
async fn certificates_of_a_private_authority_are_trusted_if_named() {
    let (server, ca_file) = Server::start_tls(ndjson("{\"delta\":\"safe\"}\n")).await;
    let url = &server.url;
    let settings = format!("kind = \"http\"\nurl = \"{url}\"\nretries = 0");
    assert_eq!(ask(&tools(&settings)).await, ["started", "failed tool_failed: the tool cannot be reached"]);
    let settings = format!("{settings}\nca_file = {:?}", ca_file.path());
    assert_eq!(ask(&tools(&settings)).await, ["started", "delta safe", "message safe", "done 0 "]);

    let missing = config("kind = \"http\"\nurl = \"https://h\"\nca_file = \"/does/not/exist.pem\"");
    let fault =
        Tools::new([("t".to_owned(), missing)].into(), tokio::runtime::Handle::current()).unwrap_err();
    assert!(fault.to_string().starts_with("tools.t: ca_file /does/not/exist.pem: "), "{fault}");
}

#[tokio::test]
async fn the_echo_says_what_it_is_told() {
    let whole =
        Tools::new([("t".to_owned(), ToolConfig::echo())].into(), tokio::runtime::Handle::current()).unwrap();
    assert_eq!(ask(&whole).await, ["started", "message Why is the sky blue?", "done 0 "]);

    let slow = tools("kind = \"echo\"\nstream = true\nword_delay = \"5ms\"\ndelta_window = \"1h\"");
    let steps = ask(&slow).await;
    assert_eq!(
        steps,
        ["started", "delta Why ", "delta is the sky blue?", "message Why is the sky blue?", "done 0 "]
    );
    let mut steps = 0;
    for delay in ["30ms", "1s", "5s"] {
        let quick = format!("kind = \"echo\"\nstream = true\nword_delay = {delay:?}\ndelta_window = \"1ms\"");
        steps = ask(&tools(&quick)).await.len();
        if steps == 8 {
            break;
        }
    }
    assert_eq!(steps, 8);

    let unknown = Request { tool_id: "nobody".into(), ..request("ann") };
    let failure = whole.start(unknown).unwrap_err();
    assert_eq!(failure.to_string(), "unknown_tool: there is no tool \"nobody\"");
    let long = Request { message: "a".repeat(100_001), ..request("ann") };
    assert_eq!(whole.start(long).unwrap_err().code, Code::ToolMessageTooLarge);
    assert_eq!(whole.ids().collect::<Vec<_>>(), ["t"]);
}
