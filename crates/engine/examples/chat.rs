//! A chat: people with names, rooms, and a page to try it in a browser. `chat [PORT]`, then open the address it logs.
//!
//! Shows rooms, answers to events, state attached by a middleware, and an application beside the engine on one port.

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use engine::{One, Reason, Refusal, Server, Serving, Socket};
use serde::{Deserialize, Serialize};

/// Who somebody is, as they said when they connected: `io({ auth: { name: 'Ada' } })`.
#[derive(Deserialize)]
struct Person {
    name: String,
}

/// What comes with `say`.
#[derive(Deserialize)]
struct Line {
    room: String,
    text: String,
}

/// What goes out as `said`, `joined` and `left`.
#[derive(Serialize)]
struct News<'a> {
    room: &'a str,
    name: &'a str,
    text: &'a str,
}

/// What a handler answers; clients get it as the argument of their ack.
#[derive(Serialize)]
struct Outcome {
    ok: bool,
}

fn tell(socket: &Socket, event: &str, room: &str, text: &str) {
    let Some(person) = socket.state::<Person>() else { return };
    // An error here means that the server is overloaded or has stopped: a chat can live without that line.
    let _ = socket.to(room).emit(event, &News { room, name: &person.name, text });
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let port: u16 = std::env::args().nth(1).map_or(Ok(3000), |port| port.parse())?;
    let server = Server::builder()
        .namespace("/", |ns| {
            ns.middleware(|request| async move {
                let person: Person = request.auth().map_err(|_| {
                    Refusal::new("say who you are").with_data(serde_json::json!({"need": "name"}))
                })?;
                request.set_state(person);
                Ok(())
            });
            ns.on("join", |socket, room: String| async move {
                socket.join(&room);
                tell(&socket, "joined", &room, "");
                One(Outcome { ok: true })
            });
            ns.on("say", |socket, line: Line| async move {
                // Whoever speaks in a room must be in it.
                let ok = socket.rooms().await.contains(&line.room);
                if ok {
                    tell(&socket, "said", &line.room, &line.text);
                }
                One(Outcome { ok })
            });
            ns.on_disconnect(|socket, reason: Reason, rooms| async move {
                for room in &rooms {
                    tell(&socket, "left", room, reason.as_str());
                }
            });
        })
        .build()?;
    let page = Router::new().route("/", get(|| async { Html(PAGE) }));
    let address =
        server.listen_with(([127, 0, 0, 1], port).into(), Serving::default().application(page)).await?;
    tracing::info!("chat at http://{address}");
    tokio::signal::ctrl_c().await?;
    server.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(())
}

const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8"><title>Chat</title>
<form><input autofocus placeholder="Say something"></form><ul></ul>
<script type="module">
  import { io } from 'https://cdn.socket.io/4.8.1/socket.io.esm.min.js';
  const room = 'lobby';
  const show = (text) => document.querySelector('ul').append(Object.assign(document.createElement('li'), { textContent: text }));
  const socket = io({ auth: { name: prompt('Your name?') || 'somebody' } });
  socket.on('connect', () => socket.emit('join', room, () => show('you are in ' + room)));
  socket.on('said', ({ name, text }) => show(name + ': ' + text));
  socket.on('joined', ({ name }) => show(name + ' joined'));
  socket.on('left', ({ name, text }) => show(name + ' left: ' + text));
  document.querySelector('form').onsubmit = (event) => {
    event.preventDefault();
    const input = event.target.querySelector('input');
    socket.emit('say', { room, text: input.value }, () => show('you: ' + input.value) || (input.value = ''));
  };
</script>
"#;
