//! Owns a span of time as peers write it: a number of seconds. Does not know what it is the span of.

use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Read and written as a number of seconds, which may have a fraction; kept in whole milliseconds. At most 100 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "f64")]
pub struct Seconds(Duration);

/// A century: longer than any server lives, and far from where sums of moments saturate.
const LONGEST: f64 = 100.0 * 365.25 * 86_400.0;

impl Seconds {
    /// Cuts what is less than a millisecond.
    #[must_use]
    pub fn new(span: Duration) -> Self {
        Self(Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The span.
    #[must_use]
    pub fn span(self) -> Duration {
        self.0
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.subsec_nanos() == 0 {
            to.serialize_u64(self.0.as_secs())
        } else {
            to.serialize_f64(self.0.as_secs_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(from)?;
        let span = Duration::try_from_secs_f64(seconds).ok().filter(|_| seconds <= LONGEST);
        let complaint =
            || D::Error::invalid_value(Unexpected::Float(seconds), &"a number of seconds, at most 100 years");
        // Half a millisecond more, so that cutting rounds.
        span.map(|span| Self::new(span + Duration::from_micros(500))).ok_or_else(complaint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_numbers_of_seconds() {
        for (given, span, written) in
            [("5", 5_000, "5"), ("0.25", 250, "0.25"), ("0.0004", 0, "0"), ("1.0", 1_000, "1")]
        {
            let seconds: Seconds = serde_json::from_str(given).unwrap();
            assert_eq!(seconds.span(), Duration::from_millis(span), "{given}");
            assert_eq!(serde_json::to_string(&seconds).unwrap(), written, "{given}");
        }
        for bad in ["-1", "1e300", "\"5\"", "null"] {
            assert!(serde_json::from_str::<Seconds>(bad).is_err(), "{bad}");
        }
    }
}
