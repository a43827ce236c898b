//! How much, how long, and what is left behind.

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::json;
use sqlx::{PgConnection, Row};

use crate::{
    database::run::{Backend, End, QueryFault, first, read, unique, write},
    support::{SOON, System, eventually, hostile::silent_server, postgresql},
};

/// Waits until so many sessions are busy with a statement that has these words in it, or hold a transaction after it.
async fn busy(admin: &mut PgConnection, words: &str, wanted: i64) {
    let count = "select count(*) from pg_stat_activity where state <> 'idle' and query like '%' || $1 || '%' \
                 and pid <> pg_backend_pid()";
    eventually(SOON, words, async || {
        let found: i64 = sqlx::query(count).bind(words).fetch_one(&mut *admin).await.expect("a count").get(0);
        if found == wanted { Ok(()) } else { Err(format!("{found} sessions")) }
    })
    .await;
}

#[tokio::test]
async fn a_result_is_truncated_at_max_rows() {
    let backend = Backend::of(System::Postgresql);
    let rows = |max: u32| json!({ "statement": "select generate_series(1, 5) as n", "maxRows": max });
    for (max, sent, truncated) in [(3, 3, true), (4, 4, true), (5, 5, false), (6, 5, false)] {
        let ran = backend.run(&rows(max), "[]").await;
        assert_eq!(ran.rows.len(), sent);
        assert_eq!(ran.end, Ok(End { truncated, affected: None }));
    }
}

