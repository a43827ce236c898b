//! The objects are the registry: a restart of the operator loses nothing, and moves nothing.

use authlink::api::v1alpha1::ServiceRegistration;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{ResourceExt, api::ListParams};
use serde_json::json;

use super::{
    Spec, discovery_writes, down, draining, expect, instance::Instance, ready, register, serving, until,
    until_deleted,
};
use crate::{
    discovery::ADDRESS,
    support::{Namespace, Operator, dns::Dns, eventually},
};

async fn versions(namespace: &Namespace) -> Vec<(String, Option<String>)> {
    let slices = namespace.api::<EndpointSlice>().list(&ListParams::default()).await.expect("slices");
    slices.items.iter().map(|slice| (slice.name_any(), slice.resource_version())).collect()
}

#[tokio::test]
async fn after_a_restart_every_endpoint_is_what_it_was_and_no_slice_was_written() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.answer(&[ADDRESS]);
    let resolv_conf = dns.resolv_conf();
    let flags = ["--resolv-conf", resolv_conf.to_str().expect("a path")];
    let operator = Operator::start(&namespace, &flags).await;
    let (one, mut two, three) = (Instance::start().await, Instance::start().await, Instance::start().await);
    let both = json!([ADDRESS, "10.99.0.77"]);
    register(&namespace, "one", &Spec::new("1", one.port).with("addresses", both)).await;
    // Slow to be called dead, so that only what was known before can say so.
    let mut named = Spec::new("2", two.port).with("addresses", json!(["vm-2.test."]));
    named.0["healthCheck"]["unhealthyThreshold"] = json!(100);
    register(&namespace, "two", &named).await;
    register(&namespace, "three", &Spec::new("3", three.port).asked_by_http().with("drain", json!(true)))
        .await;
    register(&namespace, "four", &Spec::unprobed("4", "10.99.0.8")).await;
    for name in ["one", "two", "three", "four"] {
        ready(&namespace, name).await;
    }
    expect(&namespace, "one", &[("Degraded", "True", "SomeEndpointsDown")]).await;
    let wanted = [
        serving(ADDRESS, one.port),
        down("10.99.0.77", one.port),
        serving(ADDRESS, two.port),
        draining(ADDRESS, three.port),
        serving("10.99.0.8", 8080),
    ];
    until(&namespace, &wanted).await;
    let (before, written) = (versions(&namespace).await, discovery_writes(&namespace));

    // Nobody answers what the name is, and the instance behind it is slow to answer, too: neither is a reason.
    operator.signal("KILL");
    drop(operator);
    dns.be_silent();
    two.kill().await;
    let operator = Operator::start(&namespace, &flags).await;
    let passes = |outcome: &str| operator.metric("authlink_reconcile_total", outcome);
    eventually(crate::support::SOON, "a pass over each", async || match passes("ServiceRegistration") {
        4.0.. => Ok(()),
        passes => Err(passes),
    })
    .await;
    operator.more_probes(12).await;
    assert_eq!(versions(&namespace).await, before);
    assert_eq!(discovery_writes(&namespace), written);
    until(&namespace, &wanted).await;
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_drain_neither_shortens_nor_restarts_it() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let one = Instance::start().await;
    register(&namespace, "one", &Spec::new("1", one.port).with("drainSeconds", json!(8))).await;
    register(&namespace, "two", &Spec::unprobed("2", "10.99.0.8")).await;
    ready(&namespace, "one").await;
    until(&namespace, &[serving(ADDRESS, one.port), serving("10.99.0.8", 8080)]).await;
    let asked = std::time::Instant::now();
    namespace.delete::<ServiceRegistration>("one").await;
    until(&namespace, &[draining(ADDRESS, one.port), serving("10.99.0.8", 8080)]).await;
    operator.signal("KILL");
    drop(operator);
    let written = discovery_writes(&namespace);
    let _operator = Operator::start(&namespace, &[]).await;
    until_deleted(&namespace, "one").await;
    let took = asked.elapsed().as_secs();
    assert!(took >= 7, "{took} s");
    until(&namespace, &[serving("10.99.0.8", 8080)]).await;
    // The endpoint went, and the Service has one owner less since the deletion.
    assert_eq!(discovery_writes(&namespace), written + 1);
}
