//! Several servers behind one object, and several addresses behind one name.

use serde_json::json;

use crate::support::{Namespace, Operator, SOON, Server, System, condition, dns::Dns, free_port, hostile};

#[tokio::test]
async fn one_healthy_host_is_enough_and_the_others_are_named() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    for system in System::ALL {
        let (name, live, dead) = (system.engine(), system.tls_port(system.port()), free_port());
        let hosts = json!([{ "host": "localhost", "port": dead }, { "host": "127.0.0.1", "port": live }]);
        namespace
            .database(name, &system.spec().with(&json!({ "host": null, "port": null, "hosts": hosts })))
            .await;
        let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "SomeEndpointsDown")];
        let database = namespace.expect(name, &wanted).await;
        let message = &condition(&database, "Degraded").expect("Degraded").message;
        assert!(message.contains(&format!("localhost:{dead}")), "{message}");
        let status = database.status.expect("a status");
        let endpoints: Vec<_> = status
            .common
            .endpoints
            .iter()
            .map(|it| (it.address.as_str(), it.port, it.ready, it.reason.as_str(), it.role.as_deref()))
            .collect();
        let wanted = [
            ("localhost", dead, false, "ConnectionRefused", None),
            ("127.0.0.1", live, true, "ProbeSucceeded", Some("Primary")),
        ];
        assert_eq!(endpoints, wanted);
    }
}

/// On the first, which the system prefers, most of the servers do not listen; the second is nobody's and stays silent.
const HOSTS: &str =
    "127.0.0.1 localhost\n::1 half-dead.test\n10.99.0.9 half-dead.test\n10.99.0.1 half-dead.test\n";

#[tokio::test]
async fn a_name_with_dead_and_live_addresses_connects_to_a_live_one() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start_with_hosts(&namespace, HOSTS).await;
    for system in System::ALL {
        let require = json!({ "host": "half-dead.test", "tls": { "mode": "Require", "caRef": null } });
        namespace.database(system.engine(), &system.spec().with(&require)).await;
        namespace.ready(system.engine()).await;
    }
}

#[tokio::test]
async fn a_name_is_resolved_by_the_configured_dns_servers_and_cached_while_they_do_not_respond() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.answer(&["127.0.0.1"]);
    let resolv_conf = dns.resolv_conf();
    let flags = ["--resolv-conf", resolv_conf.to_str().expect("a path")];
    let _operator = Operator::start(&namespace, &flags).await;
    // The drivers of the others find it by the system's.
    let systems = [System::Postgresql, System::Redis];
    let elsewhere = json!({ "host": "elsewhere.test", "tls": { "mode": "VerifyCa" } });
    for system in systems {
        namespace.database(system.engine(), &system.spec().with(&elsewhere)).await;
        namespace.ready(system.engine()).await;
    }
    dns.be_silent();
    for system in systems {
        // Another pool, which has to connect.
        let spec = system.spec().with(&elsewhere).with(&json!({ "pool": { "max": 3 } }));
        let name = format!("{}-anew", system.engine());
        namespace.database(&name, &spec).await;
        namespace.ready(&name).await;
    }
}

#[tokio::test]
async fn hosts_that_are_all_dead_are_all_named() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let (refuses, hangs_up) = (free_port(), hostile::closing_server());
    let hosts = json!([{ "host": "localhost", "port": refuses }, { "host": "localhost", "port": hangs_up }]);
    let spec = System::Redis.spec().with(&json!({ "host": null, "port": null, "hosts": hosts }));
    namespace.database("db", &spec).await;
    let database = namespace.expect("db", &[("Ready", "False", "ConnectionRefused")]).await;
    let message = &condition(&database, "Ready").expect("Ready").message;
    assert!([refuses, hangs_up].iter().all(|port| message.contains(&port.to_string())), "{message}");
}

#[tokio::test]
async fn of_several_hosts_the_primary_is_shown_and_the_fault_ends_when_all_are_back() {
    let namespace = Namespace::create().await;
    let (primary, replica) = (Server::start(System::Redis), Server::start(System::Redis));
    replica.redis(&["config", "set", "masteruser", "app"]);
    replica.redis(&["config", "set", "masterauth", "app-secret"]);
    replica.redis(&["replicaof", "127.0.0.1", &primary.port.to_string()]);
    let _operator = Operator::start(&namespace, &[]).await;
    let hosts = [&replica, &primary].map(|server| json!({ "host": "localhost", "port": server.port + 1 }));
    let spec = primary.spec().with(&json!({ "host": null, "port": null, "hosts": hosts })).probed_often();
    namespace.database("db", &spec).await;
    let database = namespace
        .until("db", SOON, "both roles", |database| {
            let endpoints = database.status.iter().flat_map(|status| &status.common.endpoints);
            endpoints.filter_map(|it| it.role.as_deref()).eq(["Replica", "Primary"])
        })
        .await;
    assert_eq!(database.status.expect("a status").server.expect("a server").role, "Primary");
    replica.kill();
    namespace
        .expect("db", &[("Ready", "True", "Available"), ("Degraded", "True", "SomeEndpointsDown")])
        .await;
    replica.resume();
    namespace.until("db", SOON, "no fault", |database| condition(database, "Degraded").is_none()).await;
}
