#[test]
fn x() { let _ = rust_socketio::ClientBuilder::new("http://127.0.0.1:1"); }
