//! Logs on standard error.

use std::io::{IsTerminal, stderr};

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, prelude::*};

pub use super::lines::Format;
use super::{
    access_log,
    lines::{Guard, Lines},
};

/// Starts logging; `level` is a filter such as `info` or `authlink=debug,kube=warn`. What is logged is written within
/// 20 ms. Dropping the guard writes the rest.
///
/// # Errors
/// A filter that cannot be read.
pub fn init(level: &str, format: Format) -> Result<Guard, String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("--log-level {level:?}: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(tells_no_statement));
    let (lines, guard) = Lines::start(stderr()).map_err(|error| error.to_string())?;
    access_log::init(format, lines.clone());
    match format {
        Format::Text => {
            let layer = fmt::layer().with_ansi(stderr().is_terminal());
            registry.with(layer.with_writer(lines)).try_init()
        }
        Format::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_current_span(true);
            registry.with(layer.with_writer(lines)).try_init()
        }
    }
    .map_err(|error| error.to_string())?;
    Ok(guard)
}

/// A driver that would write statements and values of queries, which may be anything, is never asked for more than warnings.
fn tells_no_statement(of: &Metadata<'_>) -> bool {
    *of.level() <= Level::WARN || !of.target().starts_with("tokio_postgres")
}
