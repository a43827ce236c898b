//! What is refused, and what is told apart.

use serde_json::json;

use crate::{
    database::run::{Backend, QueryFault, read, unique, write},
    support::{SOON, Server, System, eventually},
};

#[tokio::test]
async fn a_read_only_query_cannot_write() {
    let backend = Backend::of(System::Mariadb);
    let (table, function, procedure) = (unique("kept"), unique("change"), unique("escape"));
    let quiet = json!([]);
    for statement in [
        format!("create table {table} as select 1 as n"),
        format!("create function {function}() returns int begin update {table} set n = n + 1; return 1; end"),
        format!("create procedure {procedure}() begin commit; update {table} set n = n + 1; end"),
    ] {
        let ran = backend.run(&write(&statement, &quiet), "[]").await;
        assert!(ran.end.is_ok(), "{statement}: {:?}", ran.end);
    }
    for statement in
        [format!("select {function}() as n"), format!("with a as (select 1) select {function}() as n")]
    {
        let fault = backend.fault(&read(&statement), "[]").await;
        assert!(matches!(fault, QueryFault::ReadOnly(_)), "{statement}: {fault}");
    }
    for statement in [
        format!("update {table} set n = 2"),
        format!("insert into {table} values (2) returning n"),
        format!("call {procedure}()"),
        format!("/*! call {procedure}() */"),
        format!("begin not atomic commit; delete from {table}; end"),
        "set transaction read write".to_owned(),
    ] {
        let fault = backend.fault(&read(&statement), "[]").await;
        assert!(matches!(fault, QueryFault::Invalid(_)), "{statement}: {fault}");
        backend.unfit(&read(&statement)).await;
    }
    let kept = backend.rows(&read(&format!("select n from {table}")), "[]").await;
    assert_eq!(kept, [r#"{"n":1}"#]);
    // The same is allowed without the promise.
    backend.rows(&write(&format!("call {procedure}()"), &quiet), "[]").await;
    assert_eq!(backend.rows(&read(&format!("select n from {table}")), "[]").await, [r#"{"n":2}"#]);
    for what in [format!("procedure {procedure}"), format!("function {function}"), format!("table {table}")] {
        backend.rows(&write(&format!("drop {what}"), &quiet), "[]").await;
    }
}

#[tokio::test]
async fn query_errors_are_classified_and_leave_the_connection_usable() {
    let backend = Backend::of(System::Mariadb);
    let (table, trigger) = (unique("ruled"), unique("rule"));
    for statement in [
        format!("create table {table} (id int primary key, n int check (n > 0), d date, s varchar(3))"),
        format!(
            "create trigger {trigger} before insert on {table} for each row \
                 if new.n = 99 then signal sqlstate '45000' set message_text = 'not 99'; end if"
        ),
        format!("insert into {table} values (1, 1, now(), '')"),
    ] {
        let ran = backend.run(&write(&statement, &json!([])), "[]").await;
        assert!(ran.end.is_ok(), "{statement}: {:?}", ran.end);
    }
    let cases = [
        (format!("insert into {table} values (?, 1, now(), '')"), "integer", "1", "constraint"),
        (format!("insert into {table} values (2, ?, now(), '')"), "integer", "0", "constraint"),
        (format!("insert into {table} values (2, ?, now(), '')"), "integer", "99", "constraint"),
        (format!("insert into {table} values (?, 1, now(), '')"), "integer", "null", "constraint"),
        (format!("insert into {table} values (?, 1, now(), '')"), "integer", "2147483648", "value"),
        (format!("insert into {table} values (2, 1, ?, '')"), "text", r#""2024-02-30""#, "value"),
        (format!("insert into {table} values (2, 1, now(), ?)"), "text", r#""long""#, "value"),
        ("select n from nowhere where ?".to_owned(), "boolean", "true", "invalid"),
        ("selct ?".to_owned(), "integer", "1", "invalid"),
        ("select 1 as n, ? as n".to_owned(), "integer", "1", "invalid"),
        ("select ? as data from mysql.user".to_owned(), "integer", "1", "denied"),
    ];
    for (statement, kind, value, wanted) in cases {
        let ran = backend.run(&write(&statement, &json!([kind])), &format!("[{value}]")).await;
        let seen = ran.end.as_ref().map_or_else(QueryFault::as_str, |_| "success");
        assert_eq!(seen, wanted, "{statement}: {:?}", ran.end);
        assert_eq!(backend.rows(&read("select @@in_transaction as t"), "[]").await, [r#"{"t":0}"#]);
    }
    let view = backend.database.pool();
    assert_eq!((view.size, view.idle), (1, 1));
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_statement_is_atomic() {
    let backend = Backend::of(System::Mariadb);
    let (table, procedure) = (unique("whole"), unique("two"));
    for statement in [
        format!("create table {table} (n int primary key)"),
        format!(
            "create procedure {procedure}() begin insert into {table} values (7); insert into {table} values (7); end"
        ),
    ] {
        backend.rows(&write(&statement, &json!([])), "[]").await;
    }
    for statement in [format!("insert into {table} values (1), (2), (2)"), format!("call {procedure}()")] {
        let fault = backend.fault(&write(&statement, &json!([])), "[]").await;
        assert!(matches!(fault, QueryFault::Constraint(_)), "{statement}: {fault}");
        let counted = backend.rows(&read(&format!("select count(*) as c from {table}")), "[]").await;
        assert_eq!(counted, [r#"{"c":0}"#]);
    }
    backend.rows(&write(&format!("drop procedure {procedure}"), &json!([])), "[]").await;
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_lock_that_is_not_available_is_a_conflict() {
    let backend = Backend::of(System::Mariadb);
    let other = Backend::of(System::Mariadb);
    let table = unique("locked");
    backend.rows(&write(&format!("create table {table} (n int primary key)"), &json!([])), "[]").await;
    backend.rows(&write(&format!("insert into {table} values (1)"), &json!([])), "[]").await;
    let held = format!("update {table} set n = 2 where sleep(600) = 0");
    let answer = other.start(&json!({ "statement": held, "timeout": "10m" }), "[]");
    let nowait = write(&format!("select n from {table} for update nowait"), &json!([]));
    eventually(SOON, "a conflict", async || match backend.run(&nowait, "[]").await.end {
        Err(QueryFault::Conflict(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    drop(answer);
    backend.rows(&json!({ "statement": format!("drop table {table}"), "timeout": "1m" }), "[]").await;
}

#[tokio::test]
async fn a_procedure_may_return_several_results() {
    let backend = Backend::of(System::Mariadb);
    let procedure = unique("several");
    let create = format!("create procedure {procedure}() begin select 1 as a; select 2 as b, 'x' as c; end");
    backend.rows(&write(&create, &json!([])), "[]").await;
    let rows = backend.rows(&write(&format!("call {procedure}()"), &json!([])), "[]").await;
    assert_eq!(rows, [r#"{"a":1}"#, r#"{"b":2,"c":"x"}"#]);
    backend.rows(&write(&format!("drop procedure {procedure}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_check_finds_the_errors_of_a_run() {
    let backend = Backend::of(System::Mariadb);
    let with = |statement: &str, params: &[&str]| json!({ "statement": statement, "params": params });
    backend.fits(&with("select ? + ? as n", &["integer", "number"])).await;
    backend.fits(&json!({ "statement": " (select 1 as n) -- the end", "readOnly": true })).await;
    for (statement, params, word) in [
        ("select ? as n", &[][..], "has 1 placeholders, but params declares 0"),
        ("select ? as n", &["text", "text"], "has 1 placeholders, but params declares 2"),
        ("select 1 as n; select 2 as n", &[], "syntax"),
        ("select 1 as n, 2 as n", &[], "named n"),
        ("select nothing from nowhere", &[], "nowhere"),
        ("lock tables a write", &[], "changes the connection"),
    ] {
        let said = backend.unfit(&with(statement, params)).await;
        assert!(said.contains(word), "{statement}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restarted_since_costs_no_query() {
    let server = Server::start(System::Mariadb);
    let backend = Backend::on(System::Mariadb, server.port, "app", "app-secret");
    let one = write("select 1 as one", &json!([]));
    assert_eq!(backend.rows(&one, "[]").await, [r#"{"one":1}"#]);
    server.kill();
    let fault = backend.fault(&one, "[]").await;
    assert!(
        matches!(&fault, QueryFault::Server(fault) if fault.reason.as_str() == "ConnectionRefused"),
        "{fault}"
    );
    server.resume();
    assert_eq!(backend.rows(&one, "[]").await, [r#"{"one":1}"#]);
    server.kill();
    server.resume();
    assert_eq!(backend.rows(&one, "[]").await, [r#"{"one":1}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_read_only_by_default_takes_no_writes() {
    let mut server = Server::start(System::Mariadb);
    server.restart_with("OPTIONS", "--transaction-read-only");
    let backend = Backend::on(System::Mariadb, server.port, "app", "app-secret");
    let fault = backend.fault(&write("create table t (n int)", &json!([])), "[]").await;
    assert!(matches!(fault, QueryFault::ReadOnly(_)), "{fault}");
    assert_eq!(backend.rows(&read("select 1 as n"), "[]").await, [r#"{"n":1}"#]);
    server.restart_with("OPTIONS", "");
    backend.database.probe().await.expect("it is there again");
    backend.rows(&write("create table t (n int)", &json!([])), "[]").await;
}
