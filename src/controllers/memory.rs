//! What the engine remembers of each object between two passes; a restart loses nothing that matters.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// By uid.
pub(super) struct Memory<S>(Mutex<HashMap<String, Entry<S>>>);

struct Entry<S> {
    failures: u32,
    /// Since the first of the failures in a row.
    failing: Option<Instant>,
    /// When the status was last written, or first seen.
    written: Instant,
    ahead: Option<Ahead<S>>,
}

/// A status that was written, and the version of the object that this made: until the watch brings it, this and not the
/// store is what the API server has. A change of somebody else that came in between may be in the store before it.
#[derive(Clone)]
pub(super) struct Ahead<S> {
    version: String,
    pub(super) status: S,
}

impl<S> Ahead<S> {
    /// Whether the object of this version has it. Resource versions are numbers that rise (KEP-5504); where they are not, the
    /// store is believed.
    pub(super) fn is_in(&self, version: &str) -> bool {
        match (self.version.parse::<u64>(), version.parse::<u64>()) {
            (Ok(written), Ok(stored)) => stored >= written,
            _ => true,
        }
    }
}

impl<S: Clone> Memory<S> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    fn with<T>(&self, uid: &str, use_it: impl FnOnce(&mut Entry<S>) -> T) -> T {
        let mut entries = self.0.lock();
        let fresh = || Entry { failures: 0, failing: None, written: Instant::now(), ahead: None };
        use_it(entries.entry(uid.to_owned()).or_insert_with(fresh))
    }

    /// The status that was written and may not be in the store yet.
    pub(super) fn ahead(&self, uid: &str) -> Option<Ahead<S>> {
        let entries = self.0.lock();
        entries.get(uid).and_then(|entry| entry.ahead.clone())
    }

    /// The store has this version of the object: what is in it need not be kept.
    pub(super) fn caught_up(&self, uid: &str, version: &str) {
        let mut entries = self.0.lock();
        if let Some(entry) = entries.get_mut(uid) {
            entry.ahead.take_if(|ahead| ahead.is_in(version));
        }
    }

    /// How long ago the status was written.
    pub(super) fn age(&self, uid: &str) -> Duration {
        self.with(uid, |entry| entry.written.elapsed())
    }

    /// A status was written, which made this version of the object.
    pub(super) fn wrote(&self, uid: &str, version: String, status: S) {
        self.with(uid, |entry| {
            entry.written = Instant::now();
            entry.ahead = Some(Ahead { version, status });
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

    /// How long passes have failed in a row.
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
        let memory = Memory::new();
        let ahead = |version: &str| {
            memory.caught_up("uid", version);
            memory.ahead("uid").map(|ahead| ahead.status)
        };
        assert_eq!(ahead("98"), None);
        memory.wrote("uid", "101".to_owned(), "written");
        // 100 is somebody else's change of the spec, made before ours arrived.
        assert_eq!(ahead("99"), Some("written"));
        assert_eq!(ahead("100"), Some("written"));
        assert_eq!(ahead("102"), None);
        assert_eq!(ahead("100"), None, "the store never goes back");
    }

    #[test]
    fn versions_that_are_no_numbers_are_not_compared() {
        let memory = Memory::new();
        memory.wrote("uid", "b".to_owned(), "written");
        memory.caught_up("uid", "a");
        assert!(memory.ahead("uid").is_none());
    }
}
