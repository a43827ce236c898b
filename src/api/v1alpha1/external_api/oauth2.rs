//! The client credentials grant of an `ExternalApi`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::shared::{CaRef, SecretValueRef};

/// The OAuth 2.0 client credentials grant (RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.clientSecretRef) == (self.clientAuth != 'PrivateKeyJwt')")
    .message("auth.oauth2.clientSecretRef must be set if and only if auth.oauth2.clientAuth is Basic or Post"))]
#[x_kube(validation = Rule::new("has(self.privateKeyJwt) == (self.clientAuth == 'PrivateKeyJwt')")
    .message("auth.oauth2.privateKeyJwt must be set if and only if auth.oauth2.clientAuth is PrivateKeyJwt"))]
#[x_kube(validation = Rule::new("!has(self.caRef) || self.tokenUrl.startsWith('https://')")
    .message("auth.oauth2.caRef needs an https URL in auth.oauth2.tokenUrl"))]
pub struct OAuth2 {
    /// The token endpoint of the authorization server.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = Rule::new("isURL(self) && self.matches('^https?://[^/?#@ ]+(/[^# ]*)?$')")
        .message("auth.oauth2.tokenUrl must be an http or https URL without user and fragment, such as \
                  https://login.example.com/oauth2/token"))]
    pub token_url: String,
    /// The client ID.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[ -~]+$"))]
    pub client_id: String,
    /// Client authentication method, as the client is registered at the authorization server.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// The key of a Secret with the client secret, for `Basic` and `Post`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<SecretValueRef>,
    /// Settings for `PrivateKeyJwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_jwt: Option<PrivateKeyJwt>,
    /// The scopes to request; defaults to those that the authorization server grants on its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256), regex(pattern = r"^[!#-\[\]-~]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
    /// The parameter `audience` of the token request: the API that the tokens are for, required by Auth0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub audience: Option<String>,
    /// Additional parameters of the token request, such as `resource` (RFC 8707).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), inner(length(max = 1024)))]
    #[x_kube(validation = Rule::new("self.all(name, name.size() <= 64 && name.matches('^[A-Za-z0-9._-]+$'))")
        .message("auth.oauth2.params must have parameter names as keys, such as resource"))]
    #[x_kube(validation = Rule::new("self.all(name, !(name in ['audience', 'client_assertion', 'client_assertion_type', \
            'client_id', 'client_secret', 'grant_type', 'scope']))")
        .message("auth.oauth2.params must not contain audience, client_assertion, client_assertion_type, client_id, client_secret, \
                  grant_type and scope, which are set by other fields"))]
    pub params: BTreeMap<String, String>,
    /// The CA certificates to trust for the token endpoint; defaults to `tls.caRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
}

impl OAuth2 {
    /// The name of the Secret with the client secret or the private key.
    #[must_use]
    pub fn secret(&self) -> Option<&String> {
        let key = self.private_key_jwt.as_ref().map(|jwt| &jwt.key_ref);
        self.client_secret_ref.as_ref().or(key).map(|reference| &reference.name)
    }
}

/// A client authentication method of a token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAuth {
    /// Client ID and secret in the `Authorization` header (`client_secret_basic`; RFC 6749, section 2.3.1).
    #[default]
    Basic,
    /// Client ID and secret in the request body (`client_secret_post`).
    Post,
    /// A JSON Web Token, signed by a private key (`private_key_jwt`; RFC 7523, section 2.2).
    PrivateKeyJwt,
}

/// Client authentication by a signed JSON Web Token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKeyJwt {
    /// The key of a Secret with the private key in PEM format: RSA (for RS256), EC P-256 (ES256), EC P-384 (ES384) or Ed25519
    /// (EdDSA).
    pub key_ref: SecretValueRef,
    /// The `kid` header of the token; no `kid` if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub key_id: Option<String>,
    /// The `aud` claim of the token, such as the issuer URL of the authorization server; defaults to `tokenUrl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub audience: Option<String>,
}
