//! What may go wrong with the store, in words without secrets.

use std::time::Duration;

/// Why an operation failed. None is for ever: the next one is tried anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither done nor refused in time.
    #[error("the store does not answer within {}s", .0.as_secs())]
    TimedOut(Duration),
    /// A newer version was here.
    #[error(
        "the store has the schema {found} of a newer version of authlink, this one knows up to {known}: run the newer \
         version, or give this one another store"
    )]
    Newer {
        /// What the store has.
        found: i64,
        /// What this version knows.
        known: i64,
    },
    /// It cannot be reached.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// It refused.
    #[error("the store refused: {0}")]
    Refused(String),
    /// It refused a value, which it will refuse again.
    #[error("the store refused a value: {0}")]
    BadValue(String),
    /// It said something that cannot be.
    #[error("the store's answer cannot be understood")]
    Garbled,
}

/// Only texts of the server and of the system are passed on: those of the driver's own may repeat its settings.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => match error.code() {
                Some(code) if is_about_a_value(&code) => {
                    Self::BadValue(format!("{} ({code})", error.message()))
                }
                Some(code) => Self::Refused(format!("{} ({code})", error.message())),
                None => Self::Refused(error.message().to_owned()),
            },
            sqlx::Error::Io(error) => Self::Unreachable(error.to_string()),
            sqlx::Error::Tls(error) => Self::Unreachable(error.to_string()),
            sqlx::Error::PoolTimedOut => Self::Unreachable("no connection in time".to_owned()),
            sqlx::Error::Configuration(_) => {
                Self::Unreachable("the options in its URL cannot be used".to_owned())
            }
            _ => Self::Garbled,
        }
    }
}

/// Classes 22 (data exception) and 23 (integrity constraint violation) of PostgreSQL; SQLITE_TOOBIG, SQLITE_CONSTRAINT and SQLITE_MISMATCH,
/// whatever their extension, which have fewer digits.
fn is_about_a_value(code: &str) -> bool {
    if code.len() == 5 {
        return code.starts_with("22") || code.starts_with("23");
    }
    code.parse::<i32>().is_ok_and(|code| [18, 19, 20].contains(&(code & 0xff)))
}
