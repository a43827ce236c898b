//! What a driver's error means: by error number (MySQL server error message reference, MariaDB error codes), and by SQLSTATE
//! where that says it for many.

use sqlx::mysql::MySqlDatabaseError;

use crate::{
    api::Reason,
    backends::{
        Fault,
        database::{query::QueryFault, sql},
    },
};

/// The fault behind an error of the connection, or of the server as a whole.
pub(super) fn fault(error: &sqlx::Error) -> Fault {
    sql::fault(error, |error| {
        let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
        let reason = match error.number() {
            1045 | 1698 | 1862 => Reason::AuthenticationFailed,
            1044 | 1142 | 1143 | 1227 => Reason::PermissionDenied,
            1049 => Reason::DatabaseMissing,
            1040 | 1203 | 1226 => Reason::TooManyConnections,
            _ => Reason::Unavailable,
        };
        Some(Fault::new(reason, error.message()))
    })
}

/// What the server says to a statement.
pub(super) fn refusal(error: &sqlx::Error) -> QueryFault {
    let refused = match error {
        sqlx::Error::Database(error) => error.try_downcast_ref::<MySqlDatabaseError>().and_then(refused),
        _ => None,
    };
    refused.unwrap_or_else(|| fault(error).into())
}

fn refused(error: &MySqlDatabaseError) -> Option<QueryFault> {
    let text = error.message().to_owned();
    Some(match error.number() {
        // A read-only transaction, and a server that is read-only.
        1290 | 1792 | 1836 | 1874 => QueryFault::ReadOnly(text),
        1044 | 1142 | 1143 | 1227 | 1370 => QueryFault::Denied(text),
        // Interrupted, and the servers' own time-outs.
        1317 | 1969 | 3024 => QueryFault::TimedOut,
        // Locks, deadlocks, a row or table that changed meanwhile.
        1020 | 1205 | 1213 | 1412 | 1615 | 3572 => QueryFault::Conflict(text),
        // Among what has no SQLSTATE of its own: out of range, truncated, incorrect; not JSON.
        1264 | 1265 | 1292 | 1365 | 1366 | 1367 | 1406 | 1411 | 1525 | 1690 | 3140 | 3141 | 3144 | 3156
        | 3157 => QueryFault::Value(text),
        // No default value, check constraints, and what a trigger or procedure signals.
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
