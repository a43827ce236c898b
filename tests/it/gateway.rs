//! The gateway: callers with nothing but a ServiceAccount token, and what the objects let them do.

mod alone;
mod callers;
mod compatibility;
mod concurrency;
mod database;
mod external_api;
mod failures;
mod hostile;
mod runtime;
mod service_registration;
mod shutdown;
mod wire;
