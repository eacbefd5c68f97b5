//! Who may come in: `auth [PORT]`. Tokens `ada` and `bob` are known; only Ada may join the namespace `/admin`.
//!
//! Shows middlewares, refusals with data, state that handlers find again, and a hook on the opening request.

use std::collections::HashMap;
use std::sync::Arc;

use engine::{ConnectRequest, Refusal, Server};
use serde::Deserialize;
use serde_json::{Value, json};

/// What clients send: `io({ auth: { token: 'ada' } })`.
#[derive(Deserialize)]
struct Credentials {
    token: String,
}

/// What we know of somebody. A middleware attaches it, handlers read it.
#[derive(Clone)]
struct Account {
    name: &'static str,
    is_admin: bool,
}

/// Finds the account of a token. A real one asks a database, and may wait for it: other sockets are not delayed.
async fn authenticate(
    accounts: &HashMap<&str, Account>,
    request: &ConnectRequest,
) -> Result<Account, Refusal> {
    let refusal = |code: &str| Refusal::new("not authorized").with_data(json!({ "code": code }));
    let Credentials { token } = request.auth().map_err(|_| refusal("NO_TOKEN"))?;
    accounts.get(&*token).cloned().ok_or_else(|| refusal("UNKNOWN_TOKEN"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let port: u16 = std::env::args().nth(1).map_or(Ok(3000), |port| port.parse())?;
    let accounts = Arc::new(HashMap::from([
        ("ada", Account { name: "Ada", is_admin: true }),
        ("bob", Account { name: "Bob", is_admin: false }),
    ]));
    let everyone = accounts.clone();
    let server = Server::builder()
        // Judged before there is a session: the cheapest place to turn somebody away.
        .allow_request(|request| async move {
            match request.header(http::header::USER_AGENT) {
                Some(agent) if agent.contains("BadBot") => Err("no robots".to_owned()),
                Some(_) | None => Ok(()),
            }
        })
        .namespace("/", |ns| {
            ns.middleware(move |request| {
                let accounts = everyone.clone();
                async move {
                    request.set_state(authenticate(&accounts, &request).await?);
                    Ok(())
                }
            });
            ns.on(
                "whoami",
                |socket, ()| async move { socket.state::<Account>().map_or("nobody", |it| it.name) },
            );
        })
        .namespace("/admin", |ns| {
            ns.middleware(move |request| {
                let accounts = accounts.clone();
                async move {
                    let account = authenticate(&accounts, &request).await?;
                    if !account.is_admin {
                        return Err(Refusal::new("not authorized").with_data(json!({ "code": "NOT_ADMIN" })));
                    }
                    request.set_state(account);
                    Ok(())
                }
            });
            ns.on("announce", |socket, text: Value| async move {
                socket.broadcast().emit("announcement", &text).is_ok()
            });
        })
        .build()?;
    let address = server.listen(([127, 0, 0, 1], port).into()).await?;
    tracing::info!("listening on http://{address}");
    tokio::signal::ctrl_c().await?;
    server.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(())
}
