//! The health check of an `ExternalApi`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::shared::HealthCheck;

/// How each endpoint is probed: when, and by what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type == 'Http' || !has(self.http)")
    .message("healthCheck.http needs healthCheck.type Http"))]
#[x_kube(validation = Rule::new("self.type == 'Http' || !self.authenticated")
    .message("healthCheck.authenticated needs healthCheck.type Http"))]
pub struct ApiHealthCheck {
    /// When, and how patiently.
    #[serde(flatten)]
    pub schedule: HealthCheck,
    /// What is asked of an endpoint.
    #[serde(rename = "type", default)]
    pub check_type: CheckType,
    /// The request of type `Http`, and the answer that it must get; without it `GET /`, answered by 200 to 299.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// Whether probes carry the credential of `spec.auth`; only then they prove that it works.
    #[serde(default)]
    pub authenticated: bool,
}

/// What is asked of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckType {
    /// A request.
    #[default]
    Http,
    /// A connection, and with https the TLS handshake.
    Tcp,
    /// Nothing: it is taken to be healthy.
    None,
}

/// A request, and the answer that it must get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.method != 'HEAD' || !has(self.expectedBody)")
    .message("an answer to HEAD has no body: remove healthCheck.http.expectedBody, or use the method GET"))]
pub struct HttpCheck {
    /// Appended to the endpoint's url; may have a query.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-\x22$-~]*$"))]
    pub path: String,
    /// The method.
    #[serde(default)]
    pub method: CheckMethod,
    /// Statuses that mean health: single ones and ranges. Redirects are not followed.
    #[serde(default = "default_statuses")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 3, max = 7), regex(pattern = r"^[2-5][0-9]{2}(-[2-5][0-9]{2})?$"))
    )]
    #[x_kube(validation = Rule::new("self.all(statuses, !statuses.contains('-') || statuses.split('-')[0] <= statuses.split('-')[1])")
        .message("healthCheck.http.expectedStatuses has a range that ends before it starts: write the lower status first"))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub expected_statuses: Vec<String>,
    /// A text that the first 64 KiB of the answer must have.
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
            expected_statuses: default_statuses(),
            expected_body: None,
        }
    }
}

/// The method of a probe: one that changes nothing.
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
    /// As HTTP writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }
}
