//! What a run found, for people and for machines; and whether it may be believed.
//!
//! Owns the rule that a rate measured by a saturated generator is not the server's: such a report has no `per_sec`,
//! only `per_sec_at_least`. Costs per unit of work stay valid, because they do not depend on the generator's speed.

use std::io::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::swarm::Counts;
use crate::usage::Span;

/// A histogram of latencies in nanoseconds, 1 µs to 100 s, two digits: errors below 1 %, 40 KiB.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// Nothing recorded.
    pub(crate) fn new() -> Self {
        Self(
            Histogram::new_with_bounds(1_000, 100_000_000_000, 2)
                .expect("invariant: the bounds are constants"),
        )
    }

    /// Records one; what is outside of the bounds counts as the nearest bound.
    #[inline]
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Forgets all, for a measurement that begins now.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// A percentile in milliseconds; `None` when nothing was recorded.
    pub(crate) fn ms(&self, percentile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_percentile(percentile) as f64 / 1e6)
    }
}

/// The middle one of some figures, or the mean of the two in the middle; `None` without any.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    let lower = figures[(figures.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// One line of a report.
struct Line {
    key: &'static str,
    label: String,
    value: Value,
    unit: &'static str,
}

/// A run's findings, in the order in which they are shown.
pub(crate) struct Report {
    scenario: &'static str,
    name: Option<String>,
    lines: Vec<Line>,
    faults: Vec<(&'static str, u64)>,
    first_fault: Option<String>,
    is_saturated: bool,
}

impl Report {
    /// An empty report.
    pub(crate) fn new(scenario: &'static str, name: Option<&str>) -> Self {
        Self {
            scenario,
            name: name.map(str::to_owned),
            lines: Vec::new(),
            faults: Vec::new(),
            first_fault: None,
            is_saturated: false,
        }
    }

    /// Adds a figure. `None` is `null` for machines and left out for people.
    pub(crate) fn add(
        &mut self,
        key: &'static str,
        label: &str,
        value: impl Into<Value>,
        unit: &'static str,
    ) {
        self.lines.push(Line { key, label: label.to_owned(), value: value.into(), unit });
    }

    /// Adds the figures of `units` pieces of work done in `span`; `what` names one of them and several.
    pub(crate) fn add_work(&mut self, [what, whats]: [&'static str; 2], units: u64, span: &Span) {
        self.is_saturated = span.is_saturated();
        let rate = span.rate(units);
        self.add("units", whats, units, "");
        self.add("per_sec", &format!("{whats} per second"), (!self.is_saturated).then_some(rate), "");
        let label = if self.is_saturated { format!("{whats} per second, at least") } else { String::new() };
        self.add("per_sec_at_least", &label, rate, "");
        self.add(
            "server_cpu_us_per_unit",
            &format!("server CPU per {what}"),
            span.server_us_per(units),
            "µs",
        );
        let user_pct = span.user_share.map(|share| 100.0 * share);
        self.add("server_user_pct", "of it in user space", user_pct, "%");
        self.add_cpu(span);
    }

    /// Adds how busy both sides were.
    pub(crate) fn add_cpu(&mut self, span: &Span) {
        self.add("secs", "measured time", span.wall.as_secs_f64(), "s");
        self.add("server_cpu_pct", "server CPU", span.server_cpu_pct(), "%");
        self.add("loadgen_cpu_pct", "load generator CPU", span.own_cpu_pct(), "%");
    }

    /// Adds median, 99th percentile and maximum.
    pub(crate) fn add_latencies(&mut self, latencies: &Latencies) {
        self.add("p50_ms", "latency, median", latencies.ms(50.0), "ms");
        self.add("p99_ms", "latency, 99th percentile", latencies.ms(99.0), "ms");
        self.add("max_ms", "latency, maximum", latencies.ms(100.0), "ms");
    }

    /// Adds what went wrong; any of it makes the run fail.
    pub(crate) fn add_counts(&mut self, counts: &Counts, missing: u64) {
        self.faults = vec![
            ("missing", missing),
            ("bad", counts.bad),
            ("dropped", counts.dropped),
            ("failed", counts.failed),
        ];
        self.first_fault.clone_from(&counts.first_fault);
    }

    /// Whether everything arrived as it should.
    pub(crate) fn is_clean(&self) -> bool {
        self.faults.iter().all(|(_, n)| *n == 0)
    }

    /// One JSON object on one line.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut object = Map::new();
        object.insert("scenario".into(), json!(self.scenario));
        object.insert("label".into(), json!(self.name));
        for line in &self.lines {
            object.insert(line.key.into(), line.value.clone());
        }
        object.insert("saturated".into(), json!(self.is_saturated));
        for (key, n) in &self.faults {
            object.insert((*key).into(), json!(n));
        }
        object.insert("first_fault".into(), json!(self.first_fault));
        writeln!(out, "{}", Value::Object(object))
    }

