//! What the two engines behind `sqlx` share.

use secrecy::ExposeSecret;
use sqlx::error::DatabaseError;

use super::Credential;
use crate::{
    api::Reason,
    backends::{Fault, find_cause, transport::TlsSettings},
};

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
