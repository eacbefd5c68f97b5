//! What it costs to pass polling requests on: `forwarding [WORKERS] [ROUNDS]`.
//!
//! Two nodes in one process. Each worker has a session on the first; a round is a POST that asks and the GET that brings the
//! answer, over one kept connection: to the first node, then to the second, which passes them on. Prints the time of a
//! request and the CPU time of the whole process for it, these peers included.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Fault = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Fault> {
    let mut args = std::env::args().skip(1);
    let workers: usize = args.next().map_or(Ok(1), |text| text.parse())?;
    let rounds: u32 = args.next().map_or(Ok(2_000), |text| text.parse())?;
    let at = SocketAddr::from(([127, 0, 0, 1], 0));
    let home = node(1, None)?;
    let (direct, internal) = (home.listen(at).await?, home.listen_internal(at).await?);
    let other = node(2, Some(internal))?;
    let forwarded = other.listen(at).await?;
    for (name, to) in
        [("direct", direct), ("forwarded", forwarded), ("direct", direct), ("forwarded", forwarded)]
    {
        let mut peers = Vec::new();
        for _ in 0..workers {
            peers.push(Peer::open(direct, to).await?);
        }
        let (began, cpu) = (Instant::now(), cpu_time()?);
        let running: Vec<_> = peers.into_iter().map(|peer| tokio::spawn(peer.ask(rounds))).collect();
        for task in running {
            task.await??;
        }
        let requests = 2 * rounds * workers as u32;
        let (took, cpu) = (began.elapsed(), cpu_time()? - cpu);
        #[allow(clippy::print_stdout)] // It is what this program is for.
        {
            println!(
                "{name}: {:.0} requests/s, {:.1} µs each, {:.1} µs of CPU each",
                f64::from(requests) / took.as_secs_f64(),
                took.as_secs_f64() * 1e6 * workers as f64 / f64::from(requests),
                cpu.as_secs_f64() * 1e6 / f64::from(requests),
            );
        }
    }
    Ok(())
}

fn node(number: u16, other: Option<SocketAddr>) -> std::io::Result<Server> {
    Server::builder()
        .shards(1)
        .node(number)
        .forward(move |_| other)
        .namespace("/", |ns| {
            ns.on_raw("echo", |socket, event| event.answer_same(socket));
        })
        .build()
}

/// One session, and the connection by which it is asked.
struct Peer {
    stream: TcpStream,
    sid: String,
}

impl Peer {
    /// Opens a session at `home`, to be asked by way of `to`.
    async fn open(home: SocketAddr, to: SocketAddr) -> Result<Self, Fault> {
        let mut peer = Self { stream: TcpStream::connect(home).await?, sid: String::new() };
        let open = peer.get().await?;
        let sid = open.split('"').nth(3).ok_or("no session id")?;
        peer.sid = format!("&sid={sid}");
        peer.post("40").await?;
        while !peer.get().await?.starts_with("40") {}
        peer.stream = TcpStream::connect(to).await?;
        peer.stream.set_nodelay(true)?;
        Ok(peer)
    }

    async fn ask(mut self, rounds: u32) -> Result<(), Fault> {
        for _ in 0..rounds {
            self.post(r#"420["echo","some words"]"#).await?;
            while !self.get().await?.starts_with("430") {}
        }
        Ok(())
    }

    async fn post(&mut self, body: &str) -> Result<String, Fault> {
        self.request("POST", body).await
    }

    async fn get(&mut self) -> Result<String, Fault> {
        self.request("GET", "").await
    }

    async fn request(&mut self, method: &str, body: &str) -> Result<String, Fault> {
        let request = format!(
            "{method} /socket.io/?EIO=4&transport=polling{} HTTP/1.1\r\nHost: node\r\nContent-Length: {}\r\n\r\n{body}",
            self.sid,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        loop {
            if self.stream.read_buf(&mut response).await? == 0 {
                return Err("the connection was closed".into());
            }
            let text = std::str::from_utf8(&response)?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let lengths = head.lines().filter_map(|line| line.split_once(": "));
            let length = lengths
                .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .find_map(|(_, value)| value.parse::<usize>().ok())
                .ok_or("a reply without a length")?;
            if body.len() == length {
                return if head.starts_with("HTTP/1.1 200") { Ok(body.to_owned()) } else { Err(text.into()) };
            }
        }
    }
}

/// What this process has used so far.
fn cpu_time() -> Result<Duration, Fault> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // User and system time, in ticks of a hundredth of a second, follow the name in brackets.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = fields.get(11..13).ok_or("no times")?.iter().map(|ticks| ticks.parse::<u64>());
    let ticks = ticks.sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}
