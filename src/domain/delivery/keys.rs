//! Which bytes of a Secret are the key of a signature.
//!
//! | Scheme | Value of the Secret | Key |
//! |---|---|---|
//! | Standard Webhooks, `v1` | `whsec_` and base64 of 24 to 64 bytes | the decoded bytes |
//! | Standard Webhooks, `v1a` | `whsk_` and base64 of an ed25519 key: its 32 bytes, or these and the public key | the decoded bytes |
//! | HexHmac, GitHub | at least 16 bytes | the bytes as they stand |
//!
//! One line end after the value is no part of it. A value that receivers could read in another way is refused: two sides that read it
//! differently only learn of that when no signature fits.

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretSlice};

/// How a delivery is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Standard Webhooks 1.0.0: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    StandardWebhooks,
    /// `X-Webhook-Signature`, the hexadecimal HMAC-SHA256 of the body, and `X-Webhook-ID`.
    HexHmac,
    /// `X-Hub-Signature-256`, `X-GitHub-Event` and `X-GitHub-Delivery`.
    GitHub,
}

/// A key that signs.
#[derive(Clone, Debug)]
pub enum Key {
    /// HMAC-SHA256.
    Hmac(SecretSlice<u8>),
    /// The seed of an ed25519 key, 32 bytes.
    Ed25519(SecretSlice<u8>),
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Hmac(one), Self::Hmac(other)) | (Self::Ed25519(one), Self::Ed25519(other)) => {
                one.expose_secret() == other.expose_secret()
            }
            _ => false,
        }
    }
}

/// Why a value is no key. None of these texts has the value in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Nothing, or nothing but a prefix.
    #[error("is empty")]
    Empty,
    /// Bytes that are no text.
    #[error("is not text: encode it once more with base64, and write whsec_ before it")]
    NotText,
    /// A provider's way to show it.
    #[error("begins with v1, which is no part of a key: remove it, up to the comma")]
    Version,
    /// Neither prefix.
    #[error("does not begin with whsec_ (or whsk_ for ed25519): write it before the base64 text")]
    NoPrefix,
    /// A public key.
    #[error("is a public key (whpk_): use the private key, which begins with whsk_")]
    Public,
    /// Blanks or line ends that may or may not belong to it.
    #[error("begins or ends with blanks or has several line ends: remove them")]
    Blanks,
    /// Text after the prefix that is not base64.
    #[error(
        "is not base64 after its prefix: use the alphabet with + and /, with = at the end (RFC 4648, section 4)"
    )]
    NotBase64,
    /// A length that the scheme does not allow.
    #[error("has {found} bytes, and the scheme needs {needs}")]
    Length {
        /// Bytes that it has.
        found: usize,
        /// What the scheme asks for.
        needs: &'static str,
    },
    /// Two halves that do not belong together.
    #[error("is an ed25519 key whose second half is not the public key of the first")]
    Mismatch,
    /// A private key for a scheme that shares its key with the receiver.
    #[error(
        "is an ed25519 private key, which must not be shared: use one that begins with whsec_, or a text of your own"
    )]
    Private,
    /// Bytes that end in a line end which may or may not belong to them.
    #[error(
        "is binary and ends with a line end, which may or may not belong to it: use other bytes, or a text"
    )]
    BinaryLineEnd,
}

const HMAC: &str = "whsec_";
const ED25519: &str = "whsk_";
const ED25519_PUBLIC: &str = "whpk_";

impl Key {
    /// The key that this value of a Secret is for the scheme.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(scheme: Scheme, value: &[u8]) -> Result<Self, InvalidKey> {
        match scheme {
            Scheme::StandardWebhooks => standard(value),
            Scheme::HexHmac | Scheme::GitHub => as_it_stands(value),
        }
    }
}

