//! The Service that the instances share, and those who have something to do with it.

use authlink::api::v1alpha1::ServiceRegistration;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use super::{
    Spec, expect, instance::Instance, ready, register, register_later, serving, until, until_deleted,
};
use crate::{
    discovery::{ADDRESS, endpoints},
    support::{Namespace, Operator, SOON, condition, eventually},
};

#[tokio::test]
async fn a_service_of_somebody_else_is_not_touched_and_all_say_so_until_it_goes() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "billing" },
        "spec": { "selector": { "app": "theirs" }, "ports": [{ "port": 80 }] },
    });
    let before = namespace.apply::<Service>(theirs).await;
    let one = Instance::start().await;
    register(&namespace, "one", &Spec::new("1", one.port)).await;
    register(&namespace, "two", &Spec::unprobed("2", "10.99.0.8")).await;
    for name in ["one", "two"] {
        let wanted = [("Ready", "False", "ServiceConflict"), ("Registered", "False", "ServiceConflict")];
        let seen = expect(&namespace, name, &wanted).await;
        let message = &condition(&seen, "Registered").expect("Registered").message;
        assert!(message.contains("the Service billing belongs to somebody else"), "{message}");
    }
    let after = namespace.api::<Service>().get("billing").await.expect("their Service");
    assert_eq!(after.resource_version(), before.resource_version());
    assert_eq!(endpoints(&namespace, "billing").await, []);
    // Where nothing is registered, nothing is drained.
    register(&namespace, "three", &Spec::unprobed("3", "10.99.0.9").with("drainSeconds", json!(3600))).await;
    expect(&namespace, "three", &[("Ready", "False", "ServiceConflict")]).await;
    namespace.delete::<ServiceRegistration>("three").await;
    until_deleted(&namespace, "three").await;

    namespace.api::<Service>().delete("billing", &DeleteParams::default()).await.expect("deleted");
    ready(&namespace, "one").await;
    ready(&namespace, "two").await;
    until(&namespace, &[serving(ADDRESS, one.port), serving("10.99.0.8", 8080)]).await;
}

#[tokio::test]
async fn a_protocol_that_a_port_has_no_more_is_taken_off_the_service() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let speaks = async |wanted: Option<&str>| {
        eventually(SOON, "the protocol of the port", async || {
            let service = namespace.api::<Service>().get_opt("billing").await.expect("an answer");
            let ports = service.and_then(|service| service.spec?.ports);
            match ports.as_deref() {
                Some([port]) if port.app_protocol.as_deref() == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    };
    let spec = Spec::unprobed("1", "10.99.0.7");
    register(&namespace, "one", &spec).await;
    speaks(Some("http")).await;
    register(&namespace, "one", &spec.with("ports", json!([{ "name": "http", "port": 8080 }]))).await;
    speaks(None).await;
}

#[tokio::test]
async fn a_database_of_the_same_name_is_somebody_else() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    register(&namespace, "one", &Spec::unprobed("1", "10.99.0.7")).await;
    ready(&namespace, "one").await;
    let database = json!({
        "apiVersion": "authlink.dev/v1alpha1", "kind": "Database", "metadata": { "name": "billing" },
        "spec": { "type": "redis", "host": ADDRESS, "port": 1, "tls": { "mode": "None" }, "discovery": {} },
    });
    namespace.apply::<authlink::api::v1alpha1::Database>(database).await;
    let seen = namespace.expect("billing", &[("Registered", "False", "ServiceConflict")]).await;
    let message = &condition(&seen, "Registered").expect("Registered").message;
    assert!(message.contains("the Service billing belongs to the ServiceRegistration one"), "{message}");
}

#[tokio::test]
async fn what_somebody_changes_or_deletes_is_put_right() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    register(&namespace, "one", &Spec::unprobed("1", "10.99.0.7")).await;
    register(&namespace, "two", &Spec::unprobed("2", "10.99.0.8")).await;
    // Whatever of the objects is asked to see to it, the Service is right again.
    register_later(&namespace, "zzz", &Spec::unprobed("2", "10.99.0.9")).await;
    expect(&namespace, "zzz", &[("Ready", "False", "Duplicate")]).await;
    let wanted = [serving("10.99.0.7", 8080), serving("10.99.0.8", 8080)];
    until(&namespace, &wanted).await;
    let slices = namespace.api::<EndpointSlice>();
    slices.delete("billing-ipv4-0", &DeleteParams::default()).await.expect("deleted");
    until(&namespace, &wanted).await;
    let unready = json!({ "endpoints": [{
        "addresses": ["192.0.2.66"], "conditions": { "ready": true, "serving": true, "terminating": true },
    }] });
    slices.patch("billing-ipv4-0", &PatchParams::default(), &Patch::Merge(&unready)).await.expect("patched");
    until(&namespace, &wanted).await;
    let services = namespace.api::<Service>();
    services.delete("billing", &DeleteParams::default()).await.expect("deleted");
    crate::support::eventually(crate::support::SOON, "a Service with its slices", async || {
        let service = services.get_opt("billing").await.expect("an answer").ok_or("no Service")?;
        let slice = slices.get_opt("billing-ipv4-0").await.expect("an answer").ok_or("no slice")?;
        let owner = slice.owner_references().iter().any(|owner| Some(&owner.uid) == service.uid().as_ref());
        if owner && slice.endpoints.len() == 2 { Ok(()) } else { Err("another Service's slice") }
    })
    .await;
}

