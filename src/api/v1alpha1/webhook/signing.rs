//! Signing settings of a `Webhook`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::shared::BoundedDuration;

/// How requests are signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type != 'Ed25519' || self.schemes.all(scheme, scheme == 'StandardWebhooks')")
    .message("signing.type Ed25519 needs the scheme StandardWebhooks only; the other schemes use a shared key"))]
pub struct Signing {
    /// Signature schemes. The headers of a scheme that cannot use the key are omitted, and `Degraded` names the scheme.
    #[serde(default = "default_schemes")]
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub schemes: Vec<Scheme>,
    /// The signing key; a key is generated if unset. `StandardWebhooks` needs `whsec_` and the base64 of 24 to 64 bytes (with
    /// `type: Ed25519`, `whsk_` and the base64 of the private key). The other schemes use the bytes of the value, at least 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SigningKeyRef>,
    /// Type of the key.
    #[serde(rename = "type", default)]
    pub key_type: KeyType,
    /// What happens when the key changes.
    #[serde(default)]
    pub rotation: Rotation,
}

fn default_schemes() -> Vec<Scheme> {
    vec![Scheme::StandardWebhooks]
}

impl Default for Signing {
    fn default() -> Self {
        Self {
            schemes: default_schemes(),
            secret_ref: None,
            key_type: KeyType::default(),
            rotation: Rotation::default(),
        }
    }
}

/// A signature scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scheme {
    /// Standard Webhooks 1.0.0: `webhook-id`, `webhook-timestamp` and `webhook-signature`.
    StandardWebhooks,
    /// `X-Webhook-Signature` (hexadecimal HMAC-SHA256 of the body) and `X-Webhook-ID`.
    HexHmac,
    /// `X-Hub-Signature-256`, `X-GitHub-Event` and `X-GitHub-Delivery`.
    GitHub,
}

/// The Secret key with the signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_key() -> String {
    "secret".to_owned()
}

/// Type of a signing key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyType {
    /// A shared key (`v1`).
    #[default]
    HmacSha256,
    /// A key pair, of which the receiver has the public key (`v1a`).
    Ed25519,
}

/// What happens when the key changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// How long the previous key is used besides the new one; at least 0s, at most 168h. A change applies to keys that are already
    /// replaced, too.
    #[serde(default = "default_overlap")]
    pub overlap: Overlap,
    /// The key that the schemes with a single signature (HexHmac, GitHub) use during that time.
    #[serde(default)]
    pub single_signature: SingleSignature,
}

/// From 0s to 168h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Overlap(BoundedDuration<0, { 168 * 3600 * 1000 }>);

impl Overlap {
    /// As the standard library's type.
    #[must_use]
    pub fn get(self) -> std::time::Duration {
        self.0.get()
    }
}

impl Default for Overlap {
    fn default() -> Self {
        Self(BoundedDuration::from_secs(24 * 3600))
    }
}

fn default_overlap() -> Overlap {
    Overlap::default()
}

/// The key that schemes with a single signature use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SingleSignature {
    /// The new key.
    #[default]
    New,
    /// The oldest key that is still in use.
    Old,
}
