//! Which keys sign a request, by scheme.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::key_ring::KeyRing;
use crate::{
    api::v1alpha1::webhook::{KeyType, Scheme as ApiScheme, SingleSignature},
    domain::delivery::keys::{InvalidKey, Key, Scheme},
};

/// What a spec says of signing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningPolicy {
    /// Whose headers are sent.
    pub schemes: Vec<Scheme>,
    /// What kind of key it is.
    pub key_type: KeyType,
    /// How long a key still signs that was replaced.
    pub overlap: Duration,
    /// Whose signature is sent where there is room for one.
    pub single: SingleSignature,
}

/// The keys that sign, by scheme.
#[derive(Clone, Debug, PartialEq)]
pub struct SigningKeys {
    /// Those of each scheme that has some, in the order of their use: of those that have not ended, each signs by Standard Webhooks, and
    /// the first by the schemes with a single signature.
    pub by_scheme: Vec<(Scheme, Vec<SigningKey>)>,
    /// Schemes that the newest key cannot be used for: their headers are left out.
    pub unsigned: Vec<(Scheme, UnusableKey)>,
}

/// A key that signs.
#[derive(Clone, Debug, PartialEq)]
pub struct SigningKey {
    /// The key.
    pub key: Key,
    /// When it signs no more; none for the newest.
    pub ends: Option<Timestamp>,
}

/// Why a value is no key for a scheme. None of these texts has the value in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKey {
    /// By the scheme.
    #[error(transparent)]
    Invalid(#[from] InvalidKey),
    /// A shared key where a private one is needed.
    #[error("does not begin with whsk_, which signing.type Ed25519 requires")]
    NotEd25519,
}

impl From<ApiScheme> for Scheme {
    fn from(scheme: ApiScheme) -> Self {
        match scheme {
            ApiScheme::StandardWebhooks => Self::StandardWebhooks,
            ApiScheme::HexHmac => Self::HexHmac,
            ApiScheme::GitHub => Self::GitHub,
        }
    }
}

/// The scheme as users write it.
#[must_use]
pub const fn scheme_name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::StandardWebhooks => "StandardWebhooks",
        Scheme::HexHmac => "HexHmac",
        Scheme::GitHub => "GitHub",
    }
}

impl SigningPolicy {
    /// The key that the value is for the scheme.
    ///
    /// # Errors
    /// Why it is none.
    pub fn key(&self, scheme: Scheme, value: &[u8]) -> Result<Key, UnusableKey> {
        match (Key::parse(scheme, value)?, self.key_type) {
            (Key::Ed25519(_), KeyType::HmacSha256) => Err(InvalidKey::Private.into()),
            (Key::Hmac(_), KeyType::Ed25519) => Err(UnusableKey::NotEd25519),
            (key, _) => Ok(key),
        }
    }

