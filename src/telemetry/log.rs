//! Logs on standard error.

use std::io::{IsTerminal, stderr};

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, prelude::*};

pub use super::writer::{FlushGuard, Format};
use super::{access_log, writer::LogWriter};

/// Starts logging; `level` is a filter such as `info` or `authlink=debug,kube=warn`. Lines are written within 20 ms;
/// dropping the guard writes the rest.
///
/// # Errors
/// An invalid filter.
pub fn init(level: &str, format: Format) -> Result<FlushGuard, String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("--log-level {level:?}: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(logs_no_statement));
    let (writer, guard) = LogWriter::start(stderr()).map_err(|error| error.to_string())?;
    access_log::init(format, writer.clone());
    match format {
        Format::Text => {
            let layer = fmt::layer().with_ansi(stderr().is_terminal());
            registry.with(layer.with_writer(writer)).try_init()
        }
        Format::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_current_span(true);
            registry.with(layer.with_writer(writer)).try_init()
        }
    }
    .map_err(|error| error.to_string())?;
    Ok(guard)
}

/// Below warnings, the PostgreSQL driver logs statements and parameters, which can contain secrets.
fn logs_no_statement(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::WARN || !event.target().starts_with("tokio_postgres")
}