#[tokio::test]
async fn an_instance_with_none_of_the_services_ports_says_so_until_it_has_one() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let one = Spec::unprobed("1", "10.99.0.7");
    register(&namespace, "one", &one).await;
    ready(&namespace, "one").await;
    let two = Spec::unprobed("2", "10.99.0.8");
    let grpc = two.clone().with("ports", json!([{ "name": "grpc", "port": 9090 }]));
    register_later(&namespace, "two", &grpc).await;
    let wanted = [("Ready", "False", "InvalidSpec"), ("Registered", "False", "InvalidSpec")];
    let seen = expect(&namespace, "two", &wanted).await;
    let message = &condition(&seen, "Registered").expect("Registered").message;
    assert!(message.contains("(http) and routes to none of this one's (grpc): use one"), "{message}");
    ready(&namespace, "one").await;
    register(
        &namespace,
        "two",
        &two.with("ports", json!([{ "name": "grpc", "port": 9090 }, { "name": "http", "port": 80 }])),
    )
    .await;
    ready(&namespace, "two").await;
    register(&namespace, "two", &grpc).await;
    expect(&namespace, "two", &wanted).await;
    // Nothing of its own changes: the Service has its ports once the other one goes.
    namespace.delete::<ServiceRegistration>("one").await;
    ready(&namespace, "two").await;
}

#[tokio::test]
async fn another_port_of_the_oldest_is_another_port_of_the_service() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let ports = |port: u16| json!([{ "name": "http", "port": port }, { "name": "admin", "port": 9090 }]);
    let one = Spec::unprobed("1", "10.99.0.7").with("drainSeconds", json!(0));
    register(&namespace, "one", &one.clone().with("ports", ports(8080))).await;
    ready(&namespace, "one").await;
    register_later(&namespace, "two", &Spec::unprobed("2", "10.99.0.8").with("drainSeconds", json!(0))).await;
    ready(&namespace, "two").await;
    register(&namespace, "one", &one.with("ports", ports(8081))).await;
    until(&namespace, &[serving("10.99.0.7", 9090), serving("10.99.0.8", 8080)]).await;
    crate::support::eventually(crate::support::SOON, "the Service's ports", async || {
        let service = namespace.api::<Service>().get("billing").await.expect("a Service");
        let ports: Vec<_> = service
            .spec
            .and_then(|spec| spec.ports)
            .unwrap_or_default()
            .iter()
            .map(|port| port.port)
            .collect();
        if ports == [9090, 8081] { Ok(()) } else { Err(format!("{ports:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_family_that_the_clusters_services_have_not_is_told() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let one = Spec::unprobed("1", "fd00::9");
    register(&namespace, "one", &one).await;
    let wanted =
        [("Ready", "False", "AddressFamilyMissing"), ("Registered", "False", "AddressFamilyMissing")];
    let seen = expect(&namespace, "one", &wanted).await;
    let message = &condition(&seen, "Registered").expect("Registered").message;
    let told = "the Service billing is of IPv4 alone, and no target has an address of that family: use";
    assert!(message.contains(told), "{message}");
    until(&namespace, &[serving("fd00::9", 8080)]).await;
    register(&namespace, "one", &one.with("addresses", json!(["fd00::9", "10.99.0.9"]))).await;
    ready(&namespace, "one").await;
}
