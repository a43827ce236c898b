//! What changes while something else stays as it is.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::json;

use super::{ADDRESS, at, redis, registered, until_endpoints};
use crate::support::{Namespace, Operator, SOON, dns::Dns, eventually};

#[tokio::test]
async fn a_host_that_no_dns_server_knows_holds_up_none_of_the_others() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.answer(&["10.99.0.7"]);
    let resolv_conf = dns.resolv_conf();
    let flags = ["--resolv-conf", resolv_conf.to_str().expect("a path")];
    let operator = Operator::start(&namespace, &flags).await;
    let (one, other) = (redis(), redis());
    let hosts = json!([
        { "host": "moves.test.", "port": one.port + 1 },
        { "host": ADDRESS, "port": one.port + 1 },
        { "host": ADDRESS, "port": other.port + 1 },
    ]);
    let spec = registered(&one).with(&json!({ "host": null, "port": null, "hosts": hosts }));
    namespace.database("cache", &spec).await;
    // The driver asks the system's own resolver, which does not know the name.
    let silent = at("10.99.0.7", &one, false);
    let sorted = |mut endpoints: Vec<_>| {
        endpoints.sort();
        endpoints
    };
    let all = sorted(vec![silent.clone(), at(ADDRESS, &one, true), at(ADDRESS, &other, true)]);
    until_endpoints(&namespace, "cache", &all).await;

    drop(operator);
    dns.be_silent();
    let _operator = Operator::start(&namespace, &flags).await;
    namespace.expect("cache", &[("Registered", "Unknown", "DnsFailed")]).await;
    until_endpoints(&namespace, "cache", &all).await;
    other.kill();
    let without = sorted(vec![silent, at(ADDRESS, &one, true), at(ADDRESS, &other, false)]);
    until_endpoints(&namespace, "cache", &without).await;

    let hosts =
        json!([{ "host": "new.test.", "port": one.port + 1 }, { "host": ADDRESS, "port": one.port + 1 }]);
    namespace.database("late", &spec.with(&json!({ "hosts": hosts }))).await;
    namespace.expect("late", &[("Registered", "Unknown", "DnsFailed")]).await;
    until_endpoints(&namespace, "late", &[at(ADDRESS, &one, true)]).await;
}

#[tokio::test]
async fn the_name_of_a_server_that_has_none_any_more_is_taken_off_the_service() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.answer(&[ADDRESS]);
    let resolv_conf = dns.resolv_conf();
    let _operator =
        Operator::start(&namespace, &["--resolv-conf", resolv_conf.to_str().expect("a path")]).await;
    let server = redis();
    let is_named = async |wanted: Option<&str>| {
        eventually(SOON, "the server's name", async || {
            let service = namespace.api::<Service>().get_opt("cache").await.expect("an answer");
            let name = service.as_ref().map(|it| it.annotations().get("authlink.dev/server-name"));
            if name == Some(wanted.map(ToOwned::to_owned).as_ref()) {
                Ok(())
            } else {
                Err(format!("{name:?}"))
            }
        })
        .await;
    };
    namespace.database("cache", &registered(&server).with(&json!({ "host": "moves.test." }))).await;
    is_named(Some("moves.test.")).await;
    namespace.database("cache", &registered(&server)).await;
    is_named(None).await;
}
