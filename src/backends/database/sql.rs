//! Shared by the SQL engines.

use secrecy::ExposeSecret;
use sqlx::error::DatabaseError;

use super::Credential;
use super::query::QueryFault;
use crate::{
    api::Reason,
    backends::{Fault, find_cause},
};

/// First words of statements that change the session or the transaction: a query has its own transaction, and session state would leak
/// into later queries.
const SESSION_COMMANDS: [&str; 27] = [
    "abort",
    "begin",
    "close",
    "commit",
    "copy",
    "deallocate",
    "declare",
    "discard",
    "end",
    "execute",
    "fetch",
    "handler",
    "listen",
    "load",
    "lock",
    "move",
    "prepare",
    "release",
    "reset",
    "rollback",
    "savepoint",
    "set",
    "start",
    "unlisten",
    "unlock",
    "use",
    "xa",
];

/// User name and password as the driver's arguments.
pub(super) fn login(credential: &Credential) -> (Option<&str>, Option<&str>) {
    (credential.username.as_deref(), credential.password.as_ref().map(ExposeSecret::expose_secret))
}

/// The fault of a driver's error; `decide` classifies the server's own errors.
pub(super) fn fault(error: &sqlx::Error, decide: impl Fn(&dyn DatabaseError) -> Option<Fault>) -> Fault {
    match error {
        sqlx::Error::Database(error) => {
            decide(error.as_ref()).unwrap_or_else(|| Fault::new(Reason::Unavailable, error.message()))
        }
        sqlx::Error::Tls(cause) => {
            find_cause(cause.as_ref()).unwrap_or_else(|| Fault::new(Reason::TlsFailed, cause.to_string()))
        }
        sqlx::Error::Io(cause) => Fault::from_io(cause),
        // The driver's text is about its own code.
        _ => Fault::new(
            Reason::ProtocolError,
            "unexpected response: the server does not speak the MySQL protocol",
        ),
    }
}

/// Checks that a statement may be a query.
///
/// # Errors
/// It changes the session or the transaction.
pub(super) fn check_statement(statement: &str) -> Result<(), QueryFault> {
    let word = first_word(statement);
    if !SESSION_COMMANDS.contains(&word.as_str()) {
        return Ok(());
    }
    Err(QueryFault::Invalid(format!("{word} changes the connection, which later queries reuse")))
}

/// The first word in lower case, after comments and brackets.
fn first_word(statement: &str) -> String {
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches(|first: char| first.is_whitespace() || first == '(');
        rest = if rest.starts_with("--") || rest.starts_with('#') {
            rest.split_once('\n').map_or("", |(_, after)| after)
        } else if rest.starts_with("/*") && !rest.starts_with("/*!") {
            after_comment(rest)
        } else {
            break;
        }
    }
    let word = rest.split(|char: char| !char.is_alphanumeric() && char != '_').next();
    word.unwrap_or_default().to_ascii_lowercase()
}

/// PostgreSQL's comments nest.
fn after_comment(text: &str) -> &str {
    let (mut depth, mut rest) = (0_usize, text);
    loop {
        let Some(mark) = [rest.find("/*"), rest.find("*/")].into_iter().flatten().min() else { return "" };
        depth = if rest[mark..].starts_with("/*") { depth + 1 } else { depth.saturating_sub(1) };
        rest = &rest[mark + 2..];
        if depth == 0 {
            return rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_found_behind_comments_and_brackets() {
        for (statement, word) in [
            ("select 1", "select"),
            (" ((\n Values (1))", "values"),
            ("-- a set\n# b\n/* c /* d */ e */ SET x = 1", "set"),
            ("/* open /* */ set", ""),
            ("-- only", ""),
            ("/*! set x = 1 */", ""),
            ("settings", "settings"),
        ] {
            assert_eq!(first_word(statement), word, "{statement}");
        }
    }

    #[test]
    fn statements_that_change_the_session_are_refused() {
        for statement in ["set x = 1", "/* */ COMMIT", "copy t from stdin", "Lock tables t write"] {
            assert!(matches!(check_statement(statement), Err(QueryFault::Invalid(_))), "{statement}");
        }
        for statement in ["select 1", "with a as (select 1) table a", "do $$ begin end $$", "call p()"] {
            assert_eq!(check_statement(statement), Ok(()), "{statement}");
        }
    }
}
