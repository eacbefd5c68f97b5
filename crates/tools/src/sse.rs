//! Owns the reading of event streams (WHATWG HTML "Server-sent events"). Does not know what events mean, and does not
//! reconnect: ids and retry times are read over.

use crate::lines::{Ends, LineFault, Lines};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its `event` field; empty if it has none.
    pub(crate) name: String,
    /// Its `data` fields, joined by line feeds.
    pub(crate) data: String,
}

/// Reads events out of bytes, however they are cut. Comments, which upstreams send to keep a connection open, are
/// read over.
#[derive(Debug)]
pub(crate) struct Sse {
    lines: Lines,
    data_bytes_max: usize,
    is_first_line: bool,
    name: String,
    data: Option<String>,
}

impl Sse {
    /// `data_bytes_max` bounds a line as well as an event's data.
    pub(crate) fn new(data_bytes_max: usize) -> Self {
        Self {
            // A line has its field's name before the data.
            lines: Lines::new(Ends::Any, data_bytes_max.saturating_add(64)),
            data_bytes_max,
            is_first_line: true,
            name: String::new(),
            data: None,
        }
    }

    /// Takes bytes and puts every event that they end into `events`.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8], events: &mut Vec<SseEvent>) -> Result<(), LineFault> {
        let mut lines = Vec::new();
        let cut = self.lines.handle_bytes(bytes, &mut lines);
        for line in lines {
            self.handle_line(&line, events)?;
        }
        cut
    }

    /// Takes the end. Deviation: an event without its empty line counts, since servers forget it after the last one;
    /// one that was cut off is noticed where its data is read.
    pub(crate) fn handle_end(&mut self, events: &mut Vec<SseEvent>) -> Result<(), LineFault> {
        let mut lines = Vec::new();
        self.lines.handle_end(&mut lines)?;
        for line in lines.iter().map(String::as_str).chain([""]) {
            self.handle_line(line, events)?;
        }
        Ok(())
    }

    fn handle_line(&mut self, line: &str, events: &mut Vec<SseEvent>) -> Result<(), LineFault> {
        let is_first = std::mem::replace(&mut self.is_first_line, false);
        let line = if is_first { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            events.extend(self.data.take().map(|data| SseEvent { name, data }));
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => {
                let held = self.data.as_ref().map_or(0, |data| data.len() + 1);
                if held + value.len() > self.data_bytes_max {
                    return Err(LineFault::TooLong(self.data_bytes_max));
                }
                match &mut self.data {
                    None => self.data = Some(value.to_owned()),
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                }
            }
            // A comment (its field is empty), `id`, `retry`, or a field that the format tells readers to ignore.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Result<Vec<(String, String)>, LineFault> {
        let mut sse = Sse::new(60);
        let mut events = Vec::new();
        for chunk in chunks {
            sse.handle_bytes(chunk, &mut events)?;
        }
        sse.handle_end(&mut events)?;
        Ok(events.into_iter().map(|event| (event.name, event.data)).collect())
    }

    const STREAM: &str = "\u{feff}data: one\r\n\r\n: keep-alive\n\nevent: up\rdata:two 🎺\rdata:  three\r\rid: 7\nretry: 9\n\n\
        data\ndata\n\nnothing: here\n\nevent: lost\n\ndata: last";

    #[test]
    fn an_event_stream_is_read_as_the_format_says() {
        let events = read(&[STREAM.as_bytes()]).unwrap();
        let events: Vec<_> = events.iter().map(|(name, data)| (&name[..], &data[..])).collect();
        assert_eq!(events, [("", "one"), ("up", "two 🎺\n three"), ("", "\n"), ("", "last")]);
    }

    #[test]
    fn events_are_the_same_wherever_the_network_cuts() {
        let text = STREAM.as_bytes();
        let whole = read(&[text]).unwrap();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let chunks = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(read(&chunks).unwrap(), whole, "{first} {second}");
            }
        }
    }

    #[test]
    fn long_data_is_a_fault_in_one_line_and_in_many() {
        let line = format!("data: {}\n", "a".repeat(59));
        assert!(read(&[line.as_bytes()]).is_ok());
        assert_eq!(read(&[line.repeat(2).as_bytes()]), Err(LineFault::TooLong(60)));
        assert_eq!(read(&[line.trim_end().as_bytes(), &[b'a'; 70]]), Err(LineFault::TooLong(124)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_alike_in_one_piece_and_in_single_bytes(
            text in prop::collection::vec(prop::sample::select(b"data: event\r\n\n\xc3\xa4\xef\xbb\xbf".to_vec()), 0..200),
        ) {
            let single: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(read(&[&text]), read(&single));
        }
    }
}