    /// Whether the value can sign by one of the schemes at least.
    ///
    /// # Errors
    /// Why it cannot by the first of them.
    pub fn check(&self, value: &[u8]) -> Result<(), UnusableKey> {
        let mut first = None;
        for scheme in &self.schemes {
            match self.key(*scheme, value) {
                Ok(_) => return Ok(()),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or(InvalidKey::Empty.into()))
    }

    /// The keys of a ring.
    ///
    /// # Errors
    /// The newest cannot sign by any of the schemes.
    pub fn keys(&self, ring: &KeyRing) -> Result<SigningKeys, UnusableKey> {
        let current = ring.current.expose_secret();
        self.check(current)?;
        let mut keys = SigningKeys { by_scheme: Vec::new(), unsigned: Vec::new() };
        for scheme in &self.schemes {
            match self.key(*scheme, current) {
                Err(error) => keys.unsigned.push((*scheme, error)),
                Ok(key) => {
                    // One that was replaced because it was of no use for the scheme is of no use for it now.
                    let previous = ring.previous.iter().filter_map(|replaced| {
                        let key = self.key(*scheme, replaced.value.expose_secret()).ok()?;
                        Some(SigningKey { key, ends: Some(replaced.ends(self.overlap)) })
                    });
                    let mut used = vec![SigningKey { key, ends: None }];
                    used.extend(previous);
                    if self.single == SingleSignature::Old && *scheme != Scheme::StandardWebhooks {
                        used.reverse();
                    }
                    keys.by_scheme.push((*scheme, used));
                }
            }
        }
        Ok(keys)
    }

    /// The keys as they should be, from those that are kept, the one that the spec names, and whether another one is asked for; and
    /// whether another one takes the place of the newest.
    #[must_use]
    pub fn next(
        &self,
        kept: Option<KeyRing>,
        given: Option<&[u8]>,
        asked: bool,
        random: &[u8; 32],
        now: Timestamp,
    ) -> (KeyRing, bool) {
        let Some(mut ring) = kept else {
            return (given.map_or_else(|| KeyRing::new(&self.generate(random)), KeyRing::new), false);
        };
        // A key of another kind is of no use any more.
        let stays = !asked && self.check(ring.current.expose_secret()).is_ok();
        let rotated = match given {
            Some(given) => ring.rotate(given, now),
            None => !stays && ring.rotate(&self.generate(random), now),
        };
        ring.expire(self.overlap, now);
        (ring, rotated)
    }

    /// A new value for a key, from 32 random bytes.
    #[must_use]
    pub fn generate(&self, random: &[u8; 32]) -> Vec<u8> {
        match self.key_type {
            KeyType::HmacSha256 => format!("whsec_{}", STANDARD.encode(random)).into_bytes(),
            KeyType::Ed25519 => {
                let public = public_half(random).unwrap_or_default();
                format!("whsk_{}", STANDARD.encode([&random[..], &public].concat())).into_bytes()
            }
        }
    }
}

fn public_half(seed: &[u8]) -> Option<Vec<u8>> {
    Ed25519KeyPair::from_seed_unchecked(seed).ok().map(|pair| pair.public_key().as_ref().to_vec())
}

/// The public key that receivers need, where the value is a private one.
#[must_use]
pub fn public_key(value: &[u8]) -> Option<String> {
    match Key::parse(Scheme::StandardWebhooks, value) {
        Ok(Key::Ed25519(seed)) => {
            Some(format!("whpk_{}", STANDARD.encode(public_half(seed.expose_secret())?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Scheme; 3] = [Scheme::StandardWebhooks, Scheme::HexHmac, Scheme::GitHub];
    const STANDARD_KEY: &[u8] = b"whsec_YXV0aGxpbmstdGVzdC1rZXktMDAwMDAx";
    const TEXT: &[u8] = b"it is 18 bytes ok.";

    fn policy(schemes: &[Scheme], key_type: KeyType) -> SigningPolicy {
        let overlap = Duration::from_hours(1);
        SigningPolicy { schemes: schemes.to_vec(), key_type, overlap, single: SingleSignature::New }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// Those that sign at this time, as the engine uses them.
    fn used(keys: &SigningKeys, scheme: Scheme, now: i64) -> Vec<Vec<u8>> {
        let of_scheme = keys.by_scheme.iter().filter(|(of, _)| *of == scheme).flat_map(|(_, keys)| keys);
        let used = of_scheme.filter(|key| key.ends.is_none_or(|end| end > at(now)));
        let most = if scheme == Scheme::StandardWebhooks { usize::MAX } else { 1 };
        used.take(most).map(|key| bytes(&key.key)).collect()
    }

    fn bytes(key: &Key) -> Vec<u8> {
        match key {
            Key::Hmac(key) | Key::Ed25519(key) => key.expose_secret().to_vec(),
        }
    }

    #[test]
    fn one_value_is_another_key_for_each_scheme() {
        let keys = policy(&ALL, KeyType::HmacSha256).keys(&KeyRing::new(STANDARD_KEY)).unwrap();
        let now = |scheme| used(&keys, scheme, 0);
        assert_eq!(now(Scheme::StandardWebhooks), [b"authlink-test-key-000001".to_vec()]);
        assert_eq!(
            [now(Scheme::GitHub), now(Scheme::HexHmac)],
            [[STANDARD_KEY.to_vec()], [STANDARD_KEY.to_vec()]]
        );
    }

    #[test]
    fn a_free_text_signs_where_it_can_and_the_other_scheme_is_named() {
        let keys = policy(&ALL, KeyType::HmacSha256).keys(&KeyRing::new(TEXT)).unwrap();
        let unsigned: Vec<_> = keys.unsigned.iter().map(|(scheme, why)| (*scheme, *why)).collect();
        assert_eq!(unsigned, [(Scheme::StandardWebhooks, InvalidKey::NoPrefix.into())]);
        assert_eq!(used(&keys, Scheme::GitHub, 0), [TEXT.to_vec()]);
        assert_eq!(used(&keys, Scheme::StandardWebhooks, 0).len(), 0);
        let short = policy(&ALL, KeyType::HmacSha256).keys(&KeyRing::new(b"key"));
        assert_eq!(short.map(drop), Err(InvalidKey::NoPrefix.into()));
    }

    #[test]
    fn a_private_key_never_becomes_a_shared_one_nor_the_other_way_round() {
        let ed25519 = policy(&ALL[..1], KeyType::Ed25519);
        let private = ed25519.generate(&[7; 32]);
        assert!(private.starts_with(b"whsk_") && ed25519.check(&private).is_ok());
        let hmac = policy(&ALL, KeyType::HmacSha256);
        assert_eq!(hmac.check(&private), Err(InvalidKey::Private.into()));
        assert_eq!(ed25519.check(STANDARD_KEY), Err(UnusableKey::NotEd25519));
        let public = public_key(&private).unwrap();
        assert!(public.starts_with("whpk_") && public_key(STANDARD_KEY).is_none());
        assert_eq!(public_key(format!("whsk_{}", STANDARD.encode([7; 32])).as_bytes()), Some(public));
        assert!(hmac.check(&hmac.generate(&[7; 32])).is_ok());
    }

    #[test]
    fn a_ring_is_made_once_and_changes_when_the_key_does_or_another_one_is_asked_for() {
        let policy = policy(&ALL[..1], KeyType::HmacSha256);
        let next = |kept: Option<&KeyRing>, given: Option<&[u8]>, asked| {
            let (ring, rotated) = policy.next(kept.cloned(), given, asked, &[9; 32], at(0));
            (ring.current.expose_secret().to_vec(), ring.previous.len(), rotated)
        };
        let made = policy.generate(&[9; 32]);
        assert_eq!(next(None, None, false), (made.clone(), 0, false));
        assert_eq!(next(None, Some(STANDARD_KEY), true), (STANDARD_KEY.to_vec(), 0, false));
        let kept = KeyRing::new(STANDARD_KEY);
        assert_eq!(next(Some(&kept), None, false), (STANDARD_KEY.to_vec(), 0, false));
        assert_eq!(next(Some(&kept), Some(STANDARD_KEY), false), (STANDARD_KEY.to_vec(), 0, false));
        assert_eq!(next(Some(&kept), None, true), (made.clone(), 1, true));
        assert_eq!(next(Some(&kept), Some(&made), false), (made.clone(), 1, true));
        assert_eq!(next(Some(&KeyRing::new(TEXT)), None, false), (made, 1, true), "of no use for the scheme");
    }

    #[test]
    fn old_keys_sign_until_their_end_where_there_is_room_and_else_the_one_that_is_asked_for() {
        let mut ring = KeyRing::new(TEXT);
        ring.rotate(STANDARD_KEY, at(0));
        let mut policy = policy(&ALL, KeyType::HmacSha256);
        let counts = |policy: &SigningPolicy, now: i64| {
            let keys = policy.keys(&ring).unwrap();
            ALL.map(|scheme| used(&keys, scheme, now))
        };
        let standard = b"authlink-test-key-000001".to_vec();
        assert_eq!(
            counts(&policy, 10),
            [vec![standard.clone()], vec![STANDARD_KEY.to_vec()], vec![STANDARD_KEY.to_vec()]]
        );
        policy.single = SingleSignature::Old;
        assert_eq!(counts(&policy, 10)[1..], [vec![TEXT.to_vec()], vec![TEXT.to_vec()]]);
        assert_eq!(counts(&policy, 3600)[1..], [vec![STANDARD_KEY.to_vec()], vec![STANDARD_KEY.to_vec()]]);
        let other = policy.generate(&[1; 32]);
        ring.rotate(&other, at(10));
        assert_eq!(used(&policy.keys(&ring).unwrap(), Scheme::StandardWebhooks, 20).len(), 2);
    }
}
