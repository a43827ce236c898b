//! Kubernetes finds what the probes have found: Services, and EndpointSlices that follow their verdicts.

mod changes;
mod replicas;

use authlink::api::v1alpha1::Database;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::{Namespace, Operator, SOON, Server, Spec, System, condition, dns::Dns, eventually};

/// Where EndpointSlices may lead: `e2e/with` makes it.
pub(crate) const ADDRESS: &str = "10.99.0.1";

/// A Redis of one's own that is also there at an address that can be registered.
fn redis() -> Server {
    Server::start_with(System::Redis, &[("BIND", "0.0.0.0")])
}

fn registered(server: &Server) -> Spec {
    let discovery = json!({ "host": ADDRESS, "discovery": { "drainSeconds": 3, "refreshInterval": "5s" } });
    server.spec().probed_often().with(&discovery)
}

/// Each endpoint of the Service: address, port, ready, serving, terminating.
pub(crate) type Endpoint = (String, i32, bool, bool, bool);

pub(crate) async fn endpoints(namespace: &Namespace, service: &str) -> Vec<Endpoint> {
    let ours = "endpointslice.kubernetes.io/managed-by=authlink.dev";
    let of = ListParams::default().labels(&format!("kubernetes.io/service-name={service},{ours}"));
    let slices = namespace.api::<EndpointSlice>().list(&of).await.expect("EndpointSlices").items;
    let mut found: Vec<_> = slices
        .iter()
        .flat_map(|slice| {
            let port = slice.ports.as_ref().and_then(|ports| ports[0].port).expect("a port");
            slice.endpoints.iter().map(move |endpoint| {
                let conditions = endpoint.conditions.clone().expect("conditions");
                let [ready, serving, terminating] =
                    [conditions.ready, conditions.serving, conditions.terminating].map(Option::unwrap);
                (endpoint.addresses[0].clone(), port, ready, serving, terminating)
            })
        })
        .collect();
    found.sort();
    found
}

