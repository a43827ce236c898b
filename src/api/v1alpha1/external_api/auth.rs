//! The credential of an `ExternalApi`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::shared::{SecretRef, SecretValueRef};

/// The credential that calls carry: a type, and the block that it needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.bearer) == (self.type in ['Bearer', 'BearerAndApiKey'])")
    .message("auth.bearer is needed by auth.type Bearer and BearerAndApiKey, and by no other: add it, remove it or change the type"))]
#[x_kube(validation = Rule::new("has(self.apiKey) == (self.type in ['ApiKey', 'BearerAndApiKey'])")
    .message("auth.apiKey is needed by auth.type ApiKey and BearerAndApiKey, and by no other: add it, remove it or change the type"))]
#[x_kube(validation = Rule::new("has(self.basic) == (self.type == 'Basic')")
    .message("auth.basic is needed by auth.type Basic, and by no other: add it, remove it or change the type"))]
#[x_kube(validation = Rule::new("has(self.oauth2) == (self.type == 'OAuth2ClientCredentials')")
    .message("auth.oauth2 is needed by auth.type OAuth2ClientCredentials, and by no other: add it, remove it or change the type"))]
#[x_kube(validation = Rule::new("self.type != 'BearerAndApiKey' || !has(self.apiKey) || self.apiKey.header.lowerAscii() != 'authorization'")
    .message("auth.apiKey.header Authorization is taken by auth.bearer: use another header, or auth.type ApiKey"))]
pub struct Auth {
    /// What kind of credential it is. With `Mtls` it is the certificate of `tls.clientCertRef`, which every other type
    /// may have beside its own.
    #[serde(rename = "type", default)]
    pub auth_type: AuthType,
    /// For `Bearer` and `BearerAndApiKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<Bearer>,
    /// For `ApiKey` and `BearerAndApiKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKey>,
    /// For `Basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<Basic>,
    /// For `OAuth2ClientCredentials`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2>,
}

impl Auth {
    /// The names of the Secrets that hold it.
    pub fn secrets(&self) -> impl Iterator<Item = &String> {
        let names = [
            self.bearer.as_ref().map(|bearer| &bearer.token_ref.name),
            self.api_key.as_ref().map(|api_key| &api_key.key_ref.name),
            self.basic.as_ref().map(|basic| &basic.secret_ref.name),
            self.oauth2.as_ref().map(|oauth2| &oauth2.client_secret_ref.name),
        ];
        names.into_iter().flatten()
    }
}

/// What kind of credential calls carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthType {
    /// None.
    #[default]
    None,
    /// `Authorization: Bearer`, with a token that does not change by itself.
    Bearer,
    /// A key in a header.
    ApiKey,
    /// Both of them.
    BearerAndApiKey,
    /// `Authorization: Basic`, with user name and password (RFC 7617).
    Basic,
    /// `Authorization: Bearer`, with tokens that are fetched and renewed (RFC 6749, section 4.4).
    OAuth2ClientCredentials,
    /// The client certificate.
    Mtls,
}

/// A token that does not change by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bearer {
    /// The Secret's key with the token.
    pub token_ref: SecretValueRef,
}

/// A key in a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// The header that carries it.
    #[serde(default = "default_header")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    #[x_kube(validation = Rule::new("!(self.lowerAscii() in ['connection', 'content-length', 'content-type', 'cookie', \
            'expect', 'host', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer', \
            'transfer-encoding', 'upgrade'])")
        .message("auth.apiKey.header has a meaning of its own in HTTP: use another one, such as X-API-Key"))]
    pub header: String,
    /// The Secret's key with the API key.
    pub key_ref: SecretValueRef,
}

fn default_header() -> String {
    "X-API-Key".to_owned()
}

/// User name and password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Basic {
    /// A Secret of type kubernetes.io/basic-auth or Opaque with the keys username and password.
    pub secret_ref: SecretRef,
}

/// A client that fetches its tokens. It sends its secret by `client_secret_basic`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OAuth2 {
    /// The token endpoint of the authorization server.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = Rule::new("isURL(self) && self.matches('^https?://[^/?#@ ]+(/[^# ]*)?$')")
        .message("auth.oauth2.tokenUrl must be http or https with a host and maybe a port, a path and a query, and without user \
                  and fragment, such as https://login.example.com/oauth2/token"))]
    pub token_url: String,
    /// The client's id.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[ -~]+$"))]
    pub client_id: String,
    /// The Secret's key with the client's secret.
    pub client_secret_ref: SecretValueRef,
    /// What the tokens are asked to allow; without it what the server gives by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256), regex(pattern = r"^[!#-\[\]-~]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
}
