//! Owns the body of a reply: written here, or streamed from another node.
//! Does not know what it says.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

/// The body of one of the engine's replies.
#[derive(Debug, Default)]
pub struct ReplyBody(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Full<Bytes>),
    Streamed(Incoming),
}

impl Default for Kind {
    fn default() -> Self {
        Kind::Whole(Full::default())
    }
}

impl ReplyBody {
    pub(crate) fn streamed(body: Incoming) -> Self {
        Self(Kind::Streamed(body))
    }
}

impl<T: Into<Bytes>> From<T> for ReplyBody {
    fn from(body: T) -> Self {
        Self(Kind::Whole(Full::new(body.into())))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    /// Only a body that is streamed from another node can fail.
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Kind::Streamed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(body) => body.is_end_stream(),
            Kind::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(body) => body.size_hint(),
            Kind::Streamed(body) => body.size_hint(),
        }
    }
}
