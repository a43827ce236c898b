//! The credential of an `ExternalApi`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OAuth2;
use crate::api::shared::{SecretRef, SecretValueRef};

/// The credential that the gateway adds to calls: a type, and the settings of that type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.bearer) == (self.type in ['Bearer', 'BearerAndApiKey'])")
    .message("auth.bearer must be set if and only if auth.type is Bearer or BearerAndApiKey"))]
#[x_kube(validation = Rule::new("has(self.apiKey) == (self.type in ['ApiKey', 'BearerAndApiKey'])")
    .message("auth.apiKey must be set if and only if auth.type is ApiKey or BearerAndApiKey"))]
#[x_kube(validation = Rule::new("has(self.basic) == (self.type == 'Basic')")
    .message("auth.basic must be set if and only if auth.type is Basic"))]
#[x_kube(validation = Rule::new("has(self.oauth2) == (self.type == 'OAuth2ClientCredentials')")
    .message("auth.oauth2 must be set if and only if auth.type is OAuth2ClientCredentials"))]
#[x_kube(validation = Rule::new("self.type != 'BearerAndApiKey' || !has(self.apiKey) || self.apiKey.header.lowerAscii() != 'authorization'")
    .message("auth.apiKey.header must not be Authorization, which carries auth.bearer: use another header, or auth.type ApiKey"))]
pub struct Auth {
    /// Type of the credential. `Mtls` uses the client certificate of `tls.clientCertRef`, which can be combined with
    /// every other type.
    #[serde(rename = "type", default)]
    pub auth_type: AuthType,
    /// Settings for `Bearer` and `BearerAndApiKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<Bearer>,
    /// Settings for `ApiKey` and `BearerAndApiKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKey>,
    /// Settings for `Basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<Basic>,
    /// Settings for `OAuth2ClientCredentials`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2>,
}

impl Auth {
    /// The names of the Secrets with the credential.
    pub fn secrets(&self) -> impl Iterator<Item = &String> {
        let names = [
            self.bearer.as_ref().map(|bearer| &bearer.token_ref.name),
            self.api_key.as_ref().map(|api_key| &api_key.key_ref.name),
            self.basic.as_ref().map(|basic| &basic.secret_ref.name),
            self.oauth2.as_ref().and_then(OAuth2::secret),
        ];
        names.into_iter().flatten()
    }
}

/// The type of the credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthType {
    /// No credential.
    #[default]
    None,
    /// `Authorization: Bearer` with a static token (RFC 6750).
    Bearer,
    /// An API key in a header.
    ApiKey,
    /// A static token and an API key.
    BearerAndApiKey,
    /// `Authorization: Basic` with user name and password (RFC 7617).
    Basic,
    /// `Authorization: Bearer` with tokens of the client credentials grant (RFC 6749, section 4.4).
    OAuth2ClientCredentials,
    /// The client certificate.
    Mtls,
}

/// A static bearer token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bearer {
    /// The key of a Secret with the token.
    pub token_ref: SecretValueRef,
}

/// An API key in a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Name of the header.
    #[serde(default = "default_header")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    #[x_kube(validation = Rule::new("!(self.lowerAscii() in ['connection', 'content-length', 'content-type', 'cookie', \
            'expect', 'host', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer', \
            'transfer-encoding', 'upgrade'])")
        .message("auth.apiKey.header must not be a header that HTTP itself uses: use another one, such as X-API-Key"))]
    pub header: String,
    /// The key of a Secret with the API key.
    pub key_ref: SecretValueRef,
}

fn default_header() -> String {
    "X-API-Key".to_owned()
}

/// User name and password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Basic {
    /// A Secret of type kubernetes.io/basic-auth or Opaque, with the keys username and password.
    pub secret_ref: SecretRef,
}
