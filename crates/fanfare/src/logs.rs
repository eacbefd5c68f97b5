//! Owns how the process writes about itself, always to stderr: stdout belongs to whoever reads our output.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;

use crate::config::LogFormat;

/// Begins to write logs. Colours only on a terminal, and not if `NO_COLOR` is set.
pub(crate) fn start(level: tracing::Level, format: LogFormat) {
    let level = LevelFilter::from_level(level);
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    match format {
        LogFormat::Pretty => {
            let in_colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(in_colour).with_target(false).init();
        }
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
