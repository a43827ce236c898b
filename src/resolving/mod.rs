//! From specs with references to plain settings, for everything that reaches what a spec describes.

pub mod database;
pub mod external_api;
pub mod ldap_directory;
mod lookup;
pub mod service_registration;
pub mod webhook;

use secrecy::{ExposeSecret, SecretString};

pub use lookup::Lookup;

use crate::{
    api::Reason,
    cluster::{references::SecretContent, resources::NotSynced},
    domain::schedule::Schedule,
};

/// A spec with everything that it names.
#[derive(Clone, Debug)]
pub struct Resolved<S> {
    /// How to reach each target; at least one.
    pub targets: Vec<S>,
    /// When they are probed.
    pub schedule: Schedule,
    /// Where the credential came from; none where the spec names none.
    pub source: Option<CredentialSource>,
}

impl<S> Resolved<S> {
    /// The same with other settings for each target.
    pub fn map<T>(self, f: impl FnMut(S) -> T) -> Resolved<T> {
        let Self { targets, schedule, source } = self;
        Resolved { targets: targets.into_iter().map(f).collect(), schedule, source }
    }
}

/// Where a credential came from, and what users see of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialSource {
    /// The Secret.
    pub secret: String,
    /// 16 bits of a hash, salted with the Secret's uid.
    pub fingerprint: String,
}

/// Where what logs in came from: of several Secrets, the one that the spec names first stands for all.
///
/// # Errors
/// It does not exist.
async fn source(
    lookup: Lookup<'_>,
    mut secrets: impl Iterator<Item = &String>,
    fingerprint: impl FnOnce(&str) -> String,
) -> Result<Option<CredentialSource>, Unresolved> {
    let Some(name) = secrets.next() else { return Ok(None) };
    let secret = lookup.secret(name).await?;
    Ok(Some(CredentialSource { secret: name.clone(), fingerprint: fingerprint(&secret.uid) }))
}

/// What a spec names and cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// A Secret does not exist.
    #[error("the Secret {name} does not exist")]
    SecretNotFound {
        /// Its name.
        name: String,
    },

    /// A Secret lacks keys.
    #[error("the Secret {name} has no key {keys}")]
    SecretMissingKeys {
        /// Its name.
        name: String,
        /// What is missing.
        keys: String,
    },

    /// A Secret has a type that cannot serve.
    #[error("the Secret {name} has the type {type_}, and {wanted} is needed")]
    SecretWrongType {
        /// Its name.
        name: String,
        /// Its type.
        type_: String,
        /// What would do.
        wanted: &'static str,
    },

    /// A value in a Secret or ConfigMap cannot serve.
    #[error("the key {key} of {name} {problem}")]
    SecretInvalidValue {
        /// Kind and name.
        name: String,
        /// The key.
        key: String,
        /// What is wrong, without the value.
        problem: String,
    },

    /// A ConfigMap does not exist or lacks a key.
    #[error("{what} does not exist")]
    RefNotFound {
        /// Kind, name and key.
        what: String,
    },

    /// Another object of ours exists, and is not ready.
    #[error("{what} is not ready")]
    RefNotReady {
        /// Kind and name.
        what: String,
    },

    /// A field says something that no schema rule can refuse.
    #[error("{field}: {problem}")]
    Invalid {
        /// Where in the object.
        field: String,
        /// What is wrong.
        problem: String,
    },

    /// What the spec names may be in a list that is not here yet.
    #[error(transparent)]
    NotSynced(#[from] NotSynced),

    /// The API server refused or failed a request.
    #[error("the API server failed a request: {0}")]
    Cluster(#[from] kube::Error),
}

impl Unresolved {
    /// The word that users read.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::SecretNotFound { .. } => Reason::SecretNotFound,
            Self::SecretMissingKeys { .. } => Reason::SecretMissingKeys,
            Self::SecretWrongType { .. } => Reason::SecretWrongType,
            Self::SecretInvalidValue { .. } => Reason::SecretInvalidValue,
            Self::RefNotFound { .. } => Reason::RefNotFound,
            Self::RefNotReady { .. } => Reason::RefNotReady,
            Self::Invalid { .. } => Reason::InvalidSpec,
            Self::NotSynced(_) | Self::Cluster(_) => Reason::ClusterFailed,
        }
    }
}

/// A key's value.
///
/// # Errors
/// The key is missing.
pub fn value<'a>(secret: &'a SecretContent, name: &str, key: &str) -> Result<&'a [u8], Unresolved> {
    let missing = || Unresolved::SecretMissingKeys { name: name.to_owned(), keys: key.to_owned() };
    Ok(secret.data.get(key).ok_or_else(missing)?.expose_secret())
}

/// A key's value as text. A final line break, which `kubectl create --from-file` brings along, is no part of it.
///
/// # Errors
/// The key is missing, or its value is no text.
pub fn text(secret: &SecretContent, name: &str, key: &str) -> Result<SecretString, Unresolved> {
    let text =
        std::str::from_utf8(value(secret, name, key)?).map_err(|_| Unresolved::SecretInvalidValue {
            name: format!("the Secret {name}"),
            key: key.to_owned(),
            problem: "is not UTF-8 text".to_owned(),
        })?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Ok(SecretString::from(line.strip_suffix('\r').unwrap_or(line)))
}