fn standard(value: &[u8]) -> Result<Key, InvalidKey> {
    let text = std::str::from_utf8(without_line_end(value)).map_err(|_| InvalidKey::NotText)?;
    if text.is_empty() {
        return Err(InvalidKey::Empty);
    }
    if text.trim() != text {
        return Err(InvalidKey::Blanks);
    }
    if text.starts_with("v1,") || text.starts_with("v1a,") {
        return Err(InvalidKey::Version);
    }
    if text.starts_with(ED25519_PUBLIC) {
        return Err(InvalidKey::Public);
    }
    if let Some(text) = text.strip_prefix(HMAC) {
        let key = decoded(text)?;
        return match key.len() {
            24..=64 => Ok(Key::Hmac(key.into())),
            found => Err(InvalidKey::Length { found, needs: "24 to 64" }),
        };
    }
    let key = decoded(text.strip_prefix(ED25519).ok_or(InvalidKey::NoPrefix)?)?;
    match key.len() {
        32 => Ok(Key::Ed25519(key.into())),
        64 => Ok(Key::Ed25519(private_half(&key)?.into())),
        found => Err(InvalidKey::Length { found, needs: "32 or 64" }),
    }
}

fn private_half(key: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    let (private, public) = key.split_at(32);
    let pair = aws_lc_rs::signature::Ed25519KeyPair::from_seed_and_public_key(private, public);
    pair.map(|_| private.to_vec()).map_err(|_| InvalidKey::Mismatch)
}

fn decoded(text: &str) -> Result<Vec<u8>, InvalidKey> {
    if text.is_empty() {
        return Err(InvalidKey::Empty);
    }
    // Strict: with padding, without blanks, and with no bits that are not zero behind the end.
    STANDARD.decode(text).map_err(|_| InvalidKey::NotBase64)
}

fn as_it_stands(value: &[u8]) -> Result<Key, InvalidKey> {
    const SHORTEST: usize = 16;
    let key = without_line_end(value);
    if key.is_empty() {
        return Err(InvalidKey::Empty);
    }
    match std::str::from_utf8(key) {
        Ok(text) if text.starts_with(ED25519) => return Err(InvalidKey::Private),
        Ok(text) if text.starts_with("v1,") => return Err(InvalidKey::Version),
        Ok(text) if text.trim() != text => return Err(InvalidKey::Blanks),
        Err(_) if key.len() < value.len() => return Err(InvalidKey::BinaryLineEnd),
        Ok(_) | Err(_) => {}
    }
    if key.len() < SHORTEST {
        return Err(InvalidKey::Length { found: key.len(), needs: "at least 16" });
    }
    Ok(Key::Hmac(key.to_vec().into()))
}

