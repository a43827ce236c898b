//! Declared queries are checked by the server that they are meant for.

use serde_json::{Value, json};

use crate::support::{Namespace, Operator, SOON, Server, System, condition};

async fn wrong_queries_are_named(system: System, good: Value, bad: &Value) {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let spec = system.spec();
    let query = |name: &str, fields: &Value| {
        let mut query = fields.clone();
        query["name"] = json!(name);
        query
    };
    let both = json!({ "queries": [query("good", &good), query("bad", bad)] });
    namespace.database("db", &spec.clone().with(&both)).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "QueryInvalid")];
    let database = namespace.expect("db", &wanted).await;
    let message = &condition(&database, "Degraded").expect("Degraded").message;
    assert!(message.contains("bad") && !message.contains("good"), "{message}");
    let invalid = database.status.expect("a status").invalid_queries;
    assert_eq!(invalid.iter().map(|query| query.name.as_str()).collect::<Vec<_>>(), ["bad"]);
    assert!(!invalid[0].message.is_empty());

    namespace.database("db", &spec.with(&json!({ "queries": [query("good", &good)] }))).await;
    namespace
        .until("db", SOON, "corrected", |database| {
            condition(database, "Degraded").is_none()
                && database.status.as_ref().is_some_and(|status| status.invalid_queries.is_empty())
        })
        .await;
}

#[tokio::test]
async fn a_postgresql_prepares_each_query() {
    let good = json!({ "statement": "select $1::text", "params": ["text"], "readOnly": true });
    wrong_queries_are_named(System::Postgresql, good, &json!({ "statement": "select nothing from nowhere" }))
        .await;
}

#[tokio::test]
async fn a_mariadb_prepares_each_query() {
    let good = json!({ "statement": "select ?", "params": ["text"], "readOnly": true });
    wrong_queries_are_named(System::Mariadb, good, &json!({ "statement": "selct 1" })).await;
}

#[tokio::test]
async fn a_redis_checks_each_command() {
    let good = json!({ "statement": "GET user" });
    wrong_queries_are_named(System::Redis, good, &json!({ "statement": "NOSUCHCOMMAND x" })).await;
}

#[tokio::test]
async fn a_mongodb_command_must_be_a_document() {
    let good = json!({ "statement": r#"{"find": "users"}"# });
    wrong_queries_are_named(System::Ferretdb, good, &json!({ "statement": "find users" })).await;
}

#[tokio::test]
async fn after_a_restart_a_hung_server_keeps_its_last_verdict() {
    let namespace = Namespace::create().await;
    let server = Server::start(System::Redis);
    let operator = Operator::start(&namespace, &[]).await;
    let bad = json!({ "queries": [{ "name": "bad", "statement": "NOSUCHCOMMAND x" }] });
    let patient = json!({ "healthCheck": { "unhealthyThreshold": 100 } });
    let spec = server.spec().probed_often().with(&patient);
    namespace.database("db", &spec.clone().with(&bad)).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "QueryInvalid")];
    namespace.expect("db", &wanted).await;
    operator.signal("KILL");
    drop(operator);
    server.freeze();
    let written = namespace.status_writes();
    let operator = Operator::start(&namespace, &[]).await;
    operator.more_probes_with_late_ones(4, 4).await;
    assert_eq!(namespace.status_writes(), written);
    namespace.expect("db", &wanted).await;
    let none = namespace.database("db", &spec.with(&json!({ "queries": [] }))).await;
    let told = namespace.until("db", SOON, "the new spec", |database| {
        let status = database.status.as_ref();
        status.and_then(|status| status.common.observed_generation) == none.metadata.generation
    });
    assert!(condition(&told.await, "Degraded").is_none(), "there is no query any more");
    server.thaw();
}
