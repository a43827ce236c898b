//! Signatures: of the very bytes that are sent, under the time of the attempt.

use std::fmt::Write;

use aws_lc_rs::{hmac, signature::Ed25519KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header::HeaderName};
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::settings::{Signing, SigningKey};
use crate::domain::delivery::{event::Event, keys::Key};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const HEX_SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");
const HEX_ID: HeaderName = HeaderName::from_static("x-webhook-id");
const GITHUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const GITHUB_EVENT: HeaderName = HeaderName::from_static("x-github-event");
const GITHUB_DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");

/// A key that is ready to sign, and until when it does.
struct Ready {
    key: ReadyKey,
    expires: Option<Timestamp>,
}

enum ReadyKey {
    Hmac(Box<hmac::Key>),
    Ed25519(Ed25519KeyPair),
}

/// Signs deliveries of one endpoint.
pub(super) struct Signer {
    standard: Vec<Ready>,
    hex_hmac: Vec<Ready>,
    github: Vec<Ready>,
}

impl Signer {
    pub(super) fn new(signing: &Signing) -> Self {
        let ready = |keys: &[SigningKey]| keys.iter().filter_map(Ready::of).collect();
        Self {
            standard: ready(&signing.standard),
            hex_hmac: ready(&signing.hex_hmac),
            github: ready(&signing.github),
        }
    }

