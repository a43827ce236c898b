//! Logs on standard error.

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, prelude::*};

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; `level` is a filter such as `info` or `authlink=debug,kube=warn`.
///
/// # Errors
/// A filter that cannot be read.
pub fn init(level: &str, format: Format) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("--log-level {level:?}: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(tells_no_statement));
    match format {
        Format::Text => registry.with(fmt::layer().with_writer(std::io::stderr)).try_init(),
        Format::Json => registry
            .with(
                fmt::layer().json().flatten_event(true).with_current_span(true).with_writer(std::io::stderr),
            )
            .try_init(),
    }
    .map_err(|error| error.to_string())
}

/// A driver that would write statements and values of queries, which may be anything, is never asked for more than warnings.
fn tells_no_statement(of: &Metadata<'_>) -> bool {
    *of.level() <= Level::WARN || !of.target().starts_with("tokio_postgres")
}
