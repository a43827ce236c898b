//! What a driver's error means: by SQLSTATE (PostgreSQL documentation, appendix A) where the server has spoken.

use std::{error::Error as _, io};

use tokio_postgres::{
    Error,
    error::{DbError, Severity},
};

use crate::{
    api::Reason,
    backends::{Fault, database::query::QueryFault},
};

/// The fault behind an error of the connection, or of the server as a whole.
pub(super) fn fault(error: &Error) -> Fault {
    if let Some(error) = error.as_db_error() {
        let reason = match error.code().code() {
            "28000" | "28P01" => Reason::AuthenticationFailed,
            "3D000" => Reason::DatabaseMissing,
            "42501" => Reason::PermissionDenied,
            "53300" => Reason::TooManyConnections,
            _ => Reason::Unavailable,
        };
        return Fault::new(reason, error.message());
    }
    if error.is_closed() {
        return closed();
    }
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        // The driver says so of a message that it cannot read.
        Some(cause)
            if matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
                && cause.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>()) =>
        {
            not_postgresql()
        }
        Some(cause) => Fault::from_io(cause),
        None => not_postgresql(),
    }
}

pub(super) fn closed() -> Fault {
    Fault::new(Reason::Unavailable, "the server closed the connection")
}

pub(super) fn not_postgresql() -> Fault {
    // The driver's text names places in its own code, which helps nobody here.
    Fault::new(Reason::ProtocolError, "the server does not answer as this engine does")
}

/// What the server says to a statement.
pub(super) fn refusal(error: &Error) -> QueryFault {
    error.as_db_error().and_then(refused).unwrap_or_else(|| fault(error).into())
}

/// What the server says to the beginning of a transaction. A replica has none that may write, which it calls a feature that is
/// not supported.
pub(super) fn unbegun(error: &Error) -> QueryFault {
    match error.as_db_error() {
        Some(refused) if refused.code().code() == "0A000" => {
            QueryFault::ReadOnly(refused.message().to_owned())
        }
        _ => refusal(error),
    }
}

fn refused(error: &DbError) -> Option<QueryFault> {
    // Beyond an ERROR the session is over, whatever the code.
    if matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) {
        return None;
    }
    let text = error.message().to_owned();
    Some(match error.code().code() {
        "25006" => QueryFault::ReadOnly(text),
        "42501" => QueryFault::Denied(text),
        "57014" => QueryFault::TimedOut,
        // A lock that is not available; an object in use.
        "55P03" | "55006" => QueryFault::Conflict(text),
        // Raised by a function, which may speak for a constraint.
        "P0001" | "P0004" => QueryFault::Constraint(text),
        // A prepared statement that is not there, or there already: a pooler gave the session to somebody else.
        "26000" | "42P05" => return None,
        code => match code.get(..2)? {
            // Data exceptions, and what is too long or too deep.
            "22" | "54" => QueryFault::Value(text),
            "23" | "44" => QueryFault::Constraint(text),
            "40" => QueryFault::Conflict(text),
            // Syntax, what it names, what the server does not do, and what cannot be done in a transaction or a function.
            "42" | "0A" | "21" | "25" | "2B" | "2D" | "2F" | "34" | "38" | "39" | "3B" | "3F" | "55"
            | "P0" => QueryFault::Invalid(text),
            _ => return None,
        },
    })
}