#[tokio::test]
async fn a_write_completes_although_its_rows_are_truncated() {
    let backend = Backend::of(System::Postgresql);
    let table = unique("cut");
    backend.rows(&write(&format!("create table {table} (n int)"), &json!([])), "[]").await;
    let statement = format!("insert into {table} select generate_series(1, 100) returning n");
    let ran = backend.run(&json!({ "statement": statement, "maxRows": 2 }), "[]").await;
    assert_eq!(ran.rows, [r#"{"n":1}"#, r#"{"n":2}"#]);
    assert_eq!(ran.end, Ok(End { truncated: true, affected: None }));
    let count = read(&format!("select count(*) from {table}"));
    assert_eq!(backend.rows(&count, "[]").await, [r#"{"count":100}"#]);
    // The same by a function, of which a limit on the rows would call for the first ones only.
    let function = unique("add");
    let body = format!("insert into {table} values ($1) returning n");
    let create = format!("create function {function}(int) returns int language sql as $$ {body} $$");
    backend.rows(&write(&create, &json!([])), "[]").await;
    let statement = format!("select {function}(n) as n from generate_series(1, 100) n");
    let refused = json!({ "statement": statement, "maxRows": 2, "readOnly": true });
    assert!(matches!(backend.fault(&refused, "[]").await, QueryFault::ReadOnly(_)));
    let ran = backend.run(&json!({ "statement": statement, "maxRows": 2 }), "[]").await;
    assert_eq!(ran.rows, [r#"{"n":1}"#, r#"{"n":2}"#]);
    assert_eq!(ran.end, Ok(End { truncated: true, affected: None }));
    assert_eq!(backend.rows(&count, "[]").await, [r#"{"count":200}"#]);
    backend.rows(&write(&format!("drop function {function}"), &json!([])), "[]").await;
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_query_that_times_out_is_cancelled_on_the_server() {
    let mut admin = postgresql::admin().await;
    let backend = Backend::of(System::Postgresql);
    for (read_only, statement) in [
        (true, "select count(*) from generate_series(1, 1000000000000)"),
        (true, "select pg_sleep(600)"),
        (false, "do $$ begin perform pg_sleep(600); end $$"),
    ] {
        let words = unique("forever");
        let statement = format!("{statement} -- {words}");
        let query = json!({ "statement": statement, "readOnly": read_only, "timeout": "500ms" });
        let started = Instant::now();
        assert_eq!(backend.fault(&query, "[]").await, QueryFault::TimedOut);
        assert!(started.elapsed() >= Duration::from_millis(500));
        busy(&mut admin, &words, 0).await;
        assert_eq!(backend.rows(&read("select 1 as one"), "[]").await, [r#"{"one":1}"#]);
    }
    // The server ended them by itself: the connection is the first one still.
    assert_eq!(backend.database.pool().size, 1);
    postgresql::close(admin).await;
}

#[tokio::test]
async fn a_query_whose_caller_disconnects_is_cancelled_on_the_server() {
    let mut admin = postgresql::admin().await;
    let backend = Backend::of(System::Postgresql);
    let words = unique("abandoned");
    let query = json!({ "statement": format!("select pg_sleep(600) -- {words}"), "timeout": "10m", "readOnly": true });
    let answer = backend.start(&query, "[]");
    busy(&mut admin, &words, 1).await;
    drop(answer);
    busy(&mut admin, &words, 0).await;
    backend.is_at_rest().await;
    assert_eq!(backend.rows(&read("select 1 as one"), "[]").await, [r#"{"one":1}"#]);
    postgresql::close(admin).await;
}

#[tokio::test]
async fn a_million_rows_stream_to_a_slow_reader_and_stop_when_it_goes() {
    let mut admin = postgresql::admin().await;
    let backend = Backend::of(System::Postgresql);
    let words = unique("stream");
    let statement = format!("select n, repeat('x', 1000) as x from generate_series(1, 1000000) n -- {words}");
    let query = json!({ "statement": statement, "maxRows": 1_000_000, "timeout": "10m", "readOnly": true });
    let mut answer = backend.start(&query, "[]");
    for (number, row) in (1..=100).zip(first(&mut answer, 100).await.lines()) {
        assert!(row.starts_with(&format!("{{\"n\":{number},")), "{row}");
    }
    // A gigabyte is on its way, and the server waits with most of it.
    let waits = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite' and query like '%' || $1 || '%'";
    eventually(SOON, "the server waits", async || {
        let waiting: i64 =
            sqlx::query(waits).bind(&words).fetch_one(&mut admin).await.expect("a count").get(0);
        if waiting == 1 { Ok(()) } else { Err(format!("{waiting} wait")) }
    })
    .await;
    drop(answer);
    busy(&mut admin, &words, 0).await;
    backend.is_at_rest().await;
    assert_eq!(backend.rows(&read("select 1 as one"), "[]").await, [r#"{"one":1}"#]);
    postgresql::close(admin).await;
}

#[tokio::test]
async fn a_reader_that_stops_reading_holds_no_connection_beyond_the_timeout() {
    let mut admin = postgresql::admin().await;
    let backend = Backend::of(System::Postgresql);
    let words = unique("stalled");
    let statement = format!("select repeat('x', 1000) as x from generate_series(1, 1000000) -- {words}");
    let query = json!({ "statement": statement, "maxRows": 1_000_000, "timeout": "1s", "readOnly": true });
    let mut answer = backend.start(&query, "[]");
    answer.next().await.expect("a row").expect("no fault");
    busy(&mut admin, &words, 0).await;
    // Not one row more was read, and yet somebody else gets the connection.
    assert_eq!(backend.rows(&read("select 1 as one"), "[]").await, [r#"{"one":1}"#]);
    let last = answer.fold(None, |_, item| std::future::ready(Some(item))).await;
    assert!(matches!(last, Some(Err(QueryFault::TimedOut))), "{last:?}");
    postgresql::close(admin).await;
}

#[tokio::test]
async fn a_caller_waits_for_the_last_connection_until_acquire_timeout() {
    let backend = Backend::of(System::Postgresql);
    let sleep = json!({ "statement": "select pg_sleep(600)", "timeout": "10m", "readOnly": true });
    let answer = backend.start(&sleep, "[]");
    eventually(SOON, "it is in use", async || {
        let view = backend.database.pool();
        if view.size == 1 && view.idle == 0 { Ok(()) } else { Err(format!("{view:?}")) }
    })
    .await;
    let waiting = backend.start(&read("select 1 as one"), "[]");
    let fault = backend.fault(&read("select 1 as one"), "[]").await;
    assert!(
        matches!(&fault, QueryFault::Server(fault) if fault.reason.as_str() == "PoolSaturated"),
        "{fault}"
    );
    drop((answer, waiting));
    backend.is_at_rest().await;
    assert_eq!(backend.rows(&read("select 1 as one"), "[]").await, [r#"{"one":1}"#]);
}

#[tokio::test]
async fn a_server_that_accepts_and_does_not_respond_is_not_waited_for() {
    let login = ("app", "app-secret");
    let timeout = Duration::from_millis(300);
    let backend = Backend::bounded(System::Postgresql, silent_server(), login, json!({ "max": 1 }), timeout);
    let started = Instant::now();
    let fault = backend.fault(&read("select 1 as one"), "[]").await;
    assert!(matches!(&fault, QueryFault::Server(fault) if fault.reason.as_str() == "Timeout"), "{fault}");
    // A little earlier, to say in which stage it was.
    assert!(started.elapsed() >= timeout * 9 / 10);
    backend.is_at_rest().await;
}
