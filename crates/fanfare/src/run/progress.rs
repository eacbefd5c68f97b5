//! Owns how far a job is, as read from what it prints: percentages and counts in the styles of common tools.
//! Does not know where lines come from. Invariant: progress never goes back.

use super::lines::Piece;

/// Characters of which progress bars are made, in tools that draw them.
const BAR: &[char] = &['█', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '━', '╸', '#', '=', '|', '⠿', '■'];

/// Words that go with a figure which means progress.
const WORDS: &[&str] = &[
    "progress",
    "complete",
    "done",
    "download",
    "building",
    "compiling",
    "step",
    "epoch",
    "processing",
    "receiving",
];

/// How far a job is.
#[derive(Default)]
pub(super) struct Progress {
    percent: Option<f64>,
}

impl Progress {
    /// Reads a piece of output. Answers the new percentage, 0 to 100, if it has grown.
    pub(super) fn handle_piece(&mut self, piece: &Piece) -> Option<f64> {
        let found = match piece {
            Piece::Line(text) => find(text, false),
            // What is painted over is most likely a progress display.
            Piece::Passing(text) => find(text, true),
        }?;
        // Tenths: finer steps are not visible, and floating point is not exact.
        let found = (found * 10.0).round() / 10.0;
        if self.percent.is_some_and(|percent| found <= percent) {
            return None;
        }
        self.percent = Some(found);
        Some(found)
    }
}

/// A percentage or a count in a text, as a percentage.
fn find(text: &str, is_passing: bool) -> Option<f64> {
    let lower = text.to_lowercase();
    let is_likely = is_passing || text.contains(BAR) || WORDS.iter().any(|word| lower.contains(word));
    percentage(text, is_likely).or_else(|| count(text, is_likely))
}

/// The first percentage. In a line that does not look like progress only at its beginning, its end, or in brackets.
fn percentage(text: &str, is_likely: bool) -> Option<f64> {
    for (at, _) in text.match_indices('%') {
        let before = text[..at].trim_end_matches(' ');
        let digits = trailing_number(before);
        if digits.is_empty() {
            continue;
        }
        let lead = before[..before.len() - digits.len()].trim_end_matches(' ');
        let rest = text[at + 1..].trim_start();
        let is_bracketed =
            lead.ends_with('[') && rest.starts_with(']') || lead.ends_with('(') && rest.starts_with(')');
        let is_placed = is_bracketed || lead.is_empty();
        if let Ok(percent) = digits.parse::<f64>()
            && percent <= 100.0
            && (is_likely || is_placed)
            // `-5%` and `x5%` are something else.
            && !lead.ends_with(|c: char| c.is_alphanumeric() && before.len() == lead.len() + digits.len() || c == '-')
        {
            return Some(percent);
        }
    }
    None
}

/// The first count such as `3/10`. In a line that does not look like progress only in brackets: dates, paths and
/// fractions are written the same way.
fn count(text: &str, is_likely: bool) -> Option<f64> {
    for (at, _) in text.match_indices('/') {
        let before = &text[..at];
        let done = trailing_number(before.trim_end_matches(' '));
        let after = text[at + 1..].trim_start_matches(' ');
        let total_len = after.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let total = after[..total_len].trim_end_matches('.');
        let lead = before.trim_end_matches(' ').strip_suffix(done).unwrap_or_default();
        let rest = &after[total_len..];
        let is_apart = lead.is_empty() || lead.ends_with([' ', '[', '(', '|', '\t']);
        let ends_well = rest.is_empty() || rest.starts_with([' ', ']', ')', ':', ',', '|', '\t']);
        let is_bracketed = lead.trim_end().ends_with(['[', '(']) && rest.trim_start().starts_with([']', ')']);
        if !is_apart || !ends_well || !(is_likely || is_bracketed) {
            continue;
        }
        if let (Ok(done), Ok(total)) = (done.parse::<f64>(), total.parse::<f64>())
            && total > 0.0
            && done <= total
        {
            return Some(done / total * 100.0);
        }
    }
    None
}

/// The digits, with at most one point between them, that a text ends with.
fn trailing_number(text: &str) -> &str {
    let start = text
        .rfind(|c: char| !(c.is_ascii_digit() || c == '.'))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    text[start..].trim_start_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, expected: Option<f64>) {
        assert_eq!(find(text, false).map(f64::round), expected, "{text}");
    }

    #[test]
    fn common_tools_are_understood() {
        reads(" 45%|████▌     | 45/100 [00:01<00:01, 39.9it/s]", Some(45.0));
        reads("tests/test_a.py ........          [ 33%]", Some(33.0));
        reads("[ 12%] Building CXX object x.o", Some(12.0));
        reads("[12/48] CXX x.o", Some(25.0));
        reads("    Building [=======>        ] 30/120: serde", Some(25.0));
        reads("   ━━━━━━━━━━╸━━━━━━━ 1.5/3.0 MB 5.1 MB/s eta 0:00:01", Some(50.0));
        reads("Downloading x.whl (1/4)", Some(25.0));
        reads("Step 3/10 : RUN make", Some(30.0));
        reads("Receiving objects:  67% (670/1000), 1.2 MiB", Some(67.0));
        reads("Progress: 99.96 %", Some(100.0));
        reads("Epoch 1/4", Some(25.0));
        reads("100%", Some(100.0));
    }

    #[test]
    fn other_figures_are_not_progress() {
        for text in [
            "CPU at 95% for a while",
            "on 11/21 we met",
            "src/12/34.rs",
            "a/b",
            "1/2/2026 done",
            "250% progress",
            "%",
            "/",
            "5/3 done",
            "1/0 done",
            "ü% /ü 7%ü",
            "TOTAL coverage 87% of lines",
            "...% x",
            "HTTP/1.1 200",
            "v1.2/3 x",
        ] {
            reads(text, None);
        }
    }

    #[test]
    fn progress_never_goes_back() {
        let mut progress = Progress::default();
        let mut read = |text: &str| progress.handle_piece(&Piece::Passing(text.to_owned()));
        assert_eq!(read("0%"), Some(0.0));
        assert_eq!(read("40%"), Some(40.0));
        assert_eq!(read("40%"), None);
        assert_eq!(read("file 2: 5%"), None);
        assert_eq!(read("2/3"), Some(66.7));
    }
}
