//! The status of an `ExternalApi`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::status::{CommonStatus, Status};

/// The observed state of an ExternalApi.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalApiStatus {
    /// Fields that every kind has.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// Ready endpoints and all endpoints, such as `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints_summary: Option<String>,
    /// The endpoint certificate that expires first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<CertificateStatus>,
}

/// A server certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Expiry time.
    pub not_after: Time,
}

impl Status for ExternalApiStatus {
    fn common(&self) -> &CommonStatus {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonStatus {
        &mut self.common
    }

    fn forget_observations(&mut self) {
        self.common.forget_observations();
        self.endpoints_summary = None;
        self.tls = None;
    }

    fn forget_numbers(&mut self) {
        self.common.forget_numbers();
    }
}
