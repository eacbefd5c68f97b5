//! Authentication as an attacker meets it: each refusal has its code, is in the audit log, and tells no secret.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::fanfare::{DataDir, Fanfare, PATIENCE, Reply, agent, command, until};
use crate::installed::succeed;
use crate::watcher::Watcher;

const SECRET: &str = "the-secret-that-signs-all-our-tokens";
const PAIRS: &str = "the-secret-that-signs-all-our-users-";
pub(crate) const KEY: &str = "the-api-key-of-this-server-here";

/// A server that wants to know who comes, and its log.
pub(crate) struct Guarded {
    pub(crate) server: Fanfare,
    log: PathBuf,
}

impl Guarded {
    pub(crate) fn start(name: &str, settings: &[&str]) -> Self {
        let secrets = [("JWT_SECRET", SECRET), ("FANFARE_SIGNING_SECRET", PAIRS), ("FANFARE_API_KEY", KEY)];
        Self::start_with(name, &secrets, settings)
    }

    /// As [`Guarded::start`], with its data in this folder.
    pub(crate) fn start_in(name: &str, data: &Path, settings: &[&str]) -> Self {
        let data = data.to_str().expect("a path that is text");
        let environment = [("JWT_SECRET", SECRET), ("FANFARE_API_KEY", KEY), ("FANFARE_DATA_DIR", data)];
        Self::start_with(name, &environment, settings)
    }

    fn start_with(name: &str, environment: &[(&str, &str)], settings: &[&str]) -> Self {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("auth-{name}.log"));
        let file = std::fs::File::create(&log).expect("a log");
        let mut serve = command(&["serve", "--only", "api", "--api-port", "0", "--log-format", "json"]);
        serve.envs(environment.iter().copied());
        for setting in settings {
            serve.args(["--set", setting]);
        }
        Self { server: Fanfare::spawn_logging(&mut serve, Stdio::from(file)), log }
    }

    /// Connects to a namespace with an auth payload; answers the socket and its greeting, or the code of the refusal.
    pub(crate) fn connect(&self, namespace: &str, auth: &Value) -> Result<(Watcher, Value), String> {
        self.open(namespace, "", &[], auth)
    }

    fn open(
        &self,
        namespace: &str,
        query: &str,
        headers: &[(&str, &str)],
        auth: &Value,
    ) -> Result<(Watcher, Value), String> {
        let url = format!("{}/socket.io/", self.server.api());
        let (mut watcher, _) = Watcher::open(&url, namespace, query, headers, auth).map_err(|refusal| {
            assert!(refusal["message"].as_str().is_some_and(|message| !message.is_empty()), "{refusal}");
            refusal["data"]["code"].as_str().expect("a code").to_owned()
        })?;
        let (name, greeting) = watcher.event();
        assert_eq!(name, "connection_established");
        Ok((watcher, greeting))
    }

    pub(crate) fn refused(&self, namespace: &str, auth: &Value) -> String {
        self.connect(namespace, auth).err().unwrap_or_else(|| panic!("{auth} is accepted"))
    }

    pub(crate) fn request(&self, method: &str, path: &str, key: Option<&str>, body: &str) -> Reply {
        let request =
            ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.server.api()));
        let request = match key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        };
        Reply::of(agent().run(request.body(body.to_owned()).expect("a request")).expect("an answer"))
    }

    /// Lines of the audit log with this action.
    fn audit(&self, action: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).expect("a log");
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["target"] == "audit" && line["action"] == action).collect()
    }

    /// The same, once there are as many as this at least: they are written beside the answer.
    fn audited(&self, action: &str, count: usize) -> Vec<Value> {
        until(PATIENCE, &format!("{count} times {action}"), || self.audit(action).len() >= count);
        self.audit(action)
    }

    /// Waits for a line of the audit log with this action, of which this holds.
    fn audits(&self, action: &str, holds: impl Fn(&Value) -> bool) {
        until(PATIENCE, action, || self.audit(action).iter().any(&holds));
    }

    /// Asserts that none of these texts is anywhere in the log.
    fn keeps_quiet_about(&self, secrets: &[&str]) {
        let text = std::fs::read_to_string(&self.log).expect("a log");
        for secret in secrets.iter().chain(&[SECRET, PAIRS, KEY]) {
            assert!(!text.contains(secret), "{secret} is in\n{text}");
        }
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn join_parts(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token signed with HS256.
fn signed(secret: &str, claims: &Value) -> String {
    join_parts(&json!({ "alg": "HS256", "typ": "JWT" }), claims, |message| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message).as_ref().to_vec()
    })
}

