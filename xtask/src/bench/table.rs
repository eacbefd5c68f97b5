//! How results look on a terminal: one aligned table for each workload, then its targets with their verdicts.

use std::io::Write;

use super::Series;
use super::workload::{COST, Target, Workload};

/// Whether colour is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    has_colour: bool,
}

impl Style {
    /// Colour on a terminal, unless `NO_COLOR` is set.
    pub(super) fn for_terminal(is_terminal: bool) -> Self {
        Self { has_colour: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.has_colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn wrong(self, text: &str) -> String {
        self.paint("1;31", text)
    }
}

/// A column: its heading, and what stands in it.
type Column = (&'static str, fn(&Series, &Series) -> String);

/// The columns behind the server's name, before those of the workload.
const COLUMNS: &[Column] = &[
    ("per s", |s, _| rate(s)),
    ("µs each", |s, _| number(s.median(COST))),
    ("× floor", |s, floor| match s.ratio(floor, COST) {
        Some(ratio) if floor.server != "ours" => format!("{ratio:.2}"),
        _ => dash(),
    }),
    ("user %", |s, _| number(s.median("server_user_pct"))),
    ("server %", |s, _| number(s.median("server_cpu_pct"))),
    ("load %", |s, _| number(s.median("loadgen_cpu_pct"))),
    ("faults", |s, _| s.faults().to_string()),
];

/// Writes a workload's table and verdicts; whether ours met its targets and nothing was lost in any run of it.
pub(super) fn write_workload(
    out: &mut impl Write,
    style: Style,
    workload: &Workload,
    series: &[Series],
) -> std::io::Result<bool> {
    writeln!(out, "\n{}  {}", style.paint("1", workload.name), workload.what)?;
    write!(out, "  {:<14}", "")?;
    for (heading, _) in COLUMNS {
        write!(out, "{heading:>10}")?;
    }
    for (heading, _) in workload.figures {
        write!(out, "{heading:>10}")?;
    }
    writeln!(out)?;
    let Some(floor) = series.first() else { return Ok(true) };
    for one in series {
        write!(out, "  {:<14}", one.server)?;
        for (_, cell) in COLUMNS {
            write!(out, "{:>10}", cell(one, floor))?;
        }
        for (_, key) in workload.figures {
            write!(out, "{:>10}", number(one.median(key)))?;
        }
        writeln!(out)?;
        if let Some(why) = one.failure() {
            writeln!(out, "    {}", style.wrong(&format!("failed: {why}")))?;
        }
    }
    let Some(ours) = series.iter().find(|s| s.server == "ours") else { return Ok(true) };
    let mut is_good = ours.failure().is_none() && ours.faults() == 0;
    if ours.faults() > 0 {
        writeln!(
            out,
            "  {}",
            style.wrong(&format!("MISS  {} deliveries or packets lost or wrong", ours.faults()))
        )?;
    }
    for target in workload.targets {
        let (value, words) = judge(target, ours, floor);
        let verdict = match value {
            Some(value) if target.is_met(value) => style.good("ok  "),
            Some(_) | None => {
                is_good = false;
                style.wrong("MISS")
            }
        };
        writeln!(out, "  {verdict}  {} {words}", number(value))?;
    }
    Ok(is_good)
}

/// Lists workloads and targets.
pub(super) fn write_targets(out: &mut impl Write, workloads: &[&Workload]) -> std::io::Result<()> {
    for workload in workloads {
        writeln!(out, "{:<18}{}", workload.name, workload.what)?;
        for target in workload.targets {
            writeln!(out, "{:<18}  target: {}", "", describe(target, "floor"))?;
        }
    }
    Ok(())
}

fn judge(target: &Target, ours: &Series, floor: &Series) -> (Option<f64>, String) {
    let value = match target {
        Target::CostToFloor(_) => ours.ratio(floor, COST),
        Target::AtMost { key, .. } | Target::AtLeast { key, .. } => ours.median(key),
    };
    (value, describe(target, &floor.server))
}

fn describe(target: &Target, against: &str) -> String {
    match target {
        Target::CostToFloor(bound) => format!("× {against} (target: at most {bound:.2})"),
        Target::AtMost { bound, label, .. } => format!("{label} (target: at most {})", number(Some(*bound))),
        Target::AtLeast { bound, label, .. } => {
            format!("{label} (target: at least {})", number(Some(*bound)))
        }
    }
}

/// The rate; with `≥` when the load generator was the bottleneck in the middle run.
fn rate(series: &Series) -> String {
    let is_bound = series.median("per_sec").is_none();
    let rate = series.median("per_sec_at_least");
    let mark = if is_bound && rate.is_some() { "≥ " } else { "" };
    format!("{mark}{}", number(rate))
}

fn dash() -> String {
    "–".to_owned()
}

/// Three digits that mean something, with k or M behind large ones.
fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return dash() };
    let (scaled, unit) = match value {
        1e6.. => (value / 1e6, " M"),
        1e4..1e6 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let decimals = match scaled {
        100.0.. => 0,
        10.0..100.0 => 1,
        1.0..10.0 => 2,
        _ => 3,
    };
    format!("{scaled:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::super::{Run, WORKLOADS};
    use super::*;
    use serde_json::json;

    fn series(server: &str, cost: f64, missing: u64) -> Series {
        let report = json!({COST: cost, "per_sec_at_least": 1e6, "missing": missing});
        Series { server: server.into(), runs: vec![Run::Report(report)] }
    }

    fn written(workload: &Workload, all: &[Series]) -> (bool, String) {
        let mut out = Vec::new();
        let is_good = write_workload(&mut out, Style { has_colour: false }, workload, all).unwrap();
        (is_good, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_target_is_judged_by_the_ratio_to_the_floor() {
        let workload = WORKLOADS.iter().find(|w| w.name == "fanout-1000-w4").unwrap();
        let (is_good, text) = written(workload, &[series("floor", 2.0, 0), series("ours", 0.8, 0)]);
        assert!(is_good && text.contains("ok    0.400 × floor"), "{text}");
        let (is_good, text) = written(workload, &[series("floor", 2.0, 0), series("ours", 1.0, 0)]);
        assert!(!is_good && text.contains("MISS  0.500 × floor"), "{text}");
    }

    #[test]
    fn lost_deliveries_are_a_miss_even_within_the_target() {
        let workload = WORKLOADS.iter().find(|w| w.name == "echo-100x8").unwrap();
        let (is_good, text) = written(workload, &[series("floor", 2.0, 0), series("ours", 0.1, 3)]);
        assert!(!is_good && text.contains("MISS  3"), "{text}");
    }

    #[test]
    fn numbers_keep_three_digits() {
        let cases = [
            (0.0171, "0.017"),
            (4.563, "4.56"),
            (2190.0, "2190"),
            (440_000.0, "440 k"),
            (1_350_000.0, "1.35 M"),
        ];
        for (value, text) in cases {
            assert_eq!(number(Some(value)), text);
        }
    }
}
