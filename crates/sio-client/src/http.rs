//! The HTTP requests that the transports make.

use crate::EngineFault;
use crate::endpoint::Endpoint;
use bytes::Bytes;
use eio_proto::TransportKind;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;

/// Makes requests to one endpoint; clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    endpoint: Arc<Endpoint>,
    client: Client<HttpConnector, Full<Bytes>>,
    body_bytes_max: usize,
}

impl Http {
    pub(crate) fn new(endpoint: Arc<Endpoint>, body_bytes_max: usize) -> Self {
        let mut connector = HttpConnector::new();
        // Small packets must not wait for the acknowledgement of earlier ones.
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Http { endpoint, client, body_bytes_max }
    }

    /// A GET of the polling transport; answers the payload.
    pub(crate) async fn poll(&self, sid: Option<&str>) -> Result<Bytes, EngineFault> {
        let request = self.request(Method::GET, TransportKind::Polling, sid)?;
        let request = request.body(Full::default()).map_err(transport)?;
        let response = self.client.request(request).await.map_err(transport)?;
        self.body_of(response).await
    }

    /// A POST of the polling transport.
    pub(crate) async fn post(&self, sid: &str, payload: Vec<u8>) -> Result<(), EngineFault> {
        let request = self.request(Method::POST, TransportKind::Polling, Some(sid))?;
        let request = request.header(header::CONTENT_TYPE, "text/plain;charset=UTF-8");
        let request = request.body(Full::from(payload)).map_err(transport)?;
        let response = self.client.request(request).await.map_err(transport)?;
        self.body_of(response).await.map(|_| ())
    }

    /// The opening handshake of a WebSocket; answers the connection after it.
    ///
    /// Spec: RFC 6455 §4.1.
    pub(crate) async fn upgrade(&self, sid: Option<&str>) -> Result<TokioIo<Upgraded>, EngineFault> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(transport)?;
        let key = ws_proto::client_key(random);
        let key = str::from_utf8(&key).expect("invariant: base64 is ASCII");
        let request = self
            .request(Method::GET, TransportKind::WebSocket, sid)?
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, key);
        let request = request.body(Full::default()).map_err(transport)?;
        let response = self.client.request(request).await.map_err(transport)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return match self.body_of(response).await {
                Ok(_) => Err(EngineFault::Protocol("websocket handshake answered as a plain request".into())),
                Err(fault) => Err(fault),
            };
        }
        let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if accept != Some(&ws_proto::accept_key(key)[..]) {
            return Err(EngineFault::Protocol("websocket handshake with a wrong accept key".into()));
        }
        hyper::upgrade::on(response).await.map(TokioIo::new).map_err(transport)
    }

    fn request(
        &self,
        method: Method,
        transport_kind: TransportKind,
        sid: Option<&str>,
    ) -> Result<hyper::http::request::Builder, EngineFault> {
        let uri = self.endpoint.uri(transport_kind, sid).map_err(transport)?;
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.endpoint.headers.clone());
        }
        Ok(request)
    }

    /// The whole body of a 200, or what the other status says.
    async fn body_of(&self, response: Response<Incoming>) -> Result<Bytes, EngineFault> {
        let status = response.status();
        let body = Limited::new(response.into_body(), self.body_bytes_max).collect().await;
        let body = body.map_err(|error| EngineFault::Transport(error.to_string()))?.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        // 200 characters tell what it is about.
        let body = String::from_utf8_lossy(&body).chars().take(200).collect();
        Err(EngineFault::Status { status: status.as_u16(), body })
    }
}

fn transport(error: impl std::error::Error) -> EngineFault {
    // hyper's own message is general; what happened is in its source.
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        message = format!("{message}: {error}");
        source = error.source();
    }
    EngineFault::Transport(message)
}
