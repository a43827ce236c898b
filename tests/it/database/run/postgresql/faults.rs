//! What is refused, and what is told apart.

use serde_json::json;

use crate::{
    database::run::{Backend, End, QueryFault, read, unique, write},
    support::{SOON, Server, System, eventually, postgresql},
};

#[tokio::test]
async fn a_read_only_query_cannot_write() {
    let backend = Backend::of(System::Postgresql);
    let (table, function) = (unique("kept"), unique("change"));
    let quiet = json!([]);
    backend.rows(&write(&format!("create table {table} as select 1 as n"), &quiet), "[]").await;
    let body = format!("begin update {table} set n = n + 1; return 1; end");
    let create = format!("create function {function}() returns int language plpgsql as $$ {body} $$");
    backend.rows(&write(&create, &quiet), "[]").await;
    for statement in [
        format!("update {table} set n = 2 returning n"),
        format!("delete from {table} returning n"),
        format!("insert into {table} values (2) returning n"),
        format!("select {function}()"),
        format!("select 1 as a) , b as (delete from {table} returning n"),
        format!("select set_config('transaction_read_only', 'off', true), {function}()"),
    ] {
        let fault = backend.fault(&read(&statement), "[]").await;
        assert!(matches!(fault, QueryFault::ReadOnly(_) | QueryFault::Invalid(_)), "{statement}: {fault}");
    }
    for statement in
        [format!("truncate {table}"), format!("do $$ begin {body} $$"), "set role none".to_owned()]
    {
        let fault = backend.fault(&read(&statement), "[]").await;
        assert!(matches!(fault, QueryFault::Invalid(_)), "{statement}: {fault}");
        backend.unfit(&read(&statement)).await;
    }
    let kept = backend.rows(&read(&format!("select n from {table}")), "[]").await;
    assert_eq!(kept, [r#"{"n":1}"#]);
    // What one query does to the session is no leave for the next one.
    backend
        .rows(&read("select set_config('default_transaction_read_only', 'off', false) as off"), "[]")
        .await;
    let fault = backend.fault(&read(&format!("select {function}()")), "[]").await;
    assert!(matches!(fault, QueryFault::ReadOnly(_)), "{fault}");
    // The same is allowed without the promise.
    backend.rows(&write(&format!("select {function}()"), &quiet), "[]").await;
    assert_eq!(backend.rows(&read(&format!("select n from {table}")), "[]").await, [r#"{"n":2}"#]);
    backend.rows(&write(&format!("drop function {function}"), &quiet), "[]").await;
    backend.rows(&write(&format!("drop table {table}"), &quiet), "[]").await;
}

#[tokio::test]
async fn query_errors_are_classified_and_leave_the_connection_usable() {
    let backend = Backend::of(System::Postgresql);
    let table = unique("ruled");
    let create = format!("create table {table} (id int primary key, n int check (n > 0), d date)");
    backend.rows(&write(&create, &json!([])), "[]").await;
    backend.rows(&write(&format!("insert into {table} values (1, 1, now())"), &json!([])), "[]").await;
    let cases = [
        (format!("insert into {table} values ($1, 1)"), "integer", "1", "constraint"),
        (format!("insert into {table} values (2, $1)"), "integer", "0", "constraint"),
        (format!("insert into {table} values ($1, 1)"), "integer", "null", "constraint"),
        (format!("insert into {table} values ($1, 1)"), "integer", "2147483648", "value"),
        (format!("insert into {table} values (3, 1, $1::text::date)"), "text", r#""2024-02-30""#, "value"),
        ("select 1 / $1 as n".to_owned(), "integer", "0", "value"),
        ("select $1 as text".to_owned(), "text", r#""\u0000""#, "value"),
        ("select $1::text::jsonb as text".to_owned(), "text", r#""{""#, "value"),
        ("select n from nowhere where $1".to_owned(), "boolean", "true", "invalid"),
        ("selct $1".to_owned(), "integer", "1", "invalid"),
        ("select $1 as data from pg_authid".to_owned(), "integer", "1", "denied"),
    ];
    for (statement, kind, value, wanted) in cases {
        let ran = backend.run(&write(&statement, &json!([kind])), &format!("[{value}]")).await;
        let seen = ran.end.as_ref().map_or_else(QueryFault::as_str, |_| "success");
        assert_eq!(seen, wanted, "{statement}: {:?}", ran.end);
        assert_eq!(backend.rows(&read("select 1 as one"), "[]").await, [r#"{"one":1}"#]);
    }
    let view = backend.database.pool();
    assert_eq!((view.size, view.idle), (1, 1));
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_statement_is_atomic() {
    let backend = Backend::of(System::Postgresql);
    let table = unique("whole");
    let create = format!("create table {table} (n int unique deferrable initially deferred)");
    backend.rows(&write(&create, &json!([])), "[]").await;
    // The rows are there, and at the end the server finds that they cannot stay.
    let twice = write(&format!("insert into {table} values (1), (2), (2) returning n"), &json!([]));
    let ran = backend.run(&twice, "[]").await;
    assert!(matches!(ran.end, Err(QueryFault::Constraint(_))), "{:?}", ran.end);
    let late =
        write(&format!("insert into {table} select 1 / (3 - n) from generate_series(1, 3) n"), &json!([]));
    assert!(matches!(backend.fault(&late, "[]").await, QueryFault::Value(_)));
    let counted = backend.rows(&read(&format!("select count(*) from {table}")), "[]").await;
    assert_eq!(counted, [r#"{"count":0}"#]);
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_lock_that_is_not_available_is_a_conflict() {
    let backend = Backend::of(System::Postgresql);
    let other = Backend::of(System::Postgresql);
    let table = unique("locked");
    backend.rows(&write(&format!("create table {table} as select 1 as n"), &json!([])), "[]").await;
    let held = json!({ "statement": format!("update {table} set n = 2 returning n, pg_sleep(600)"), "timeout": "10m" });
    let answer = other.start(&held, "[]");
    let nowait = json!({ "statement": format!("select n from {table} for update nowait") });
    eventually(SOON, "a conflict", async || match backend.run(&nowait, "[]").await.end {
        Err(QueryFault::Conflict(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    drop(answer);
    let drop = json!({ "statement": format!("drop table {table}"), "timeout": "1m" });
    backend.rows(&drop, "[]").await;
}

#[tokio::test]
async fn a_check_finds_the_errors_of_a_run() {
    let backend = Backend::of(System::Postgresql);
    let with = |statement: &str, params: &[&str]| json!({ "statement": statement, "params": params });
    for (statement, params) in [
        ("select $1::int + $2 as n;", &["text", "integer"][..]),
        (" select 1 as n -- the end", &[]),
        ("with a as (select 1 as n) select n from a", &[]),
        ("values (1, $1)", &["uuid"]),
        ("table pg_class", &[]),
        ("do $$ begin null; end $$", &[]),
        ("select authlink_result.q from (select 1 as q) authlink_result", &[]),
    ] {
        backend.fits(&with(statement, params)).await;
    }
    for (statement, params, word) in [
        ("select $1 as n", &[][..], "has 1 placeholders, but params declares 0"),
        ("select $1 as n", &["text", "text", "uuid"], "has 1 placeholders, but params declares 3"),
        ("select 1 as n", &["text"], "has 0 placeholders, but params declares 1"),
        ("select $1 + 1 as n", &["text"], "operator"),
        ("select 1 as n; select 2 as n", &[], "multiple commands"),
        ("explain select 1", &[], "must be one select"),
        ("with a as (delete from pg_class returning 1) select * from a", &[], "must not change data"),
        ("select 1 as n, 2 as n", &[], "named n"),
        ("select nothing from nowhere", &[], "nowhere"),
        ("copy pg_class from stdin", &[], "changes the connection"),
        ("set search_path = app", &[], "changes the connection"),
    ] {
        let said = backend.unfit(&with(statement, params)).await;
        assert!(said.contains(word), "{statement}: {said}");
    }
}

#[tokio::test]
async fn a_password_in_a_servers_message_is_redacted() {
    let mut admin = postgresql::admin().await;
    let role = postgresql::new_role(&mut admin, "own-s3cr3t").await;
    let backend = Backend::on(System::Postgresql, System::Postgresql.port(), &role, "own-s3cr3t");
    let fault = backend.fault(&read("select 'own-s3cr3t'::int as n"), "[]").await;
    assert!(fault.to_string().contains("[redacted]") && !fault.to_string().contains("s3cr3t"), "{fault}");
    drop(backend);
    postgresql::close(admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restarted_since_costs_no_query() {
    let server = Server::start(System::Postgresql);
    let backend = Backend::on(System::Postgresql, server.port, "app", "app-secret");
    let one = write("select 1 as one", &json!([]));
    assert_eq!(backend.run(&one, "[]").await.end, Ok(End { truncated: false, affected: None }));
    server.kill();
    // The session may end a little later than its server.
    eventually(SOON, "refused", async || match backend.run(&one, "[]").await.end {
        Err(QueryFault::Server(fault)) if fault.reason.as_str() == "ConnectionRefused" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    server.resume();
    assert_eq!(backend.rows(&one, "[]").await, [r#"{"one":1}"#]);
    server.kill();
    server.resume();
    assert_eq!(backend.rows(&one, "[]").await, [r#"{"one":1}"#]);
}

#[tokio::test]
async fn a_replica_accepts_reads_and_refuses_writes() {
    let server = Server::start(System::Postgresql);
    // What is in recovery, and stays there, is a replica.
    server.kill();
    std::fs::write(server.folder().join("data/standby.signal"), "").expect("a file");
    server.resume();
    let backend = Backend::on(System::Postgresql, server.port, "app", "app-secret");
    assert_eq!(
        backend.rows(&read("select pg_is_in_recovery() as replica"), "[]").await,
        [r#"{"replica":true}"#]
    );
    for statement in ["create table t (n int)", "select 1 as one", "values (1)"] {
        let fault = backend.fault(&write(statement, &json!([])), "[]").await;
        assert!(matches!(fault, QueryFault::ReadOnly(_)), "{statement}: {fault}");
    }
    assert_eq!(backend.rows(&read("select 1 as one"), "[]").await, [r#"{"one":1}"#]);
}

#[tokio::test]
async fn a_server_that_is_read_only_by_default_takes_no_writes() {
    let mut server = Server::start(System::Postgresql);
    server.restart_with("OPTIONS", "-c default_transaction_read_only=on");
    let backend = Backend::on(System::Postgresql, server.port, "app", "app-secret");
    let fault = backend.fault(&write("create table t (n int)", &json!([])), "[]").await;
    assert!(matches!(fault, QueryFault::ReadOnly(_)), "{fault}");
    assert_eq!(backend.rows(&read("select 1 as n"), "[]").await, [r#"{"n":1}"#]);
    server.restart_with("OPTIONS", "");
    backend.database.probe().await.expect("it is there again");
    backend.rows(&write("create table t (n int)", &json!([])), "[]").await;
}
