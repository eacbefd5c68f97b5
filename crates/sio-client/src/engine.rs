//! One Engine.IO session: handshake, heartbeat, the change from polling to a WebSocket, the end. It knows no Socket.IO.
//!
//! The session runs in a task of its own. Nothing is read while messages wait to be taken, so a slow application slows the server
//! down instead of filling our memory.

use crate::http::Http;
use crate::polling::Polling;
use crate::websocket::{Frame, WebSocket};
use crate::{DisconnectReason, EngineFault, Options, Transports};
use bytes::Bytes;
use eio_proto::{Data, Packet, decode_payload, decode_text};
use serde::Deserialize;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use ws_proto::OpCode;

/// Batches that wait on either side of the session's task.
const BATCHES_MAX: usize = 64;

/// For saying goodbye: what is queued is written within this, or dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Text(String),
    Binary(Bytes),
}

/// A packet to the server.
#[derive(Debug)]
pub(crate) enum Departure {
    /// With its type digit.
    Text(Vec<u8>),
    /// A binary message.
    Binary(Bytes),
}

/// A running session. Dropping `departures` ends it in order.
pub(crate) struct Engine {
    /// Messages in order; ends with the session.
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    /// Packets that stay together and in order.
    pub(crate) departures: mpsc::Sender<Vec<Departure>>,
    /// Why it ended.
    pub(crate) task: JoinHandle<DisconnectReason>,
}

/// The server's half of the handshake.
///
/// Spec: EIO4 "Handshake".
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opening {
    sid: String,
    upgrades: Vec<String>,
    /// Milliseconds, as the next.
    ping_interval: u64,
    ping_timeout: u64,
    /// Old servers do not say.
    max_payload: Option<usize>,
}

impl Opening {
    fn parse(json: &str) -> Result<Self, EngineFault> {
        serde_json::from_str(json).map_err(|error| EngineFault::Protocol(format!("open packet: {error}")))
    }

    /// How long the server may be silent.
    fn silence_max(&self) -> Duration {
        Duration::from_millis(self.ping_interval.saturating_add(self.ping_timeout))
            // A server that means "never" must not overflow the clock; a day is as good.
            .min(Duration::from_secs(86_400))
    }
}

impl Engine {
    /// Opens a session.
    pub(crate) async fn open(http: Http, options: &Options) -> Result<Engine, EngineFault> {
        let mut packets = VecDeque::new();
        let message_bytes_max = options.message_bytes_max;
        let (opening, active, upgrade) = match options.transports {
            Transports::WebSocket => {
                let mut websocket = WebSocket::new(http.upgrade(None).await?, message_bytes_max);
                for frame in websocket.next().await? {
                    packets.push_back(Owned::from_frame(frame)?);
                }
                (first(&mut packets)?, Active::WebSocket(Box::new(websocket)), None)
            }
            transports @ (Transports::Polling | Transports::Upgrade) => {
                read_payload(&http.poll(None).await?, &mut packets)?;
                let opening = first(&mut packets)?;
                // Old servers do not say; this was their default.
                let payload_bytes_max = opening.max_payload.unwrap_or(1_000_000);
                let may_upgrade =
                    transports == Transports::Upgrade && opening.upgrades.iter().any(|to| to == "websocket");
                let sid: Arc<str> = opening.sid.as_str().into();
                let polling = Polling::new(http.clone(), sid.clone(), payload_bytes_max);
                let upgrade = may_upgrade.then(|| Upgrade::probe(http, sid, options));
                (opening, Active::Polling(Box::new(polling)), upgrade)
            }
        };
        let (arrivals_in, arrivals) = mpsc::channel(BATCHES_MAX);
        let (departures, departures_out) = mpsc::channel(BATCHES_MAX);
        let session = Session {
            active,
            upgrade,
            silence_max: opening.silence_max(),
            deadline: Instant::now() + opening.silence_max(),
            arrivals: arrivals_in,
            departures: departures_out,
            inbox: VecDeque::new(),
            end: None,
        };
        Ok(Engine { arrivals, departures, task: tokio::spawn(session.run(packets)) })
    }
}

/// The packet that must come first.
fn first(packets: &mut VecDeque<Owned>) -> Result<Opening, EngineFault> {
    match packets.pop_front() {
        Some(Owned::Open(opening)) => Ok(opening),
        Some(Owned::Close) => Err(EngineFault::Transport("closed during the handshake".into())),
        Some(Owned::Ping | Owned::Message(_) | Owned::Other) | None => {
            Err(EngineFault::Protocol("the first packet is no open packet".into()))
        }
    }
}

