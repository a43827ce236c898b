//! Pure decisions: no IO, no async, no clock (time is an argument).

pub mod addresses;
pub mod backoff;
pub mod breaker;
pub mod cel;
pub mod choice;
pub mod conditions;
pub mod cron;
pub mod delivery;
pub mod endpoint_slices;
pub mod endpoints;
pub mod health;
pub mod histogram;
pub mod instances;
pub mod label;
pub mod latency;
pub mod limiter;
pub mod load;
pub mod parameters;
pub mod path;
pub mod references;
pub mod retry;
pub mod schedule;
pub mod sync;
pub mod usage;
pub mod webhook;
pub mod window;
