//! Servers that answer to their own names alone, and those whose names are unusual.

use authlink::api::v1alpha1::{ExternalApi, ServiceRegistration};
use serde_json::{Value, json};

use super::{ADDRESS, Row, verify};
use crate::{
    http_api::nginx,
    support::{ApiServer, dns::Dns},
};

fn registration(port: u16, id: &str, more: &Value) -> Value {
    let mut spec = json!({
        "serviceName": format!("billing-{id}"), "instanceId": id, "addresses": [ADDRESS], "ports": [{ "name": "http", "port": port }],
    });
    spec.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
    spec
}

/// A health check of `/healthz` with these fields.
fn check(more: &Value) -> Value {
    let mut http = json!({ "path": "/healthz" });
    http.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
    json!({ "type": "Http", "http": http })
}

#[tokio::test]
async fn an_instance_that_wants_its_own_host_gets_it() {
    let django = ApiServer::start("django");
    let own = json!({ "host": "billing.example.com" });
    let named = json!({
        "host": "billing.example.com", "headers": { "X-Probe": "1" }, "expectedBody": "billing.example.com 1",
    });
    let row = |id: &str, check: Value| registration(django.port, id, &json!({ "healthCheck": check }));
    let rows = [
        Row::works("own-host", row("1", check(&own))),
        Row::works("own-header", row("2", check(&named))),
        Row::fails("address", row("3", check(&json!({}))), "UnexpectedStatus", "400"),
    ];
    verify::<ServiceRegistration>(&rows, &[]).await;
}

#[tokio::test]
async fn an_instance_with_https_is_probed_by_https_whatever_its_certificate() {
    let nginx = ApiServer::start_with("nginx", &[("CERT", "wronghost")]);
    let (plain, tls) = (nginx.port, nginx.port + 1);
    let https = json!([{ "name": "https", "port": tls, "appProtocol": "https" }]);
    let answer = |protocol: &str, host: &str| format!("{protocol} GET /healthz {host}\n");
    let address = |port: u16| format!("{ADDRESS}:{port}");
    let expects = |text: String, more: Value| {
        let mut check = check(&more);
        check["http"]["expectedBody"] = json!(text);
        check
    };
    let row = |id: &str, ports: Value, check: Value| {
        registration(tls, id, &json!({ "ports": ports, "healthCheck": check }))
    };
    let unnamed = json!([{ "name": "web", "port": tls }]);
    let asked = json!({ "scheme": "Https" });
    let named = json!({ "scheme": "Https", "host": "wrong.example.org" });
    let rows = [
        Row::works(
            "by-app-protocol",
            row("1", https.clone(), expects(answer("HTTP/2.0", &address(tls)), json!({}))),
        ),
        Row::works("by-scheme", row("2", unnamed.clone(), expects(answer("HTTP/2.0", &address(tls)), asked))),
        Row::works(
            "named",
            row("3", unnamed.clone(), expects(answer("HTTP/2.0", "wrong.example.org"), named)),
        ),
        Row::fails("by-http", row("4", unnamed, check(&json!({}))), "UnexpectedStatus", "400"),
        Row::fails(
            "http-where-https-is-expected",
            row("5", json!([{ "name": "https", "port": plain, "appProtocol": "https" }]), check(&json!({}))),
            "TlsFailed",
            "no TLS on this port",
        ),
    ];
    verify::<ServiceRegistration>(&rows, &[]).await;
}

#[tokio::test]
async fn an_endpoint_by_address_is_asked_by_its_name() {
    let named = ApiServer::start_with("nginx", &[("CERT", "wronghost")]);
    let (plain, _) = nginx();
    let row = |url: String, host: &str, more: Value| {
        let mut spec = json!({
            "endpoints": [{ "url": url }],
            "healthCheck": { "http": { "path": "/who", "expectedBody": format!(" GET /who {host}\n") } },
        });
        for (name, value) in more.as_object().expect("fields") {
            match name.as_str() {
                "host" => spec["endpoints"][0]["host"] = value.clone(),
                name => spec[name] = value.clone(),
            }
        }
        spec
    };
    let by_address = format!("https://127.0.0.1:{}", named.port + 1);
    let tls = json!({ "caRef": { "name": "ca" }, "serverName": "wrong.example.org" });
    let authority = by_address.strip_prefix("https://").expect("https").to_owned();
    let with_port = authority.replace("127.0.0.1", "wrong.example.org");
    let rows = [
        Row::works("follows-the-server-name", row(by_address.clone(), &with_port, json!({ "tls": tls }))),
        Row::works("own-host", row(by_address, "a_b.example", json!({ "tls": tls, "host": "a_b.example" }))),
        Row::works(
            "own-host-without-tls",
            row(plain.replace("localhost", "127.0.0.1"), "api.example", json!({ "host": "api.example" })),
        ),
    ];
    verify::<ExternalApi>(&rows, &[]).await;
}

#[tokio::test]
async fn a_host_name_with_an_underscore_is_resolved() {
    let dns = Dns::start().await;
    dns.answer(&["192.0.2.7"]);
    let resolver = authlink::backends::resolver::Resolver::from_file(&dns.resolv_conf()).expect("a resolver");
    for name in ["my_api.test.", "_internal.my_api.test.", "caf\u{e9}.test."] {
        let found = resolver.resolve(name).await.map(|found| found.list);
        assert_eq!(found, Ok(crate::support::dns::addresses(&["192.0.2.7"])), "{name}");
    }
}
