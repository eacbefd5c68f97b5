//! Owns the joining of text that comes in small pieces, as a language model writes it, into few events. Does not know
//! who writes or who reads. Invariant: what goes out, put together, is what came in, byte by byte, whatever the timing.
//!
//! The first piece goes out at once, so nobody waits longer than the writer made them wait. Then there is at most one
//! in each window, so a hundred pieces a second cost thirty events a second at the default of 33 ms.

use std::time::{Duration, Instant};

/// Joins the deltas of one answer.
///
/// After each `handle_delta`, `handle_timeout` and `flush`, drain `poll_output` and sleep until `poll_deadline` at the
/// longest. Before any other event of the same answer, `flush`, so that it does not overtake text.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use hub::deltas::Deltas;
/// let mut deltas = Deltas::new(Duration::from_millis(33), 16_384);
/// let now = Instant::now();
/// let mut events = Vec::new();
/// for piece in ["Hel", "lo ", "world"] {
///     deltas.handle_delta(now, piece);
///     events.extend(std::iter::from_fn(|| deltas.poll_output()));
/// }
/// deltas.handle_timeout(deltas.poll_deadline().unwrap());
/// events.extend(std::iter::from_fn(|| deltas.poll_output()));
/// assert_eq!(events, ["Hel", "lo world"]);
/// ```
#[derive(Debug)]
pub struct Deltas {
    window: Duration,
    piece_bytes_max: usize,
    /// What came in and did not go out.
    held: String,
    /// When text may go out again; `None` before the first.
    opens_at: Option<Instant>,
    /// Whether all that is held goes out now.
    is_due: bool,
}

impl Deltas {
    /// Begins an answer. `window` is the shortest time from one piece to the next; zero passes each delta on.
    /// `piece_bytes_max` bounds what is held and what goes out as one; at least 4, which is the longest character.
    #[must_use]
    pub fn new(window: Duration, piece_bytes_max: usize) -> Self {
        let piece_bytes_max = piece_bytes_max.max(4);
        Self { window, piece_bytes_max, held: String::new(), opens_at: None, is_due: false }
    }

    /// Takes a delta. It goes out at once if the window is open, or if too much would be held otherwise: as long as
    /// the output is drained, no more than `piece_bytes_max` bytes are held between calls.
    pub fn handle_delta(&mut self, now: Instant, text: &str) {
        if text.is_empty() {
            return;
        }
        self.held.push_str(text);
        if self.is_open(now) || self.held.len() >= self.piece_bytes_max {
            self.release(now);
        }
    }

