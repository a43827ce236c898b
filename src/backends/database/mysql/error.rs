//! Classifies errors by error number (MySQL server error message reference, MariaDB error codes), else by SQLSTATE class.

use sqlx::mysql::MySqlDatabaseError;

use crate::{
    api::Reason,
    backends::{
        Fault,
        database::{query::QueryFault, sql},
    },
};

/// The fault of an error of the connection or the server.
pub(super) fn fault(error: &sqlx::Error) -> Fault {
    sql::fault(error, |error| {
        let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
        let text = error.message();
        let (reason, remedy) = match error.number() {
            1130 => (
                Reason::PermissionDenied,
                "allow the account to log in from this client's address, as in CREATE USER name@'%'",
            ),
            1129 => (Reason::PermissionDenied, "unblock this client's address with FLUSH HOSTS"),
            3159 => (Reason::TlsFailed, "set spec.tls.mode to another mode than None"),
            3118 | 4151 => {
                (Reason::AuthenticationFailed, "unlock the account with ALTER USER ... ACCOUNT UNLOCK")
            }
            1820 | 1862 => (Reason::AuthenticationFailed, "give the account a new password: it has expired"),
            1524 => (
                Reason::AuthenticationFailed,
                "load the plugin on the server, or give the account another one",
            ),
            number => return Some(Fault::new(reason(number), text)),
        };
        Some(Fault::new(reason, text).with_remedy(remedy))
    })
}

fn reason(number: u16) -> Reason {
    match number {
        1045 | 1698 => Reason::AuthenticationFailed,
        1044 | 1142 | 1143 | 1227 => Reason::PermissionDenied,
        1049 => Reason::DatabaseMissing,
        1040 | 1203 | 1226 => Reason::TooManyConnections,
        _ => Reason::Unavailable,
    }
}

/// The error of a statement.
pub(super) fn query_fault(error: &sqlx::Error) -> QueryFault {
    let refused = match error {
        sqlx::Error::Database(error) => {
            error.try_downcast_ref::<MySqlDatabaseError>().and_then(statement_fault)
        }
        _ => None,
    };
    refused.unwrap_or_else(|| fault(error).into())
}

fn statement_fault(error: &MySqlDatabaseError) -> Option<QueryFault> {
    let text = error.message().to_owned();
    Some(match error.number() {
        // A read-only transaction or server.
        1290 | 1792 | 1836 | 1874 => QueryFault::ReadOnly(text),
        1044 | 1142 | 1143 | 1227 | 1370 => QueryFault::Denied(text),
        // Interrupted, and the server's own timeouts.
        1317 | 1969 | 3024 => QueryFault::TimedOut,
        // Locks, deadlocks, concurrent changes of a row or table.
        1020 | 1205 | 1213 | 1412 | 1615 | 3572 => QueryFault::Conflict(text),
        // Without a specific SQLSTATE: out of range, truncated, incorrect, not JSON.
        1264 | 1265 | 1292 | 1365 | 1366 | 1367 | 1406 | 1411 | 1525 | 1690 | 3140 | 3141 | 3144 | 3156
        | 3157 => QueryFault::Value(text),
        // No default value, check constraints, errors signalled by a trigger or procedure.
        1364 | 1369 | 1644 | 3819 | 4025 => QueryFault::Constraint(text),
        _ => match error.code()?.get(..2)? {
            "22" => QueryFault::Value(text),
            "23" | "44" | "45" => QueryFault::Constraint(text),
            "25" => QueryFault::ReadOnly(text),
            "40" => QueryFault::Conflict(text),
            "42" | "0A" | "21" => QueryFault::Invalid(text),
            _ => return None,
        },
    })
}
