//! Watches rooms of several servers with many sockets that lose their connections, come back at any of the servers, and tell
//! what they see: one JSON object a line. What `cargo xtask cluster` starts; it ends when its input does.
//!
//! Arguments: sockets, the number of the first, seconds between losses, seconds that one lasts at most, servers, rooms, and
//! how many of these each socket watches. Each socket has a relay of its own, which does what a load balancer does: it takes
//! each connection to the next server that says that it is ready, and leaves connections where they are. And it can be cut
//! for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use sio_client::args::One;
use sio_client::{Client, Emitter, Event, Notice, Options, Reconnect, Transports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Time that an answer to a join may take.
const JOIN_LIMIT: Duration = Duration::from_secs(20);
/// How often servers are asked whether they are ready: more than once in the moment for which one that stops waits before it
/// lets the first connection go.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// Time that such an answer may take on a busy machine. A load balancer allows for some, too, before it gives a server up.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What all sockets share.
struct Plan {
    servers: Vec<Backend>,
    rooms: Vec<String>,
    rooms_each: usize,
    drop_every: Duration,
    away: Duration,
    next_server: AtomicUsize,
    begun: Instant,
    lines: mpsc::UnboundedSender<Value>,
}

/// A server, and whether it takes new connections.
struct Backend {
    address: SocketAddr,
    is_ready: AtomicBool,
}

/// Where a socket is in each room, and which it is still to join.
#[derive(Default)]
struct Progress {
    has: BTreeMap<String, (u64, u64)>,
    pending: BTreeSet<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [count, first, drop_every, away, servers, rooms, rooms_each] = &arguments[..] else {
        return Err("watch_rooms SOCKETS FIRST SECONDS SECONDS-AWAY SERVER,… ROOM,… ROOMS-EACH".into());
    };
    let (tell, mut lines) = mpsc::unbounded_channel();
    let plan = Arc::new(Plan {
        servers: servers
            .split(',')
            .map(|server| Ok(Backend { address: server.parse()?, is_ready: AtomicBool::new(true) }))
            .collect::<Result<_, std::net::AddrParseError>>()?,
        rooms: rooms.split(',').map(str::to_owned).collect(),
        rooms_each: rooms_each.parse()?,
        drop_every: Duration::from_secs(drop_every.parse()?),
        away: Duration::from_secs(away.parse()?),
        next_server: AtomicUsize::new(0),
        begun: Instant::now(),
        lines: tell,
    });
    for nth in 0..plan.servers.len() {
        let plan = plan.clone();
        tokio::spawn(async move { plan.servers[nth].probe().await });
    }
    let first: u32 = first.parse()?;
    for number in first..first + count.parse::<u32>()? {
        let plan = plan.clone();
        tokio::spawn(async move {
            if let Err(error) = watch_on(number, &plan).await {
                plan.tell("ended", number, json!({ "error": error.to_string() }));
            }
        });
    }
    std::thread::spawn(move || {
        use std::io::Write;
        let mut out = std::io::BufWriter::new(std::io::stdout());
        while let Some(line) = lines.blocking_recv() {
            if writeln!(out, "{line}").is_err() || (lines.is_empty() && out.flush().is_err()) {
                return;
            }
        }
    });
    // Closed by whoever started us.
    let mut end = [0; 64];
    while tokio::io::stdin().read(&mut end).await? > 0 {}
    Ok(())
}

impl Plan {
    /// The rooms that a socket watches.
    fn rooms_of(&self, number: u32) -> impl Iterator<Item = String> {
        let first = number as usize * self.rooms_each;
        (0..self.rooms_each).map(move |nth| self.rooms[(first + nth) % self.rooms.len()].clone())
    }

    fn tell(&self, told: &str, watcher: u32, mut more: Value) {
        more["told"] = told.into();
        more["watcher"] = watcher.into();
        // Nobody reads on when all is over.
        let _ = self.lines.send(more);
    }

    /// Something that may explain what is wrong with what it saw.
    fn note(&self, watcher: u32, what: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        self.tell("note", watcher, json!({ "note": format!("{at:.2} s {what}") }));
    }

    /// A connection to the next server that is ready; to any that takes one if none is.
    async fn next(&self) -> Option<TcpStream> {
        let first = self.next_server.fetch_add(1, Ordering::Relaxed);
        let (mut servers, unready): (Vec<&Backend>, Vec<&Backend>) = (0..self.servers.len())
            .map(|nth| &self.servers[(first + nth) % self.servers.len()])
            .partition(|server| server.is_ready.load(Ordering::Relaxed));
        servers.extend(unready);
        for server in servers {
            if let Ok(stream) = TcpStream::connect(server.address).await {
                return Some(stream);
            }
        }
        None
    }
}

impl Backend {
    /// Asks again and again whether it is ready.
    async fn probe(&self) {
        loop {
            let is_ready = matches!(tokio::time::timeout(PROBE_LIMIT, self.ask()).await, Ok(Ok(true)));
            self.is_ready.store(is_ready, Ordering::Relaxed);
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    async fn ask(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(self.address).await?;
        let asked = format!("GET /readyz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(asked.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer.starts_with(b"HTTP/1.1 200"))
    }
}

/// Takes connections to servers, until they are cut: whenever the moment behind `cuts` changes, before which none is taken
/// again.
async fn relay(plan: Arc<Plan>, listener: TcpListener, cuts: watch::Receiver<Instant>) {
    while let Ok((mut here, _)) = listener.accept().await {
        let (plan, mut cuts) = (plan.clone(), cuts.clone());
        if *cuts.borrow_and_update() > Instant::now() {
            continue;
        }
        tokio::spawn(async move {
            let Some(mut there) = plan.next().await else { return };
            tokio::select! {
                _ = cuts.changed() => {}
                _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
            }
        });
    }
}

async fn watch_on(number: u32, plan: &Arc<Plan>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (cut, cuts) = watch::channel(Instant::now());
    tokio::spawn(relay(plan.clone(), listener, cuts));
    let options = Options {
        namespace: "/ws".to_owned(),
        transports: [Transports::WebSocket, Transports::Polling, Transports::Upgrade][number as usize % 3],
        reconnect: Some(Reconnect {
            delay: Duration::from_millis(100),
            delay_max: Duration::from_secs(1),
            ..Reconnect::default()
        }),
        ..Options::default()
    };
    let mut client = loop {
        match Client::connect(&url, options.clone()).await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    if !plan.drop_every.is_zero() {
        let plan = plan.clone();
        tokio::spawn(async move {
            // Neither all at once nor at random: spread by the golden ratio.
            let mut spread = f64::from(number) * 0.618_034;
            tokio::time::sleep(plan.drop_every.mul_f64(spread.fract())).await;
            loop {
                tokio::time::sleep(plan.drop_every).await;
                plan.tell("dropped", number, json!({}));
                spread += 0.618_034;
                cut.send_replace(Instant::now() + plan.away.mul_f64(spread.fract()));
            }
        });
    }
    let progress = Arc::new(Mutex::new(Progress::default()));
    let (connection, mut connections) = (Arc::new(AtomicUsize::new(0)), 0);
    while let Some(notice) = client.recv().await {
        match notice {
            Notice::Connected { is_recovered, .. } => {
                connections += 1;
                connection.store(connections, Ordering::Relaxed);
                plan.note(number, if is_recovered { "recovered" } else { "connected" });
                if connections > 1 {
                    plan.tell("back", number, json!({ "recovered": is_recovered, "at": now_ms() }));
                }
                if !is_recovered {
                    lock(&progress).pending = plan.rooms_of(number).collect();
                }
                let joining = Joining { number, connection: connection.clone(), is: connections };
                tokio::spawn(join(joining, plan.clone(), client.emitter(), progress.clone()));
            }
            Notice::Event(event) if event.name == "soak" => saw(number, plan, &event, &progress)?,
            Notice::Disconnected { reason, will_reconnect: true } => {
                let why = format!("{:?}: {reason}", options.transports);
                plan.note(number, &format!("disconnected: {why}"));
                plan.tell("lost", number, json!({ "why": why, "at": now_ms() }));
            }
            Notice::Event(_) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

/// Which connection joins for which socket.
struct Joining {
    number: u32,
    connection: Arc<AtomicUsize>,
    is: usize,
}

/// Joins what is still to be joined, after what was seen of it, for as long as the connection is the newest.
async fn join(joining: Joining, plan: Arc<Plan>, emitter: Emitter, progress: Arc<Mutex<Progress>>) {
    let Joining { number, connection, is } = joining;
    loop {
        let (room, since) = {
            let progress = lock(&progress);
            let Some(room) = progress.pending.first().cloned() else { return };
            let since = progress.has.get(&room).copied();
            (room, since)
        };
        let asked = match since {
            Some((epoch, seq)) => json!({ "room": room, "since": { "epoch": epoch, "seq": seq } }),
            None => json!({ "room": room }),
        };
        let answer = emitter.emit_with_ack("subscribe", &One(&asked), JOIN_LIMIT).await;
        if connection.load(Ordering::Relaxed) != is {
            return;
        }
        let answer = answer.ok().and_then(|reply| reply.args::<Value>().ok()).unwrap_or_default();
        if answer["ok"] != true {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        let mut progress = lock(&progress);
        progress.pending.remove(&room);
        if since.is_some() && answer["recovered"] == false {
            plan.tell("refused", number, json!({ "room": room }));
        }
        if let (None, Some(epoch), Some(seq)) =
            (progress.has.get(&room), answer["epoch"].as_u64(), answer["seq"].as_u64())
        {
            progress.has.insert(room.clone(), (epoch, seq));
            plan.tell("joined", number, json!({ "room": room, "epoch": epoch, "seq": seq }));
        }
    }
}

fn saw(
    number: u32,
    plan: &Plan,
    event: &Event,
    progress: &Mutex<Progress>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let values = event.values()?;
    let it = values.first().ok_or("an event without a payload")?;
    let room = it["room"].as_str().ok_or("no room")?;
    let (Some(epoch), Some(seq)) = (it["epoch"].as_u64(), it["seq"].as_u64()) else {
        return Err("no place".into());
    };
    let now = now_ms();
    let after_ms = now.saturating_sub(it["data"]["at"].as_u64().unwrap_or(now));
    let told =
        json!({ "room": room, "epoch": epoch, "seq": seq, "n": it["data"]["n"], "after_ms": after_ms });
    plan.tell("saw", number, told);
    lock(progress).has.insert(room.to_owned(), (epoch, seq));
    Ok(())
}

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970: whoever started us compares what several processes tell.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