    /// Lets go what is held, if its window has ended.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_open(now) {
            self.flush(now);
        }
    }

    /// Lets go what is held, now: something else is to follow it.
    pub fn flush(&mut self, now: Instant) {
        if !self.held.is_empty() {
            self.release(now);
        }
    }

    /// Whether `poll_output` has something.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.is_due
    }

    /// The next piece to send, cut between characters; never empty.
    pub fn poll_output(&mut self) -> Option<String> {
        if !self.is_due {
            return None;
        }
        if self.held.len() > self.piece_bytes_max {
            let end = self.held.floor_char_boundary(self.piece_bytes_max);
            let rest = self.held.split_off(end);
            return Some(std::mem::replace(&mut self.held, rest));
        }
        self.is_due = false;
        Some(std::mem::take(&mut self.held))
    }

    /// When `handle_timeout` is due; `None` while nothing is held.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.opens_at.filter(|_| !self.held.is_empty())
    }

    fn is_open(&self, now: Instant) -> bool {
        self.opens_at.is_none_or(|at| now >= at)
    }

    fn release(&mut self, now: Instant) {
        self.is_due = true;
        // Far beyond what a clock can show, the window simply stays open.
        self.opens_at = now.checked_add(self.window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(33);

    fn drain(deltas: &mut Deltas) -> Vec<String> {
        std::iter::from_fn(|| deltas.poll_output()).collect()
    }

    #[test]
    fn the_first_delta_goes_at_once_and_then_one_each_window() {
        let mut deltas = Deltas::new(WINDOW, 1_000);
        let start = Instant::now();
        let mut sent = Vec::new();
        // 100 tokens a second for three seconds.
        for n in 0..300_u64 {
            let now = start + Duration::from_millis(10 * n);
            if deltas.poll_deadline().is_some_and(|at| at <= now) {
                let at = deltas.poll_deadline().unwrap();
                deltas.handle_timeout(at);
                sent.extend(drain(&mut deltas).into_iter().map(|text| (at, text)));
            }
            deltas.handle_delta(now, "token ");
            sent.extend(drain(&mut deltas).into_iter().map(|text| (now, text)));
        }
        assert_eq!(sent[0], (start, "token ".to_owned()));
        assert!(sent.windows(2).all(|two| two[1].0 - two[0].0 >= WINDOW));
        assert!((85..=91).contains(&sent.len()), "{} events", sent.len());
    }

    #[test]
    fn a_slow_writer_is_not_delayed() {
        let mut deltas = Deltas::new(WINDOW, 1_000);
        let start = Instant::now();
        for n in 0..5 {
            deltas.handle_delta(start + WINDOW * n, "a");
            assert_eq!(drain(&mut deltas), ["a"]);
            assert_eq!(deltas.poll_deadline(), None);
        }
    }

    #[test]
    fn a_flush_lets_go_early_and_starts_the_window_again() {
        let mut deltas = Deltas::new(WINDOW, 1_000);
        let start = Instant::now();
        deltas.flush(start);
        assert!(!deltas.has_output());
        deltas.handle_delta(start, "a");
        assert_eq!(drain(&mut deltas), ["a"]);
        deltas.handle_delta(start, "b");
        assert_eq!(drain(&mut deltas), Vec::<String>::new());
        let flushed = start + Duration::from_millis(5);
        deltas.flush(flushed);
        assert!(deltas.has_output());
        assert_eq!(drain(&mut deltas), ["b"]);
        deltas.handle_delta(flushed, "c");
        assert_eq!(deltas.poll_deadline(), Some(flushed + WINDOW));
        deltas.handle_timeout(flushed + WINDOW / 2);
        assert_eq!(drain(&mut deltas), Vec::<String>::new());
        deltas.handle_timeout(flushed + WINDOW);
        assert_eq!(drain(&mut deltas), ["c"]);
    }

    #[test]
    fn pieces_are_bounded_and_cut_between_characters() {
        let mut deltas = Deltas::new(WINDOW, 0);
        let text = "a🎺é漢字🎺🎺 z".repeat(20);
        deltas.handle_delta(Instant::now(), &text);
        let pieces = drain(&mut deltas);
        assert!(pieces.iter().all(|piece| (1..=4).contains(&piece.len())));
        assert_eq!(pieces.concat(), text);
    }

    /// Numbers that look random and are the same in each run (xorshift64*).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
        }
    }

    #[test]
    fn whatever_the_timing_the_pieces_put_together_are_the_text() {
        let letters = ["a", "ß", "漢", "🎺", "\n", "\0", "e\u{301}", " "];
        for seed in 1..2_000 {
            let mut dice = Dice(seed);
            let piece_bytes_max = usize::try_from(4 + dice.below(30)).unwrap();
            let mut deltas = Deltas::new(Duration::from_millis(dice.below(40)), piece_bytes_max);
            let mut now = Instant::now();
            let (mut came, mut went) = (String::new(), String::new());
            for _ in 0..dice.below(60) {
                now += Duration::from_millis(dice.below(25));
                match dice.below(6) {
                    0 => deltas.flush(now),
                    1 => deltas.handle_timeout(now),
                    _ => {
                        let text: String =
                            (0..dice.below(12)).map(|_| letters[dice.below(8) as usize]).collect();
                        came.push_str(&text);
                        deltas.handle_delta(now, &text);
                    }
                }
                for piece in drain(&mut deltas) {
                    assert!(!piece.is_empty() && piece.len() <= piece_bytes_max, "seed {seed}");
                    went.push_str(&piece);
                }
                assert!(came.len() - went.len() <= piece_bytes_max, "seed {seed}");
                assert!(came.starts_with(&went), "seed {seed}");
                assert_eq!(deltas.poll_deadline().is_some(), came.len() > went.len(), "seed {seed}");
            }
            deltas.flush(now);
            went.extend(drain(&mut deltas));
            assert_eq!(came, went, "seed {seed}");
        }
    }
}