/// A packet from the server that borrows nothing.
enum Owned {
    Open(Opening),
    Close,
    Ping,
    Message(Arrival),
    /// What asks nothing of us.
    Other,
}

impl Owned {
    fn from_packet(packet: Packet<'_>) -> Result<Self, EngineFault> {
        Ok(match packet {
            Packet::Open(json) => Owned::Open(Opening::parse(json)?),
            Packet::Close => Owned::Close,
            Packet::Ping(_) => Owned::Ping,
            Packet::Message(Data::Text(text)) => Owned::Message(Arrival::Text(text.to_owned())),
            Packet::Message(Data::Binary(bytes)) => {
                Owned::Message(Arrival::Binary(bytes.into_owned().into()))
            }
            Packet::Pong(_) | Packet::Upgrade | Packet::Noop => Owned::Other,
        })
    }

    fn from_frame(frame: Frame) -> Result<Self, EngineFault> {
        match frame {
            Frame::Text(text) => {
                let packet = decode_text(&text).map_err(|fault| EngineFault::Protocol(fault.to_string()))?;
                Owned::from_packet(packet)
            }
            Frame::Binary(bytes) => Ok(Owned::Message(Arrival::Binary(bytes))),
            Frame::Closed => Ok(Owned::Close),
        }
    }
}

/// Appends the packets of a polling reply; those before a bad one, too.
fn read_payload(body: &[u8], packets: &mut VecDeque<Owned>) -> Result<(), EngineFault> {
    // The body was bounded when it was read.
    for packet in decode_payload(body, usize::MAX) {
        let packet = packet.map_err(|fault| EngineFault::Protocol(fault.to_string()))?;
        packets.push_back(Owned::from_packet(packet)?);
    }
    Ok(())
}

/// The transport in use.
enum Active {
    Polling(Box<Polling>),
    WebSocket(Box<WebSocket>),
}

impl Active {
    fn accepts(&self) -> bool {
        match self {
            Active::Polling(polling) => polling.accepts(),
            Active::WebSocket(websocket) => websocket.accepts(),
        }
    }

    fn queue(&mut self, departure: Departure) -> Result<(), EngineFault> {
        match (self, departure) {
            (Active::Polling(polling), departure) => {
                polling.queue(departure);
                Ok(())
            }
            (Active::WebSocket(websocket), Departure::Text(packet)) => websocket.queue(OpCode::Text, &packet),
            (Active::WebSocket(websocket), Departure::Binary(bytes)) => {
                websocket.queue(OpCode::Binary, &bytes)
            }
        }
    }

    /// Makes progress; appends what came. Loses nothing when dropped.
    async fn step(&mut self, may_read: bool, packets: &mut VecDeque<Owned>) -> Result<(), EngineFault> {
        match self {
            Active::Polling(polling) => match polling.step(may_read).await? {
                Some(body) => read_payload(&body, packets),
                None => Ok(()),
            },
            Active::WebSocket(websocket) => {
                for frame in websocket.step(may_read).await? {
                    packets.push_back(Owned::from_frame(frame)?);
                }
                Ok(())
            }
        }
    }

    async fn close(self) -> Result<(), EngineFault> {
        match self {
            Active::Polling(polling) => polling.close().await,
            Active::WebSocket(websocket) => websocket.close().await,
        }
    }
}

/// The way from polling to a WebSocket.
///
/// Spec: EIO4 "Upgrade".
enum Upgrade {
    /// A WebSocket is being opened and asked whether it works.
    Probing(Pin<Box<dyn Future<Output = Option<Box<WebSocket>>> + Send>>),
    /// It works; it takes over when polling has come to rest.
    Ready(Box<WebSocket>),
}

impl Upgrade {
    fn probe(http: Http, sid: Arc<str>, options: &Options) -> Self {
        let (message_bytes_max, time_max) = (options.message_bytes_max, options.connect_timeout);
        let probe = async move {
            let mut websocket = WebSocket::new(http.upgrade(Some(&sid)).await?, message_bytes_max);
            websocket.queue(OpCode::Text, b"2probe")?;
            match websocket.next().await?.as_slice() {
                [Frame::Text(text)] if text == "3probe" => Ok(Box::new(websocket)),
                _ => Err(EngineFault::Protocol("probe answered with something else".into())),
            }
        };
        // Whatever went wrong, polling goes on.
        Upgrade::Probing(Box::pin(async move { timeout(time_max, probe).await.ok()?.ok() }))
    }
}

struct Session {
    active: Active,
    upgrade: Option<Upgrade>,
    silence_max: Duration,
    deadline: Instant,
    arrivals: mpsc::Sender<Arrival>,
    departures: mpsc::Receiver<Vec<Departure>>,
    /// Messages that have not been taken yet.
    inbox: VecDeque<Arrival>,
    /// Set when nothing more will come; the inbox is still handed out.
    end: Option<DisconnectReason>,
}

