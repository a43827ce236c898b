//! Host names, as everything outside is found by them.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use authlink::{
    api::v1alpha1::{Database, ExternalApi, ServiceRegistration},
    backends::resolver::Resolver,
    controllers::Object,
};
use serde_json::json;

use crate::support::{Namespace, Operator, SOON, System, condition, dns, dns::Dns, eventually};

/// What the resolver says of a name, in a word where it fails.
async fn asked(resolver: &Resolver, host: &str) -> Result<Vec<IpAddr>, String> {
    resolver.resolve(host).await.map(|found| found.list).map_err(|fault| fault.reason.to_string())
}

#[tokio::test]
async fn a_name_is_followed_when_its_time_to_live_is_over() {
    let server = Dns::start().await;
    let resolver = Resolver::from_file(&server.resolv_conf()).expect("a resolver");
    server.answer(&["192.0.2.1"]);
    let found = resolver.resolve("moves.test.").await.expect("an address");
    assert_eq!(found.list, dns::addresses(&["192.0.2.1"]));
    assert_eq!(found.valid, Some(Duration::from_secs(5)), "a shorter TTL is stretched");
    server.answer(&["192.0.2.3", "192.0.2.2"]);
    eventually(SOON, "the new addresses", async || match asked(&resolver, "moves.test.").await {
        Ok(found) if found == dns::addresses(&["192.0.2.2", "192.0.2.3"]) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn while_no_server_answers_the_last_addresses_hold_and_without_any_it_says_so() {
    let server = Dns::start().await;
    let resolver = Resolver::from_file(&server.resolv_conf()).expect("a resolver");
    server.answer(&["192.0.2.1"]);
    asked(&resolver, "known.test.").await.expect("an address");
    server.be_silent();
    assert_eq!(asked(&resolver, "unknown.test.").await, Err("DnsFailed".to_owned()));
    tokio::time::sleep(Duration::from_millis(1100)).await; // the time to live of a second is over
    assert_eq!(asked(&resolver, "known.test.").await, Ok(dns::addresses(&["192.0.2.1"])));
}

#[tokio::test]
async fn in_an_outage_a_search_domain_without_the_name_is_no_answer() {
    let server = Dns::start().await;
    // As in a pod on a machine with the defaults of resolv.conf(5): three attempts of five seconds.
    let lines = format!("search {0} a.{0} b.{0}\noptions ndots:1", dns::NOWHERE);
    let resolver = Resolver::from_file(&server.resolv_conf_with(&lines)).expect("a resolver");
    server.answer(&["192.0.2.1"]);
    asked(&resolver, "known.test").await.expect("an address");
    server.be_silent();
    tokio::time::sleep(Duration::from_millis(1100)).await; // the time to live of a second is over
    let started = Instant::now();
    assert_eq!(asked(&resolver, "known.test").await, Ok(dns::addresses(&["192.0.2.1"])));
    assert!(started.elapsed() < Duration::from_secs(1), "in time for a probe");
    assert_eq!(asked(&resolver, "unknown.test").await, Err("DnsFailed".to_owned()));
    assert!(started.elapsed() < Duration::from_secs(8), "in time for a pass");
    server.answer(&[]);
    eventually(SOON, "no address", async || match asked(&resolver, "known.test").await {
        Ok(found) if found.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_silent_on_ipv6_still_tells_the_other_addresses() {
    let server = Dns::start().await;
    let resolver = Resolver::from_file(&server.resolv_conf_with("")).expect("a resolver");
    server.answer(&["192.0.2.1"]);
    server.be_silent_on_ipv6();
    assert_eq!(asked(&resolver, "half.test.").await, Ok(dns::addresses(&["192.0.2.1"])));
}

#[tokio::test]
async fn a_name_that_ceases_to_exist_has_no_address_any_more() {
    let server = Dns::start().await;
    let resolver = Resolver::from_file(&server.resolv_conf()).expect("a resolver");
    server.answer(&["192.0.2.1"]);
    asked(&resolver, "goes.test.").await.expect("an address");
    server.answer(&[]);
    eventually(SOON, "no address", async || match asked(&resolver, "goes.test.").await {
        Ok(found) if found.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn an_address_is_its_own_answer_and_the_hosts_file_is_read() {
    let server = Dns::start().await;
    let resolver = Resolver::from_file(&server.resolv_conf()).expect("a resolver");
    for (host, address) in [("192.0.2.7", "192.0.2.7"), ("[2001:db8::1]", "2001:db8::1")] {
        let found = resolver.resolve(host).await.expect("an address");
        assert_eq!((found.list, found.valid), (dns::addresses(&[address]), None));
    }
    // Every name that this machine's own has, which is more than localhost where a machine names itself.
    let hosts = std::fs::read_to_string("/etc/hosts").expect("a hosts file");
    let mut named = 0;
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for name in words {
            let found = asked(&resolver, name).await.unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
            assert!(found.contains(&address), "{name}: {found:?}");
            named += 1;
        }
    }
    assert!(named > 0);
}

/// Waits until the object says that it is for its name's sake.
async fn is_unanswered<K: Object>(namespace: &Namespace, name: &str) {
    let object = namespace.expect_of::<K>(name, &[("Connected", "False", "DnsFailed")]).await;
    let message = &condition(&object, "Connected").expect("Connected").message;
    assert!(message.contains("DNS lookup of silent.test. failed: no server responded"), "{name}: {message}");
}

/// The driver reports any server that it cannot reach alike.
#[tokio::test]
async fn a_mongodb_whose_name_ceases_to_exist_is_dns_failed_by_its_next_login() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.answer(&["127.0.0.1"]);
    let resolv_conf = dns.resolv_conf_with("options timeout:5 attempts:2");
    let _operator = Operator::start_with_file(&namespace, "/etc/resolv.conf", &resolv_conf).await;
    let named = json!({
        "host": "moves.test", "tls": { "mode": "Require", "caRef": null }, "pool": { "maxLifetime": "1s" },
        "healthCheck": { "interval": "4s", "timeout": "3s", "jitterPercent": 0 },
    });
    namespace.database("db", &System::Ferretdb.spec().with(&named)).await;
    namespace.ready("db").await;
    dns.answer(&[]);
    namespace.expect("db", &[("Connected", "False", "DnsFailed")]).await;
}

#[tokio::test]
async fn that_nobody_answers_what_a_name_is_sounds_alike_whatever_has_it() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.be_silent();
    // Both resolvers, ours and the system's, ask this server, and are more patient than a probe.
    let resolv_conf = dns.resolv_conf_with("options timeout:5 attempts:2");
    let _operator = Operator::start_with_file(&namespace, "/etc/resolv.conf", &resolv_conf).await;
    let check = json!({ "interval": "10s", "timeout": "2s" });
    for system in System::ALL {
        let silent = json!({ "host": "silent.test.", "healthCheck": check });
        namespace.database(system.engine(), &system.spec().with(&silent)).await;
    }
    let object = |kind: &str, spec: serde_json::Value| json!({ "apiVersion": "authlink.dev/v1alpha1", "kind": kind, "metadata": { "name": "one" }, "spec": spec });
    let endpoints = [json!({ "url": "https://silent.test./v2" })];
    let api = object("ExternalApi", json!({ "endpoints": endpoints, "healthCheck": check }));
    namespace.apply::<ExternalApi>(api).await;
    let instance = json!({
        "serviceName": "billing", "instanceId": "1", "addresses": ["silent.test."],
        "ports": [{ "name": "http", "port": 80 }], "healthCheck": check,
    });
    namespace.apply::<ServiceRegistration>(object("ServiceRegistration", instance)).await;
    for system in System::ALL {
        is_unanswered::<Database>(&namespace, system.engine()).await;
    }
    is_unanswered::<ExternalApi>(&namespace, "one").await;
    is_unanswered::<ServiceRegistration>(&namespace, "one").await;
}