pub(crate) async fn until_endpoints(namespace: &Namespace, service: &str, wanted: &[Endpoint]) {
    eventually(SOON, &format!("{wanted:?}"), async || match endpoints(namespace, service).await {
        found if found == wanted => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;
}

/// Waits until the Service's endpoints at the address are these ports, each ready or not.
pub(crate) async fn until_ready(namespace: &Namespace, service: &str, address: &str, ports: &[(u16, bool)]) {
    let mut wanted: Vec<_> = ports
        .iter()
        .map(|(port, ready)| (address.to_owned(), i32::from(*port), *ready, *ready, false))
        .collect();
    wanted.sort();
    until_endpoints(namespace, service, &wanted).await;
}

fn at(address: &str, server: &Server, ready: bool) -> Endpoint {
    (address.to_owned(), i32::from(server.port + 1), ready, ready, false)
}

pub(crate) async fn until_gone(namespace: &Namespace, service: &str) {
    eventually(SOON, "no Service and no slices", async || {
        let found = namespace.api::<Service>().get_opt(service).await.expect("an answer");
        let endpoints = endpoints(namespace, service).await;
        if found.is_none() && endpoints.is_empty() { Ok(()) } else { Err(format!("{endpoints:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_slice_follows_the_probes_and_goes_with_its_object() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let server = redis();
    namespace.database("cache", &registered(&server)).await;
    let database = namespace
        .expect("cache", &[("Ready", "True", "Available"), ("Registered", "True", "Registered")])
        .await;
    assert_eq!(database.status.expect("a status").common.service_ref.expect("a Service").name, "cache");
    let service = namespace.api::<Service>().get("cache").await.expect("a Service");
    let spec = service.spec.expect("a spec");
    assert_eq!((spec.selector, spec.type_.as_deref()), (None, Some("ClusterIP")));
    assert_eq!(spec.ip_family_policy.as_deref(), Some("PreferDualStack"));
    let port = &spec.ports.expect("ports")[0];
    assert_eq!(
        (port.name.as_deref(), port.port, port.app_protocol.as_deref()),
        (Some("redis"), i32::from(server.port + 1), Some("redis"))
    );
    until_endpoints(&namespace, "cache", &[at(ADDRESS, &server, true)]).await;

    server.kill();
    namespace
        .expect("cache", &[("Healthy", "False", "ProbeFailed"), ("Registered", "True", "Registered")])
        .await;
    until_endpoints(&namespace, "cache", &[at(ADDRESS, &server, false)]).await;
    server.resume();
    until_endpoints(&namespace, "cache", &[at(ADDRESS, &server, true)]).await;

    namespace.delete::<Database>("cache").await;
    until_gone(&namespace, "cache").await;
}

#[tokio::test]
async fn what_nobody_probes_any_more_is_not_ready() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let server = redis();
    let spec = registered(&server);
    namespace.database("cache", &spec).await;
    until_endpoints(&namespace, "cache", &[at(ADDRESS, &server, true)]).await;
    let nowhere = spec.clone().with(&json!({ "credentialsRef": { "name": "missing" } }));
    namespace.database("cache", &nowhere).await;
    namespace.expect("cache", &[("Ready", "False", "SecretNotFound")]).await;
    until_endpoints(&namespace, "cache", &[at(ADDRESS, &server, false)]).await;
    namespace.database("cache", &spec).await;
    until_endpoints(&namespace, "cache", &[at(ADDRESS, &server, true)]).await;
}

#[tokio::test]
async fn every_engine_can_be_registered_and_what_is_at_rest_is_not_written() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    for system in System::ALL {
        let spec = system.spec().with(&json!({ "host": ADDRESS, "discovery": { "refreshInterval": "5s" } }));
        namespace.database(system.engine(), &spec).await;
    }
    for system in System::ALL {
        namespace.expect(system.engine(), &[("Registered", "True", "Registered")]).await;
        let port = i32::from(system.tls_port(system.port()));
        until_endpoints(&namespace, system.engine(), &[(ADDRESS.to_owned(), port, true, true, false)]).await;
    }
    let settled = |writes: &std::collections::BTreeMap<String, usize>| {
        ["create services/", "create endpointslices/"].map(|write| writes.get(write).copied())
    };
    operator.more_probes(4).await; // the Events follow the slices
    let before = namespace.writes();
    assert_eq!(settled(&before), [Some(4), Some(4)]);
    operator.more_probes(8).await; // two rounds: 5 s each, as long as a refresh
    assert_eq!(namespace.writes(), before);
}

#[tokio::test]
async fn a_service_of_somebody_else_is_not_touched_and_the_conflict_ends_with_it() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let server = redis();
    let theirs = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "cache" },
        "spec": { "selector": { "app": "theirs" }, "ports": [{ "port": 80 }] },
    });
    let before = namespace.apply::<Service>(theirs).await;
    namespace.database("cache", &registered(&server)).await;
    let wanted = [
        ("Ready", "False", "ServiceConflict"),
        ("Registered", "False", "ServiceConflict"),
        ("Healthy", "True", "ProbeSucceeded"),
    ];
    let database = namespace.expect("cache", &wanted).await;
    let message = &condition(&database, "Registered").expect("Registered").message;
    assert!(message.contains("the Service cache belongs to somebody else"), "{message}");
    let after = namespace.api::<Service>().get("cache").await.expect("their Service");
    assert_eq!(after.resource_version(), before.resource_version());
    assert_eq!(endpoints(&namespace, "cache").await, []);
    namespace.api::<Service>().delete("cache", &DeleteParams::default()).await.expect("deleted");
    namespace.ready("cache").await;
    until_endpoints(&namespace, "cache", &[at(ADDRESS, &server, true)]).await;
}

#[tokio::test]
async fn of_two_objects_that_want_one_name_the_second_names_the_first() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let server = redis();
    let shared = registered(&server).with(&json!({ "discovery": { "serviceName": "shared" } }));
    namespace.database("first", &shared).await;
    namespace.ready("first").await;
    namespace.database("second", &shared).await;
    let second = namespace.expect("second", &[("Ready", "False", "ServiceConflict")]).await;
    let message = &condition(&second, "Registered").expect("Registered").message;
    assert!(message.contains("the Service shared belongs to the Database first"), "{message}");
    namespace.delete::<Database>("first").await;
    namespace.ready("second").await;
}

