//! Logs and metrics.

pub mod access_log;
mod lines;
pub mod log;
pub mod metrics;
