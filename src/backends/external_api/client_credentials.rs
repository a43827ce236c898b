//! A client of the client credentials grant, as plain values.

use std::collections::BTreeMap;

use secrecy::SecretString;
use sha2::Sha256;

use crate::backends::digest::part;

/// A client of the client credentials grant (RFC 6749, section 4.4).
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    /// The token endpoint.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
    /// How it authenticates to the token endpoint.
    pub authentication: ClientAuthentication,
    /// The scopes to request.
    pub scopes: Vec<String>,
    /// The parameter `audience`.
    pub audience: Option<String>,
    /// More parameters of the request.
    pub params: BTreeMap<String, String>,
    /// The authorities to trust at the token endpoint, as PEM; without it those of the API.
    pub ca: Option<String>,
}

/// How a client authenticates to a token endpoint.
#[derive(Clone, Debug)]
pub enum ClientAuthentication {
    /// `client_secret_basic`, with the secret.
    Basic(SecretString),
    /// `client_secret_post`, with the secret.
    Post(SecretString),
    /// `private_key_jwt` (RFC 7523, section 2.2).
    PrivateKeyJwt {
        /// The private key, as PEM.
        key: SecretString,
        /// The `kid` of the assertion's header.
        key_id: Option<String>,
        /// The assertion's audience; without it the token endpoint.
        audience: Option<String>,
    },
}

impl ClientCredentials {
    /// A client without scopes and further parameters.
    #[must_use]
    pub fn new(token_url: &str, client_id: &str, authentication: ClientAuthentication) -> Self {
        Self {
            token_url: token_url.to_owned(),
            client_id: client_id.to_owned(),
            authentication,
            scopes: Vec::new(),
            audience: None,
            params: BTreeMap::new(),
            ca: None,
        }
    }

    /// Hashes the parts that come from the spec.
    pub(super) fn feed_spec(&self, hash: &mut Sha256) {
        part(hash, Some(&self.token_url));
        part(hash, Some(&self.client_id));
        part(hash, Some(self.authentication.name()));
        if let ClientAuthentication::PrivateKeyJwt { key_id, audience, .. } = &self.authentication {
            part(hash, key_id.as_deref());
            part(hash, audience.as_deref());
        }
        part(hash, Some(&self.scopes.join(" ")));
        part(hash, self.audience.as_deref());
        for (name, value) in &self.params {
            part(hash, Some(name));
            part(hash, Some(value));
        }
        part(hash, self.ca.as_deref());
    }
}

impl ClientAuthentication {
    /// The word of `auth.oauth2.clientAuth`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Basic(_) => "Basic",
            Self::Post(_) => "Post",
            Self::PrivateKeyJwt { .. } => "PrivateKeyJwt",
        }
    }

    pub(super) fn secret(&self) -> &SecretString {
        match self {
            Self::Basic(secret) | Self::Post(secret) | Self::PrivateKeyJwt { key: secret, .. } => secret,
        }
    }
}