/// Without the line end that an editor or `echo` has put behind it.
#[must_use]
pub fn without_line_end(value: &[u8]) -> &[u8] {
    value.strip_suffix(b"\n").map_or(value, |value| value.strip_suffix(b"\r").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 24 bytes.
    const CLEAN: &str = "whsec_YXV0aGxpbmstdGVzdC1rZXktMDAwMDAx";

    fn standard_key(value: impl AsRef<[u8]>) -> Result<Vec<u8>, InvalidKey> {
        match Key::parse(Scheme::StandardWebhooks, value.as_ref())? {
            Key::Hmac(key) | Key::Ed25519(key) => Ok(key.expose_secret().to_vec()),
        }
    }

    #[test]
    fn standard_webhooks_takes_the_decoded_bytes_with_or_without_a_line_end() {
        for value in [CLEAN.to_owned(), format!("{CLEAN}\n"), format!("{CLEAN}\r\n")] {
            assert_eq!(standard_key(value).unwrap(), b"authlink-test-key-000001");
        }
        // Hexadecimal digits are base64 as well, and every library reads them so.
        assert_eq!(standard_key(format!("whsec_{}", "ab".repeat(32))).unwrap().len(), 48);
    }

    #[test]
    fn what_could_be_read_in_another_way_is_refused_by_name() {
        let rows = [
            (format!(" {CLEAN} "), InvalidKey::Blanks),
            (format!("{CLEAN}\n\n"), InvalidKey::Blanks),
            (format!("v1,{CLEAN}"), InvalidKey::Version),
            (CLEAN.replace("whsec_", ""), InvalidKey::NoPrefix),
            (format!("whsec_{}", "A".repeat(43)), InvalidKey::NotBase64),
            (format!("whsec_{}", "_-".repeat(16)), InvalidKey::NotBase64),
            ("whsec_!!!!".to_owned(), InvalidKey::NotBase64),
            ("whsec_".to_owned(), InvalidKey::Empty),
            (String::new(), InvalidKey::Empty),
            ("\n".to_owned(), InvalidKey::Empty),
            ("whpk_AAAA".to_owned(), InvalidKey::Public),
        ];
        for (value, why) in rows {
            assert_eq!(standard_key(&value), Err(why), "{value:?}");
        }
        assert_eq!(standard_key([0xff; 32]), Err(InvalidKey::NotText));
    }

    #[test]
    fn the_length_of_a_shared_key_is_bounded_on_both_sides() {
        let of = |bytes: usize| standard_key(format!("whsec_{}", STANDARD.encode(vec![7; bytes])));
        assert_eq!([24, 64].map(|bytes| of(bytes).unwrap().len()), [24, 64]);
        for found in [23, 65] {
            assert_eq!(of(found), Err(InvalidKey::Length { found, needs: "24 to 64" }));
        }
    }

    #[test]
    fn an_ed25519_key_is_taken_alone_or_with_its_public_half() {
        use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
        let seed = [7; 32];
        let public = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap().public_key().as_ref().to_vec();
        let of = |bytes: Vec<u8>| {
            let value = format!("whsk_{}", STANDARD.encode(bytes));
            Key::parse(Scheme::StandardWebhooks, value.as_bytes())
        };
        let key = Ok(Key::Ed25519(seed.to_vec().into()));
        assert_eq!(of(seed.to_vec()), key);
        assert_eq!(of([&seed[..], &public].concat()), key);
        assert_eq!(of([seed; 2].concat()), Err(InvalidKey::Mismatch));
        assert_eq!(of(vec![7; 33]), Err(InvalidKey::Length { found: 33, needs: "32 or 64" }));
    }

    #[test]
    fn the_other_schemes_take_the_bytes_as_they_stand() {
        let key = |value: &[u8]| Key::parse(Scheme::GitHub, value);
        let hmac = |bytes: &[u8]| Ok(Key::Hmac(bytes.to_vec().into()));
        assert_eq!(key(b"it is 18 bytes ok."), hmac(b"it is 18 bytes ok."));
        assert_eq!(key(b"it is 18 bytes ok.\r\n"), hmac(b"it is 18 bytes ok."));
        assert_eq!(key(CLEAN.as_bytes()), hmac(CLEAN.as_bytes()), "prefix and all");
        assert_eq!(key(&[0xff; 16]), hmac(&[0xff; 16]));
        assert_eq!(key(b"hunter2"), Err(InvalidKey::Length { found: 7, needs: "at least 16" }));
        assert_eq!(key(b" eighteen bytes ok"), Err(InvalidKey::Blanks));
        assert_eq!(
            key(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\n"),
            Err(InvalidKey::BinaryLineEnd)
        );
        assert_eq!(key(b"whsk_AAAAAAAAAAAAAAAAAAAA"), Err(InvalidKey::Private));
    }

    #[test]
    fn no_key_and_no_reason_shows_a_byte_of_it() {
        let key = Key::parse(Scheme::StandardWebhooks, CLEAN.as_bytes()).unwrap();
        assert!(!format!("{key:?}").contains("97"), "{key:?}");
        let why = Key::parse(Scheme::StandardWebhooks, b"whsec_hunter2!").unwrap_err();
        assert!(!format!("{why:?} {why}").contains("hunter2"), "{why}");
    }
}
