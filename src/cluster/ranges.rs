//! The ranges that the cluster's Services have their addresses from, as the cluster says itself (from Kubernetes 1.33 on).

use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, Client, api::ListParams};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::watches::Pauses;
use crate::domain::addresses::Learned;

/// Ranges are added once in a cluster's life, if ever, and so is the right to ask for them.
const AGAIN: Duration = Duration::from_mins(5);

/// Keeps up with them, for ever. The first answer cancels `asked`, be it that nobody says.
pub async fn follow(client: Client, known: Learned, asked: CancellationToken) {
    let api = Api::<ServiceCIDR>::all(client);
    let mut pauses = Pauses::default();
    loop {
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                known.set(list.items.iter().flat_map(ranges).collect());
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                if !asked.is_cancelled() {
                    tracing::info!(
                        code = status.code,
                        "the cluster does not say what its Services' ranges are: --cluster-cidrs has to"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the Services' ranges cannot be read yet");
                sleep(pauses.after_a_failure()).await;
                continue;
            }
        }
        pauses = Pauses::default();
        asked.cancel();
        sleep(AGAIN).await;
    }
}

fn ranges(range: &ServiceCIDR) -> impl Iterator<Item = IpNet> {
    let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok())
}
