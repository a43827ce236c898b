//! The health check of an `ExternalApi`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::shared::HealthCheck;

/// How each endpoint is probed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type == 'Http' || !has(self.http)")
    .message("healthCheck.http needs healthCheck.type Http"))]
#[x_kube(validation = Rule::new("self.type == 'Http' || !self.authenticated")
    .message("healthCheck.authenticated needs healthCheck.type Http"))]
#[x_kube(validation = Rule::new("!has(self.http) || !has(self.http.scheme)")
    .message("healthCheck.http.scheme must not be set: the url of each endpoint has the scheme"))]
pub struct ApiHealthCheck {
    /// Interval, timeout and thresholds.
    #[serde(flatten)]
    pub schedule: HealthCheck,
    /// Type of the probe. `Http`: an HTTP request. `Tcp`: a TCP connection, with a TLS handshake for https. `None`:
    /// no probe; the endpoints are assumed to be healthy.
    #[serde(rename = "type", default)]
    pub check_type: CheckType,
    /// Request and expected response of type `Http`; defaults to `GET /` with a status from 200 to 299.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// Whether probes send the credential of `spec.auth`. Only then does `Connected` show whether the credential
    /// works.
    #[serde(default)]
    pub authenticated: bool,
}

/// The type of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckType {
    /// An HTTP request.
    #[default]
    Http,
    /// A TCP connection, with a TLS handshake for https.
    Tcp,
    /// No probe.
    None,
}

/// An HTTP request and the expected response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.method != 'HEAD' || !has(self.expectedBody)")
    .message("healthCheck.http.expectedBody cannot be used with method HEAD, whose responses have no body: use GET"))]
pub struct HttpCheck {
    /// Path, appended to the url of the endpoint; may include a query.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-\x22$-~]*$"))]
    pub path: String,
    /// HTTP method.
    #[serde(default)]
    pub method: CheckMethod,
    /// `Http` or `Https`, for a ServiceRegistration only; defaults to `Https` if `appProtocol` of the port is https, and to `Http`
    /// otherwise. With `Https` the certificate is not verified, as in probes of the kubelet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<CheckScheme>,
    /// The `Host` header, such as `billing.example.com`, for servers that accept only their own names; defaults to that of calls, for
    /// a ServiceRegistration to the address. For a ServiceRegistration it is also the TLS server name (SNI).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = super::HOST_PATTERN))]
    pub host: Option<String>,
    /// Additional request headers. Do not put secrets here, which everyone who can read the object sees:
    /// `healthCheck.authenticated` sends the credential.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), inner(length(max = 1024), regex(pattern = r"^([!-~]([ -~]*[!-~])?)?$")))]
    #[x_kube(validation = Rule::new("self.all(name, name.size() <= 64 && name.matches('^[A-Za-z0-9!#$%&*+.^_`|~-]+$'))")
        .message("healthCheck.http.headers must have header names as keys, such as X-Probe"))]
    #[x_kube(validation = Rule::new("self.all(name, !(name.lowerAscii() in ['authorization', 'connection', 'content-length', \
            'expect', 'host', 'keep-alive', 'proxy-authorization', 'te', 'trailer', 'transfer-encoding', 'upgrade']))")
        .message("healthCheck.http.headers must not contain Authorization (use healthCheck.authenticated), Host (use \
                  healthCheck.http.host) or headers of the connection"))]
    pub headers: BTreeMap<String, String>,
    /// Status codes of a successful probe, single ones or ranges such as `200-299`. Redirects are not followed.
    #[serde(default = "default_statuses")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 3, max = 7), regex(pattern = r"^[2-5][0-9]{2}(-[2-5][0-9]{2})?$"))
    )]
    #[x_kube(validation = Rule::new("self.all(statuses, !statuses.contains('-') || statuses.split('-')[0] <= statuses.split('-')[1])")
        .message("healthCheck.http.expectedStatuses must have ranges with the lower status code first, such as 200-299"))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub expected_statuses: Vec<String>,
    /// A text that the first 64 KiB of the response body must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expected_body: Option<String>,
}

fn default_path() -> String {
    "/".to_owned()
}
fn default_statuses() -> Vec<String> {
    vec!["200-299".to_owned()]
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            path: default_path(),
            method: CheckMethod::default(),
            scheme: None,
            host: None,
            headers: BTreeMap::new(),
            expected_statuses: default_statuses(),
            expected_body: None,
        }
    }
}

/// Whether a probe uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckScheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// The HTTP method of a probe: a safe method (RFC 9110, section 9.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum CheckMethod {
    #[default]
    Get,
    Head,
    Options,
}

impl CheckMethod {
    /// The name of the method in HTTP.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }
}
