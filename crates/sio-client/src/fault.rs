//! What can go wrong, by whose fault.

use serde_json::Value;
use sio_proto::EncodeFault;
use std::{error, fmt};

/// The server's "no" to a CONNECT.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Its message.
    pub message: String,
    /// What the server's application added.
    pub data: Option<Value>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refused the namespace: {}", self.message)
    }
}

impl error::Error for Refusal {}

/// Why an Engine.IO session could not be opened or had to end. The environment's fault, or the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineFault {
    /// Name resolution, TCP or HTTP failed.
    Transport(String),
    /// The server answered with another status than was due.
    Status {
        /// The status code.
        status: u16,
        /// The beginning of the reply's body.
        body: String,
    },
    /// The server sent what is no Engine.IO, WebSocket or Socket.IO.
    Protocol(String),
}

impl fmt::Display for EngineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineFault::Transport(message) => write!(f, "transport failed: {message}"),
            EngineFault::Status { status, body } => write!(f, "server answered with status {status}: {body}"),
            EngineFault::Protocol(message) => write!(f, "server broke the protocol: {message}"),
        }
    }
}

impl error::Error for EngineFault {}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq)]
pub enum ConnectFault {
    /// The address, a header, the path or the namespace cannot be used. The caller's fault.
    Options(String),
    /// The connection could not be made, or was lost before the server had answered.
    Engine(EngineFault),
    /// The server closed the connection before it had answered.
    Closed,
    /// The server said no; its connection stays open for other namespaces.
    Refused(Refusal),
    /// No answer within `connect_timeout`.
    TimedOut,
}

impl fmt::Display for ConnectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectFault::Options(message) => write!(f, "cannot connect: {message}"),
            ConnectFault::Engine(fault) => fault.fmt(f),
            ConnectFault::Closed => f.write_str("connection closed before the server had answered"),
            ConnectFault::Refused(refusal) => refusal.fmt(f),
            ConnectFault::TimedOut => f.write_str("no answer within connect_timeout"),
        }
    }
}

impl error::Error for ConnectFault {}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The server sent DISCONNECT. Final.
    Server,
    /// We left. Final.
    Client,
    /// No ping came in time.
    PingTimeout,
    /// The transport was closed in order.
    TransportClose,
    /// The transport failed, or the server broke the protocol.
    Engine(EngineFault),
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DisconnectReason::Server => f.write_str("the server disconnected the socket"),
            DisconnectReason::Client => f.write_str("the socket left"),
            DisconnectReason::PingTimeout => f.write_str("no ping in time"),
            DisconnectReason::TransportClose => f.write_str("transport closed"),
            DisconnectReason::Engine(fault) => fault.fmt(f),
        }
    }
}

/// Why an event was not sent.
#[derive(Debug)]
pub enum EmitFault {
    /// The arguments cannot be encoded. The caller's fault.
    Encode(EncodeFault),
    /// The socket has ended for good.
    Closed,
}

impl fmt::Display for EmitFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EmitFault::Encode(fault) => fault.fmt(f),
            EmitFault::Closed => f.write_str("the socket has ended"),
        }
    }
}

impl error::Error for EmitFault {}

impl From<EncodeFault> for EmitFault {
    fn from(fault: EncodeFault) -> Self {
        EmitFault::Encode(fault)
    }
}

/// Why there is no answer to an event.
#[derive(Debug)]
pub enum AckFault {
    /// It was not sent.
    Emit(EmitFault),
    /// No answer in time. The server may have handled the event all the same.
    TimedOut,
    /// The connection was lost after the event was sent. The server may have handled it all the same.
    Disconnected,
}

impl fmt::Display for AckFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AckFault::Emit(fault) => fault.fmt(f),
            AckFault::TimedOut => f.write_str("no answer in time"),
            AckFault::Disconnected => f.write_str("connection lost before the answer"),
        }
    }
}

impl error::Error for AckFault {}
