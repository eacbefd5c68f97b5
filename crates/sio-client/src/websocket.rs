//! One WebSocket: frames in and out of an upgraded connection. It knows no Engine.IO.

use crate::EngineFault;
use bytes::{Buf, Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use ws_proto::{
    CloseCode, Decoder, Message, OpCode, Role, Rules, Step, encode_close_masked, encode_frame_masked,
};

/// Bytes that may wait to be written before the sender is asked to pause.
const UNWRITTEN_MAX: usize = 256 << 10;

/// What came out of a step.
pub(crate) enum Frame {
    Text(String),
    Binary(Bytes),
    /// The peer closed, in order or not.
    Closed,
}

pub(crate) struct WebSocket {
    reader: ReadHalf<TokioIo<Upgraded>>,
    writer: WriteHalf<TokioIo<Upgraded>>,
    decoder: Decoder,
    rules: Rules,
    read: BytesMut,
    unwritten: BytesMut,
    masks: Masks,
}

impl WebSocket {
    pub(crate) fn new(io: TokioIo<Upgraded>, message_bytes_max: usize) -> Self {
        let (reader, writer) = tokio::io::split(io);
        WebSocket {
            reader,
            writer,
            decoder: Decoder::default(),
            rules: Rules { role: Role::Client, message_bytes_max, ..Rules::default() },
            read: BytesMut::new(),
            unwritten: BytesMut::new(),
            masks: Masks::default(),
        }
    }

    /// Puts a message into the queue of what is to be written.
    pub(crate) fn queue(&mut self, op: OpCode, payload: &[u8]) -> Result<(), EngineFault> {
        let mut frame = Vec::new();
        encode_frame_masked(&mut frame, op, payload, self.masks.next()?);
        self.unwritten.extend_from_slice(&frame);
        Ok(())
    }

    /// Whether there is room for more.
    pub(crate) fn accepts(&self) -> bool {
        self.unwritten.len() < UNWRITTEN_MAX
    }

    /// Writes what is queued and, if `may_read`, reads until frames have come. Answers them; none when it only wrote.
    ///
    /// Loses nothing when it is dropped before it has answered.
    pub(crate) async fn step(&mut self, may_read: bool) -> Result<Vec<Frame>, EngineFault> {
        loop {
            // A peer that pings and does not read must not make us hoard pongs.
            let may_read = may_read && self.accepts();
            if may_read {
                let frames = self.decode()?;
                if !frames.is_empty() {
                    return Ok(frames);
                }
            }
            let WebSocket { reader, writer, read, unwritten, .. } = self;
            let has_unwritten = !unwritten.is_empty();
            tokio::select! {
                n = writer.write(unwritten), if has_unwritten => {
                    match n.map_err(broken)? {
                        0 => return Ok(vec![Frame::Closed]),
                        n => unwritten.advance(n),
                    }
                    return Ok(Vec::new());
                }
                n = reader.read_buf(read), if may_read => {
                    if n.map_err(broken)? == 0 {
                        return Ok(vec![Frame::Closed]);
                    }
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Reads until one frame has come.
    pub(crate) async fn next(&mut self) -> Result<Vec<Frame>, EngineFault> {
        loop {
            let frames = self.step(true).await?;
            if !frames.is_empty() {
                return Ok(frames);
            }
        }
    }

    /// Writes what is queued and a close frame, then waits for the peer to close the connection. The caller bounds the time.
    ///
    /// Closing first, with something of the peer's unread, would reset the connection and could take from the peer what it has not
    /// read either (RFC 6455 §7.1.1).
    pub(crate) async fn close(mut self) -> Result<(), EngineFault> {
        let mut frame = Vec::new();
        encode_close_masked(&mut frame, Some(CloseCode::NORMAL), "", self.masks.next()?);
        self.unwritten.extend_from_slice(&frame);
        self.writer.write_all(&self.unwritten).await.map_err(broken)?;
        self.read.clear();
        while self.reader.read_buf(&mut self.read).await.map_err(broken)? > 0 {
            self.read.clear();
        }
        Ok(())
    }

    fn decode(&mut self) -> Result<Vec<Frame>, EngineFault> {
        let mut frames = Vec::new();
        let mut pongs = Vec::new();
        loop {
            let step = self.decoder.decode(&mut self.read, &self.rules, None);
            let used = match step.map_err(|fault| EngineFault::Protocol(fault.to_string()))? {
                Step::Incomplete { .. } => break,
                Step::Frame { used, message } => {
                    match message {
                        Some(Message::Text(text)) => frames.push(Frame::Text(text.to_owned())),
                        Some(Message::Binary(bytes)) => {
                            frames.push(Frame::Binary(Bytes::copy_from_slice(bytes)))
                        }
                        Some(Message::Ping(bytes)) => pongs.push(bytes.to_vec()),
                        Some(Message::Close(..)) => frames.push(Frame::Closed),
                        Some(Message::Pong(_)) | None => {}
                    }
                    used
                }
            };
            self.read.advance(used);
        }
        for pong in pongs {
            self.queue(OpCode::Pong, &pong)?;
        }
        Ok(frames)
    }
}

fn broken(error: io::Error) -> EngineFault {
    EngineFault::Transport(error.to_string())
}

/// Unpredictable masking keys, drawn from the system 64 at a time (RFC 6455 §10.3).
struct Masks {
    random: [u8; 256],
    used: usize,
}

impl Default for Masks {
    fn default() -> Self {
        Masks { random: [0; 256], used: 256 }
    }
}

impl Masks {
    fn next(&mut self) -> Result<[u8; 4], EngineFault> {
        if self.used == self.random.len() {
            getrandom::fill(&mut self.random).map_err(|error| EngineFault::Transport(error.to_string()))?;
            self.used = 0;
        }
        let mut key = [0; 4];
        key.copy_from_slice(&self.random[self.used..self.used + 4]);
        self.used += 4;
        Ok(key)
    }
}