#[tokio::test]
async fn addresses_of_this_machine_its_link_and_the_cluster_are_refused() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &["--cluster-cidrs", "10.99.0.0/24,10.244.0.0/16"]).await;
    let server = redis();
    for (name, host) in [("loopback", "127.0.0.1"), ("named", "localhost"), ("cluster", ADDRESS)] {
        namespace.database(name, &registered(&server).with(&json!({ "host": host }))).await;
        let database = namespace.expect(name, &[("Ready", "False", "AddressNotAllowed")]).await;
        let message = &condition(&database, "Registered").expect("Registered").message;
        assert!(message.starts_with(host) && message.contains("is never allowed"), "{message}");
        assert_eq!(endpoints(&namespace, name).await, [], "{name}");
    }
}

#[tokio::test]
async fn what_somebody_changes_or_deletes_is_put_right() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let server = redis();
    namespace.database("cache", &registered(&server)).await;
    namespace.ready("cache").await;
    let wanted = [at(ADDRESS, &server, true)];
    until_endpoints(&namespace, "cache", &wanted).await;

    let slices = namespace.api::<EndpointSlice>();
    slices.delete("cache-ipv4-0", &DeleteParams::default()).await.expect("deleted");
    until_endpoints(&namespace, "cache", &wanted).await;
    let lie = json!({ "endpoints": [{ "addresses": ["192.0.2.66"], "conditions": { "ready": true } }] });
    let patched = slices.patch("cache-ipv4-0", &PatchParams::default(), &Patch::Merge(&lie)).await;
    patched.expect("patched");
    eventually(SOON, "the lie is gone", async || match endpoints_or_none(&namespace).await {
        Some(found) if found == wanted => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;

    let unlabelled = json!({ "metadata": { "labels": null } });
    slices.patch("cache-ipv4-0", &PatchParams::default(), &Patch::Merge(&unlabelled)).await.expect("patched");
    until_endpoints(&namespace, "cache", &wanted).await;

    let services = namespace.api::<Service>();
    let elsewhere = json!({ "spec": { "ports": [{ "name": "redis", "port": 1 }] } });
    services.patch("cache", &PatchParams::default(), &Patch::Merge(&elsewhere)).await.expect("patched");
    until_port(&namespace, i32::from(server.port + 1)).await;
    // As an earlier version made it.
    let single = json!({ "spec": { "ipFamilyPolicy": "SingleStack" } });
    services.patch("cache", &PatchParams::default(), &Patch::Merge(&single)).await.expect("patched");
    eventually(SOON, "all families", async || {
        let spec = services.get("cache").await.expect("the Service").spec.expect("a spec");
        if spec.ip_family_policy.as_deref() == Some("PreferDualStack") { Ok(()) } else { Err("one family") }
    })
    .await;
    services.patch("cache", &PatchParams::default(), &Patch::Merge(&unlabelled)).await.expect("patched");
    eventually(SOON, "the label is back", async || {
        let service = services.get("cache").await.expect("the Service");
        if service.labels().contains_key("app.kubernetes.io/managed-by") { Ok(()) } else { Err("no label") }
    })
    .await;
    services.delete("cache", &DeleteParams::default()).await.expect("deleted");
    until_port(&namespace, i32::from(server.port + 1)).await;
}

/// The same where an endpoint may lack what ours have.
async fn endpoints_or_none(namespace: &Namespace) -> Option<Vec<Endpoint>> {
    let slice = namespace.api::<EndpointSlice>().get_opt("cache-ipv4-0").await.expect("an answer")?;
    let whole =
        slice.endpoints.iter().all(|it| it.conditions.as_ref().is_some_and(|it| it.serving.is_some()));
    if whole { Some(endpoints(namespace, "cache").await) } else { None }
}

async fn until_port(namespace: &Namespace, port: i32) {
    eventually(SOON, "the Service's port", async || {
        let service = namespace.api::<Service>().get_opt("cache").await.expect("an answer");
        let ports = service.and_then(|service| service.spec?.ports);
        match ports.iter().flatten().next() {
            Some(found) if found.port == port => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn an_address_that_leaves_is_drained_and_another_name_replaces_the_first() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.answer(&[ADDRESS]);
    let resolv_conf = dns.resolv_conf();
    let flags = ["--resolv-conf", resolv_conf.to_str().expect("a path")];
    let _operator = Operator::start(&namespace, &flags).await;
    let server = redis();
    // The driver asks the system's own resolver, which knows this name by its hosts file.
    let named = registered(&server).with(&json!({ "host": "moves.test.", "hosts": null }));
    namespace.database("cache", &named).await;
    until_endpoints(&namespace, "cache", &[at(ADDRESS, &server, false)]).await;
    dns.answer(&["10.99.0.7"]);
    let (_, port, ..) = at(ADDRESS, &server, false);
    let leaving = (ADDRESS.to_owned(), port, false, false, true);
    until_endpoints(&namespace, "cache", &[leaving, at("10.99.0.7", &server, false)]).await;
    until_endpoints(&namespace, "cache", &[at("10.99.0.7", &server, false)]).await;

    // Nobody answers: what is known stays. The name is gone: so are its addresses, after their time.
    dns.be_silent();
    let renamed = named.with(&json!({ "discovery": { "serviceName": "store" } }));
    namespace.database("cache", &renamed).await;
    until_endpoints(&namespace, "store", &[at("10.99.0.7", &server, false)]).await;
    until_gone(&namespace, "cache").await;
    dns.answer(&[]);
    namespace.expect("cache", &[("Registered", "False", "NoAddresses")]).await;
    until_endpoints(&namespace, "store", &[]).await;

    let none: Value = json!({ "discovery": { "mode": "None" } });
    namespace.database("cache", &renamed.with(&none)).await;
    until_gone(&namespace, "store").await;
    let database = namespace
        .until("cache", SOON, "no Service", |database| condition(database, "Registered").is_none())
        .await;
    assert_eq!(database.status.expect("a status").common.service_ref, None);
}

#[tokio::test]
async fn an_external_name_leads_to_the_host_and_needs_one() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.answer(&[ADDRESS]);
    let resolv_conf = dns.resolv_conf();
    let flags = ["--resolv-conf", resolv_conf.to_str().expect("a path")];
    let _operator = Operator::start(&namespace, &flags).await;
    let server = redis();
    let by_name =
        registered(&server).with(&json!({ "host": "db.test", "discovery": { "mode": "ExternalName" } }));
    namespace.database("cache", &by_name).await;
    namespace.expect("cache", &[("Registered", "True", "Registered")]).await;
    let service = namespace.api::<Service>().get("cache").await.expect("a Service").spec.expect("a spec");
    assert_eq!(
        (service.type_.as_deref(), service.external_name.as_deref()),
        (Some("ExternalName"), Some("db.test"))
    );
    assert_eq!(endpoints(&namespace, "cache").await, []);
    // A user who changes their mind gets the other form.
    namespace
        .database("cache", &by_name.clone().with(&json!({ "discovery": { "mode": "Endpoints" } })))
        .await;
    until_endpoints(&namespace, "cache", &[at(ADDRESS, &server, false)]).await;
    namespace.database("cache", &by_name).await;
    eventually(SOON, "the name again", async || {
        let spec = namespace.api::<Service>().get("cache").await.expect("a Service").spec.expect("a spec");
        match (spec.external_name.as_deref(), spec.ports, spec.ip_families, spec.ip_family_policy) {
            (Some("db.test"), None, None, None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    namespace.database("cache", &by_name.with(&json!({ "host": ADDRESS }))).await;
    let database = namespace.expect("cache", &[("Ready", "False", "InvalidSpec")]).await;
    let message = &condition(&database, "Accepted").expect("Accepted").message;
    assert!(message.contains("spec.discovery.mode") && message.contains("use Endpoints"), "{message}");
}

#[tokio::test]
async fn a_name_that_no_service_can_have_is_refused_with_what_to_do() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let server = redis();
    namespace.database("0.cache", &registered(&server)).await;
    let database = namespace.expect("0.cache", &[("Ready", "False", "InvalidSpec")]).await;
    let message = &condition(&database, "Accepted").expect("Accepted").message;
    assert!(message.contains("spec.discovery.serviceName: 0.cache cannot be the name"), "{message}");
}