/// A good token of this user.
pub(crate) fn token(user: &str, more: &Value) -> String {
    let mut claims = json!({ "sub": user, "exp": seconds() + 600 });
    for (name, value) in more.as_object().expect("claims") {
        claims[name] = value.clone();
    }
    signed(SECRET, &claims)
}

pub(crate) fn with(token: &str) -> Value {
    json!({ "token": token })
}

#[test]
fn whoever_cannot_prove_who_they_are_is_refused_with_the_reason() {
    let guarded = Guarded::start("refusals", &["auth.issuer=us", "auth.audience=fanfare"]);
    let good = |more: Value| {
        let mut claims = json!({ "iss": "us", "aud": "fanfare" });
        for (name, value) in more.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        token("ann", &claims)
    };
    assert_eq!(guarded.connect("/", &with(&good(json!({})))).unwrap().1["user_id"], "ann");
    let none = join_parts(&json!({ "alg": "none" }), &json!({ "sub": "ann", "iss": "us" }), |_| Vec::new());
    let foreign = signed("somebody else's secret of 32 bytes", &json!({ "sub": "ann" }));
    let attempts = [
        (json!({}), "token_missing"),
        (json!({ "userId": "ann", "sessionId": "s" }), "token_missing"),
        (json!({ "token": "" }), "token_missing"),
        (json!({ "token": 7 }), "token_malformed"),
        (with("nonsense"), "token_malformed"),
        (with(&"x".repeat(9000)), "token_too_long"),
        (with(&none), "token_algorithm_refused"),
        (with(&foreign), "token_wrong_signature"),
        (with(&good(json!({ "exp": seconds() - 60 }))), "token_expired"),
        (with(&good(json!({ "nbf": seconds() + 60 }))), "token_not_yet_valid"),
        (with(&good(json!({ "iss": "them" }))), "token_wrong_issuer"),
        (with(&good(json!({ "aud": "another" }))), "token_wrong_audience"),
        (with(&good(json!({ "projects": ["*"] }))), "token_bad_claim"),
        (with(&good(json!({ "sub": "" }))), "token_claim_missing"),
        (json!({ "token": good(json!({})), "userId": "bob" }), "token_other_user"),
        (json!({ "token": good(json!({ "sid": "s1" })), "sessionId": "s2" }), "token_other_user"),
        (with(&format!("ann:{}", "0".repeat(64))), "token_wrong_signature"),
        (with("ff_00000000_secret"), "key_unknown"),
        (with(&KEY[1..]), "token_malformed"),
    ];
    for namespace in ["/", "/ws", "/admin"] {
        for (auth, code) in &attempts {
            assert_eq!(guarded.refused(namespace, auth), *code, "{namespace} {auth}");
        }
    }
    let audited = guarded.audited("connect_refused", attempts.len() * 3);
    assert_eq!(audited.len(), attempts.len() * 3);
    for (_, code) in &attempts {
        assert!(audited.iter().any(|line| line["code"] == *code && line["address"] == "127.0.0.1"), "{code}");
    }
    assert_eq!(guarded.audited("connect", 1)[0]["user"], "ann");
    guarded.keeps_quiet_about(&[&none, &foreign, "nonsense", "ff_00000000_secret", &KEY[1..]]);
}

#[test]
fn a_public_key_cannot_be_used_as_a_secret() {
    let pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("../auth/tests/keys/rsa.pub.pem");
    let setting = format!("auth.jwt_public_key={}", pem.display());
    let guarded = Guarded::start_with("confusion", &[], &[&setting]);
    let text = std::fs::read_to_string(&pem).unwrap();
    for secret in [text.as_str(), text.trim()] {
        let forged = signed(secret, &json!({ "sub": "ann", "roles": ["admin"] }));
        assert_eq!(guarded.refused("/", &with(&forged)), "token_algorithm_refused");
        assert_eq!(guarded.request("GET", "/stats", Some(&forged), "").refusal().0, 401);
    }
}

