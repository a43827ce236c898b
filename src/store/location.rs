//! Where the URL of the store comes from.

use std::{fmt, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::target::{Pools, Target};

/// Where the URL of the store comes from.
#[derive(Clone, Debug)]
pub enum Location {
    /// A setting.
    Url(SecretString),
    /// A file with the URL, read again before each operation: a mounted Secret is rotated without a restart.
    File(PathBuf),
    /// The process' memory.
    Memory,
}

/// A setting that names no store. The URL may contain a password, so it is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum InvalidLocation {
    /// The URL is invalid.
    #[error(
        "must be one of sqlite:///path/file.db, sqlite::memory: and postgres://user:password@host/database"
    )]
    Url,
    /// The file cannot be read.
    #[error("{0} cannot be read: {1}")]
    File(PathBuf, std::io::Error),
}

/// The store at a URL.
pub(super) struct Current {
    url: SecretString,
    pub(super) target: Target,
    pub(super) pools: Pools,
}

impl Location {
    /// The store that it names now.
    ///
    /// # Errors
    /// An unreadable file, or an invalid URL.
    pub(super) fn open(&self) -> Result<Current, InvalidLocation> {
        Current::new(self.url()?)
    }

    /// The store that it names now, if that is not `current`; one that cannot be used is logged once.
    pub(super) fn reopen(&self, current: &mut Current) -> Option<Current> {
        let Self::File(path) = self else { return None };
        // A Secret that is just replaced may be missing for a moment.
        let url = self.url().ok()?;
        if url.expose_secret() == current.url.expose_secret() {
            return None;
        }
        current.url = url.clone();
        let changed = Current::new(url);
        if let Err(error) = &changed {
            tracing::warn!(file = %path.display(), %error, "the store's URL has changed to an invalid one: the previous one stays in use");
        }
        changed.ok()
    }

    fn url(&self) -> Result<SecretString, InvalidLocation> {
        match self {
            Self::Url(url) => Ok(url.clone()),
            Self::Memory => Ok("sqlite::memory:".into()),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).into()),
                Err(error) => Err(InvalidLocation::File(path.clone(), error)),
            },
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url(_) | Self::Memory => "--store",
            Self::File(_) => "--store-file",
        })
    }
}

impl Current {
    fn new(url: SecretString) -> Result<Self, InvalidLocation> {
        let target = Target::parse(&url)?;
        let pools = target.pools();
        Ok(Self { url, target, pools })
    }

    pub(super) fn in_memory() -> Self {
        let target = Target::in_memory();
        Self { url: String::new().into(), pools: target.pools(), target }
    }
}
