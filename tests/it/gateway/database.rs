//! Declared queries, by name, for whoever has the right.

use authlink::api::v1alpha1::Database;
use futures::future::join_all;
use hyper::{Method, StatusCode};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::external_api::ALLOWED;
use crate::support::{
    Namespace, Operator, SOON, System, condition, eventually, free_port, gateway::Gateway, password_secret,
    postgresql,
};

struct Scene {
    namespace: Namespace,
    gateway: Gateway,
    token: String,
}

impl Scene {
    async fn set(system: System, queries: Value) -> Self {
        let namespace = Namespace::create().await;
        let gateway = Gateway::start(&namespace, &ALLOWED).await;
        let spec = system.spec().with(&json!({ "queries": queries }));
        namespace.database("db", &spec).await;
        namespace.ready("db").await;
        let token = namespace.caller("shop", &[("create", "databases/query", &["db"])]).await;
        Self { namespace, gateway, token }
    }

    async fn run(&self, query: &str, body: &Value) -> crate::support::gateway::Answer {
        let path = format!("/v1/databases/{}/db/queries/{query}", self.namespace.name);
        self.gateway.call(Method::POST, &path, &self.token, &body.to_string()).await
    }

    async fn rows(&self, query: &str, params: Value) -> Value {
        let answer = self.run(query, &json!({ "params": params })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }
}

#[tokio::test]
async fn a_declared_query_takes_typed_parameters_and_answers_without_loss() {
    let queries = json!([
        { "name": "echo", "params": ["text", "integer", "number", "boolean", "timestamp"], "readOnly": true,
          "statement": "select $1 as text, $2 as whole, $3 as decimal, $4 as yes, $5 as at" },
        { "name": "many", "statement": "select generate_series(1, 100) as n", "readOnly": true, "maxRows": 3 },
        { "name": "none", "statement": "select 1 as n where false", "readOnly": true },
        { "name": "slow", "statement": "select pg_sleep(60)", "readOnly": true, "timeout": "500ms" },
        { "name": "wrong", "statement": "select * from no_such_table", "readOnly": true },
    ]);
    let scene = Scene::set(System::Postgresql, queries).await;
    let evil = "'; drop table users; --";
    let given = json!([
        evil,
        9_007_199_254_740_993_i64,
        "1234567890.12345678901234567890",
        true,
        "2026-11-23T06:00:00.123456Z"
    ]);
    let found = scene.rows("echo", given).await;
    let row = &found["rows"][0];
    assert_eq!(
        (row["text"].as_str(), row["whole"].as_i64(), row["yes"].as_bool()),
        (Some(evil), Some(9_007_199_254_740_993), Some(true))
    );
    let answer =
        scene.run("echo", &json!({ "params": ["", 1, "1234567890.12345678901234567890", null, null] })).await;
    assert!(answer.text().contains("1234567890.12345678901234567890"), "{}", answer.text());
    assert_eq!(
        scene.rows("many", json!([])).await,
        json!({ "rows": [{"n": 1}, {"n": 2}, {"n": 3}], "truncated": true, "affected": null })
    );
    assert_eq!(scene.rows("none", json!([])).await["rows"], json!([]));

    let refused = |answer: crate::support::gateway::Answer| (answer.problem(), answer.text());
    let (problem, text) = refused(scene.run("echo", &json!({ "params": ["a", "b", 1, true, null] })).await);
    assert_eq!(problem, (422, "parameter-invalid".to_owned()));
    assert!(text.contains("integer") && text.contains('2'), "{text}");
    let (problem, _) = refused(scene.run("echo", &json!({ "params": [] })).await);
    assert_eq!(problem, (422, "parameter-invalid".to_owned()));
    let (problem, text) = refused(scene.run("echo", &json!({ "parms": [] })).await);
    assert_eq!(problem, (400, "bad-request".to_owned()));
    assert!(text.contains("unknown field `parms`: expected params"), "{text}");
    assert_eq!(scene.run("nothing", &json!({})).await.problem(), (404, "query-not-found".to_owned()));
    assert_eq!(scene.run("slow", &json!({})).await.problem(), (504, "upstream-timeout".to_owned()));
    assert_eq!(scene.run("wrong", &json!({})).await.problem(), (500, "query-invalid".to_owned()));
    let seen =
        scene.gateway.operator.metric("authlink_db_query_duration_seconds_count", "result=\"timeout\"");
    assert!((seen - 1.0).abs() < f64::EPSILON, "{seen}");
}

#[tokio::test]
async fn a_query_whose_caller_goes_away_leaves_its_line() {
    let queries =
        json!([{ "name": "slow", "statement": "select pg_sleep(59)", "readOnly": true, "timeout": "1m" }]);
    let scene = Scene::set(System::Postgresql, queries).await;
    let path = format!("/v1/databases/{}/db/queries/slow", scene.namespace.name);
    let headers =
        format!("host: gateway\r\nauthorization: Bearer {}\r\nx-request-id: left-alone\r\n", scene.token);
    let mut caller = TcpStream::connect(scene.gateway.address).await.expect("a connection");
    let request = format!("POST {path} HTTP/1.1\r\n{headers}content-length: 0\r\n\r\n");
    caller.write_all(request.as_bytes()).await.expect("it is sent");
    let mut admin = postgresql::admin().await;
    eventually(SOON, "the query runs", async || {
        match postgresql::running(&mut admin, "pg_sleep(59)").await {
            0 => Err("it does not"),
            _ => Ok(()),
        }
    })
    .await;
    drop(caller);
    let line = [r#""request_id":"left-alone""#, r#""status":499"#, r#""problem":"caller-gone""#];
    scene.gateway.operator.logged(&line).await;
    let labels = "name=\"db\",operation=\"slow\",code=\"499\"";
    let counted = scene.gateway.operator.metric("authlink_gateway_request_duration_seconds_count", labels);
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
}

#[tokio::test]
async fn rows_come_a_line_each_where_that_is_asked_for() {
    let queries =
        json!([{ "name": "many", "statement": "select generate_series(1, 3) as n", "readOnly": true }]);
    let scene = Scene::set(System::Postgresql, queries).await;
    let path = format!("/v1/databases/{}/db/queries/many", scene.namespace.name);
    let bearer = format!("Bearer {}", scene.token);
    let headers = [("authorization", bearer.as_str()), ("accept", "application/x-ndjson")];
    let answer = scene.gateway.send(Method::POST, &path, &headers, "").await;
    let lines: Vec<Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let end = json!({ "$end": { "truncated": false, "affected": null } });
    assert_eq!(lines, [json!({ "n": 1 }), json!({ "n": 2 }), json!({ "n": 3 }), end]);
}

#[tokio::test]
async fn every_engine_answers_and_the_right_is_needed_by_name() {
    let rows = [
        (System::Mariadb, "select ? as given", json!(["text"]), json!({ "given": "x" })),
        (System::Redis, "ECHO $1", json!(["text"]), json!("x")),
    ];
    for (system, statement, params, row) in rows {
        let read_only = system != System::Redis;
        let queries =
            json!([{ "name": "echo", "statement": statement, "params": params, "readOnly": read_only }]);
        let scene = Scene::set(system, queries).await;
        assert_eq!(scene.rows("echo", json!(["x"])).await["rows"], json!([row]), "{system:?}");
        let other = scene.namespace.caller("other", &[("create", "databases/query", &["another"])]).await;
        let path = format!("/v1/databases/{}/db/queries/echo", scene.namespace.name);
        let refused = scene.gateway.call(Method::POST, &path, &other, "{}").await;
        assert_eq!(refused.problem(), (403, "forbidden".to_owned()));
    }
}

/// Several callers want the only connection for a while: the status tells of it, `meanwhile` looks on, and it ends with them.
async fn use_up_the_pool(namespace: &Namespace, gateway: &Gateway, meanwhile: impl AsyncFnOnce(&Database)) {
    const CALLERS: usize = 3;
    let queries =
        json!([{ "name": "slow", "statement": "select pg_sleep(8)", "readOnly": true, "timeout": "30s" }]);
    let spec = System::Postgresql.spec().probed_patiently().with(&json!({
        "queries": queries, "pool": { "max": 1, "monitorInterval": "5s", "acquireTimeout": "1m" },
    }));
    namespace.database("db", &spec).await;
    namespace.ready("db").await;
    let token = namespace.caller("shop", &[("create", "databases/query", &["db"])]).await;
    let path = format!("/v1/databases/{}/db/queries/slow", namespace.name);
    let calls = join_all((0..CALLERS).map(|_| gateway.call(Method::POST, &path, &token, "{}")));
    let told = async {
        let saturated = [
            ("PoolHealthy", "False", "PoolSaturated"),
            ("Degraded", "True", "PoolSaturated"),
            ("Healthy", "True", "ProbeSucceeded"),
            ("Ready", "True", "Available"),
        ];
        meanwhile(&namespace.expect("db", &saturated).await).await;
    };
    let (answers, ()) = tokio::join!(calls, told);
    for answer in answers {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    let database = namespace.expect("db", &[("PoolHealthy", "True", "WithinBounds")]).await;
    assert!(condition(&database, "Degraded").is_none());
}

#[tokio::test]
async fn callers_that_use_up_the_pool_are_told_of_and_make_no_dead_server() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &[&ALLOWED[..], &["--store-interval", "1s"]].concat()).await;
    use_up_the_pool(&namespace, &gateway, async |database| {
        let pool = database.status.as_ref().expect("a status").pool.as_ref().expect("a pool");
        assert_eq!((pool.size, pool.in_use), (1, 1), "{pool:?}");
        assert!(pool.waiting > 0, "{pool:?}");
        gateway.operator.more_probes(1).await;
    })
    .await;
    let (_, failed) = gateway.operator.probes();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test]
async fn callers_that_use_up_the_pool_of_a_gateway_of_its_own_are_told_of_as_well() {
    let namespace = Namespace::create().await;
    let store = postgresql::new_database().await;
    let flags = [&ALLOWED[..], &["--store", &store.url, "--store-interval", "1s"]].concat();
    let _operator = Operator::start(&namespace, &flags).await;
    let gateway = Gateway::start_alone(&namespace, &flags).await;
    use_up_the_pool(&namespace, &gateway, async |database| {
        let pool = database.status.as_ref().expect("a status").pool.as_ref().expect("a pool");
        assert_eq!(pool.waiting, 0, "the operator's own has room: {pool:?}");
    })
    .await;
}

#[tokio::test]
async fn a_changed_credential_serves_callers_once_it_is_proven() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let mut admin = postgresql::admin().await;
    let role = postgresql::new_role(&mut admin, "first-password").await;
    namespace.apply::<Secret>(password_secret("rotated", &role, "first-password")).await;
    let spec = System::Postgresql.spec().probed_often().with(&json!({
        "credentialsRef": { "name": "rotated" },
        "queries": [{ "name": "any", "statement": "select 1 as n", "readOnly": true }],
    }));
    namespace.database("db", &spec).await;
    namespace.ready("db").await;
    let token = namespace.caller("shop", &[("create", "databases/query", &["db"])]).await;
    let path = format!("/v1/databases/{}/db/queries/any", namespace.name);
    let called = async || gateway.call(Method::POST, &path, &token, "{}").await.status;
    assert_eq!(called().await, StatusCode::OK);

