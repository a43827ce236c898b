//! MongoDB, as far as FerretDB is one: it has no decimals and no sessions.

use std::time::{Duration, Instant};

use authlink::backends::database::Item;
use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

use super::{Backend, End, QueryFault, read, unique, write};
use crate::support::{SOON, Server, System, eventually};

/// A collection of one's own.
struct Collection {
    backend: Backend,
    name: String,
}

impl Collection {
    fn new() -> Self {
        Self { backend: Backend::of(System::Ferretdb), name: unique("collection") }
    }

    /// A command's text, in which @ is the collection.
    fn command(&self, command: &str) -> String {
        command.replace('@', &self.name)
    }

    fn query(&self, command: &str, params: &Value) -> Value {
        write(&self.command(command), params)
    }

    async fn insert(&self, documents: &[Value]) {
        let documents = documents.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
        let insert = format!(r#"{{"insert": "@", "documents": [{documents}]}}"#);
        self.backend.rows(&self.query(&insert, &json!([])), "[]").await;
    }

    async fn drop(self) {
        self.backend.rows(&self.query(r#"{"drop": "@"}"#, &json!([])), "[]").await;
    }
}

#[tokio::test]
async fn every_type_of_parameter_comes_back_as_it_was_given() {
    let collection = Collection::new();
    let backend = &collection.backend;
    let insert = collection.query(
        r#"{"insert": "@", "documents": [{"_id": "$2", "z": "$1", "b": "$3", "t": "$4", "u": "$5", "j": "$6", "y": "$7",
            "literal": "\u00241"}]}"#,
        &json!(["text", "integer", "boolean", "timestamp", "uuid", "json", "bytes"]),
    );
    backend.fits(&insert).await;
    let given = r#"["a \"b\" \\ é 😀 $2", 9223372036854775807, true, "2024-05-06T07:08:09.123+02:00",
        "6f1c2a9e-0b3d-4c5e-8f70-112233445566", {"b": 1.5, "a": [null]}, "AP8="]"#;
    let ran = backend.run(&insert, given).await;
    assert_eq!(ran.end, Ok(End { truncated: false, affected: Some(1) }));
    let wanted = concat!(
        r#"{"_id":9223372036854775807,"z":"a \"b\" \\ é 😀 $2","b":true,"t":{"$date":"2024-05-06T05:08:09.123Z"},"#,
        r#""u":{"$binary":{"base64":"bxwqngs9TF6PcBEiM0RVZg==","subType":"04"}},"j":{"b":1.5,"a":[null]},"#,
        r#""y":{"$binary":{"base64":"AP8=","subType":"00"}},"literal":"$1"}"#
    );
    assert_eq!(backend.rows(&read(&collection.command(r#"{"find": "@"}"#)), "[]").await, [wanted]);
    let nulls = backend.run(&insert, "[null, 1, null, null, null, null, null]").await;
    assert_eq!(nulls.end, Ok(End { truncated: false, affected: Some(1) }));
    let find = r#"{"find": "@", "filter": {"z": "$1"}, "projection": {"_id": 1}}"#;
    let find = collection.query(find, &json!(["text"]));
    assert_eq!(backend.rows(&find, "[null]").await, [r#"{"_id":1}"#]);
    assert_eq!(backend.rows(&find, r#"["a \"b\" \\ é 😀 $2"]"#).await, [r#"{"_id":9223372036854775807}"#]);
    collection.drop().await;
}

#[tokio::test]
async fn an_operator_in_a_parameter_is_only_a_value() {
    let collection = Collection::new();
    let backend = &collection.backend;
    collection.insert(&[json!({ "_id": 1, "name": "root" })]).await;
    let find = |kind: &str| collection.query(r#"{"find": "@", "filter": {"name": "$1"}}"#, &json!([kind]));
    assert_eq!(backend.rows(&find("text"), r#"["root"]"#).await.len(), 1);
    assert_eq!(backend.rows(&find("text"), r#"["{\"$ne\": null}"]"#).await.len(), 0);
    assert_eq!(backend.rows(&find("json"), r#"["root"]"#).await.len(), 1);
    let regex = r#"{"$regularExpression": {"pattern": "", "options": ""}}"#;
    for operator in [r#"{"$ne": null}"#, r#"{"$where": "1"}"#, regex] {
        let fault = backend.fault(&find("json"), &format!("[{operator}]")).await;
        assert!(matches!(fault, QueryFault::Value(_)), "{operator}: {fault}");
    }
    collection.drop().await;
}

#[tokio::test]
async fn a_text_that_begins_with_a_dollar_reads_no_field() {
    let collection = Collection::new();
    let backend = &collection.backend;
    collection.insert(&[json!({ "_id": 1, "secret": "s3cr3t", "name": "$secret" })]).await;
    let text = json!(["text"]);
    for statement in [
        r#"{"aggregate": "@", "pipeline": [{"$project": {"_id": 0, "said": "$1"}}]}"#,
        r#"{"aggregate": "@", "pipeline": [{"$group": {"_id": "$1"}}]}"#,
        r#"{"find": "@", "filter": {"$expr": {"$eq": ["$1", "s3cr3t"]}}}"#,
    ] {
        let query = collection.query(statement, &text);
        for given in [r#"["$secret"]"#, r#"["$$ROOT"]"#] {
            let fault = backend.fault(&query, given).await;
            let told = fault.to_string().contains("parameter 1: a text that begins with $");
            assert!(matches!(fault, QueryFault::Value(_)) && told, "{statement}: {fault}");
        }
    }
    let find = r#"{"find": "@", "filter": {"name": "$1"}, "projection": {"_id": 1}}"#;
    let found = [r#"{"_id":1}"#];
    assert_eq!(backend.rows(&collection.query(find, &text), r#"["$secret"]"#).await, found);
    let matched = r#"{"aggregate": "@", "pipeline": [{"$match": {"name": "$1"}}, {"$project": {"_id": 1}}]}"#;
    assert_eq!(backend.rows(&collection.query(matched, &text), r#"["$secret"]"#).await, found);
    collection.drop().await;
}

#[tokio::test]
async fn a_result_is_truncated_at_max_rows() {
    let collection = Collection::new();
    let backend = &collection.backend;
    let documents: Vec<_> = (0..250).map(|id| json!({ "_id": id })).collect();
    collection.insert(&documents).await;
    for statement in [
        r#"{"find": "@", "sort": {"_id": 1}}"#,
        r#"{"find": "@", "sort": {"_id": 1}, "batchSize": 10}"#,
        r#"{"aggregate": "@", "pipeline": [{"$sort": {"_id": 1}}]}"#,
    ] {
        for (max, sent, truncated) in [(3, 3, true), (249, 249, true), (250, 250, false), (1000, 250, false)]
        {
            let query =
                json!({ "statement": collection.command(statement), "maxRows": max, "readOnly": true });
            let ran = backend.run(&query, "[]").await;
            assert_eq!(ran.end, Ok(End { truncated, affected: None }), "{statement}");
            assert_eq!(ran.rows.len(), sent, "{statement}");
            assert_eq!(ran.rows[2], r#"{"_id":2}"#);
        }
    }
    let count = read(&collection.command(r#"{"count": "@"}"#));
    assert_eq!(backend.rows(&count, "[]").await, [r#"{"n":250}"#]);
    let delete = r#"{"delete": "@", "deletes": [{"q": {"_id": {"$lt": 100}}, "limit": 0}]}"#;
    let ran = backend.run(&collection.query(delete, &json!([])), "[]").await;
    assert_eq!(ran.end, Ok(End { truncated: false, affected: Some(100) }));
    collection.drop().await;
}

#[tokio::test]
async fn only_known_commands_are_read_only() {
    let backend = Backend::of(System::Ferretdb);
    for statement in [
        r#"{"insert": "a", "documents": [{}]}"#,
        r#"{"drop": "a"}"#,
        r#"{"aggregate": "a", "pipeline": [{"$out": "b"}], "cursor": {}}"#,
        r#"{"aggregate": "a", "pipeline": [{"$lookup": {"pipeline": [{"$merge": {"into": "b"}}]}}]}"#,
    ] {
        let query = read(statement);
        assert!(backend.unfit(&query).await.contains("read-only"), "{statement}");
        assert!(matches!(backend.fault(&query, "[]").await, QueryFault::Invalid(_)), "{statement}");
    }
}

#[tokio::test]
async fn query_errors_are_classified() {
    let collection = Collection::new();
    let backend = &collection.backend;
    collection.insert(&[json!({ "_id": 1 })]).await;
    for (statement, wanted) in [
        (r#"{"insert": "@", "documents": [{"_id": 1}]}"#, "constraint"),
        (r#"{"nosuch": 1}"#, "invalid"),
        (r#"{"find": "@", "filter": {"$nosuch": 1}}"#, "value"),
    ] {
        let fault = backend.fault(&collection.query(statement, &json!([])), "[]").await;
        assert_eq!(fault.as_str(), wanted, "{statement}: {fault}");
    }
    let wrong = Backend::on(System::Ferretdb, System::Ferretdb.port(), "app", "wrong");
    let fault = wrong.fault(&read(r#"{"ping": 1}"#), "[]").await;
    assert!(
        matches!(&fault, QueryFault::Server(fault) if fault.reason.as_str() == "AuthenticationFailed"),
        "{fault}"
    );
    collection.drop().await;
}

#[tokio::test]
async fn a_check_finds_the_errors_of_a_run() {
    let backend = Backend::of(System::Ferretdb);
    for (statement, params, word) in [
        (r#"{"find": "$1"}"#, &[][..], "has 1 placeholders, but params declares 0"),
        (r#"{"find": "$2"}"#, &["text", "text"], "does not use it"),
        (r#"{"$1": "a"}"#, &["text"], "has 0 placeholders, but params declares 1"),
        (r#"{"find": {"$oid": "x"}}"#, &[], "not a document"),
        (r#"{"logout": 1}"#, &[], "changes the connection"),
    ] {
        let said = backend.unfit(&json!({ "statement": statement, "params": params })).await;
        assert!(said.contains(word), "{statement}: {said}");
    }
}

#[tokio::test]
async fn a_command_that_exceeds_its_timeout_is_cancelled() {
    let collection = Collection::new();
    let backend = &collection.backend;
    let documents: Vec<_> = (0..5000).map(|id| json!({ "_id": id, "a": "x".repeat(100) })).collect();
    collection.insert(&documents).await;
    let sorted = collection.command(r#"{"find": "@", "sort": {"a": -1, "_id": -1}}"#);
    let query = json!({ "statement": sorted, "timeout": "1ms", "readOnly": true });
    assert_eq!(backend.fault(&query, "[]").await, QueryFault::TimedOut);
    assert_eq!(backend.rows(&read(r#"{"ping": 1}"#), "[]").await.len(), 1);
    collection.drop().await;
}

/// Whoever writes now waits: FerretDB keeps each database in a file.
async fn lock(server: &Server) -> SqliteConnection {
    let file = server.folder().join("data/app.sqlite");
    let mut other = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.expect("a file");
    sqlx::raw_sql("begin immediate").execute(&mut other).await.expect("a lock");
    other
}

#[tokio::test]
async fn a_caller_waits_for_the_last_connection_until_acquire_timeout() {
    let server = Server::start(System::Ferretdb);
    let pool = json!({ "max": 1, "acquireTimeout": "300ms" });
    let login = ("app", "app-secret");
    let backend = Backend::bounded(System::Ferretdb, server.port, login, pool, Duration::from_secs(10));
    let insert = write(r#"{"insert": "c", "documents": [{"a": 1}]}"#, &json!([]));
    backend.rows(&insert, "[]").await;
    let mut other = lock(&server).await;
    let mut holds = backend.start(&insert, "[]");
    eventually(SOON, "it is in use", async || {
        let view = backend.database.pool();
        if view.idle == 0 { Ok(()) } else { Err(format!("{view:?}")) }
    })
    .await;
    let gone = backend.start(&insert, "[]");
    let fault = backend.fault(&insert, "[]").await;
    assert!(
        matches!(&fault, QueryFault::Server(fault) if fault.reason.as_str() == "PoolSaturated"),
        "{fault}"
    );
    drop(gone);
    sqlx::raw_sql("rollback").execute(&mut other).await.expect("unlocked");
    let end = holds.next().await.expect("an end");
    assert!(matches!(end, Ok(Item::End { affected: Some(1), .. })), "{end:?}");
    backend.is_at_rest().await;
}

#[tokio::test]
async fn a_revoked_password_is_noticed_although_connections_are_open() {
    let server = Server::start(System::Ferretdb);
    let pool = json!({ "max": 1, "maxLifetime": "100ms" });
    let login = ("app", "app-secret");
    let backend = Backend::bounded(System::Ferretdb, server.port, login, pool, Duration::from_secs(10));
    backend.database.probe().await.expect("a server");
    let change = write(r#"{"updateUser": "app", "pwd": "another-secret"}"#, &json!([]));
    backend.rows(&change, "[]").await;
    eventually(SOON, "the login fails", async || match backend.database.probe().await {
        Err(fault) if fault.reason.as_str() == "AuthenticationFailed" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // Whoever has a connection may still use it.
    assert_eq!(backend.rows(&read(r#"{"ping": 1}"#), "[]").await.len(), 1);
}

#[tokio::test]
async fn a_probe_passes_although_callers_exhaust_the_pool() {
    let server = Server::start(System::Ferretdb);
    let backend = Backend::on(System::Ferretdb, server.port, "app", "app-secret");
    let insert = write(r#"{"insert": "c", "documents": [{"a": 1}]}"#, &json!([]));
    backend.rows(&insert, "[]").await;
    let mut other = lock(&server).await;
    let mut waits = backend.start(&insert, "[]");
    eventually(SOON, "a lent connection", async || {
        let view = backend.database.pool();
        if (view.size, view.idle) == (1, 0) { Ok(()) } else { Err(format!("{view:?}")) }
    })
    .await;
    let probe = tokio::time::timeout(Duration::from_secs(5), backend.database.probe());
    assert!(probe.await.expect("in time").is_ok());
    assert_eq!(backend.database.pool().idle, 0, "it is still lent");
    sqlx::raw_sql("rollback").execute(&mut other).await.expect("unlocked");
    let end = waits.next().await.expect("an end");
    assert!(matches!(end, Ok(Item::End { affected: Some(1), .. })), "{end:?}");
}

#[tokio::test]
async fn a_hung_server_is_not_waited_for() {
    let server = Server::start(System::Ferretdb);
    let backend = Backend::on(System::Ferretdb, server.port, "app", "app-secret");
    let ping = json!({ "statement": r#"{"ping": 1}"#, "timeout": "500ms" });
    assert_eq!(backend.rows(&ping, "[]").await.len(), 1);
    server.freeze();
    let started = Instant::now();
    assert_eq!(backend.fault(&ping, "[]").await, QueryFault::TimedOut);
    assert!(started.elapsed() >= Duration::from_millis(500));
    server.thaw();
    eventually(SOON, "it answers again", async || {
        backend.run(&ping, "[]").await.end.map_err(|fault| fault.to_string())
    })
    .await;
}
