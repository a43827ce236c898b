//! The gateway: callers with nothing but a ServiceAccount token, and what the objects let them do.

mod alone;
mod apis;
mod callers;
mod crowd;
mod discovery;
mod failures;
mod farewell;
mod hostile;
mod queries;
mod runtime;
mod wire;
