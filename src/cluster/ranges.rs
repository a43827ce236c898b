//! The ranges that the cluster's Services have their addresses from, as the cluster says itself (from Kubernetes 1.33 on).

use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, Client, api::ListParams};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::watches::{Pauses, Readiness};
use crate::domain::addresses::ServiceRanges;

/// Ranges are added once in a cluster's life, if ever, and so is the right to ask for them.
const AGAIN: Duration = Duration::from_mins(5);

/// How long an answer may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// What readiness calls it.
const PART: &str = "servicecidrs";

/// Keeps up with them, for ever. The first answer cancels `asked`, be it that nobody says; until then `readiness` waits.
pub async fn follow(client: Client, known: ServiceRanges, asked: CancellationToken, readiness: Readiness) {
    readiness.wait(PART, "the first list is not here yet");
    let api = Api::<ServiceCIDR>::all(client);
    let mut pauses = Pauses::default();
    loop {
        let problem = match timeout(LIST_TIMEOUT, api.list(&ListParams::default())).await {
            Ok(Ok(list)) => {
                known.set(list.items.iter().flat_map(ranges).collect());
                None
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403 | 404) => {
                if !asked.is_cancelled() {
                    tracing::info!(
                        code = status.code,
                        "the cluster does not say what its Services' ranges are: --cluster-cidrs has to"
                    );
                }
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer".to_owned()),
        };
        if let Some(problem) = problem {
            tracing::warn!(problem, "the Services' ranges cannot be read");
            readiness.explain(PART, problem);
            sleep(pauses.after_a_failure()).await;
            continue;
        }
        pauses = Pauses::default();
        asked.cancel();
        readiness.done(PART);
        sleep(AGAIN).await;
    }
}

fn ranges(range: &ServiceCIDR) -> impl Iterator<Item = IpNet> {
    let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok())
}