    namespace.apply::<Secret>(password_secret("rotated", &role, "mistyped")).await;
    namespace
        .expect("db", &[("Degraded", "True", "PreviousCredentialInUse"), ("Ready", "True", "Available")])
        .await;
    // The gateway knows of the Secret from the same watch as the operator.
    gateway.operator.more_probes(5).await;
    assert_eq!(called().await, StatusCode::OK);

    postgresql::run(&mut admin, &format!("alter role {role} password 'second-password'")).await;
    namespace.apply::<Secret>(password_secret("rotated", &role, "second-password")).await;
    eventually(SOON, "callers are served with the new one", async || {
        let degraded = condition(&namespace.ready("db").await, "Degraded").cloned();
        match (degraded, called().await) {
            (None, StatusCode::OK) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_status_of_other_hosts_leads_to_none_of_the_new_ones() {
    let namespace = Namespace::create().await;
    // Without an operator the status stays as it is.
    let gateway = Gateway::start_alone(&namespace, &ALLOWED).await;
    let (dead, live) = (free_port(), System::Postgresql.port());
    let hosts = [dead, live].map(|port| json!({ "host": "localhost", "port": port }));
    let spec = System::Postgresql.spec().with(&json!({
        "host": null, "port": null, "hosts": hosts,
        "queries": [{ "name": "any", "statement": "select 1 as n", "readOnly": true }],
    }));
    namespace.database("db", &spec).await;
    // As it was with the hosts the other way round, behind one that is gone.
    let endpoints = [(free_port(), "Primary"), (live, "Primary"), (dead, "Replica")];
    let endpoints = endpoints.map(|(port, role)| {
        json!({ "address": "localhost", "port": port, "ready": true, "reason": "ProbeSucceeded", "role": role })
    });
    let status = json!({ "status": { "endpoints": endpoints } });
    let patched = namespace.api::<Database>();
    let patched = patched.patch_status("db", &PatchParams::default(), &Patch::Merge(&status)).await;
    patched.expect("a status");
    let token = namespace.caller("shop", &[("create", "databases/query", &["db"])]).await;
    let path = format!("/v1/databases/{}/db/queries/any", namespace.name);
    eventually(SOON, "the primary answers", async || {
        match gateway.call(Method::POST, &path, &token, "{}").await {
            answer if answer.status == StatusCode::OK => Ok(()),
            answer => Err(answer.text()),
        }
    })
    .await;
}
