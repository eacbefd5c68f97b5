//! Owns a moment of the calendar. Does not know what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 in UTC with milliseconds; kept as the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment that a clock shows; 1970 for one that is set before.
    #[must_use]
    pub fn of(clock: SystemTime) -> Self {
        let since = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Reads RFC 3339 with any offset; without one it is taken as UTC. RFC 3339 §5.6.
    ///
    /// `None`: not such a text, or before 1970. The peer's fault.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Date and time are 19 bytes; behind them there may be a fraction, then `Z` or an offset such as `+05:30`, which
        // the library would refuse or not look at.
        let (clock, zone) = match text.get(19..)?.find(['+', '-']) {
            Some(at) => text.split_at(19 + at),
            None => (text, ""),
        };
        let local = Self::of(humantime::parse_rfc3339_weak(clock).ok()?);
        if zone.is_empty() {
            return Some(local);
        }
        let digits: Vec<u64> =
            zone.bytes().filter(u8::is_ascii_digit).map(|digit| u64::from(digit - b'0')).collect();
        let [h1, h2, m1, m2] = digits[..] else { return None };
        let offset = ((h1 * 10 + h2) * 60 + m1 * 10 + m2) * 60_000;
        let millis =
            if zone.starts_with('+') { local.0.checked_sub(offset) } else { local.0.checked_add(offset) };
        millis.map(Self)
    }

    /// This moment and `later` more.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` until now; zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // 253402300799999: the last moment of the year 9999, beyond which the format has no way to write it.
        let clock = UNIX_EPOCH + Duration::from_millis(self.0.min(253_402_300_799_999));
        humantime::format_rfc3339_millis(clock).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc_with_milliseconds() {
        assert_eq!(Timestamp(1_705_314_600_007).to_string(), "2024-01-15T10:30:00.007Z");
        for text in
            ["2024-01-15T10:30:00.007Z", "2024-01-15T12:30:00.007+02:00", "2024-01-15 05:00:00.007-05:30"]
        {
            assert_eq!(Timestamp::parse(text), Some(Timestamp(1_705_314_600_007)), "{text}");
        }
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        for bad in ["yesterday", "2024-01-15T10:30:00+2", "2024-01-15T10:30:00+ä", ""] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }
}
