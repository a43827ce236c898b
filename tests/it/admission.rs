//! The API server does not take what the operator writes: the rest of the status is told all the same.

use authlink::api::v1alpha1::{Database, ServiceRegistration};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::{
    discovery::{ADDRESS, until_ready},
    support::{Namespace, Operator, SOON, Server, Spec, System, admission::Admission, condition, eventually},
};

fn registered_and_bound(server: &Server) -> Spec {
    server
        .spec()
        .probed_often()
        .with(&json!({ "host": ADDRESS, "discovery": {}, "binding": { "enabled": true } }))
}

#[tokio::test]
async fn a_service_that_is_refused_for_good_is_told_of() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let server = Server::start_with(System::Redis, &[("BIND", "0.0.0.0")]);
    let _policy = Admission::policy(&namespace, &["services"], "RequestEntityTooLarge").await;
    namespace.database("cache", &registered_and_bound(&server)).await;
    let wanted = [("Healthy", "True", "ProbeSucceeded"), ("Registered", "False", "ServiceRefused")];
    let database = namespace.expect("cache", &wanted).await;
    assert!(condition(&database, "Reconciling").is_none());
}

#[tokio::test]
async fn a_write_that_the_api_server_fails_is_tried_again_and_withholds_no_verdict() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let server = Server::start_with(System::Redis, &[("BIND", "0.0.0.0")]);
    let written = ["secrets", "services", "endpointslices"];
    let webhook = Admission::unreachable(&namespace, &written).await;
    namespace.database("cache", &registered_and_bound(&server)).await;
    let registration = json!({
        "apiVersion": "authlink.dev/v1alpha1", "kind": "ServiceRegistration", "metadata": { "name": "one" },
        "spec": {
            "serviceName": "billing", "instanceId": "one", "addresses": [ADDRESS],
            "ports": [{ "name": "redis", "port": server.port }],
        },
    });
    namespace.apply::<ServiceRegistration>(registration).await;
    let wanted = [
        ("Healthy", "True", "ProbeSucceeded"),
        ("Registered", "Unknown", "ClusterFailed"),
        ("Reconciling", "True", "ClusterFailed"),
        ("Ready", "Unknown", "Pending"),
    ];
    namespace.expect("cache", &wanted).await;
    namespace.expect_of::<ServiceRegistration>("one", &wanted).await;
    server.kill();
    namespace.expect("cache", &[("Ready", "False", "ConnectionRefused"), wanted[1], wanted[2]]).await;
    server.resume();
    namespace.expect("cache", &wanted).await;

    drop(webhook);
    // Not only after the pause that so many failures have led to.
    let now = json!({ "metadata": { "annotations": { "authlink.dev/reconcile": "now" } } });
    let merge = Patch::Merge(&now);
    namespace.api::<Database>().patch("cache", &PatchParams::default(), &merge).await.expect("cache");
    namespace.api::<ServiceRegistration>().patch("one", &PatchParams::default(), &merge).await.expect("one");
    namespace.ready("cache").await;
    namespace.until("cache", SOON, "it is done", |it| condition(it, "Reconciling").is_none()).await;
    until_ready(&namespace, "cache", ADDRESS, &[(server.port + 1, true)]).await;
    eventually(SOON, "the binding", async || {
        namespace.api::<Secret>().get_opt("cache-binding").await.expect("an answer").ok_or("no Secret")
    })
    .await;
    namespace.expect_of::<ServiceRegistration>("one", &[("Ready", "True", "Available")]).await;

    // What is registered stays so: the probes alone decide.
    let _webhook = Admission::unreachable(&namespace, &written).await;
    server.kill();
    let wanted = [
        ("Ready", "False", "ConnectionRefused"),
        ("Registered", "True", "Registered"),
        ("Reconciling", "True", "ClusterFailed"),
    ];
    let database = namespace.expect("cache", &wanted).await;
    assert_eq!(database.status.expect("a status").common.service_ref.expect("a Service").name, "cache");
}
