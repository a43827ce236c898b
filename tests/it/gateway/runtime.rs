//! `status.runtime`: what gateways count comes back to the object by way of the store.

use authlink::api::{
    status::{Circuit, RuntimeStatus, Status},
    v1alpha1::{Database, ExternalApi},
};
use hyper::{Method, StatusCode};
use kube::{
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde_json::json;

use super::external_api::{ALLOWED, Backend, Scene, api};
use crate::support::{
    Namespace, Operator, SOON, Server, System, eventually,
    gateway::Gateway,
    postgresql::{self},
};

/// So that tests need not wait for long; numbers are written with each reconcile.
const QUICK: [&str; 4] = ["--store-interval", "1s", "--status-refresh", "1s"];

/// What the status says, after reconciles that an annotation has asked for, once `holds` is true of it.
async fn until<K>(
    namespace: &Namespace,
    name: &str,
    what: &str,
    holds: impl Fn(Option<&RuntimeStatus>) -> bool,
) -> Option<RuntimeStatus>
where
    K: authlink::controllers::Object + kube::Resource<Scope = NamespaceResourceScope>,
{
    let mut asked = 0;
    eventually(SOON, what, async || {
        asked += 1;
        let touch = json!({ "metadata": { "annotations": { "authlink.dev/look": asked.to_string() } } });
        let params = PatchParams::default();
        let object =
            namespace.api::<K>().patch(name, &params, &Patch::Merge(&touch)).await.expect("an object");
        let runtime = object.status().and_then(|status| status.common().runtime.clone());
        if holds(runtime.as_ref()) { Ok(runtime) } else { Err(format!("{runtime:?}")) }
    })
    .await
}

fn requests(runtime: Option<&RuntimeStatus>) -> u64 {
    runtime.map_or(0, |runtime| runtime.requests_1h)
}

/// Waits until the status has this circuit, without asking for anything.
async fn until_circuit(scene: &Scene, wanted: Circuit) -> ExternalApi {
    scene
        .namespace
        .follow::<ExternalApi>("billing", SOON, &format!("{wanted:?}"), |api| {
            let runtime = api.status.as_ref().and_then(|status| status.common.runtime.as_ref());
            runtime.and_then(|runtime| runtime.circuit) == Some(wanted)
        })
        .await
}

#[tokio::test]
async fn a_circuit_that_turns_stands_in_the_status_and_opening_and_closing_are_events() {
    let backend = Backend::start().await;
    let breaker = json!({ "circuitBreaker": {
        "failureThreshold": 50, "minRequests": 4, "window": "10s", "openFor": "1s", "halfOpenRequests": 2,
    } });
    let scene = Scene::set_with(&["--store-interval", "1s"], &[backend.url()], breaker).await;
    let gauge = || {
        let page = scene.gateway.operator.metrics();
        let line = page.lines().find(|line| line.starts_with("authlink_circuit_state{")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{page}"))
    };
    backend.fail(500, 0);
    for _ in 0..4 {
        assert_eq!(scene.get("/flaky").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert!(gauge().ends_with("} 2"), "{}", gauge());
    let api = until_circuit(&scene, Circuit::Open).await;
    let runtime = api.status.unwrap().common.runtime.unwrap();
    assert_eq!((runtime.requests_1h, runtime.errors_1h, runtime.replicas), (4, 4, 1), "numbers ride along");
    let opened = scene.namespace.events_with("billing", "CircuitOpened").await;
    assert_eq!(opened.iter().filter(|it| it.reason == "CircuitOpened" && it.kind == "Warning").count(), 1);

    backend.fail(0, 0);
    eventually(SOON, "a trial", async || match scene.get("/flaky").await.status {
        StatusCode::OK => Ok(()),
        status => Err(status),
    })
    .await;
    assert!(gauge().ends_with("} 1"), "{}", gauge());
    until_circuit(&scene, Circuit::HalfOpen).await;
    assert_eq!(scene.get("/flaky").await.status, StatusCode::OK);
    assert!(gauge().ends_with("} 0"), "{}", gauge());
    until_circuit(&scene, Circuit::Closed).await;
    let events = scene.namespace.events_with("billing", "CircuitClosed").await;
    let circuits: Vec<_> = events.iter().filter(|it| it.reason.starts_with("Circuit")).collect();
    let found: Vec<_> = circuits.iter().map(|it| (it.kind.as_str(), it.reason.as_str())).collect();
    assert_eq!(found, [("Warning", "CircuitOpened"), ("Normal", "CircuitClosed")], "{events:?}");
}

#[tokio::test]
async fn calls_failures_and_refusals_are_counted_and_cost_no_write_of_their_own() {
    let backend = Backend::start().await;
    let limit = json!({ "rateLimit": { "requests": 5, "per": "1h" } });
    let scene = Scene::set_with(&["--store-interval", "1s"], &[backend.url()], limit).await;
    let writes = || scene.gateway.operator.metric("authlink_status_writes_total", "ExternalApi");
    // The status is seen before it is counted.
    let before =
        eventually(SOON, "the first write", async || Some(writes()).filter(|it| *it > 0.0).ok_or("none"))
            .await;
    backend.fail(503, 2);
    for _ in 0..8 {
        scene.get("/flaky").await;
    }
    // Once the store has them, the operator reads them within the interval: then a change of the spec takes them along.
    let mut generation = 0;
    let found = eventually(SOON, "8 calls", async || {
        assert!(writes() <= before + f64::from(generation), "only the changes of the spec are worth one");
        generation += 1;
        let more =
            json!({ "rateLimit": { "requests": 5, "per": "1h" }, "timeout": format!("{generation}s") });
        scene.namespace.apply::<ExternalApi>(api("billing", &[backend.url()], more)).await;
        let api =
            scene.namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
        let runtime = api.status.unwrap().common.runtime;
        if requests(runtime.as_ref()) == 8 { Ok(runtime.unwrap()) } else { Err(format!("{runtime:?}")) }
    })
    .await;
    assert_eq!((found.errors_1h, found.rate_limited_1h), (2, Some(3)), "{found:?}");
    assert!(found.p95_ms.is_some_and(|p95| (1..10_000).contains(&p95)), "{found:?}");
    assert_eq!((found.circuit, found.replicas), (None, 1), "{found:?}");
}

#[tokio::test]
async fn queries_are_counted_and_the_series_of_an_object_go_with_it() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &[&ALLOWED[..], &QUICK].concat()).await;
    let queries = json!({ "queries": [
        { "name": "one", "statement": "select 1 as n", "readOnly": true },
        { "name": "slow", "statement": "select pg_sleep(60)", "readOnly": true, "timeout": "500ms" },
    ] });
    namespace.database("db", &System::Postgresql.spec().with(&queries)).await;
    namespace.ready("db").await;
    let token = namespace.caller("shop", &[("create", "databases/query", &["db"])]).await;
    let run = async |query: &str| {
        let path = format!("/v1/databases/{}/db/queries/{query}", namespace.name);
        gateway.call(Method::POST, &path, &token, "{}").await.status.as_u16()
    };
    assert_eq!([run("one").await, run("one").await], [200, 200]);
    assert_eq!(run("slow").await, 504);
    let found = until::<Database>(&namespace, "db", "3 queries", |found| requests(found) == 3).await.unwrap();
    assert_eq!((found.errors_1h, found.replicas), (1, 1), "{found:?}");
    assert_eq!((found.circuit, found.rate_limited_1h), (None, None), "{found:?}");
    assert!(found.p95_ms.is_some(), "{found:?}");

    // Nobody makes series of what is not there.
    let elsewhere = namespace.caller("all", &[("create", "externalapis/invoke", &[])]).await;
    let none = format!("/v1/apis/{}/none/x", namespace.name);
    assert_eq!(gateway.get(&none, &elsewhere).await.status, StatusCode::NOT_FOUND);
    assert!(!gateway.operator.metrics().contains("name=\"none\""));

    let series = || {
        let page = gateway.operator.metrics();
        let of_gateway =
            |line: &&str| ["authlink_gateway_", "authlink_db_query_"].iter().any(|it| line.starts_with(it));
        page.lines().filter(of_gateway).filter(|line| line.contains("name=\"db\"")).count()
    };
    assert!(series() > 0);
    namespace.delete::<Database>("db").await;
    eventually(SOON, "the series go", async || match series() {
        0 => Ok(()),
        count => Err(count),
    })
    .await;
}

#[tokio::test]
async fn gateways_of_one_store_add_up_and_what_one_counted_outlives_it() {
    let backend = Backend::start().await;
    let database = postgresql::new_database().await;
    let namespace = Namespace::create().await;
    let flags = [&QUICK[..], &ALLOWED, &["--store", &database.url]].concat();
    let operator = Operator::start(&namespace, &flags).await;
    let start = || Gateway::start_alone(&namespace, &flags);
    let (one, other) = tokio::join!(start(), start());
    let breaker = json!({ "circuitBreaker": {
        "failureThreshold": 50, "minRequests": 3, "window": "1m", "openFor": "10m", "halfOpenRequests": 1,
    } });
    namespace.apply::<ExternalApi>(api("billing", &[backend.url()], breaker)).await;
    namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
    let token = namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
    let path = format!("/v1/apis/{}/billing/flaky", namespace.name);
    for _ in 0..5 {
        assert_eq!(one.get(&path, &token).await.status, StatusCode::OK);
    }
    let both = until::<ExternalApi>(&namespace, "billing", "two gateways", |found| {
        found.is_some_and(|found| found.replicas == 2 && found.requests_1h == 5)
    });
    assert_eq!(both.await.unwrap().circuit, Some(Circuit::Closed));

    backend.fail(500, 0);
    for _ in 0..3 {
        assert_eq!(other.get(&path, &token).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    // On a busy machine a gateway may miss a few writes, and count as gone until the next.
    let sum = until::<ExternalApi>(&namespace, "billing", "the sum", |found| {
        found.is_some_and(|found| {
            (found.requests_1h, found.replicas, found.circuit) == (8, 2, Some(Circuit::Open))
        })
    });
    assert_eq!(sum.await.unwrap().errors_1h, 3);

    // It says goodbye: its circuit goes with it, what it has counted does not.
    drop(other);
    let left = until::<ExternalApi>(&namespace, "billing", "one gateway", |found| {
        found.is_some_and(|found| (found.replicas, found.circuit) == (1, Some(Circuit::Closed)))
    });
    let left = left.await.unwrap();
    assert_eq!((left.requests_1h, left.errors_1h), (8, 3), "{left:?}");
    // And so does another operator find it.
    drop(operator);
    let _operator = Operator::start(&namespace, &flags).await;
    let found = until::<ExternalApi>(&namespace, "billing", "another operator", |found| {
        found.is_some_and(|found| (found.requests_1h, found.replicas) == (8, 1))
    });
    assert_eq!(found.await.unwrap().errors_1h, 3);
}

#[tokio::test]
async fn a_gateway_that_ends_writes_what_it_counted_last() {
    let backend = Backend::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/authlink.db", folder.path().display());
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[&QUICK[..], &ALLOWED, &["--store", &url]].concat()).await;
    let flags = [&ALLOWED[..], &["--store", &url, "--store-interval", "1h"]].concat();
    let gateway = Gateway::start_alone(&namespace, &flags).await;
    namespace.apply::<ExternalApi>(api("billing", &[backend.url()], json!({}))).await;
    namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
    let token = namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
    let path = format!("/v1/apis/{}/billing/ok", namespace.name);
    for _ in 0..3 {
        assert_eq!(gateway.get(&path, &token).await.status, StatusCode::OK);
    }
    drop(gateway);
    let found = until::<ExternalApi>(&namespace, "billing", "3 calls", |found| requests(found) == 3).await;
    assert_eq!(found.map(|found| found.replicas), Some(0));
}

#[tokio::test]
async fn without_the_store_calls_go_on_and_what_they_counted_comes_later() {
    let backend = Backend::start().await;
    let server = Server::start(System::Postgresql);
    let url = format!("postgres://app:app-secret@127.0.0.1:{}/app", server.port);
    server.kill();
    let flags = [&QUICK[..], &["--store", &url]].concat();
    let scene = Scene::set_with(&flags, &[backend.url()], json!({})).await;
    let call = async || assert_eq!(scene.get("/ok").await.status, StatusCode::OK);
    for _ in 0..3 {
        call().await;
    }
    let errors = || scene.gateway.operator.metric("authlink_store_errors_total", "operation=");
    eventually(SOON, "errors are counted", async || if errors() > 0.0 { Ok(()) } else { Err("none") }).await;
    assert_eq!(scene.gateway.operator.readiness().unwrap().0, 200, "it serves all the same");
    let object = scene.namespace.api::<ExternalApi>().get("billing").await.expect("an object");
    assert_eq!(object.status.and_then(|status| status.common.runtime), None, "nothing is known");

    server.resume();
    until::<ExternalApi>(&scene.namespace, "billing", "3 calls", |found| requests(found) == 3).await;
    server.kill();
    for _ in 0..4 {
        call().await;
    }
    until::<ExternalApi>(&scene.namespace, "billing", "nothing is known any more", |found| found.is_none())
        .await;
    server.resume();
    until::<ExternalApi>(&scene.namespace, "billing", "7 calls", |found| requests(found) == 7).await;

    let told = ["the store does not work", "the store works again"];
    let logs = scene.gateway.operator.logged(&told).await;
    assert!(!logs.contains("app-secret") && !logs.contains("app:app"), "{logs}");
}
