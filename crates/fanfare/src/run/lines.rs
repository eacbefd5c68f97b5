//! Owns how a stream of bytes becomes lines of text, and what a terminal would have painted over.
//! Does not know what lines mean. Invariant: holds at most one line, and of that a bounded part.

/// Bytes of a line that are kept; the rest of it is dropped. 16 KiB: more than anyone reads, far below what a server
/// takes in one event.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line that stays.
    Line(String),
    /// Text that a carriage return sets up to be painted over, as progress bars do.
    Passing(String),
}

/// Splits output into pieces, whatever the cuts between reads.
#[derive(Default)]
pub(super) struct Lines {
    held: Vec<u8>,
    /// A carriage return came last: it is part of a line's end, or the text before it is painted over.
    is_returned: bool,
}

impl Lines {
    /// Takes bytes, and calls `handle` with every piece that they complete.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8], mut handle: impl FnMut(Piece)) {
        for byte in bytes {
            if std::mem::take(&mut self.is_returned) && *byte != b'\n' {
                if *byte == b'\r' {
                    self.is_returned = true;
                    continue;
                }
                if !self.held.is_empty() {
                    handle(Piece::Passing(self.take()));
                }
            }
            match byte {
                b'\n' => handle(Piece::Line(self.take())),
                b'\r' => self.is_returned = true,
                byte if self.held.len() < LINE_BYTES_MAX => self.held.push(*byte),
                _ => {}
            }
        }
    }

    /// Takes the end, and answers a last line that had none.
    pub(super) fn handle_end(&mut self) -> Option<Piece> {
        if self.held.is_empty() { None } else { Some(Piece::Line(self.take())) }
    }

    /// What stands in a line that has no end yet, if it shows a percentage: bars are painted first and painted over
    /// by the next one, which may take minutes. A count may be cut within its digits, a percentage ends with its sign.
    pub(super) fn peek_percentage(&self) -> Option<Piece> {
        let is_percentage = !self.is_returned && self.held.contains(&b'%');
        is_percentage.then(|| Piece::Passing(plain(&String::from_utf8_lossy(&self.held))))
    }

    fn take(&mut self) -> String {
        let text = plain(&String::from_utf8_lossy(&self.held));
        self.held.clear();
        text
    }
}

/// The text without colours, cursor movements and other control sequences (ECMA-48 §5.4 and §5.6).
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // A control sequence: parameters, then one final character.
                Some('[') => while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
                // A command string, such as a window title or a link, up to BEL or ESC \.
                Some(']') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' {
                            break;
                        }
                        if c == '\u{1b}' {
                            chars.next_if_eq(&'\\');
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\t' => plain.push('\t'),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Piece> {
        let mut lines = Lines::default();
        let mut pieces = Vec::new();
        for chunk in chunks {
            lines.handle_bytes(chunk, |piece| pieces.push(piece));
        }
        pieces.extend(lines.handle_end());
        pieces
    }

    #[test]
    fn lines_stay_and_what_is_painted_over_passes() {
        let expected = vec![
            Piece::Line("one".into()),
            Piece::Line("two".into()),
            Piece::Passing(" 1%".into()),
            Piece::Passing(" 2%".into()),
            Piece::Line("done ü".into()),
            Piece::Line(String::new()),
            Piece::Line("rest".into()),
        ];
        let bytes = "one\r\ntwo\n\r 1%\r\r 2%\rdone ü\n\nrest".as_bytes();
        assert_eq!(split(&[bytes]), expected);
        for cut in 0..=bytes.len() {
            assert_eq!(split(&[&bytes[..cut], &bytes[cut..]]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn colours_and_other_sequences_are_left_out() {
        let bytes = b"\x1b[1;32mCompiling\x1b[0m a\tb\x1b]8;;http://x\x07link\x1b]8;;\x1b\\ \x1b[2K\x07end\n";
        assert_eq!(split(&[bytes]), [Piece::Line("Compiling a\tblink end".into())]);
    }

    #[test]
    fn a_line_without_end_is_kept_in_part_only() {
        let pieces = split(&[&vec![b'x'; LINE_BYTES_MAX * 3], b"\nnext"]);
        assert_eq!(pieces, [Piece::Line("x".repeat(LINE_BYTES_MAX)), Piece::Line("next".into())]);
    }
}
