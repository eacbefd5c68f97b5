//! Owns how figures of one name are written: alone, or one for each value of a label. Does not know any figures.

use std::fmt::Result;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// A number that goes up and down.
pub(super) fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result {
    let metric = ConstGauge::<u64>::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// A span of time in seconds.
pub(super) fn seconds(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    span: std::time::Duration,
) -> Result {
    let metric = ConstGauge::<f64>::new(span.as_secs_f64());
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// A number that only grows.
pub(super) fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result {
    let metric = ConstCounter::<u64>::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// Numbers that only grow, one for each value of a label.
pub(super) fn by_label<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
) -> Result {
    labelled(encoder, name, help, label, values, ConstCounter::<u64>::new)
}

/// Numbers that go up and down, one for each value of a label.
pub(super) fn gauge_by_label<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
) -> Result {
    labelled(encoder, name, help, label, values, ConstGauge::<u64>::new)
}

/// Numbers of the kind that `metric` makes, one for each value of a label.
fn labelled<'a, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
    metric: impl Fn(u64) -> M,
) -> Result {
    let mut family = encoder.encode_descriptor(name, help, None, metric(0).metric_type())?;
    for (value, count) in values {
        metric(count).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}

/// Numbers that only grow, of several things, each by what became of it.
pub(super) fn by_outcome<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    things: impl Iterator<Item = (&'a str, [(&'static str, u64); N])>,
) -> Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (thing, outcomes) in things {
        for (outcome, count) in outcomes {
            let labels = [(label, thing), ("outcome", outcome)];
            ConstCounter::<u64>::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
