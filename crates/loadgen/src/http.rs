//! HTTP/1.1 as long-polling needs it: whole answers for the load generator, whole requests for the floor.
//!
//! Bodies have a `Content-Length` or are chunked (RFC 9112 §6, §7.1); nothing else is understood. Knows nothing about
//! what a body means.

use std::ops::Range;

use crate::wire::{self, Fault};

/// The largest head or body that is taken for one.
const BYTES_MAX: usize = 16 << 20;

/// A whole message, as places in the buffer it was found in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) head: Range<usize>,
    /// The body, put together from its chunks.
    pub(crate) body: Vec<u8>,
    /// Where the next message starts.
    pub(crate) len: usize,
}

/// Finds the message at the start of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// `Fault::Packet`: a head that is no text, or a length that cannot be understood.
pub(crate) fn decode_message(bytes: &[u8]) -> Result<Option<Message>, Fault> {
    let Some(end) = wire::head_end(bytes) else {
        return if bytes.len() > BYTES_MAX { Err(Fault::TooLong(bytes.len() as u64)) } else { Ok(None) };
    };
    let wrong = |why: &str| Fault::Packet(format!("{why} in {}", wire::excerpt(&bytes[..end])));
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| wrong("no text"))?;
    if wire::header(head, "transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        return decode_chunks(bytes, end);
    }
    let length = match wire::header(head, "content-length") {
        None => 0,
        Some(text) => text.parse().ok().filter(|n| *n <= BYTES_MAX).ok_or_else(|| wrong("bad length"))?,
    };
    let whole = bytes.get(end..end + length);
    Ok(whole.map(|body| Message { head: 0..end, body: body.to_vec(), len: end + length }))
}

fn decode_chunks(bytes: &[u8], head_end: usize) -> Result<Option<Message>, Fault> {
    let mut body = Vec::new();
    let mut at = head_end;
    loop {
        let Some(line) = wire::find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        let digits = text.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).ok().filter(|n| *n + body.len() <= BYTES_MAX);
        let size = size.ok_or_else(|| Fault::Packet(format!("chunk of {digits} bytes")))?;
        let from = at + line + 2;
        let Some(chunk) = bytes.get(from..from + size + 2) else { return Ok(None) };
        let (data, end) = chunk.split_at(size);
        if end != b"\r\n" {
            return Err(Fault::Packet("chunk without its end".into()));
        }
        at = from + size + 2;
        if size == 0 {
            return Ok(Some(Message { head: 0..head_end, body, len: at }));
        }
        body.extend_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, body: &str) {
        let bytes = [text.as_bytes(), b"rest"].concat();
        let message = decode_message(&bytes).unwrap().expect("whole message");
        assert_eq!((message.len, message.body), (text.len(), body.as_bytes().to_vec()));
        for cut in 0..text.len() {
            assert_eq!(decode_message(&text.as_bytes()[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn messages_are_found_from_any_cut() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello");
        check("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "");
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
            "hello",
        );
    }

    #[test]
    fn lengths_that_make_no_sense_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(decode_message(text.as_bytes()).is_err(), "{text}");
        }
    }
}
