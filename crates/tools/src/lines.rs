//! Owns the cutting of bytes into lines and into characters, however the network cuts them. Does not know what lines
//! mean. Invariant: nothing longer than its bound is held.

/// Why bytes cannot be cut. The upstream's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineFault {
    /// A line, or what lines make up, is longer than this many bytes.
    TooLong(usize),
    /// It is not UTF-8.
    NotUtf8,
}

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// LF; a CR before it is no part of the line. As in NDJSON.
    Newline,
    /// LF, CR, or both together. As in event streams.
    Any,
}

/// Cuts bytes into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    ends: Ends,
    line_bytes_max: usize,
    held: Vec<u8>,
    /// Whether the last byte was a CR that ended a line: a LF right after it belongs to it.
    is_after_cr: bool,
}

impl Lines {
    pub(crate) fn new(ends: Ends, line_bytes_max: usize) -> Self {
        Self { ends, line_bytes_max, held: Vec::new(), is_after_cr: false }
    }

    /// Takes bytes and puts every line that they end into `lines`, without what ended it.
    pub(crate) fn handle_bytes(
        &mut self,
        mut bytes: &[u8],
        lines: &mut Vec<String>,
    ) -> Result<(), LineFault> {
        if self.is_after_cr && !bytes.is_empty() {
            self.is_after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| self.is_end(*byte)) {
            self.hold(&bytes[..end])?;
            self.end_line(lines)?;
            let is_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if is_cr {
                self.is_after_cr = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
        self.hold(bytes)
    }

    /// Takes the end: what is left is a line, too.
    pub(crate) fn handle_end(&mut self, lines: &mut Vec<String>) -> Result<(), LineFault> {
        if self.held.is_empty() { Ok(()) } else { self.end_line(lines) }
    }

    fn is_end(&self, byte: u8) -> bool {
        byte == b'\n' || (byte == b'\r' && self.ends == Ends::Any)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), LineFault> {
        if self.held.len() + bytes.len() > self.line_bytes_max {
            return Err(LineFault::TooLong(self.line_bytes_max));
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, lines: &mut Vec<String>) -> Result<(), LineFault> {
        let mut line = std::mem::take(&mut self.held);
        if self.ends == Ends::Newline && line.last() == Some(&b'\r') {
            line.pop();
        }
        lines.push(String::from_utf8(line).map_err(|_| LineFault::NotUtf8)?);
        Ok(())
    }
}

/// Makes text of bytes that may be cut within a character.
#[derive(Debug, Default)]
pub(crate) struct Characters {
    /// The beginning of a character: at most 3 bytes.
    held: Vec<u8>,
}

impl Characters {
    /// All whole characters so far that were not given before.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<String, LineFault> {
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        if let Err(fault) = std::str::from_utf8(&all) {
            if fault.error_len().is_some() {
                return Err(LineFault::NotUtf8);
            }
            self.held = all.split_off(fault.valid_up_to());
        }
        String::from_utf8(all).map_err(|_| LineFault::NotUtf8)
    }

    /// Takes the end, which must not be within a character.
    pub(crate) fn handle_end(&self) -> Result<(), LineFault> {
        if self.held.is_empty() { Ok(()) } else { Err(LineFault::NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(ends: Ends, chunks: &[&[u8]]) -> Result<Vec<String>, LineFault> {
        let mut cutter = Lines::new(ends, 40);
        let mut lines = Vec::new();
        for chunk in chunks {
            cutter.handle_bytes(chunk, &mut lines)?;
        }
        cutter.handle_end(&mut lines)?;
        Ok(lines)
    }

    #[test]
    fn lines_end_as_their_format_says() {
        let text = b"a\r\nb\rc\n\nd";
        assert_eq!(cut(Ends::Newline, &[text]).unwrap(), ["a", "b\rc", "", "d"]);
        assert_eq!(cut(Ends::Any, &[text]).unwrap(), ["a", "b", "c", "", "d"]);
        assert_eq!(cut(Ends::Any, &[b"a\r", b"", b"\n\r", b"\r\nb"]).unwrap(), ["a", "", "", "b"]);
    }

    #[test]
    fn a_long_line_and_bytes_that_are_no_text_are_faults() {
        assert_eq!(cut(Ends::Newline, &[&[b'a'; 30], &[b'a'; 11]]), Err(LineFault::TooLong(40)));
        assert!(cut(Ends::Newline, &[&[b'a'; 40], b"\n", &[b'a'; 40]]).is_ok());
        assert_eq!(cut(Ends::Newline, &[b"\xff\n"]), Err(LineFault::NotUtf8));
    }

    #[test]
    fn lines_are_the_same_wherever_the_network_cuts() {
        let text = "grün\r\n🎺 漢\r\rx\n\r\n\nlast\r".as_bytes();
        for ends in [Ends::Newline, Ends::Any] {
            let whole = cut(ends, &[text]).unwrap();
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let chunks = [&text[..first], &text[first..second], &text[second..]];
                    assert_eq!(cut(ends, &chunks).unwrap(), whole, "{first} {second}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_or_refused_alike_in_one_piece_and_in_single_bytes(bytes: Vec<u8>, any: bool) {
            let ends = if any { Ends::Any } else { Ends::Newline };
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(cut(ends, &[&bytes]), cut(ends, &single));
        }

        #[test]
        fn characters_come_out_as_they_went_in(text: String, at: prop::sample::Index) {
            let at = at.index(text.len() + 1);
            let mut characters = Characters::default();
            let mut out = characters.handle_bytes(&text.as_bytes()[..at]).unwrap();
            prop_assert!(characters.held.len() < 4);
            out.push_str(&characters.handle_bytes(&text.as_bytes()[at..]).unwrap());
            prop_assert_eq!(out, text);
            prop_assert!(characters.handle_end().is_ok());
        }
    }

    #[test]
    fn half_a_character_is_no_end() {
        let mut characters = Characters::default();
        assert_eq!(characters.handle_bytes(b"a\xf0\x9f").unwrap(), "a");
        assert_eq!(characters.handle_end(), Err(LineFault::NotUtf8));
        assert_eq!(characters.handle_bytes(b"a"), Err(LineFault::NotUtf8));
    }
}
