//! Digests of settings: what tells two of them apart without keeping them.

use sha2::{Digest, Sha256};

/// Hashes one part with its length, so that no two lists of parts hash alike.
pub(super) fn part(hash: &mut Sha256, text: Option<&str>) {
    match text {
        None => hash.update([0]),
        Some(text) => {
            hash.update([1]);
            hash.update(text.len().to_le_bytes());
            hash.update(text);
        }
    }
}

/// 16 bits of a salted SHA-256 over what `feed` hashes: enough to see a change, too little to guess from.
pub(super) fn fingerprint(salt: &str, feed: impl FnOnce(&mut Sha256)) -> String {
    let mut hash = Sha256::new();
    hash.update(salt);
    feed(&mut hash);
    let digest = hash.finalize();
    format!("sha256:{:02x}{:02x}", digest[0], digest[1])
}
