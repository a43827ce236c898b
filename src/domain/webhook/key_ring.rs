//! The keys in force: the newest, and those before it that still sign.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};

/// The most keys that are kept besides the newest.
const MOST: usize = 4;

/// Where the newest key is in a Secret, for people to read.
pub const CURRENT: &str = "secret";

/// Where those before it are.
pub const PREVIOUS: &str = "previous.json";

/// The values of keys, as they stand in Secrets, the newest first.
#[derive(Clone, Debug)]
pub struct KeyRing {
    /// The newest.
    pub current: SecretSlice<u8>,
    /// Those before, the newest first.
    pub previous: Vec<ReplacedKey>,
}

/// A key that was replaced.
#[derive(Clone, Debug)]
pub struct ReplacedKey {
    /// Its value.
    pub value: SecretSlice<u8>,
    /// When another one took its place.
    pub replaced: Timestamp,
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    secret: String,
    replaced: Timestamp,
}

/// What a Secret holds is no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("does not hold keys as authlink writes them")]
pub struct NotARing;

impl KeyRing {
    /// With one key.
    #[must_use]
    pub fn new(current: &[u8]) -> Self {
        Self { current: current.to_vec().into(), previous: Vec::new() }
    }

    /// Replaces the newest key, unless it is that already. A key that comes back is the newest again, and not an old one besides.
    pub fn rotate(&mut self, value: &[u8], now: Timestamp) -> bool {
        if self.current.expose_secret() == value {
            return false;
        }
        let current = std::mem::replace(&mut self.current, value.to_vec().into());
        self.previous.retain(|key| key.value.expose_secret() != value);
        self.previous.insert(0, ReplacedKey { value: current, replaced: now });
        self.previous.truncate(MOST);
        true
    }

    /// Drops the keys whose time is over; whether there were any.
    pub fn expire(&mut self, overlap: Duration, now: Timestamp) -> bool {
        let before = self.previous.len();
        self.previous.retain(|key| key.ends(overlap) > now);
        self.previous.len() < before
    }

    /// When the next key's time is over.
    #[must_use]
    pub fn next_end(&self, overlap: Duration) -> Option<Timestamp> {
        self.previous.iter().map(|key| key.ends(overlap)).min()
    }

    /// As it is kept in a Secret.
    #[must_use]
    pub fn to_data(&self) -> BTreeMap<String, Vec<u8>> {
        let kept = self
            .previous
            .iter()
            .map(|key| Kept { secret: STANDARD.encode(key.value.expose_secret()), replaced: key.replaced });
        let kept = serde_json::to_vec(&kept.collect::<Vec<_>>()).unwrap_or_default();
        BTreeMap::from([
            (CURRENT.to_owned(), self.current.expose_secret().to_vec()),
            (PREVIOUS.to_owned(), kept),
        ])
    }

    /// From what a Secret holds.
    ///
    /// # Errors
    /// It holds something else.
    pub fn from_data(data: &BTreeMap<String, SecretSlice<u8>>) -> Result<Self, NotARing> {
        let current = data.get(CURRENT).filter(|value| !value.expose_secret().is_empty()).ok_or(NotARing)?;
        let kept = data.get(PREVIOUS).map_or(&b"[]"[..], |kept| kept.expose_secret());
        let kept: Vec<Kept> = serde_json::from_slice(kept).map_err(|_| NotARing)?;
        let previous = kept.into_iter().map(|Kept { secret, replaced }| {
            let value = STANDARD.decode(secret).map_err(|_| NotARing)?;
            Ok(ReplacedKey { value: value.into(), replaced })
        });
        Ok(Self { current: current.clone(), previous: previous.collect::<Result<_, _>>()? })
    }
}

impl ReplacedKey {
    /// When it signs no more.
    #[must_use]
    pub fn ends(&self, overlap: Duration) -> Timestamp {
        self.replaced.checked_add(overlap).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }

    fn texts(ring: &KeyRing) -> Vec<String> {
        let previous = ring.previous.iter().map(|key| &key.value);
        let text = |value: &SecretSlice<u8>| String::from_utf8(value.expose_secret().to_vec()).unwrap();
        std::iter::once(&ring.current).chain(previous).map(text).collect()
    }

    #[test]
    fn a_second_rotation_within_the_overlap_loses_no_key() {
        let mut ring = KeyRing::new(b"one");
        assert!(!ring.rotate(b"one", at(0)));
        assert!(ring.rotate(b"two", at(1)) && ring.rotate(b"three", at(2)));
        assert_eq!(texts(&ring), ["three", "two", "one"]);
        assert_eq!(ring.next_end(24 * HOUR), Some(at(25)));
        assert!(!ring.expire(24 * HOUR, at(24)));
        assert!(ring.expire(24 * HOUR, at(25)));
        assert_eq!(texts(&ring), ["three", "two"]);
        assert!(ring.expire(24 * HOUR, at(26)));
        assert_eq!((texts(&ring), ring.next_end(HOUR)), (vec!["three".to_owned()], None));
    }

    #[test]
    fn a_key_that_comes_back_is_the_newest_and_there_are_never_more_than_five() {
        let mut ring = KeyRing::new(b"1");
        ring.rotate(b"2", at(0));
        ring.rotate(b"1", at(1));
        assert_eq!(texts(&ring), ["1", "2"]);
        for key in [b"3", b"4", b"5", b"6", b"7"] {
            ring.rotate(key, at(2));
        }
        assert_eq!(texts(&ring), ["7", "6", "5", "4", "3"]);
    }

    #[test]
    fn an_overlap_of_zero_ends_every_old_key_at_once() {
        let mut ring = KeyRing::new(b"one");
        ring.rotate(b"two", at(1));
        assert!(ring.expire(Duration::ZERO, at(1)));
        assert_eq!(texts(&ring), ["two"]);
    }

    #[test]
    fn a_secret_keeps_it_byte_for_byte_and_shows_no_value_in_texts() {
        let mut ring = KeyRing::new(b"\xff\x00hunter2");
        ring.rotate(b"whsec_hunter3", at(1));
        let data: BTreeMap<_, _> =
            ring.to_data().into_iter().map(|(key, value)| (key, value.into())).collect();
        let read = KeyRing::from_data(&data).unwrap();
        assert_eq!(read.current.expose_secret(), b"whsec_hunter3");
        assert_eq!(
            (read.previous[0].value.expose_secret(), read.previous[0].replaced),
            (&b"\xff\x00hunter2"[..], at(1))
        );
        assert!(!format!("{read:?}").contains("hunter"), "{read:?}");
        for broken in
            [&[][..], &[(CURRENT, &b""[..])], &[(CURRENT, b"a"), (PREVIOUS, b"[1]")], &[(PREVIOUS, b"[]")]]
        {
            let data = broken.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec().into())).collect();
            assert_eq!(KeyRing::from_data(&data).map(drop), Err(NotARing));
        }
    }
}
