//! What the two engines behind `sqlx` share.

use secrecy::ExposeSecret;
use sqlx::error::DatabaseError;

use super::Credential;
use super::query::QueryFault;
use crate::{
    api::Reason,
    backends::{Fault, find_cause, transport::TlsSettings},
};

/// What statements begin with that are about the connection: a query has its transaction already, and what is set would meet
/// the queries after it.
const OF_THE_CONNECTION: [&str; 27] = [
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

/// User name and password as the driver takes them.
pub(super) fn login(credential: &Credential) -> (Option<&str>, Option<&str>) {
    (credential.username.as_deref(), credential.password.as_ref().map(ExposeSecret::expose_secret))
}

/// Certificate and key as the driver takes them.
pub(super) fn client_certificate(tls: &TlsSettings) -> Option<(&str, &str)> {
    tls.client.as_ref().map(|(certificate, key)| (certificate.as_str(), key.expose_secret()))
}

/// The fault behind a driver's error; `decide` reads the server's own errors.
pub(super) fn fault(error: &sqlx::Error, decide: impl Fn(&dyn DatabaseError) -> Option<Fault>) -> Fault {
    match error {
        sqlx::Error::Database(error) => {
            decide(error.as_ref()).unwrap_or_else(|| Fault::new(Reason::Unavailable, error.message()))
        }
        sqlx::Error::Tls(cause) => {
            find_cause(cause.as_ref()).unwrap_or_else(|| Fault::new(Reason::TlsFailed, cause.to_string()))
        }
        sqlx::Error::Io(cause) => Fault::from_io(cause),
        // The driver's text names places in its own code, which helps nobody here.
        _ => Fault::new(Reason::ProtocolError, "the server does not answer as this engine does"),
    }
}

/// Whether a statement can be a query at all.
///
/// # Errors
/// It is about the connection.
pub(super) fn suits(statement: &str) -> Result<(), QueryFault> {
    let word = first_word(statement);
    if !OF_THE_CONNECTION.contains(&word.as_str()) {
        return Ok(());
    }
    Err(QueryFault::Invalid(format!("{word} is about the connection, which other queries use after it")))
}

/// The first word, in lower case, with the comments before it passed over.
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

/// Comments may hold comments, in PostgreSQL.
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
    fn what_is_about_the_connection_is_no_query() {
        for statement in ["set x = 1", "/* */ COMMIT", "copy t from stdin", "Lock tables t write"] {
            assert!(matches!(suits(statement), Err(QueryFault::Invalid(_))), "{statement}");
        }
        for statement in ["select 1", "with a as (select 1) table a", "do $$ begin end $$", "call p()"] {
            assert_eq!(suits(statement), Ok(()), "{statement}");
        }
    }
}
