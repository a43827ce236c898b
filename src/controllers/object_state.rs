//! The engine's state of each object between two reconciles; a restart loses nothing that matters.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// By uid.
pub(super) struct ObjectStates<S>(Mutex<HashMap<String, Entry<S>>>);

struct Entry<S> {
    failures: u32,
    /// Since the first of the failures in a row.
    failing: Option<Instant>,
    /// When the status was last written, or first seen.
    written: Instant,
    pending_status: Option<PendingStatus<S>>,
}

/// A status that was written, and the version of the object that this made: until the watch brings it, this and not the
/// store is what the API server has. A change of somebody else that came in between may be in the store before it.
#[derive(Clone)]
pub(super) struct PendingStatus<S> {
    version: String,
    pub(super) status: S,
}

impl<S> PendingStatus<S> {
    /// Whether the object of this version has it. Resource versions are numbers that rise (KEP-5504); where they are not, the
    /// store is believed.
    pub(super) fn is_in(&self, version: &str) -> bool {
        match (self.version.parse::<u64>(), version.parse::<u64>()) {
            (Ok(written), Ok(stored)) => stored >= written,
            _ => true,
        }
    }
}

impl<S: Clone> ObjectStates<S> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    fn with<T>(&self, uid: &str, use_it: impl FnOnce(&mut Entry<S>) -> T) -> T {
        let mut entries = self.0.lock();
        let fresh = || Entry { failures: 0, failing: None, written: Instant::now(), pending_status: None };
        use_it(entries.entry(uid.to_owned()).or_insert_with(fresh))
    }

    /// The status that was written and may not be in the store yet.
    pub(super) fn pending_status(&self, uid: &str) -> Option<PendingStatus<S>> {
        let entries = self.0.lock();
        entries.get(uid).and_then(|entry| entry.pending_status.clone())
    }

    /// The store has this version of the object: what is in it need not be kept.
    pub(super) fn observed(&self, uid: &str, version: &str) {
        let mut entries = self.0.lock();
        if let Some(entry) = entries.get_mut(uid) {
            entry.pending_status.take_if(|pending_status| pending_status.is_in(version));
        }
    }

    /// How long ago the status was written.
    pub(super) fn age(&self, uid: &str) -> Duration {
        self.with(uid, |entry| entry.written.elapsed())
    }

    /// A status was written, which made this version of the object.
    pub(super) fn status_written(&self, uid: &str, version: String, status: S) {
        self.with(uid, |entry| {
            entry.written = Instant::now();
            entry.pending_status = Some(PendingStatus { version, status });
        });
    }

    /// Another failure in a row; the first one is 1.
    pub(super) fn failed(&self, uid: &str) -> u32 {
        self.with(uid, |entry| {
            entry.failing.get_or_insert_with(Instant::now);
            entry.failures += 1;
            entry.failures
        })
    }

    /// How long reconciles have failed in a row.
    pub(super) fn failing(&self, uid: &str) -> Duration {
        self.with(uid, |entry| entry.failing.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    pub(super) fn succeeded(&self, uid: &str) {
        self.with(uid, |entry| (entry.failures, entry.failing) = (0, None));
    }

    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_holds_until_the_store_has_it_whatever_came_in_between() {
        let memory = ObjectStates::new();
        let pending_status = |version: &str| {
            memory.observed("uid", version);
            memory.pending_status("uid").map(|pending_status| pending_status.status)
        };
        assert_eq!(pending_status("98"), None);
        memory.status_written("uid", "101".to_owned(), "written");
        // 100 is somebody else's change of the spec, made before ours arrived.
        assert_eq!(pending_status("99"), Some("written"));
        assert_eq!(pending_status("100"), Some("written"));
        assert_eq!(pending_status("102"), None);
        assert_eq!(pending_status("100"), None, "the store never goes back");
    }

    #[test]
    fn versions_that_are_no_numbers_are_not_compared() {
        let memory = ObjectStates::new();
        memory.status_written("uid", "b".to_owned(), "written");
        memory.observed("uid", "a");
        assert!(memory.pending_status("uid").is_none());
    }
}
