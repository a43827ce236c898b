//! Whoever has the right finds the instances of a service, and hears of their changes.

use std::time::Duration;

use authlink::api::v1alpha1::ServiceRegistration;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use kube::{ResourceExt, api::ListParams};
use serde_json::{Value, json};

use super::external_api::ALLOWED;
use crate::support::{Namespace, SOON, eventually, gateway::Gateway};

async fn register(namespace: &Namespace, id: &str, more: Value) {
    let mut spec = json!({
        "serviceName": "auth", "instanceId": id, "addresses": ["10.99.0.1"],
        "ports": [{ "name": "http", "port": 8080 }], "healthCheck": { "type": "None" },
    });
    let Value::Object(more) = more else { panic!("fields") };
    spec.as_object_mut().expect("fields").extend(more);
    namespace
        .apply::<ServiceRegistration>(json!({
            "apiVersion": "authlink.dev/v1alpha1", "kind": "ServiceRegistration", "metadata": { "name": id }, "spec": spec,
        }))
        .await;
}

async fn ready(namespace: &Namespace, id: &str) {
    namespace.expect_of::<ServiceRegistration>(id, &[("Ready", "True", "Available")]).await;
}

fn ids(answer: &crate::support::gateway::Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let found: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let instances = found["instances"].as_array().expect("instances");
    instances.iter().map(|it| it["instanceId"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn healthy_instances_are_found_by_label_and_zone_and_the_heavier_ones_come_first() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("shop", &[("get", "serviceregistrations", &["auth"])]).await;
    register(&namespace, "a", json!({ "zone": "eu-1", "labels": { "version": "1" }, "weight": 10 })).await;
    register(&namespace, "b", json!({ "zone": "eu-2", "labels": { "version": "2" }, "weight": 20 })).await;
    register(
        &namespace,
        "c",
        json!({ "zone": "eu-1", "labels": { "version": "2", "canary": "" }, "drain": true }),
    )
    .await;
    for id in ["a", "b", "c"] {
        ready(&namespace, id).await;
    }
    let find = async |query: &str| {
        gateway.get(&format!("/v1/discovery/{}/auth{query}", namespace.name), &token).await
    };
    assert_eq!(ids(&find("").await), ["b", "a"], "one that is drained is not found");
    assert_eq!(ids(&find("?zone=eu-1").await), ["a"]);
    assert_eq!(ids(&find("?selector=version%3D2").await), ["b"]);
    assert_eq!(ids(&find("?healthy=false").await), ["c", "b", "a"]);
    assert_eq!(ids(&find("?healthy=false&selector=canary,version!=1").await), ["c"]);
    assert_eq!(find("?selector=version%20in%20(1)").await.problem(), (400, "bad-request".to_owned()));
    assert_eq!(find("?limit=1").await.problem(), (400, "bad-request".to_owned()));
    let found: Value = serde_json::from_slice(&find("?zone=eu-2").await.body).expect("JSON");
    let instance = json!({
        "instanceId": "b", "addresses": ["10.99.0.1"], "ports": [{ "name": "http", "port": 8080 }], "zone": "eu-2",
        "weight": 20, "labels": { "version": "2" }, "healthy": true, "draining": false,
    });
    assert_eq!(found, json!({ "service": "auth", "instances": [instance] }));

    let path = format!("/v1/discovery/{}/other", namespace.name);
    assert_eq!(gateway.get(&path, &token).await.problem(), (403, "forbidden".to_owned()));
    let all = namespace.caller("all", &[("get", "serviceregistrations", &[])]).await;
    assert_eq!(gateway.get(&path, &all).await.problem(), (404, "service-not-found".to_owned()));
}

#[tokio::test]
async fn of_two_objects_with_one_id_the_older_is_found_even_before_anyone_has_judged_them() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start_alone(&namespace, &ALLOWED).await;
    let token = namespace.caller("shop", &[("get", "serviceregistrations", &[])]).await;
    for name in ["a", "b"] {
        register(&namespace, name, json!({ "instanceId": "one", "zone": name })).await;
    }
    let objects =
        namespace.api::<ServiceRegistration>().list(&ListParams::default()).await.expect("both").items;
    let older = objects.iter().min_by_key(|it| (it.creation_timestamp(), it.uid())).expect("one");
    let path = format!("/v1/discovery/{}/auth?healthy=false", namespace.name);
    eventually(SOON, "only the older is there", async || {
        let answer = gateway.get(&path, &token).await;
        let found: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let zones: Vec<_> =
            found["instances"].as_array().into_iter().flatten().map(|it| it["zone"].clone()).collect();
        if zones == [json!(older.spec.zone)] { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_watcher_hears_of_every_change_in_turn() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("shop", &[("get", "serviceregistrations", &[])]).await;
    register(&namespace, "a", json!({ "drainSeconds": 0 })).await;
    ready(&namespace, "a").await;
    let uri = format!("http://{}/v1/discovery/{}/auth/watch", gateway.address, namespace.name);
    let request = Request::get(uri).header("authorization", format!("Bearer {token}"));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer =
        client.request(request.body(Empty::<Bytes>::new()).expect("a request")).await.expect("an answer");
    assert_eq!(
        (answer.status(), answer.headers()["content-type"].as_bytes()),
        (StatusCode::OK, &b"text/event-stream"[..])
    );
    let mut body = answer.into_body();
    let mut text = String::new();
    let mut next = async || {
        // Signs of life are no news.
        let until = tokio::time::Instant::now() + SOON;
        loop {
            if let Some((event, rest)) = text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                text = rest;
                let line =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                if let (Some(kind), Some(data)) = (line("event: "), line("data: ")) {
                    let data: Value = serde_json::from_str(&data).expect("JSON");
                    return (kind, data["instanceId"].as_str().expect("an id").to_owned());
                }
                continue; // a sign of life
            }
            let frame = tokio::time::timeout_at(until, body.frame())
                .await
                .expect("in time")
                .expect("more")
                .expect("sound");
            text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
        }
    };
    let said = |kind: &str, id: &str| (kind.to_owned(), id.to_owned());
    assert_eq!(next().await, said("register", "a"));
    register(&namespace, "b", json!({})).await;
    assert_eq!(next().await, said("register", "b"));
    assert_eq!(next().await, said("health_change", "b"), "its first probe passed");
    register(&namespace, "b", json!({ "weight": 7 })).await;
    assert_eq!(next().await, said("register", "b"), "callers choose by the weight");
    register(&namespace, "b", json!({ "drain": true })).await;
    assert_eq!(next().await, said("health_change", "b"));
    namespace.delete::<ServiceRegistration>("a").await;
    loop {
        match next().await {
            told if told == said("deregister", "a") => break,
            told => assert_eq!(told, said("health_change", "a"), "it is drained first"),
        }
    }
    // The end of the process ends the stream, and does not wait for it.
    let started = std::time::Instant::now();
    gateway.operator.signal("TERM");
    while let Ok(Some(Ok(_))) = tokio::time::timeout(SOON, body.frame()).await {}
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_document_describes_the_routes_and_no_others() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let answer = gateway.send(hyper::Method::GET, "/openapi.json", &[], "").await;
    let document: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let real = ["namespace", "name", "path", "query", "service"]
            .iter()
            .fold(path.clone(), |path, name| path.replace(&format!("{{{name}}}"), "x"));
        for method in ["get", "head", "post", "put", "patch", "delete", "options"] {
            let answer = gateway.send(method.to_uppercase().parse().unwrap(), &real, &[], "").await;
            let described =
                operations.get(method).is_some() || method == "head" && operations.get("get").is_some();
            let routed =
                answer.status != StatusCode::METHOD_NOT_ALLOWED && answer.status != StatusCode::NOT_FOUND;
            assert_eq!(routed, described, "{method} {real}: {}", answer.status);
        }
    }
    let asked = |path: &str| {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().expect("parameters").iter();
        let asked = parameters.filter(|it| it["in"] == "query");
        asked
            .map(|it| format!("{} {}", it["name"], it["schema"]["type"]).replace('"', ""))
            .collect::<Vec<_>>()
    };
    let find = "/v1/discovery/{namespace}/{service}";
    assert_eq!(asked(find), ["selector string", "zone string", "healthy boolean"]);
    // Whoever watches hears of all, whatever their probes say.
    assert_eq!(asked(&format!("{find}/watch")), ["selector string", "zone string"]);
}