    /// A table, figures aligned.
    pub(crate) fn write_table(&self, out: &mut impl Write) -> std::io::Result<()> {
        let name = self.name.as_ref().map(|n| format!("  {n}")).unwrap_or_default();
        writeln!(out, "{}{name}", self.scenario)?;
        let row = |label: &str, figure: &str, unit: &str| {
            format!("  {label:<34}{figure:>14} {unit}").trim_end().to_owned()
        };
        for line in &self.lines {
            if !line.value.is_null() && !line.label.is_empty() {
                writeln!(out, "{}", row(&line.label, &figure(&line.value), line.unit))?;
            }
        }
        for (key, n) in &self.faults {
            writeln!(out, "{}", row(key, &n.to_string(), ""))?;
        }
        if let Some(fault) = &self.first_fault {
            writeln!(out, "  first fault: {fault}")?;
        }
        if self.is_saturated {
            writeln!(
                out,
                "  saturated: the load generator was the bottleneck, so its rate is not the server's limit"
            )?;
        }
        Ok(())
    }
}

/// A number with as many digits as mean something, thousands apart.
fn figure(value: &Value) -> String {
    let Some(number) = value.as_f64() else {
        return value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    };
    if value.is_u64() || number >= 1000.0 {
        return grouped(number.round() as u64);
    }
    let decimals = match number {
        100.0.. => 0,
        10.0..100.0 => 1,
        1.0..10.0 => 2,
        _ => 3,
    };
    format!("{number:.decimals$}")
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(report: &Report) -> (String, Value) {
        let (mut table, mut line) = (Vec::new(), Vec::new());
        report.write_table(&mut table).unwrap();
        report.write_json(&mut line).unwrap();
        (String::from_utf8(table).unwrap(), serde_json::from_slice(&line).unwrap())
    }

    #[test]
    fn figures_keep_what_means_something() {
        let cases = [
            (json!(1_234_567), "1,234,567"),
            (json!(0.0171), "0.017"),
            (json!(4.563), "4.56"),
            (json!(99.44), "99.4"),
        ];
        for (value, text) in cases {
            assert_eq!(figure(&value), text);
        }
        assert_eq!([0, 999, 1000].map(grouped), ["0", "999", "1,000"]);
    }

    #[test]
    fn a_fault_is_shown_and_makes_the_run_fail() {
        let mut report = Report::new("echo", Some("x"));
        report.add_counts(&Counts::default(), 0);
        assert!(report.is_clean());
        let counts = Counts { first_fault: Some("late".into()), ..Counts::default() };
        report.add_counts(&counts, 3);
        assert!(!report.is_clean());
        let (table, object) = texts(&report);
        assert!(table.contains("first fault: late"), "{table}");
        assert_eq!((object["missing"].as_u64(), object["label"].as_str()), (Some(3), Some("x")));
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn percentiles_come_back_within_a_percent() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.ms(50.0), None);
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms));
        }
        let median = latencies.ms(50.0).unwrap();
        assert!((49.5..50.6).contains(&median), "{median}");
    }
}
