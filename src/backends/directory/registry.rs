//! The directories of this process: probes, syncs and logins with the same settings share one, with its budget of refused logins.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::{Directory, DirectorySettings};
use crate::backends::{Fault, http::Egress};

/// The directories in use, by the key of their settings.
pub struct DirectoryRegistry {
    by_key: Mutex<HashMap<[u8; 32], Weak<Directory>>>,
    egress: Egress,
}

impl DirectoryRegistry {
    /// An empty registry; connections are made through `egress`.
    #[must_use]
    pub fn new(egress: Egress) -> Self {
        Self { by_key: Mutex::default(), egress }
    }

    /// The directory with these settings. It connects on first use.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn directory(&self, settings: DirectorySettings) -> Result<Arc<Directory>, Fault> {
        let key = settings.key();
        let mut by_key = self.by_key.lock();
        if let Some(directory) = by_key.get(&key).and_then(Weak::upgrade) {
            return Ok(directory);
        }
        by_key.retain(|_, directory| directory.strong_count() > 0);
        let directory = Arc::new(Directory::new(settings, self.egress.clone())?);
        by_key.insert(key, Arc::downgrade(&directory));
        Ok(directory)
    }
}
