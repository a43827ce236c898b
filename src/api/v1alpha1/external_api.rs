//! `ExternalApi`: an external HTTP API with one or several endpoints.

mod auth;
mod health;
mod oauth2;
mod policy;
mod status;

use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    ConditionType, Managed,
    shared::{CaRef, Discovery, Duration, Reference, SecretRef},
};

pub use auth::{ApiKey, Auth, AuthType, Basic, Bearer};
pub use health::{ApiHealthCheck, CheckMethod, CheckScheme, CheckType, HttpCheck};
pub use oauth2::{ClientAuth, OAuth2, PrivateKeyJwt};
pub use policy::{Allow, Backoff, CircuitBreaker, Method, RateLimit, Retry, RetryOn, Scope};
pub use status::{CertificateStatus, ExternalApiStatus};

/// An external HTTP API: each endpoint is probed, and applications call it through the gateway, which adds the
/// credential, rate limit, circuit breaker and retries.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "authlink.dev",
    version = "v1alpha1",
    kind = "ExternalApi",
    namespaced,
    status = "ExternalApiStatus",
    shortname = "eapi",
    category = "auth-integrations",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "HEALTHY",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Healthy")].status"#
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "ENDPOINTS", type_ = "string", json_path = ".status.endpointsSummary"),
    printcolumn(
        name = "LAST-CHANGE",
        type_ = "date",
        json_path = r#".status.conditions[?(@.type=="Ready")].lastTransitionTime"#
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "ENDPOINT",
        type_ = "string",
        json_path = ".status.endpoints[0].address",
        priority = 1
    ),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.endpoints.exists(endpoint, endpoint.weight > 0)")
    .message("endpoints must have at least one entry with a weight above 0"))]
#[x_kube(validation = Rule::new("self.auth.type != 'Mtls' || has(self.tls.clientCertRef)")
    .message("auth.type Mtls needs tls.clientCertRef"))]
#[x_kube(validation = Rule::new("!has(self.tls.clientCertRef) || self.endpoints.all(endpoint, endpoint.url.startsWith('https://'))")
    .message("tls.clientCertRef needs an https url in every entry of endpoints"))]
#[x_kube(validation = Rule::new("!(has(self.tls.caRef) || has(self.tls.serverName)) || \
        self.endpoints.exists(endpoint, endpoint.url.startsWith('https://')) || \
        (has(self.auth.oauth2) && self.auth.oauth2.tokenUrl.startsWith('https://'))")
    .message("tls.caRef and tls.serverName have no effect on http: use an https url in endpoints, or remove them"))]
pub struct ExternalApiSpec {
    /// The endpoints of the API. Every endpoint serves the whole API.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["url".into()]))]
    pub endpoints: Vec<Endpoint>,

    /// The credential that the gateway adds to calls. Callers do not need it and never see it.
    #[serde(default)]
    pub auth: Auth,

    /// TLS settings for https endpoints.
    #[serde(default)]
    pub tls: Tls,

    /// How each endpoint is probed.
    #[serde(default)]
    pub health_check: ApiHealthCheck,

    /// Limits the rate of calls; unlimited if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,

    /// Stops calls to failing endpoints; no circuit breaker if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,

    /// Retries failed calls; no retries if unset. Retried are calls with an idempotent method or an
    /// `Idempotency-Key`, and calls that were not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// Timeout of a call until the response headers have arrived, including all retries.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,

    /// Timeout of a response body in which no data is transferred, because the API sends nothing or the caller does not read.
    /// Downloads and event streams have no other timeout. For a WebSocket: timeout in which neither side sends anything.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: Duration,

    /// The methods and paths that can be called through the gateway; nothing can be called if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allow: Vec<Allow>,

    /// A Service for the endpoints; no Service if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,

    /// Stops probes and closes connections. `Ready` keeps its last value.
    #[serde(default)]
    pub suspend: bool,
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}
fn default_idle_timeout() -> Duration {
    Duration::from_secs(60)
}

/// An endpoint of the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Base URL, to which the paths of calls and probes are appended, such as `https://billing.example.com/v2`.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = Rule::new("isURL(self) && self.matches('^https?://[^/?#@ ]+(/[^?# ]*)?$')")
        .message("url must be an http or https URL without user, query and fragment, such as https://billing.example.com/v2"))]
    pub url: String,
    /// The `Host` header of calls and probes, such as `billing.example.com`; defaults to `tls.serverName` if the url is https,
    /// and to the host of the url otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = HOST_PATTERN))]
    pub host: Option<String>,
    /// Share of the calls, relative to the weights of the other endpoints; 0 for no calls.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u16,
    /// Topology zone, such as `eu-1`. Gateways and clients in the same zone prefer this endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub zone: Option<String>,
}

fn default_weight() -> u16 {
    100
}

/// A host name or address with an optional port.
const HOST_PATTERN: &str = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$";

/// TLS settings for https endpoints. CA and host name are always verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// The CA certificates to trust, also for `auth.oauth2.tokenUrl` unless `auth.oauth2.caRef` is set; defaults to the public CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// Server name (SNI) to verify in the certificates of the endpoints, instead of the host in the url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"))]
    pub server_name: Option<String>,
    /// A Secret of type kubernetes.io/tls with the client certificate for calls, probes and `auth.oauth2.tokenUrl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_ref: Option<SecretRef>,
}

impl Managed for ExternalApi {
    const CONDITIONS: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Connected,
        ConditionType::Healthy,
    ];

    const READY_WHEN: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Connected,
        ConditionType::Healthy,
        ConditionType::Registered,
    ];

    fn suspended(&self) -> bool {
        self.spec.suspend
    }

    fn health_check_mut(&mut self) -> Option<&mut crate::api::shared::HealthCheck> {
        Some(&mut self.spec.health_check.schedule)
    }

    fn references(&self) -> Vec<Reference> {
        let secrets = self.secrets().cloned().map(Reference::Secret);
        let service = self.service_name().map(Reference::Service);
        let oauth2 = self.spec.auth.oauth2.as_ref();
        let authorities = [self.spec.tls.ca_ref.as_ref(), oauth2.and_then(|oauth2| oauth2.ca_ref.as_ref())];
        secrets.chain(authorities.into_iter().flatten().map(CaRef::reference)).chain(service).collect()
    }
}

impl ExternalApi {
    /// The names of the Secrets with the credentials.
    pub fn secrets(&self) -> impl Iterator<Item = &String> {
        let certificate = self.spec.tls.client_cert_ref.as_ref();
        self.spec.auth.secrets().chain(certificate.map(|reference| &reference.name))
    }

    /// The name of the Service; none without `spec.discovery`.
    #[must_use]
    pub fn service_name(&self) -> Option<String> {
        self.spec.discovery.as_ref()?.service(&self.name_any())
    }
}
