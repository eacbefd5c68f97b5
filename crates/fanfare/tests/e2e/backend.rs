//! Owns somebody else's HTTP server: answers as the test says, and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A status and a body for a path and a body.
type Answering = dyn Fn(&str, &Value) -> (u16, String) + Send + Sync;

/// A server on a free port. Its threads end with the process.
pub(crate) struct Backend {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What somebody asked for.
struct Asked {
    path: String,
    signature: Option<String>,
    body: Value,
}

impl Backend {
    /// Starts one.
    pub(crate) fn start(answer: impl Fn(&str, &Value) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (remembered, answer): (_, Arc<Answering>) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (remembered, answer) = (remembered.clone(), answer.clone());
                std::thread::spawn(move || serve(&stream, &remembered, &*answer));
            }
        });
        Self { url, asked }
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// What was asked so far at a path: the bodies, `null` for none.
    pub(crate) fn asked(&self, path: &str) -> Vec<Value> {
        let asked = self.asked.lock().expect("no panic");
        asked.iter().filter(|asked| asked.path == path).map(|asked| asked.body.clone()).collect()
    }

    /// The signatures of what was asked, where there are any.
    pub(crate) fn signatures(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("no panic");
        asked.iter().filter_map(|asked| asked.signature.clone()).collect()
    }
}

fn serve(stream: &TcpStream, asked: &Mutex<Vec<Asked>>, answer: &Answering) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut length, mut signature) = (0, None);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            if header.trim().is_empty() {
                break;
            }
            let Some((name, value)) = header.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().expect("a length");
            } else if name.eq_ignore_ascii_case("x-fanfare-signature-256") {
                signature = Some(value.trim().to_owned());
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let remembered = Asked { path: path.clone(), signature, body: body.clone() };
        asked.lock().expect("no panic").push(remembered);
        let (status, text) = answer(&path, &body);
        let response = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        let mut writer = stream;
        if writer.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}
