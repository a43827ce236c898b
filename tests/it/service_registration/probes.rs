//! What the probes find, and what clients in the cluster see of it.

use authlink::api::v1alpha1::ServiceRegistration;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::{Spec, down, expect, instance::Instance, ready, register, register_later, serving, until};
use crate::{
    commands::authlink,
    discovery::{ADDRESS, endpoints},
    support::{Namespace, Operator, condition, dns::Dns},
};

#[tokio::test]
async fn instances_share_a_service_and_each_is_ready_while_its_own_probes_pass() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let (mut one, two) = (Instance::start().await, Instance::start().await);
    register(&namespace, "one", &Spec::new("1", one.port).with("zone", json!("eu-1"))).await;
    let registered = ready(&namespace, "one").await;
    assert_eq!(registered.status.expect("a status").common.service_ref.expect("a Service").name, "billing");
    register_later(&namespace, "two", &Spec::new("2", two.port).asked_by_http()).await;
    ready(&namespace, "two").await;
    until(&namespace, &[serving(ADDRESS, one.port), serving(ADDRESS, two.port)]).await;

    let service = namespace.api::<Service>().get("billing").await.expect("a Service");
    let owners = service.metadata.owner_references.expect("owners");
    assert_eq!(owners.iter().map(|owner| owner.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    let spec = service.spec.expect("a spec");
    assert_eq!((spec.selector, spec.type_.as_deref()), (None, Some("ClusterIP")));
    let port = &spec.ports.expect("ports")[0];
    let seen = (port.name.as_deref(), port.port, port.app_protocol.as_deref());
    assert_eq!(seen, (Some("http"), i32::from(one.port), Some("http")), "those of the oldest");
    let slices = namespace.api::<k8s_openapi::api::discovery::v1::EndpointSlice>();
    let slice = slices.get("billing-ipv4-0").await.expect("a slice");
    assert_eq!(slice.endpoints[0].zone.as_deref(), Some("eu-1"));

    one.kill().await;
    expect(
        &namespace,
        "one",
        &[("Ready", "False", "ConnectionRefused"), ("Healthy", "False", "ProbeFailed")],
    )
    .await;
    until(&namespace, &[down(ADDRESS, one.port), serving(ADDRESS, two.port)]).await;
    two.says(503, None, "");
    expect(&namespace, "two", &[("Ready", "False", "UnexpectedStatus")]).await;
    until(&namespace, &[down(ADDRESS, one.port), down(ADDRESS, two.port)]).await;
    one.resume().await;
    two.says(204, None, "");
    ready(&namespace, "one").await;
    ready(&namespace, "two").await;
    until(&namespace, &[serving(ADDRESS, one.port), serving(ADDRESS, two.port)]).await;
    let told: Vec<_> = namespace.events_with("two", "Available").await;
    let told: Vec<_> = told.iter().map(|event| (event.kind.as_str(), event.reason.as_str())).collect();
    assert_eq!(
        told,
        [("Warning", "UnexpectedStatus"), ("Normal", "Available")],
        "transitions, and nothing else"
    );
}

#[tokio::test]
async fn another_port_than_the_first_can_be_the_one_that_is_probed() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let admin = Instance::start().await;
    let ports = json!([{ "name": "grpc", "port": 1 }, { "name": "admin", "port": admin.port }]);
    let mut spec = Spec::new("1", 1).with("ports", ports).asked_by_http();
    spec.0["healthCheck"]["portName"] = "admin".into();
    register(&namespace, "one", &spec).await;
    let status = ready(&namespace, "one").await.status.expect("a status").common;
    assert_eq!((status.endpoints[0].port, status.endpoints[0].ready), (admin.port, true));
}

#[tokio::test]
async fn of_several_addresses_each_is_ready_for_itself() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let one = Instance::start().await;
    // Of the tests' own network, where nobody answers.
    let spec = Spec::new("1", one.port).with("addresses", json!([ADDRESS, "10.99.0.77"]));
    register(&namespace, "one", &spec).await;
    ready(&namespace, "one").await;
    expect(&namespace, "one", &[("Degraded", "True", "SomeEndpointsDown")]).await;
    until(&namespace, &[serving(ADDRESS, one.port), down("10.99.0.77", one.port)]).await;
}

#[tokio::test]
async fn addresses_that_no_client_may_be_led_to_are_neither_probed_nor_registered() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &["--cluster-cidrs", "10.99.0.0/24"]).await;
    let one = Instance::start().await;
    for (name, address) in [("loopback", "127.0.0.1"), ("named", "localhost"), ("cluster", ADDRESS)] {
        let spec = Spec::new(name, one.port).with("addresses", json!([address])).asked_by_http();
        register(&namespace, name, &spec).await;
        let refused = ("False", "AddressNotAllowed");
        let wanted = [("Connected", refused.0, refused.1), ("Registered", refused.0, refused.1)];
        let seen = expect(&namespace, name, &wanted).await;
        let message = &condition(&seen, "Ready").expect("Ready").message;
        assert!(message.contains("is never allowed") && !message.contains("egress"), "{message}");
    }
    assert_eq!(endpoints(&namespace, "billing").await, []);
    assert_eq!(one.asked(), 0);
}

