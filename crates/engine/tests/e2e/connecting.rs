//! How sockets are let in: what a connect handler may count on when it begins.

use std::time::Duration;

use engine::Server;

use crate::peers::{connect, event, listen};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connect_handler_asks_for_after_a_middleware_that_waited_is_done_before_what_it_mails() {
    let server = Server::builder()
        .shards(1)
        .namespace("/", |ns| {
            ns.middleware(|_| async {
                tokio::task::yield_now().await;
                Ok(())
            });
            ns.on_connect(|socket| async move {
                socket.join("r");
                // Joining is a command and takes the short way; the question is a letter.
                let rooms = socket.rooms().await;
                let _ = socket.emit("rooms", &rooms);
            });
        })
        .build()
        .unwrap();
    let url = listen(&server).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = connect(&url).await;
        let rooms: Vec<String> = event(&mut client, "rooms").await.args().unwrap();
        assert_eq!(rooms, [client.sid().unwrap(), "r".to_owned()]);
        // They stay: only a namespace that has sockets already has nothing else to say about a new one.
        clients.push(client);
    }
    server.shutdown(Duration::ZERO).await;
}
