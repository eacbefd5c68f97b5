//! The polling transport: one GET that waits for packets, and one POST at a time for ours. It knows no meaning of packets.

use crate::EngineFault;
use crate::engine::Departure;
use crate::http::Http;
use bytes::Bytes;
use eio_proto::{Data, Packet, PayloadEncoder, encode_text};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

/// Bytes that may wait for a POST before the sender is asked to pause.
const UNSENT_BYTES_MAX: usize = 256 << 10;

type Running<T> = Pin<Box<dyn Future<Output = Result<T, EngineFault>> + Send>>;

pub(crate) struct Polling {
    http: Http,
    sid: Arc<str>,
    /// The server's bound for the body of a POST.
    payload_bytes_max: usize,
    poll: Option<Running<Bytes>>,
    post: Option<Running<()>>,
    queue: VecDeque<Departure>,
    queue_bytes: usize,
    is_paused: bool,
}

impl Polling {
    pub(crate) fn new(http: Http, sid: Arc<str>, payload_bytes_max: usize) -> Self {
        let queue = VecDeque::new();
        Polling {
            http,
            sid,
            payload_bytes_max,
            poll: None,
            post: None,
            queue,
            queue_bytes: 0,
            is_paused: false,
        }
    }

    pub(crate) fn queue(&mut self, departure: Departure) {
        self.queue_bytes += departure.bytes();
        self.queue.push_back(departure);
    }

    /// Whether there is room for more.
    pub(crate) fn accepts(&self) -> bool {
        self.queue_bytes < UNSENT_BYTES_MAX
    }

    /// Starts no more requests, because another transport takes over.
    pub(crate) fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Whether it was paused and every request has ended, so that nothing can overtake anything any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_paused && self.poll.is_none() && self.post.is_none()
    }

    /// What was queued and not sent.
    pub(crate) fn into_queue(self) -> VecDeque<Departure> {
        self.queue
    }

    /// Waits until a request has ended; answers the payload if it was a GET.
    ///
    /// Loses nothing when it is dropped before it has answered.
    pub(crate) async fn step(&mut self, may_read: bool) -> Result<Option<Bytes>, EngineFault> {
        if !self.is_paused {
            if self.poll.is_none() && may_read {
                let (http, sid) = (self.http.clone(), self.sid.clone());
                self.poll = Some(Box::pin(async move { http.poll(Some(&sid)).await }));
            }
            self.start_post();
        }
        tokio::select! {
            payload = finish(&mut self.poll), if may_read => payload.map(Some),
            posted = finish(&mut self.post) => posted.map(|()| None),
        }
    }

    /// Sends what is queued and a last packet.
    pub(crate) async fn close(mut self) -> Result<(), EngineFault> {
        self.queue(Departure::Text(b"1".to_vec()));
        loop {
            self.start_post();
            if self.post.is_none() {
                return Ok(());
            }
            finish(&mut self.post).await?;
        }
    }

    fn start_post(&mut self) {
        if self.post.is_some() || self.queue.is_empty() {
            return;
        }
        let mut payload = Vec::new();
        let mut encoder = PayloadEncoder::new(&mut payload);
        let mut packet = Vec::new();
        while let Some(departure) = self.queue.front() {
            packet.clear();
            departure.encode_text(&mut packet);
            // A packet above the bound goes alone, for the server to judge.
            if encoder.packets() > 0 && encoder.bytes_with(packet.len()) > self.payload_bytes_max {
                break;
            }
            encoder.push_encoded(&packet);
            self.queue_bytes -= departure.bytes();
            self.queue.pop_front();
        }
        let (http, sid) = (self.http.clone(), self.sid.clone());
        self.post = Some(Box::pin(async move { http.post(&sid, payload).await }));
    }
}

/// Waits for a running request, for ever if there is none. Keeps it running when dropped.
async fn finish<T>(slot: &mut Option<Running<T>>) -> Result<T, EngineFault> {
    let Some(running) = slot else { return std::future::pending().await };
    let result = running.as_mut().await;
    *slot = None;
    result
}

impl Departure {
    /// The packet as an element of a payload.
    fn encode_text(&self, out: &mut Vec<u8>) {
        match self {
            Departure::Text(packet) => out.extend_from_slice(packet),
            Departure::Binary(bytes) => {
                encode_text(out, &Packet::Message(Data::Binary(bytes.as_ref().into())))
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Departure::Text(packet) => packet.len(),
            Departure::Binary(bytes) => bytes.len(),
        }
    }
}
