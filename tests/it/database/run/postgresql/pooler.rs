//! A pooler that lends its sessions by transaction, and knows nothing of prepared statements.

use std::time::Instant;

use futures::future::join_all;
use serde_json::json;

use crate::{
    database::run::{Backend, QueryFault, read, unique, write},
    support::{Server, System, postgresql},
};

fn pooler() -> (Server, Backend) {
    let server = Server::start_with(System::Pgbouncer, &[("TARGET", &System::Postgresql.port().to_string())]);
    let backend = Backend::with(System::Pgbouncer, server.port, "app", "app-secret", 4);
    (server, backend)
}

#[tokio::test]
async fn each_query_runs_its_own_statement_whatever_session_it_gets() {
    let (_server, backend) = pooler();
    let query = |number: usize| {
        let statement = format!("select $1 || '{number}' as n, '\\x01'::bytea as b, now() = $2 as t");
        json!({ "statement": statement, "params": ["text", "timestamp"], "readOnly": true })
    };
    for number in 0..8 {
        backend.fits(&query(number)).await;
    }
    for round in 0..5 {
        let rows = (0..8).map(async |number| {
            let given = format!("[\"{round}-\", \"2024-05-06T07:08:09Z\"]");
            backend.rows(&query(number), &given).await
        });
        for (number, rows) in join_all(rows).await.into_iter().enumerate() {
            assert_eq!(rows, [format!("{{\"n\":\"{round}-{number}\",\"b\":\"AQ==\",\"t\":false}}")]);
        }
    }
    assert!(backend.database.probe().await.is_ok());
}

#[tokio::test]
async fn a_query_leaves_no_settings_in_the_session() {
    let (server, backend) = pooler();
    let settings = "select current_setting('transaction_read_only') as r, current_setting('statement_timeout') as s, \
                    current_setting('TimeZone') as z";
    let limited = json!({ "statement": settings, "timeout": "7s", "readOnly": true });
    assert_eq!(backend.rows(&limited, "[]").await, [r#"{"r":"on","s":"7s","z":"UTC"}"#]);
    // Whoever gets the same sessions after us: a simple statement in no transaction.
    let mut other = postgresql::login(server.port, "app", "app-secret").await.expect("a login");
    for setting in ["transaction_read_only", "statement_timeout"] {
        let shown = postgresql::show(&mut other, setting).await;
        assert!(["off", "0"].contains(&shown.as_str()), "{setting} is {shown}");
    }
    postgresql::close(other).await;
}

#[tokio::test]
async fn a_write_and_a_time_out_are_what_they_are_without_a_pooler() {
    let (_server, backend) = pooler();
    let table = unique("pooled");
    backend.rows(&write(&format!("create table {table} (n int unique)"), &json!([])), "[]").await;
    let insert = write(&format!("insert into {table} values ($1)"), &json!(["integer"]));
    assert_eq!(backend.run(&insert, "[1]").await.end.expect("done").affected, Some(1));
    assert!(matches!(backend.fault(&insert, "[1]").await, QueryFault::Constraint(_)));
    let refused = read(&format!("insert into {table} values (2) returning n"));
    assert!(matches!(backend.fault(&refused, "[]").await, QueryFault::ReadOnly(_)));
    let started = Instant::now();
    let sleep = json!({ "statement": "select pg_sleep(600)", "timeout": "500ms" });
    assert_eq!(backend.fault(&sleep, "[]").await, QueryFault::TimedOut);
    assert!(started.elapsed().as_millis() >= 500);
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_table_that_changes_is_read_correctly() {
    let (_server, backend) = pooler();
    let table = unique("reshaped");
    let change = async |statement: String| backend.rows(&write(&statement, &json!([])), "[]").await;
    change(format!("create table {table} as select 1 as a")).await;
    let all = read(&format!("select * from {table}"));
    let update = write(&format!("update {table} set a = a returning a"), &json!([]));
    for query in [&all, &update] {
        assert_eq!(backend.rows(query, "[]").await, [r#"{"a":1}"#]);
    }
    change(format!("alter table {table} alter a type text using 'x'")).await;
    for query in [&update, &all] {
        assert_eq!(backend.rows(query, "[]").await, [r#"{"a":"x"}"#]);
    }
    change(format!("alter table {table} alter a type int[] using array[1]")).await;
    assert_eq!(backend.rows(&all, "[]").await, [r#"{"a":[1]}"#]);
    change(format!("alter table {table} add b int default 2")).await;
    assert_eq!(backend.rows(&all, "[]").await, [r#"{"a":[1],"b":2}"#]);
    change(format!("drop table {table}")).await;
}