    /// Adds the headers of every scheme that has a key.
    pub(super) fn sign(&self, headers: &mut HeaderMap, event: &Event, body: &[u8], now: Timestamp) {
        let mut insert = |name: HeaderName, value: &str| {
            // Ids, types and signatures are ASCII.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        let standard: Vec<_> = self.standard.iter().filter(|key| key.signs(now)).collect();
        if !standard.is_empty() {
            let time = now.as_second().to_string();
            let signed = [event.id.as_bytes(), b".", time.as_bytes(), b".", body];
            let signatures: Vec<_> = standard.iter().map(|key| key.standard(&signed)).collect();
            insert(ID, &event.id);
            insert(TIMESTAMP, &time);
            insert(SIGNATURE, &signatures.join(" "));
        }
        if let Some(signature) = self.hex_hmac.iter().find(|key| key.signs(now)).and_then(|key| key.hex(body))
        {
            insert(HEX_ID, &event.id);
            insert(HEX_SIGNATURE, &signature);
        }
        if let Some(signature) = self.github.iter().find(|key| key.signs(now)).and_then(|key| key.hex(body)) {
            insert(GITHUB_EVENT, &event.event_type);
            insert(GITHUB_DELIVERY, &event.id);
            insert(GITHUB_SIGNATURE, &format!("sha256={signature}"));
        }
    }
}

impl Ready {
    fn of(key: &SigningKey) -> Option<Self> {
        let ready = match &key.key {
            Key::Hmac(bytes) => {
                ReadyKey::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes.expose_secret())))
            }
            // Of 32 bytes, which each is by now.
            Key::Ed25519(seed) => {
                ReadyKey::Ed25519(Ed25519KeyPair::from_seed_unchecked(seed.expose_secret()).ok()?)
            }
        };
        Some(Self { key: ready, expires: key.expires })
    }

    fn signs(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// A signature of Standard Webhooks 1.0.0.
    fn standard(&self, signed: &[&[u8]]) -> String {
        match &self.key {
            ReadyKey::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                for part in signed {
                    context.update(part);
                }
                format!("v1,{}", STANDARD.encode(context.sign()))
            }
            ReadyKey::Ed25519(key) => format!("v1a,{}", STANDARD.encode(key.sign(&signed.concat()))),
        }
    }

    /// The HMAC of the body, in hexadecimal digits. A private key has none: it must not be shared.
    fn hex(&self, body: &[u8]) -> Option<String> {
        let ReadyKey::Hmac(key) = &self.key else { return None };
        let mut text = String::with_capacity(64);
        for byte in hmac::sign(key, body).as_ref() {
            let _ = write!(text, "{byte:02x}");
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::{event::from_plain, keys::Scheme};

    fn key(scheme: Scheme, value: &str, expires: Option<&str>) -> SigningKey {
        let key = Key::parse(scheme, value.as_bytes()).unwrap();
        SigningKey { key, expires: expires.map(|expires| expires.parse().unwrap()) }
    }

    fn signed(signing: &Signing) -> Vec<(String, String)> {
        let event = from_plain(&r#"{"type":"user.created"}"#.into(), "me", Timestamp::UNIX_EPOCH).unwrap();
        let event = Event { id: "evt_1".to_owned(), ..event };
        let mut headers = HeaderMap::new();
        Signer::new(signing).sign(&mut headers, &event, b"{}", "2026-08-01T00:00:00Z".parse().unwrap());
        let headers =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let mut headers: Vec<_> = headers.collect();
        headers.sort();
        headers
    }

    fn of(signing: &Signing, name: &str) -> String {
        signed(signing)
            .into_iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
            .unwrap_or_default()
    }

    const STANDARD_KEY: &str = "whsec_YXV0aGxpbmstdGVzdC1rZXktMDAwMDAx";

    #[test]
    fn every_key_of_standard_webhooks_signs_until_it_expires_the_first_one_first() {
        let new = key(Scheme::StandardWebhooks, STANDARD_KEY, None);
        let old =
            |expires| key(Scheme::StandardWebhooks, "whsec_YXV0aGxpbmstdGVzdC1rZXktMDAwMDAy", Some(expires));
        let with = |keys: Vec<SigningKey>| {
            of(&Signing { standard: keys, ..Signing::default() }, "webhook-signature")
        };
        let alone = with(vec![new.clone()]);
        assert!(alone.starts_with("v1,") && !alone.contains(' '), "{alone}");
        let both = with(vec![new.clone(), old("2026-08-01T00:00:01Z")]);
        assert!(both.starts_with(&format!("{alone} v1,")), "{both}");
        assert_eq!(with(vec![new, old("2026-08-01T00:00:00Z")]), alone, "it has expired");
    }

    #[test]
    fn schemes_with_one_signature_use_the_first_key_that_has_not_expired() {
        // printf '{}' | openssl dgst -sha256 -hmac 'it is 18 bytes ok.'
        let digest = "362f96f2402cd8fbc62ed0eccc23c00c5ae77749da4dabf39d332860d40c7516";
        let keys = vec![
            key(Scheme::GitHub, "a key that has expired", Some("2026-07-31T00:00:00Z")),
            key(Scheme::GitHub, "it is 18 bytes ok.", None),
        ];
        let signing = Signing { github: keys.clone(), hex_hmac: keys, ..Signing::default() };
        let names: Vec<_> = signed(&signing).into_iter().map(|(name, _)| name).collect();
        let all = [
            "x-github-delivery",
            "x-github-event",
            "x-hub-signature-256",
            "x-webhook-id",
            "x-webhook-signature",
        ];
        assert_eq!(names, all);
        assert_eq!(of(&signing, "x-webhook-signature"), digest);
        assert_eq!(of(&signing, "x-hub-signature-256"), format!("sha256={digest}"));
        assert_eq!(of(&signing, "x-github-delivery"), "evt_1");
    }

    #[test]
    fn an_ed25519_key_signs_as_v1a_and_never_as_a_shared_key() {
        let private = format!("whsk_{}", STANDARD.encode([7; 32]));
        let keys = vec![key(Scheme::StandardWebhooks, &private, None)];
        let signing = Signing { standard: keys.clone(), hex_hmac: keys.clone(), github: keys };
        assert!(of(&signing, "webhook-signature").starts_with("v1a,"));
        assert_eq!(of(&signing, "x-webhook-signature"), "");
    }
}
