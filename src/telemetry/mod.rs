//! Logs and metrics.

pub mod access_log;
pub mod log;
pub mod metrics;
mod writer;
