//! The ranges that the cluster's Services have their addresses from, as the cluster says itself (from Kubernetes 1.33 on).

use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, Client, api::ListParams};

use super::watches::Pauses;
use crate::domain::addresses::Learned;

/// Ranges are added once in a cluster's life, if ever.
const AGAIN: Duration = Duration::from_mins(5);

/// Tries until there is an answer. False if it is that nobody says.
pub async fn learn(client: &Client, known: &Learned) -> bool {
    let api = Api::<ServiceCIDR>::all(client.clone());
    let mut pauses = Pauses::default();
    loop {
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                known.set(list.items.iter().flat_map(ranges).collect());
                return true;
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                tracing::info!(
                    code = status.code,
                    "the cluster does not say what its Services' ranges are: --cluster-cidrs has to"
                );
                return false;
            }
            Err(error) => {
                tracing::warn!(%error, "the Services' ranges cannot be read yet");
                tokio::time::sleep(pauses.after_a_failure()).await;
            }
        }
    }
}

/// Keeps up with them, for ever.
pub async fn follow(client: &Client, known: &Learned) {
    loop {
        tokio::time::sleep(AGAIN).await;
        learn(client, known).await;
    }
}

fn ranges(range: &ServiceCIDR) -> impl Iterator<Item = IpNet> {
    let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok())
}
