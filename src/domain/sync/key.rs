//! Keys: what is compared often and kept a million times.

use std::fmt;

use sha2::{Digest, Sha256};

/// 128 bits of SHA-256 over a text: two texts with the same key are the same text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 16]);

/// What a key is of: keys of different kinds never match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The id of an entry.
    Id,
    /// The name of an entry ([`super::dn::Dn`]).
    Dn,
    /// A user name, which is compared without case.
    Username,
    /// A step of a plan.
    Step,
}

impl Key {
    /// The key of what these parts say, each with its length.
    #[must_use]
    pub fn of<'a>(kind: Kind, parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new();
        hash.update([kind as u8]);
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        Self(std::array::from_fn(|at| digest[at]))
    }

    /// The key of an entry's id.
    #[must_use]
    pub fn id(external_id: &str) -> Self {
        Self::of(Kind::Id, [external_id])
    }

    /// The key of a user name, whatever its case.
    #[must_use]
    pub fn username(name: &str) -> Self {
        Self::of(Kind::Username, [name.trim().to_lowercase().as_str()])
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The key with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_its_kind_and_on_where_its_parts_end() {
        assert_ne!(Key::of(Kind::Id, ["a"]), Key::of(Kind::Dn, ["a"]));
        assert_ne!(Key::of(Kind::Id, ["ab", "c"]), Key::of(Kind::Id, ["a", "bc"]));
        assert_eq!(Key::username("Ünal "), Key::username("ünal"));
    }
}
