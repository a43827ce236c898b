//! Pure decisions: no IO, no async, and no clock (time is an argument).

pub mod backoff;
pub mod conditions;
pub mod endpoints;
pub mod health;
pub mod latency;
pub mod parameters;
