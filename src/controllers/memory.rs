//! What the engine remembers of each object between two passes; a restart loses nothing that matters.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// By uid.
pub(super) struct Memory<S>(Mutex<HashMap<String, Entry<S>>>);

struct Entry<S> {
    failures: u32,
    /// When the status was last written, or first seen.
    written: Instant,
    ahead: Option<Ahead<S>>,
}

/// The status that was written over the version of the object that the store had then: until the watch brings the next
/// version, this and not the store is what the API server has.
#[derive(Clone)]
pub(super) struct Ahead<S> {
    /// That version.
    pub(super) of: String,
    pub(super) status: S,
}

impl<S: Clone> Memory<S> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    fn with<T>(&self, uid: &str, use_it: impl FnOnce(&mut Entry<S>) -> T) -> T {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Entry { failures: 0, written: Instant::now(), ahead: None };
        use_it(entries.entry(uid.to_owned()).or_insert_with(fresh))
    }

    /// The status that was written and may not be in the store yet.
    pub(super) fn ahead(&self, uid: &str) -> Option<Ahead<S>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(uid).and_then(|entry| entry.ahead.clone())
    }

    /// The watch has brought this version.
    pub(super) fn caught_up(&self, uid: &str, version: &str) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(uid) {
            entry.ahead.take_if(|ahead| ahead.of != version);
        }
    }

    /// How long ago the status was written.
    pub(super) fn age(&self, uid: &str) -> Duration {
        self.with(uid, |entry| entry.written.elapsed())
    }

    pub(super) fn wrote(&self, uid: &str, version: &str, status: S) {
        self.with(uid, |entry| {
            entry.written = Instant::now();
            entry.ahead = Some(Ahead { of: version.to_owned(), status });
        });
    }

    /// Another failure in a row; the first one is 1.
    pub(super) fn failed(&self, uid: &str) -> u32 {
        self.with(uid, |entry| {
            entry.failures += 1;
            entry.failures
        })
    }

    pub(super) fn succeeded(&self, uid: &str) {
        self.with(uid, |entry| entry.failures = 0);
    }

    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
