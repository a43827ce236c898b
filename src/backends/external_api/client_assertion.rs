//! Signed assertions by which a client authenticates to a token endpoint (RFC 7523, section 2.2): JSON Web Tokens (RFC 7519).

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rustls::{
    SignatureScheme,
    crypto::aws_lc_rs::sign::any_supported_type,
    sign::{Signer, SigningKey},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use x509_cert::der::{Decode, Reader, SliceReader, asn1::UintRef};

use crate::{api::Reason, backends::Fault};

/// How long an assertion is valid, in seconds: used at once, and servers refuse much longer ones.
const LIFETIME: i64 = 60;

/// A kind of signature: `alg` (RFC 7518, section 3.1; RFC 8037), and the bytes of each of the two numbers of ECDSA.
type Algorithm = (&'static str, Option<usize>);

const ALGORITHMS: [(SignatureScheme, Algorithm); 4] = [
    (SignatureScheme::RSA_PKCS1_SHA256, ("RS256", None)),
    (SignatureScheme::ECDSA_NISTP256_SHA256, ("ES256", Some(32))),
    (SignatureScheme::ECDSA_NISTP384_SHA384, ("ES384", Some(48))),
    (SignatureScheme::ED25519, ("EdDSA", None)),
];

/// Signs the assertions of one client.
pub(super) struct AssertionSigner {
    key: Arc<dyn SigningKey>,
    key_id: Option<String>,
    client_id: String,
    audience: String,
}

impl AssertionSigner {
    /// With a private key as PEM: PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    /// `SecretInvalidValue` for a key of another kind.
    pub(super) fn new(
        key: &SecretString,
        key_id: Option<String>,
        client_id: String,
        audience: String,
    ) -> Result<Self, Fault> {
        let pem = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes()).map_err(|_| unusable())?;
        let key = any_supported_type(&pem).map_err(|_| unusable())?;
        let signer = Self { key, key_id, client_id, audience };
        signer.algorithm()?;
        Ok(signer)
    }

    /// An assertion that is valid from now on.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(super) fn sign(&self, now: Timestamp) -> Result<String, Fault> {
        let (signer, (alg, number_length)) = self.algorithm()?;
        let mut header = json!({ "alg": alg, "typ": "JWT" });
        if let Some(key_id) = &self.key_id {
            header["kid"] = json!(key_id);
        }
        let issued = now.as_second();
        let claims = json!({
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.audience,
            "jti": uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
            "iat": issued,
            "exp": issued + LIFETIME,
        });
        let encode = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature = signer.sign(message.as_bytes()).map_err(|_| unusable())?;
        let signature = match number_length {
            Some(length) => concatenated(&signature, length).ok_or_else(unusable)?,
            None => signature,
        };
        Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    fn algorithm(&self) -> Result<(Box<dyn Signer>, Algorithm), Fault> {
        let schemes = ALGORITHMS.map(|(scheme, _)| scheme);
        let signer = self.key.choose_scheme(&schemes).ok_or_else(unusable)?;
        let known = ALGORITHMS.into_iter().find(|(scheme, _)| *scheme == signer.scheme());
        let (_, algorithm) = known.ok_or_else(unusable)?;
        Ok((signer, algorithm))
    }
}

fn unusable() -> Fault {
    let problem = "the private key is not a PEM of RSA, EC P-256, EC P-384 or Ed25519";
    Fault::new(Reason::SecretInvalidValue, problem)
}

/// From a signature of ECDSA in DER to its two numbers, one after the other (RFC 7518, section 3.4).
fn concatenated(der: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut reader = SliceReader::new(der).ok()?;
    let numbers = reader.sequence(|numbers| {
        Ok::<_, x509_cert::der::Error>([UintRef::decode(numbers)?, UintRef::decode(numbers)?])
    });
    let mut signature = Vec::with_capacity(2 * length);
    for number in numbers.ok()? {
        let bytes = number.as_bytes();
        signature.resize(signature.len() + length.checked_sub(bytes.len())?, 0);
        signature.extend_from_slice(bytes);
    }
    Some(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_of_ecdsa_is_two_numbers_of_equal_length() {
        // SEQUENCE { INTEGER 0x0081 (a leading zero keeps it positive), INTEGER 1 }
        let der = [0x30, 0x07, 0x02, 0x02, 0x00, 0x81, 0x02, 0x01, 0x01];
        assert_eq!(concatenated(&der, 2), Some(vec![0, 0x81, 0, 1]));
        assert_eq!(concatenated(&der, 0), None);
        assert_eq!(concatenated(b"no DER", 2), None);
    }

    #[test]
    fn what_is_no_private_key_is_refused_and_not_repeated() {
        let fault =
            AssertionSigner::new(&"hunter2".into(), None, "a".to_owned(), "b".to_owned()).err().unwrap();
        assert_eq!(fault.reason, Reason::SecretInvalidValue);
        assert!(!fault.detail.contains("hunter2"));
    }
}
