//! Classifies the server's errors by SQLSTATE (PostgreSQL documentation, appendix A).

use std::{error::Error as _, io};

use tokio_postgres::{
    Error,
    error::{DbError, Severity},
};

use crate::{
    api::Reason,
    backends::{Fault, database::query::QueryFault},
};

/// The fault of an error of the connection or the server.
pub(super) fn fault(error: &Error) -> Fault {
    if let Some(error) = error.as_db_error() {
        return server_fault(error.code().code(), error.message());
    }
    if error.is_closed() {
        return closed();
    }
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        // The driver reports a message that it cannot parse like this.
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

/// Whether the server lacks a function or table, or the account may not use it.
pub(super) fn is_unavailable_to_account(error: &Error) -> bool {
    let codes = ["42501", "42883", "42P01", "42703", "0A000"];
    error.code().is_some_and(|code| codes.contains(&code.code()))
}

fn server_fault(code: &str, text: &str) -> Fault {
    let reason = match code {
        "28000" if text.contains("pg_hba.conf") => {
            let remedy = "add a line for this client, user and database to pg_hba.conf, or set spec.tls.mode to what its lines ask for";
            return Fault::new(Reason::PermissionDenied, text).with_remedy(remedy);
        }
        "28000" if text.contains("valid client certificate") => {
            return Fault::new(Reason::AuthenticationFailed, text).with_remedy("set spec.tls.clientCertRef");
        }
        "28000" | "28P01" => Reason::AuthenticationFailed,
        "3D000" => Reason::DatabaseMissing,
        "42501" => Reason::PermissionDenied,
        "53300" => Reason::TooManyConnections,
        _ => return pooler_fault(text),
    };
    Fault::new(reason, text)
}

/// Poolers have one SQLSTATE for everything (PgBouncer 08P01, Supavisor XX000), so that their fixed texts decide.
fn pooler_fault(text: &str) -> Fault {
    const TEXTS: [(&str, Reason); 15] = [
        ("no such database", Reason::DatabaseMissing),
        ("no such user", Reason::AuthenticationFailed),
        ("authentication failed", Reason::AuthenticationFailed),
        ("Authentication error", Reason::AuthenticationFailed),
        ("Tenant or user not found", Reason::AuthenticationFailed),
        ("no tenant identifier", Reason::AuthenticationFailed),
        ("no more connections allowed", Reason::TooManyConnections),
        ("Max client connections reached", Reason::TooManyConnections),
        ("max clients reached", Reason::TooManyConnections),
        ("Max pools count reached", Reason::TooManyConnections),
        ("too many connections", Reason::TooManyConnections),
        ("SSL required", Reason::TlsFailed),
        ("SSL connection is required", Reason::TlsFailed),
        ("login rejected", Reason::PermissionDenied),
        ("Address not in tenant allow_list", Reason::PermissionDenied),
    ];
    let known = TEXTS.iter().find(|(known, _)| text.contains(known));
    let fault = Fault::new(known.map_or(Reason::Unavailable, |(_, reason)| *reason), text);
    match fault.reason {
        Reason::TlsFailed => fault.with_remedy("set spec.tls.mode to another mode than None"),
        Reason::PermissionDenied => fault.with_remedy("allow this client's address in the pooler's settings"),
        _ if text.contains("unsupported startup parameter") => Fault::new(Reason::ProtocolError, text)
            .with_remedy("remove it from the URI, or add it to the pooler's ignore_startup_parameters"),
        _ => fault,
    }
}

pub(super) fn closed() -> Fault {
    Fault::new(Reason::Unavailable, "the server closed the connection")
}

pub(super) fn not_postgresql() -> Fault {
    // The driver's text is about its own code.
    Fault::new(
        Reason::ProtocolError,
        "unexpected response: the server does not speak the PostgreSQL protocol",
    )
}

/// The error of a statement.
pub(super) fn query_fault(error: &Error) -> QueryFault {
    error.as_db_error().and_then(statement_fault).unwrap_or_else(|| fault(error).into())
}

/// The error of `begin`. A replica reports a read-write transaction as an unsupported feature.
pub(super) fn begin_fault(error: &Error) -> QueryFault {
    match error.as_db_error() {
        Some(refused) if refused.code().code() == "0A000" => {
            QueryFault::ReadOnly(refused.message().to_owned())
        }
        _ => query_fault(error),
    }
}

fn statement_fault(error: &DbError) -> Option<QueryFault> {
    // FATAL and PANIC end the session, whatever the code.
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
        // Raised by a function or trigger.
        "P0001" | "P0004" => QueryFault::Constraint(text),
        // A prepared statement that is missing or exists already: a pooler has switched the session.
        "26000" | "42P05" => return None,
        code => match code.get(..2)? {
            // Data exceptions, program limits.
            "22" | "54" => QueryFault::Value(text),
            "23" | "44" => QueryFault::Constraint(text),
            "40" => QueryFault::Conflict(text),
            // Syntax errors and access rules, unsupported features, invalid transaction states, external routines.
            "42" | "0A" | "21" | "25" | "2B" | "2D" | "2F" | "34" | "38" | "39" | "3B" | "3F" | "55"
            | "P0" => QueryFault::Invalid(text),
            _ => return None,
        },
    })
}
