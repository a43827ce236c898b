//! Logs and metrics.

pub mod audit;
mod lines;
pub mod log;
pub mod metrics;