#[tokio::test]
async fn a_host_name_is_probed_and_registered_by_the_same_answer_of_the_dns() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.answer(&[ADDRESS]);
    let resolv_conf = dns.resolv_conf();
    let flags = ["--resolv-conf", resolv_conf.to_str().expect("a path")];
    let _operator = Operator::start(&namespace, &flags).await;
    let one = Instance::start().await;
    let named = Spec::new("1", one.port).with("addresses", json!(["vm-1.test."]));
    register(&namespace, "one", &named).await;
    let status = ready(&namespace, "one").await.status.expect("a status");
    assert_eq!(status.resolved[0].addresses, [ADDRESS]);
    until(&namespace, &[serving(ADDRESS, one.port)]).await;

    // It moves to where nobody answers: what it has left is drained, and the new address is down.
    dns.answer(&["10.99.0.7"]);
    let (address, port, ..) = serving(ADDRESS, one.port);
    until(&namespace, &[(address, port, false, true, true), down("10.99.0.7", one.port)]).await;
    until(&namespace, &[down("10.99.0.7", one.port)]).await;
    dns.answer(&[]);
    let wanted = [("Connected", "False", "DnsFailed"), ("Registered", "False", "NoAddresses")];
    expect(&namespace, "one", &wanted).await;
    until(&namespace, &[]).await;
    dns.answer(&[ADDRESS]);
    ready(&namespace, "one").await;
    until(&namespace, &[serving(ADDRESS, one.port)]).await;
}

#[tokio::test]
async fn a_new_name_that_nobody_answers_keeps_no_other_instance_from_its_place() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.be_silent();
    let resolv_conf = dns.resolv_conf();
    let flags = ["--resolv-conf", resolv_conf.to_str().expect("a path")];
    let _operator = Operator::start(&namespace, &flags).await;
    let one = Instance::start().await;
    register(&namespace, "silent", &Spec::new("0", one.port).with("addresses", json!(["vm-0.test."]))).await;
    expect(&namespace, "silent", &[("Registered", "Unknown", "DnsFailed")]).await;
    register(&namespace, "one", &Spec::new("1", one.port)).await;
    ready(&namespace, "one").await;
    until(&namespace, &[serving(ADDRESS, one.port)]).await;
}

#[tokio::test]
async fn a_suspended_instance_is_not_probed_and_keeps_its_place() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let (one, two) = (Instance::start().await, Instance::start().await);
    register(&namespace, "one", &Spec::new("1", one.port).asked_by_http()).await;
    ready(&namespace, "one").await;
    register(&namespace, "one", &Spec::new("1", one.port).asked_by_http().with("suspend", json!(true))).await;
    expect(&namespace, "one", &[("Suspended", "True", "Suspended"), ("Ready", "True", "Available")]).await;
    let asked = one.asked();
    register(&namespace, "two", &Spec::new("2", two.port)).await;
    ready(&namespace, "two").await;
    let both = [serving(ADDRESS, one.port), serving(ADDRESS, two.port)];
    until(&namespace, &both).await;
    operator.more_probes(3).await;
    assert_eq!(one.asked(), asked);
    until(&namespace, &both).await;
    register(&namespace, "one", &Spec::new("1", one.port).asked_by_http()).await;
    namespace
        .follow::<ServiceRegistration>("one", crate::support::SOON, "not suspended", |one| {
            condition(one, "Suspended").is_none()
        })
        .await;
    until(&namespace, &both).await;
}

#[tokio::test]
async fn authlink_check_probes_a_registration_without_a_cluster() {
    let one = Instance::start().await;
    one.says(200, Some("0.5"), "");
    let port = one.port;
    let spec = |port| {
        let load = json!({ "fromHeader": "X-Load" });
        Spec::new("1", port).asked_by_http().with("load", load).named("one").to_string()
    };
    let check = move |manifest: String| {
        tokio::task::spawn_blocking(move || authlink(&["check", "-f", "-", "--output", "json"], &manifest))
    };
    let said = check(spec(port)).await.expect("it ends");
    assert_eq!(said.code, Some(0), "{said:?}");
    let found: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(found[0]["status"]["load"], "0.5");
    let said = check(spec(1)).await.expect("it ends");
    assert!(said.code == Some(1) && said.out.contains("ConnectionRefused"), "{said:?}");
}