#[test]
fn a_token_is_found_wherever_clients_can_put_it() {
    let guarded = Guarded::start("places", &[]);
    let (ann, bob) = (token("ann", &json!({})), token("bob", &json!({})));
    let header = format!("Bearer {ann}");
    let query = format!("&token={ann}");
    let user = |query: &str, headers: &[(&str, &str)], auth: Value| {
        guarded.open("/", query, headers, &auth).unwrap().1["user_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(user("", &[], with(&ann)), "ann");
    assert_eq!(user("", &[("authorization", &header)], json!(null)), "ann");
    assert_eq!(user(&query, &[], json!(null)), "ann");
    assert_eq!(user(&query, &[("authorization", &header)], with(&bob)), "bob", "the payload comes first");

    let pair = {
        let key = hmac::Key::new(hmac::HMAC_SHA256, PAIRS.as_bytes());
        let bytes = hmac::sign(&key, b"cleo");
        let hex: String = bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("cleo:{hex}")
    };
    assert_eq!(user("", &[], with(&pair)), "cleo");
    assert_eq!(user("", &[], with(KEY)), "key:default");
    let (_, greeting) =
        guarded.connect("/", &json!({ "token": ann, "userId": "ann", "sessionId": "s1" })).unwrap();
    assert_eq!(greeting["session_id"], "s1");
    assert_eq!(greeting["rooms"].as_array().unwrap()[..], ["dashboard", "global", "session:s1", "user:ann"]);
    guarded.keeps_quiet_about(&[&ann, &bob, &pair]);
}

#[test]
fn rooms_of_others_stay_closed() {
    let guarded = Guarded::start("rooms", &[]);
    let claims = json!({ "sid": "s1", "projects": ["p1"], "rooms": ["team-*"] });
    let (mut ann, _) = guarded.connect("/", &with(&token("ann", &claims))).unwrap();
    for (room, outcome) in [
        ("project:p1", Value::Null),
        ("team-7", Value::Null),
        ("user:ann", Value::Null),
        ("session:s1", Value::Null),
        ("tasks", Value::Null),
        ("project:p2", json!("forbidden")),
        ("project:p11", json!("forbidden")),
        ("project:*", json!("forbidden")),
        ("user:bob", json!("forbidden")),
        ("session:s2", json!("forbidden")),
        ("admin", json!("forbidden")),
        ("agent:a", json!("forbidden")),
        ("anything", json!("forbidden")),
        ("", json!("bad_room_name")),
    ] {
        for command in ["join_room", "subscribe"] {
            let (answer, _) = ann.ask(command, &json!({ "room": room }));
            assert_eq!(answer["error"]["code"], outcome, "{room}: {answer}");
        }
    }
    for room in ["project:p2", "user:bob", "admin"] {
        let event = json!({ "event": "secret", "room": room }).to_string();
        assert_eq!(guarded.request("POST", "/api/v1/events", Some(KEY), &event).status, 201);
    }
    let event = json!({ "event": "ours", "room": "project:p1" }).to_string();
    guarded.request("POST", "/api/v1/events", Some(KEY), &event);
    assert_eq!(ann.event().0, "ours", "nothing of the others' rooms came before it");

    guarded.audits("join_refused", |line| line["room"] == "admin" && line["user"] == "ann");
    guarded.audits("join", |line| line["room"] == "project:p1");
    assert_eq!(guarded.refused("/admin", &with(&token("ann", &claims))), "role_missing");
    let admin = token("root", &json!({ "roles": "admin" }));
    guarded.connect("/admin", &with(&admin)).unwrap();
    let (mut root, _) = guarded.connect("/", &with(&admin)).unwrap();
    assert_eq!(root.ask("subscribe", &json!({ "room": "project:p2" })).0["ok"], true);
}

#[test]
fn a_session_id_that_was_guessed_is_worth_nothing() {
    let guarded = Guarded::start("sids", &[]);
    let (_ann, greeting) = guarded.connect("/", &with(&token("ann", &json!({})))).unwrap();
    let socket = greeting["connection_id"].as_str().unwrap();
    let mut other = socket.to_owned();
    other.replace_range(19.., if socket.ends_with('A') { "B" } else { "A" });
    // What everybody may see of a socket is not its session's id either.
    for sid in [socket, &other, "AAAAAAAAAAAAAAAAAAAA", "..", ""] {
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        for method in ["GET", "POST"] {
            let status = guarded.request(method, &path, None, "40").status;
            let is_new_session = sid.is_empty() && method == "GET";
            assert_eq!(status, if is_new_session { 200 } else { 400 }, "{method} {sid}");
        }
    }
}

#[test]
fn requests_need_a_key_or_an_admin() {
    let make = command(&["key", "make", "--name", "ci", "--scope", "publish"]).output().unwrap();
    let printed = String::from_utf8(make.stdout).unwrap();
    let word = |start: &str| {
        let found = printed.split([' ', '\n', '"']).find(|word| word.starts_with(start));
        found.unwrap_or_else(|| panic!("{start} is not in {printed}")).to_owned()
    };
    let (ci, line) = (word("ff_"), word("ci:"));
    let guarded = Guarded::start("requests", &[&format!("auth.api_keys={line}")]);
    let (ann, admin) = (token("ann", &json!({})), token("root", &json!({ "roles": ["admin"] })));
    let event = r#"{"event":"e","room":"global"}"#;
    let revocation = r#"{"jti":"none"}"#;
    for (method, path, body, ok) in [
        ("POST", "/api/v1/events", event, 201),
        ("POST", "/api/v1/events/batch", event, 201),
        ("GET", "/stats", "", 200),
        ("GET", "/api/v1/websocket/stats", "", 200),
        ("GET", "/metrics", "", 200),
        ("POST", "/api/v1/revocations", revocation, 200),
        ("GET", "/no/such", "", 404),
    ] {
        let status = |key: Option<&str>| guarded.request(method, path, key, body).status;
        assert_eq!(status(None), 401, "{path}");
        assert_eq!(status(Some("wrong")), 401, "{path}");
        assert_eq!(status(Some(&ci[..ci.len() - 1])), 401, "{path}");
        assert_eq!(status(Some(&ann)), 403, "{path}");
        assert_eq!(status(Some(&ci)), if ok == 201 { 201 } else { 403 }, "{path}");
        assert_eq!(status(Some(KEY)), ok, "{path}");
        assert_eq!(status(Some(&admin)), ok, "{path}");
    }
    let reply = guarded.request("GET", "/stats", None, "");
    assert_eq!(reply.refusal(), (401, "token_missing".to_owned()));
    assert_eq!(reply.header("www-authenticate"), "Bearer");
    assert_eq!(guarded.request("GET", "/stats", Some(&ann), "").refusal(), (403, "scope_missing".to_owned()));
    let with_header = agent().get(format!("{}/stats", guarded.server.api())).header("x-api-key", KEY);
    assert_eq!(Reply::of(with_header.call().unwrap()).status, 200);
    for path in ["/health", "/livez", "/readyz", "/", "/ui/page.js", "/socket.io/socket.io.min.js"] {
        assert_eq!(guarded.request("GET", path, None, "").status, 200, "{path}");
    }
    guarded.audits("request_refused", |line| line["code"] == "scope_missing" && line["path"] == "/stats");
    guarded.audits("operate", |line| line["path"] == "/api/v1/revocations");
    guarded.keeps_quiet_about(&[&ci, &ann, &admin]);
}

#[test]
fn what_is_revoked_ends_at_once_and_cannot_be_replayed() {
    let guarded = Guarded::start("revocation", &[]);
    let claims = |jti: &str| json!({ "jti": jti, "sid": format!("s-{jti}"), "iat": seconds() - 10 });
    let (first, second) = (token("ann", &claims("t1")), token("ann", &claims("t2")));
    let bob = token("bob", &claims("t3"));
    let (mut one, _) = guarded.connect("/", &with(&first)).unwrap();
    let (mut two, _) = guarded.connect("/ws", &with(&second)).unwrap();
    let (mut three, _) = guarded.connect("/", &with(&bob)).unwrap();
    let revoke = |subject: Value| {
        let reply = guarded.request("POST", "/api/v1/revocations", Some(KEY), &subject.to_string());
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["disconnected"].clone()
    };
    // Leaving its own room is no way out.
    one.ask("leave_room", &json!({ "room": "user:ann" }));
    assert_eq!(revoke(json!({ "jti": "t1" })), 1);
    assert_eq!(one.end(), []);
    assert_eq!(guarded.refused("/", &with(&first)), "token_revoked");
    assert_eq!(two.ask("ping", &json!(1)).0["ok"], true);

    assert_eq!(revoke(json!({ "user": "ann" })), 1);
    assert_eq!(two.end(), []);
    assert_eq!(guarded.refused("/", &with(&second)), "token_revoked");
    let later = token("ann", &json!({ "iat": seconds() + 3 }));
    assert!(guarded.connect("/", &with(&later)).is_ok(), "what was issued later is good");
    assert_eq!(three.ask("ping", &json!(1)).0["ok"], true);

    assert_eq!(revoke(json!({ "session": "s-t3" })), 1);
    assert_eq!(three.end(), []);
    assert_eq!(guarded.refused("/", &with(&bob)), "token_revoked");
    assert_eq!(guarded.audited("revoke", 3).len(), 3);
    for bad in ["{}", "{\"user\":\"\"}", "{\"user\":\"a\",\"jti\":\"b\"}", "{\"room\":\"a\"}", "7"] {
        let reply = guarded.request("POST", "/api/v1/revocations", Some(KEY), bad);
        assert_eq!(reply.refusal(), (400, "bad_request".to_owned()), "{bad}");
    }
    guarded.keeps_quiet_about(&[&first, &second, &bob]);
}

#[test]
fn what_is_revoked_stays_so_through_a_crash() {
    let data = DataDir::new();
    let environment = [
        ("JWT_SECRET", SECRET),
        ("FANFARE_API_KEY", KEY),
        ("FANFARE_DATA_DIR", data.path().to_str().unwrap()),
    ];
    let claims = |jti: &str| json!({ "jti": jti, "sid": format!("s-{jti}"), "iat": seconds() - 10 });
    let tokens = [token("ann", &claims("t1")), token("bob", &claims("t2")), token("cleo", &claims("t3"))];
    let good = token("dora", &claims("t4"));
    {
        let guarded = Guarded::start_with("revoked-before", &environment, &[]);
        assert!(guarded.connect("/", &with(&tokens[0])).is_ok());
        for subject in [json!({ "user": "ann" }), json!({ "session": "s-t2" }), json!({ "jti": "t3" })] {
            let reply = guarded.request("POST", "/api/v1/revocations", Some(KEY), &subject.to_string());
            assert_eq!(reply.status, 200, "{}", reply.body);
        }
        // Killed, as soon as it has answered.
    }
    let guarded = Guarded::start_with("revoked-after", &environment, &[]);
    for token in &tokens {
        assert_eq!(guarded.refused("/", &with(token)), "token_revoked");
    }
    assert!(guarded.connect("/", &with(&good)).is_ok());
    let later = token("ann", &json!({ "iat": seconds() + 3 }));
    assert!(guarded.connect("/", &with(&later)).is_ok(), "what was issued later is good");
    drop(guarded);

    // Kept for a few seconds only: after that there is nothing left of a new one.
    let guarded = Guarded::start_with("revoked-shortly", &environment, &["auth.revocations_kept=8s"]);
    let reply = guarded.request("POST", "/api/v1/revocations", Some(KEY), r#"{"jti":"t4"}"#);
    assert_eq!(reply.status, 200);
    assert_eq!(guarded.refused("/", &with(&good)), "token_revoked");
    std::thread::sleep(Duration::from_millis(8_500));
    drop(guarded);
    let guarded = Guarded::start_with("revoked-no-more", &environment, &[]);
    assert!(guarded.connect("/", &with(&good)).is_ok());
    assert_eq!(guarded.refused("/", &with(&tokens[2])), "token_revoked", "others are kept longer");
}

#[test]
fn a_socket_ends_with_its_token_unless_it_brings_a_new_one() {
    // Long enough for all that must be done before the end, also if the machine stands still meanwhile.
    let guarded = Guarded::start("expiry", &["auth.expiry_warning=15s"]);
    let end = seconds() + 20;
    let short = token("ann", &json!({ "exp": end, "projects": ["p1", "p2"] }));
    let (mut leaver, _) = guarded.connect("/", &with(&short)).unwrap();
    let (mut stayer, greeting) = guarded.connect("/", &with(&short)).unwrap();
    for room in ["project:p1", "project:p2"] {
        assert_eq!(stayer.ask("subscribe", &json!({ "room": room })).0["ok"], true);
    }
    let (name, told) = stayer.event();
    assert_eq!(name, "token_expiring");
    assert!(told["expires_in_ms"].as_u64().is_some_and(|left| left <= 15_000), "{told}");

    for (bad, code) in [
        (json!({ "token": token("bob", &json!({})) }), "token_other_user"),
        (json!({ "token": signed("another", &json!({ "sub": "ann" })) }), "token_wrong_signature"),
        (json!({ "token": 7 }), "bad_payload"),
        (json!({}), "bad_payload"),
    ] {
        assert_eq!(stayer.ask("refresh_token", &bad).0["error"]["code"], code);
    }
    let long = token("ann", &json!({ "projects": ["p1"] }));
    let (answer, _) = stayer.ask("refresh_token", &with(&long));
    assert_eq!((&answer["ok"], &answer["left"]), (&json!(true), &json!(["project:p2"])));

    assert_eq!(leaver.end().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["token_expiring"]);
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(ended >= end as f64 - 1.0, "{ended} {end}");
    assert_eq!(guarded.audited("expired", 1)[0]["user"], "ann");

    std::thread::sleep(Duration::from_secs(2));
    let event = json!({ "event": "still", "room": "project:p1" }).to_string();
    guarded.request("POST", "/api/v1/events", Some(KEY), &event);
    assert_eq!(stayer.event().0, "still", "same socket, same rooms");
    assert_eq!(stayer.ask("ping", &json!(1)).0["ok"], true);
    assert_eq!(greeting["user_id"], "ann");
    assert_eq!(guarded.audited("expired", 1).len(), 1);

    let endless = signed(SECRET, &json!({ "sub": "ann" }));
    let (mut late, _) = guarded.connect("/", &with(&endless)).unwrap();
    let soon = token("ann", &json!({ "exp": seconds() + 8 }));
    let (answer, before) = late.ask("refresh_token", &with(&soon));
    assert_eq!(answer["ok"], true);
    let told: Vec<String> = before.into_iter().chain(late.end()).map(|(name, _)| name).collect();
    assert_eq!(told, ["token_expiring"], "an end may come by a refresh, too");
    assert_eq!(guarded.audited("refresh_refused", 2).len(), 2);
    guarded.keeps_quiet_about(&[&short, &long]);
}

#[test]
fn keys_of_an_issuer_may_change_while_we_run() {
    let pair = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let set = move |seeds: &[u8]| {
        let keys: Vec<Value> = seeds
            .iter()
            .map(|seed| {
                let x = URL_SAFE_NO_PAD.encode(pair(*seed).public_key());
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": format!("k{seed}"), "x": x })
            })
            .collect();
        (200, json!({ "keys": keys }).to_string())
    };
    let held = Arc::new(Mutex::new(set(&[1])));
    let served = held.clone();
    let issuer = Backend::start(move |_, _| served.lock().unwrap().clone());
    let url = format!("auth.jwks_url={}", issuer.url("/keys"));
    let guarded = Guarded::start_with("jwks", &[], &[&url, "auth.jwks_refresh_min=1s"]);
    let made = |seed: u8, kid: &str| {
        join_parts(&json!({ "alg": "EdDSA", "kid": kid }), &json!({ "sub": "ann" }), |message| {
            pair(seed).sign(message).as_ref().to_vec()
        })
    };
    let eventually =
        |token: &str| until(PATIENCE, "it is accepted", || guarded.connect("/", &with(token)).is_ok());
    eventually(&made(1, "k1"));
    let (fetches, begun) = (issuer.asked("/keys").len() as u64, Instant::now());
    for _ in 0..20 {
        assert_eq!(guarded.refused("/", &with(&made(9, "k9"))), "token_key_unknown");
    }
    let caused = issuer.asked("/keys").len() as u64 - fetches;
    // One in a second.
    assert!(caused <= 2 + begun.elapsed().as_secs(), "made-up keys caused {caused} requests");
    assert_eq!(guarded.refused("/", &with(&made(2, "k1"))), "token_wrong_signature");

    *held.lock().unwrap() = set(&[2]);
    eventually(&made(2, "k2"));
    assert_eq!(guarded.refused("/", &with(&made(1, "k1"))), "token_key_unknown", "withdrawn");
    *held.lock().unwrap() = (500, String::new());
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(guarded.refused("/", &with(&made(3, "k3"))), "token_key_unknown");
    assert!(
        guarded.connect("/", &with(&made(2, "k2"))).is_ok(),
        "an issuer that is away takes no keys along"
    );
}

#[test]
fn an_issuer_that_was_never_there_is_our_fault_not_the_tokens() {
    let guarded = Guarded::start_with("jwks-away", &[], &["auth.jwks_url=http://127.0.0.1:9/keys"]);
    let token = join_parts(&json!({ "alg": "EdDSA" }), &json!({ "sub": "ann" }), |_| vec![0; 64]);
    assert_eq!(guarded.refused("/", &with(&token)), "keys_unavailable");
    let reply = guarded.request("GET", "/stats", Some(&token), "");
    assert_eq!(reply.refusal(), (503, "keys_unavailable".to_owned()));
    assert_eq!(reply.header("retry-after"), "1");
}

#[test]
fn the_application_says_who_comes_and_where_to() {
    let backend = Backend::start(|path, body| match (path, body["token"].as_str(), body["room"].as_str()) {
        ("/who", Some("opaque-ann"), _) => {
            (200, r#"{"sub":"ann","roles":["editor"],"projects":["p1"]}"#.into())
        }
        ("/who", Some("nobody"), _) => (401, String::new()),
        ("/who", Some("broken"), _) => (200, "[]".into()),
        ("/who", Some("elsewhere"), _) => (302, String::new()),
        ("/who", Some("endless"), _) => (200, " ".repeat(100_000)),
        ("/who", Some("slow"), _) => {
            std::thread::sleep(Duration::from_secs(3_600));
            (200, r#"{"sub":"ann"}"#.into())
        }
        ("/who", None, _) => (200, r#"{"sub":"guest"}"#.into()),
        ("/may", _, Some("project:open")) => (200, r#"{"allow":true}"#.into()),
        ("/may", _, Some("project:closed")) => (200, r#"{"allow":false}"#.into()),
        _ => (500, String::new()),
    });
    let (who, may) = (
        format!("auth.connect_hook_url={}", backend.url("/who")),
        format!("auth.access_hook_url={}", backend.url("/may")),
    );
    let guarded = Guarded::start_with("hooks", &[], &[&who, &may, "auth.hook_timeout=10s"]);
    let (mut ann, greeting) =
        guarded.connect("/", &json!({ "token": "opaque-ann", "tenant": "t7" })).unwrap();
    assert_eq!(greeting["user_id"], "ann");
    let asked = backend.asked("/who");
    assert_eq!((&asked[0]["auth"]["tenant"], &asked[0]["address"]), (&json!("t7"), &json!("127.0.0.1")));
    assert_eq!(guarded.connect("/", &json!({})).unwrap().1["user_id"], "guest");
    let long = json!({ "token": "opaque-ann", "tenant": "x".repeat(40_000) });
    assert_eq!(guarded.refused("/", &long), "token_too_long");
    assert_eq!(guarded.refused("/", &with("nobody")), "hook_refused");
    for bad in ["broken", "elsewhere", "endless", "slow", "unknown"] {
        assert_eq!(guarded.refused("/", &with(bad)), "hook_unavailable", "{bad}");
    }
    assert_eq!(guarded.refused("/admin", &with("opaque-ann")), "role_missing");

    for (room, code) in [
        ("project:p1", Value::Null),
        ("project:open", Value::Null),
        ("project:closed", json!("forbidden")),
        ("project:broken", json!("hook_unavailable")),
        ("user:bob", json!("forbidden")),
        ("admin", json!("forbidden")),
    ] {
        for _ in 0..2 {
            let (answer, _) = ann.ask("subscribe", &json!({ "room": room }));
            assert_eq!(answer["error"]["code"], code, "{room}: {answer}");
        }
    }
    let questions = backend.asked("/may");
    let rooms: Vec<&str> = questions.iter().filter_map(|question| question["room"].as_str()).collect();
    let failing = ["project:broken", "project:broken"];
    assert_eq!(
        rooms,
        [&["project:open", "project:closed"][..], &failing[..]].concat(),
        "answers are kept, failures not"
    );
    assert_eq!((&questions[0]["user"], &questions[0]["action"]), (&json!("ann"), &json!("join")));
    guarded.keeps_quiet_about(&["opaque-ann"]);
}

#[test]
fn a_lost_socket_is_given_back_to_its_own_user_only() {
    let guarded = Guarded::start("recovery", &[]);
    let url = format!("{}/socket.io/", guarded.server.api());
    let ann = token("ann", &json!({ "projects": ["p1"] }));
    let asking = |token: &str| json!({ "token": token, "recovery": true });
    let (mut socket, reply) = Watcher::open(&url, "/", "", &[], &asking(&ann)).unwrap();
    let pid = reply["pid"].as_str().expect("recovery is on").to_owned();
    let offset = socket.offset();
    socket.close();
    let coming_back = |token: &str| json!({ "token": token, "recovery": true, "pid": pid, "offset": offset });
    let refused = Watcher::open(&url, "/", "", &[], &coming_back(&token("bob", &json!({})))).err().unwrap();
    assert_eq!(refused["data"]["code"], "token_other_user");
    let (_, reply) = Watcher::open(&url, "/", "", &[], &coming_back(&ann)).unwrap();
    assert_eq!(reply["pid"], pid.as_str(), "it is still there for her");
}

#[test]
fn tokens_made_by_hand_work() {
    let secrets = |command: &mut Command| {
        command.env("JWT_SECRET", SECRET).env("FANFARE_API_KEY", KEY);
    };
    let mut make =
        command(&["token", "make", "--sub", "ann", "--role", "editor", "--project", "p1", "--ttl", "1m"]);
    secrets(&mut make);
    let made = succeed(&mut make).trim().to_owned();
    let guarded = Guarded::start("by-hand", &[]);
    let (mut ann, greeting) = guarded.connect("/", &with(&made)).unwrap();
    assert_eq!(greeting["user_id"], "ann");
    assert_eq!(ann.ask("subscribe", &json!({ "room": "project:p1" })).0["ok"], true);

    let check = |token: &str| {
        let mut check = command(&["token", "check", token]);
        secrets(&mut check);
        let output = check.output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), told)
    };
    let (code, told) = check(&made);
    assert_eq!((code, &told["user"], &told["roles"]), (Some(0), &json!("ann"), &json!(["editor"])));
    assert_eq!(check(KEY).1["scopes"], json!(["publish", "read", "admin"]));
    let (code, told) = check(&signed("another", &json!({ "sub": "ann" })));
    assert_eq!((code, &told["code"]), (Some(1), &json!("token_wrong_signature")));
    assert_eq!(command(&["token", "make", "--sub", "ann"]).output().unwrap().status.code(), Some(2));
    let bad = command(&["key", "make", "--name", "a", "--scope", "write"]).output().unwrap();
    assert_eq!(bad.status.code(), Some(2));
}

#[test]
fn a_server_is_open_on_this_machine_only() {
    let open = Guarded::start_with("open", &[], &[]);
    let (mut anybody, greeting) = open.connect("/", &json!({ "userId": "ann", "sessionId": "s1" })).unwrap();
    assert_eq!((&greeting["user_id"], &greeting["session_id"]), (&json!("ann"), &json!("s1")));
    assert_eq!(anybody.ask("subscribe", &json!({ "room": "project:any" })).0["ok"], true);
    assert_eq!(anybody.ask("subscribe", &json!({ "room": "user:bob" })).0["error"]["code"], "forbidden");
    assert!(open.connect("/", &with("whatever")).unwrap().1["user_id"].is_null());
    assert!(open.connect("/admin", &json!({})).is_ok());
    assert_eq!(open.request("GET", "/stats", None, "").status, 200);

    let production = command(&["serve", "--set", "auth.mode=production"]).output().unwrap();
    assert_eq!(production.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&production.stderr).contains("auth.mode is production"));
    let mut serve = command(&["serve", "--only", "api", "--api-host", "0.0.0.0", "--api-port", "0"]);
    let reachable = Fanfare::spawn(serve.env("JWT_SECRET", SECRET));
    assert_eq!(reachable.get("/health").status, 200);
    assert_eq!(reachable.get("/stats").status, 401);
}