/// What woke the session.
enum Wake {
    Delivered,
    DriverGone,
    Departing(Vec<Departure>),
    Leaving,
    Stepped(Result<(), EngineFault>),
    Probed(Option<Box<WebSocket>>),
    Silent,
}

impl Session {
    async fn run(mut self, mut packets: VecDeque<Owned>) -> DisconnectReason {
        loop {
            if let Err(fault) = self.handle_packets(&mut packets).and_then(|()| self.switch()) {
                self.end = Some(DisconnectReason::Engine(fault));
            }
            if self.inbox.is_empty()
                && let Some(reason) = self.end.take()
            {
                return reason;
            }
            match self.wake(&mut packets).await {
                Wake::Delivered => {
                    if self.inbox.is_empty() {
                        // While we did not read, pings went unseen; that silence was ours.
                        self.deadline = Instant::now() + self.silence_max;
                    }
                }
                Wake::DriverGone => return DisconnectReason::Client,
                Wake::Departing(batch) => {
                    for departure in batch {
                        if let Err(fault) = self.active.queue(departure) {
                            self.end = Some(DisconnectReason::Engine(fault));
                        }
                    }
                }
                Wake::Leaving => {
                    // Whether it works makes no difference any more.
                    let _ = timeout(CLOSE_TIMEOUT, self.active.close()).await;
                    return DisconnectReason::Client;
                }
                Wake::Stepped(Ok(())) => {}
                Wake::Stepped(Err(fault)) => {
                    // What came before the fault counts.
                    let _ = self.handle_packets(&mut packets);
                    self.end.get_or_insert(DisconnectReason::Engine(fault));
                }
                Wake::Probed(Some(websocket)) => {
                    if let Active::Polling(polling) = &mut self.active {
                        polling.pause();
                    }
                    self.upgrade = Some(Upgrade::Ready(websocket));
                }
                Wake::Probed(None) => self.upgrade = None,
                Wake::Silent => self.end = Some(DisconnectReason::PingTimeout),
            }
        }
    }

    async fn wake(&mut self, packets: &mut VecDeque<Owned>) -> Wake {
        let Session { active, upgrade, deadline, arrivals, departures, inbox, end, .. } = self;
        let (is_open, may_read, accepts) = (end.is_none(), inbox.is_empty(), active.accepts());
        let probe = async {
            match upgrade {
                Some(Upgrade::Probing(probe)) => probe.await,
                Some(Upgrade::Ready(_)) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            permit = arrivals.reserve(), if !may_read => {
                match (permit, inbox.pop_front()) {
                    (Ok(permit), Some(arrival)) => {
                        permit.send(arrival);
                        Wake::Delivered
                    }
                    (Ok(_), None) => Wake::Delivered,
                    (Err(_), _) => Wake::DriverGone,
                }
            }
            batch = departures.recv(), if is_open && accepts => batch.map_or(Wake::Leaving, Wake::Departing),
            stepped = active.step(may_read, packets), if is_open => Wake::Stepped(stepped),
            websocket = probe, if is_open => Wake::Probed(websocket),
            () = sleep_until(*deadline), if is_open && may_read => Wake::Silent,
        }
    }

    fn handle_packets(&mut self, packets: &mut VecDeque<Owned>) -> Result<(), EngineFault> {
        while let Some(packet) = packets.pop_front() {
            match packet {
                Owned::Message(arrival) => self.inbox.push_back(arrival),
                Owned::Ping => {
                    self.deadline = Instant::now() + self.silence_max;
                    self.active.queue(Departure::Text(b"3".to_vec()))?;
                }
                Owned::Close => {
                    self.end.get_or_insert(DisconnectReason::TransportClose);
                }
                Owned::Open(_) => return Err(EngineFault::Protocol("a second open packet".into())),
                Owned::Other => {}
            }
        }
        Ok(())
    }

    /// Goes over to the WebSocket when it is ready and polling has come to rest.
    fn switch(&mut self) -> Result<(), EngineFault> {
        let Active::Polling(polling) = &self.active else { return Ok(()) };
        if !polling.is_quiet() {
            return Ok(());
        }
        let Some(Upgrade::Ready(mut websocket)) = self.upgrade.take() else { return Ok(()) };
        websocket.queue(OpCode::Text, b"5")?;
        if let Active::Polling(polling) = std::mem::replace(&mut self.active, Active::WebSocket(websocket)) {
            for departure in polling.into_queue() {
                self.active.queue(departure)?;
            }
        }
        Ok(())
    }
}
