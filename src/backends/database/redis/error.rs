//! Classifies errors. The first word of a Redis error is its code; the driver has types for those that it knows.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::{
    api::Reason,
    backends::{Fault, database::query::QueryFault, find_cause},
};

/// The fault of an error of the connection or the server.
pub(super) fn fault(error: &RedisError) -> Fault {
    let detail = error.detail().unwrap_or_default();
    let reason = match error.kind() {
        ErrorKind::AuthenticationFailed => Reason::AuthenticationFailed,
        ErrorKind::Server(ServerErrorKind::NoPerm) => Reason::PermissionDenied,
        ErrorKind::Io => return find_cause(error).unwrap_or_else(closed),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            return Fault::new(
                Reason::ProtocolError,
                "unexpected response: the server does not speak the Redis protocol",
            );
        }
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("WRONGPASS" | "NOAUTH") => Reason::AuthenticationFailed,
            // A server without a password rejects any.
            _ if detail.starts_with("AUTH ") => Reason::AuthenticationFailed,
            _ if detail.contains("max number of clients") => Reason::TooManyConnections,
            _ if detail.contains("DB index") => Reason::DatabaseMissing,
            _ => Reason::Unavailable,
        },
        _ => Reason::Unavailable,
    };
    Fault::new(reason, text(error))
}

pub(super) fn closed() -> Fault {
    Fault::new(Reason::Unavailable, "the server closed the connection")
}

/// The error of a command. The number of arguments was checked, so that an error is about a value.
pub(super) fn query_fault(error: &RedisError) -> QueryFault {
    let text = text(error);
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoPerm) => QueryFault::Denied(text),
        ErrorKind::Server(ServerErrorKind::ReadOnly) => QueryFault::ReadOnly(text),
        ErrorKind::Server(ServerErrorKind::ResponseError) => QueryFault::Value(text),
        ErrorKind::Server(ServerErrorKind::NoScript | ServerErrorKind::CrossSlot) => {
            QueryFault::Invalid(text)
        }
        ErrorKind::Server(ServerErrorKind::TryAgain) => QueryFault::Conflict(text),
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => QueryFault::Invalid(format!(
            "the key belongs to another node of the Redis Cluster, and authlink does not follow redirects ({text})"
        )),
        ErrorKind::Extension => match error.code() {
            Some("WRONGTYPE" | "INVALIDOBJ" | "BUSYKEY" | "BUSYGROUP" | "NOGROUP") => QueryFault::Value(text),
            Some("BUSY") => QueryFault::Conflict(text),
            _ => fault(error).into(),
        },
        _ => fault(error).into(),
    }
}

fn text(error: &RedisError) -> String {
    match error.code() {
        Some(code) => format!("{code} {}", error.detail().unwrap_or_default()).trim().to_owned(),
        None => error.to_string(),
    }
}
