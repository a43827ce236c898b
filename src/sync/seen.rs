//! Who was seen in a run.

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hasher},
};

use crate::domain::sync::key::Key;

/// A set of keys. It is in parts, so that the memory that it needs for a moment to grow is that of a part.
pub(super) struct Seen {
    parts: Vec<HashSet<Key, BuildHasherDefault<Digest>>>,
}

const PARTS: usize = 256;

/// Keys are digests already.
#[derive(Default)]
pub(super) struct Digest(u64);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        // Not the byte that chooses the part.
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Seen {
    pub(super) fn new() -> Self {
        Self { parts: vec![HashSet::default(); PARTS] }
    }

    /// Whether it is new.
    pub(super) fn insert(&mut self, key: Key) -> bool {
        self.parts[part(key)].insert(key)
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.parts[part(key)].contains(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(HashSet::len).sum()
    }
}

fn part(key: Key) -> usize {
    usize::from(key.as_bytes()[0]) % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_new_once() {
        let mut seen = Seen::new();
        for number in 0..10_000 {
            assert!(seen.insert(Key::id(&number.to_string())));
        }
        for number in 0..10_000 {
            assert!(!seen.insert(Key::id(&number.to_string())));
            assert!(seen.contains(Key::id(&number.to_string())));
        }
        assert!(!seen.contains(Key::id("x")));
        assert_eq!(seen.len(), 10_000);
    }
}
