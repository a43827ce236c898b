//! Many instances of one service.

use std::{collections::BTreeMap, time::Duration};

use authlink::api::v1alpha1::ServiceRegistration;
use futures::{StreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::Spec;
use crate::{
    discovery::until_gone,
    support::{Namespace, Operator, eventually},
};

const INSTANCES: u16 = 2000;

/// On two busy cores.
const PATIENCE: Duration = Duration::from_mins(5);

fn spec(number: u16) -> Spec {
    let [high, low] = number.to_be_bytes();
    Spec::unprobed(&number.to_string(), &format!("10.99.{}.{low}", 100 + high)).with("drainSeconds", json!(0))
}

async fn slices(namespace: &Namespace) -> Vec<EndpointSlice> {
    let ours = ListParams::default().labels("kubernetes.io/service-name=billing");
    namespace.api::<EndpointSlice>().list(&ours).await.expect("slices").items
}

fn slice_writes(namespace: &Namespace) -> usize {
    let writes: BTreeMap<_, _> = namespace.writes();
    writes.iter().filter(|(write, _)| write.contains(" endpointslices/")).map(|(_, count)| count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_instances_are_twenty_slices_and_few_writes() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let registrations = namespace.api::<ServiceRegistration>();
    let made = stream::iter(0..INSTANCES).map(async |number| {
        let object = serde_json::from_value(spec(number).named(&format!("vm-{number}"))).expect("an object");
        registrations.create(&PostParams::default(), &object).await.expect("created");
    });
    made.buffer_unordered(32).collect::<()>().await;
    let filled = async || {
        let found: Vec<_> = slices(&namespace).await.iter().map(|slice| slice.endpoints.len()).collect();
        if found == [100; 20] { Ok(()) } else { Err(format!("{found:?}")) }
    };
    eventually(PATIENCE, "20 full slices", filled).await;
    eventually(PATIENCE, "all are Ready", async || {
        let ready = operator.metrics();
        let ready = ready.lines().filter(|line| {
            line.contains("kind=\"ServiceRegistration\"") && line.contains("type=\"Ready\",status=\"True\"")
        });
        match ready.count() {
            count if count == usize::from(INSTANCES) => Ok(()),
            count => Err(count),
        }
    })
    .await;
    let writes = slice_writes(&namespace);
    assert!(writes < 1000, "{writes} writes of slices");

    // Somebody meddles with a slice: it is put right, by a few passes and not by one for each instance.
    let passes = || operator.metric("authlink_reconcile_total", "ServiceRegistration");
    let before = passes();
    let empty = json!({ "endpoints": [] });
    let api = namespace.api::<EndpointSlice>();
    api.patch("billing-ipv4-7", &PatchParams::default(), &Patch::Merge(&empty)).await.expect("patched");
    eventually(PATIENCE, "20 full slices again", filled).await;
    let started = passes() - before;
    assert!(started < 50.0, "{started} passes");

    // And all go at once.
    registrations.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("deleted");
    eventually(PATIENCE, "no registrations", async || {
        let left = registrations.list_metadata(&ListParams::default()).await.expect("a list").items.len();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    until_gone(&namespace, "billing").await;
    let more = slice_writes(&namespace) - writes;
    assert!(more < 1000, "{more} writes of slices");
}
