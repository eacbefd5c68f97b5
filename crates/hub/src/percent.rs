//! Owns how far something has come: a number from 0 to 100 whose sums are exact. Does not know what comes so far.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Parts of one percent that are told apart: whoever adds steps of 0.1 or 33.333333 gets the sum that a person expects.
const PARTS: i64 = 1_000_000;

/// All of it.
const WHOLE: i64 = 100 * PARTS;

/// From 0 to 100, in millionths. Written as a number, whole ones without a point; what is read is rounded to the nearest
/// millionth and clamped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "f64", extend("minimum" = 0, "maximum" = 100))]
pub struct Percent(i64);

/// By how much something has come further, or gone back; at most 100 in either direction. Read and written like
/// [`Percent`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "f64", extend("minimum" = -100, "maximum" = 100))]
pub struct PercentStep(i64);

impl Percent {
    /// Nothing yet.
    pub const ZERO: Percent = Percent(0);
    /// All of it.
    pub const FULL: Percent = Percent(WHOLE);

    /// Takes a number of percents; what is no number counts as 0.
    #[must_use]
    pub fn new(percents: f64) -> Self {
        Self(parts(percents).clamp(0, WHOLE))
    }

    /// So much further or back, but not beyond the ends.
    #[must_use]
    pub fn plus(self, step: PercentStep) -> Self {
        Self((self.0 + step.0).clamp(0, WHOLE))
    }
}

impl PercentStep {
    /// Takes a number of percents; what is no number counts as 0.
    #[must_use]
    pub fn new(percents: f64) -> Self {
        Self(parts(percents).clamp(-WHOLE, WHOLE))
    }
}

/// A cast from floating point saturates, and makes 0 of what is no number.
#[expect(clippy::cast_possible_truncation, reason = "saturating is what is wanted")]
fn parts(percents: f64) -> i64 {
    #[expect(clippy::cast_precision_loss, reason = "a million is exact")]
    let parts = (percents * PARTS as f64).round();
    parts as i64
}

fn write<S: Serializer>(parts: i64, to: S) -> Result<S::Ok, S::Error> {
    if parts % PARTS == 0 {
        return to.serialize_i64(parts / PARTS);
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "both are far below 2^53, and their quotient is the nearest number"
    )]
    to.serialize_f64(parts as f64 / PARTS as f64)
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        write(self.0, to)
    }
}

impl Serialize for PercentStep {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        write(self.0, to)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        f64::deserialize(from).map(Self::new)
    }
}

impl<'de> Deserialize<'de> for PercentStep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        f64::deserialize(from).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_clamped_and_written_as_people_write_them() {
        for (given, written) in [
            ("25", "25"),
            ("25.0", "25"),
            ("0.1", "0.1"),
            ("33.3333333333", "33.333333"),
            ("-5", "0"),
            ("1e300", "100"),
            ("100.0000001", "100"),
        ] {
            let percent: Percent = serde_json::from_str(given).unwrap();
            assert_eq!(serde_json::to_string(&percent).unwrap(), written, "{given}");
        }
        assert_eq!(Percent::new(f64::NAN), Percent::ZERO);
        assert!(serde_json::from_str::<Percent>("\"50\"").is_err());
    }

    #[test]
    fn steps_add_up_exactly() {
        let tenth = PercentStep::new(0.1);
        let sum = (0..999).fold(Percent::ZERO, |sum, _| sum.plus(tenth));
        assert_eq!(serde_json::to_string(&sum).unwrap(), "99.9");
        assert_eq!(sum.plus(tenth), Percent::FULL);
        assert_eq!(Percent::FULL.plus(PercentStep::new(-30.0)), Percent::new(70.0));
        assert_eq!(Percent::new(10.0).plus(PercentStep::new(-1e9)), Percent::ZERO);
    }
}
