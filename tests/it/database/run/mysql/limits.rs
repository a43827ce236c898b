//! How much, how long, and what is left behind.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{ConnectOptions, Connection, MySqlConnection, Row, mysql::MySqlConnectOptions};

use crate::{
    database::run::{Backend, End, QueryFault, first, read, unique, write},
    support::{SOON, System, eventually},
};

async fn admin() -> MySqlConnection {
    let options = MySqlConnectOptions::new().host("127.0.0.1").port(System::Mariadb.port());
    let options = options.username("root").password("admin-secret").disable_statement_logging();
    options.connect().await.expect("the administrator logs in")
}

/// Waits until so many connections run a statement that has these words in it.
async fn busy(admin: &mut MySqlConnection, words: &str, wanted: i64) {
    let count = "select count(*) from information_schema.processlist where info like concat('%', ?, '%') \
                 and id <> connection_id()";
    eventually(SOON, words, async || {
        let found: i64 = sqlx::query(count).bind(words).fetch_one(&mut *admin).await.expect("a count").get(0);
        if found == wanted { Ok(()) } else { Err(format!("{found} connections")) }
    })
    .await;
}

/// Numbers from 1, without a table.
fn numbers(upto: u32) -> String {
    format!("select seq as n from seq_1_to_{upto}")
}

#[tokio::test]
async fn a_result_is_truncated_at_max_rows() {
    let backend = Backend::of(System::Mariadb);
    // With a limit of its own, the server sends more than are wanted.
    for statement in [
        numbers(5),
        format!("{} limit 5", numbers(1000)),
        "select 1 as n union select 2 union select 3 union select 4 union select 5".to_owned(),
    ] {
        for (max, sent, truncated) in [(3, 3, true), (4, 4, true), (5, 5, false), (6, 5, false)] {
            for read_only in [false, true] {
                let query = json!({ "statement": statement, "maxRows": max, "readOnly": read_only });
                let ran = backend.run(&query, "[]").await;
                assert_eq!(ran.rows.len(), sent, "{statement}");
                assert_eq!(ran.end.map(|end| end.truncated), Ok(truncated), "{statement}");
            }
        }
    }
    let none = backend.run(&read("select 1 as n from dual where false"), "[]").await;
    assert_eq!((none.rows.len(), none.end), (0, Ok(End { truncated: false, affected: None })));
}

#[tokio::test]
async fn a_write_completes_although_its_rows_are_truncated() {
    let backend = Backend::of(System::Mariadb);
    let table = unique("cut");
    backend.rows(&write(&format!("create table {table} (n int)"), &json!([])), "[]").await;
    // A read-only query before it sets a limit for selects, which must not be met here.
    backend.run(&json!({ "statement": numbers(5), "maxRows": 1, "readOnly": true }), "[]").await;
    let insert = json!({ "statement": format!("insert into {table} {}", numbers(1000)), "maxRows": 1 });
    assert_eq!(backend.run(&insert, "[]").await.end, Ok(End { truncated: false, affected: Some(1000) }));
    let returning = format!("insert into {table} {} returning n", numbers(1000));
    let ran = backend.run(&json!({ "statement": returning, "maxRows": 2 }), "[]").await;
    assert_eq!(ran.rows, [r#"{"n":1}"#, r#"{"n":2}"#]);
    assert_eq!(ran.end, Ok(End { truncated: true, affected: None }));
    let counted = backend.rows(&read(&format!("select count(*) as c from {table}")), "[]").await;
    assert_eq!(counted, [r#"{"c":2000}"#]);
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_query_that_times_out_is_cancelled_on_the_server() {
    let mut admin = admin().await;
    let backend = Backend::of(System::Mariadb);
    let table = unique("slow");
    backend.rows(&write(&format!("create table {table} (n int)"), &json!([])), "[]").await;
    for (read_only, statement) in [
        (true, "select sleep(600) as n".to_owned()),
        (true, "select count(*) as n from seq_1_to_1000000 a, seq_1_to_1000000 b".to_owned()),
        (false, format!("insert into {table} select sleep(600)")),
    ] {
        let words = unique("forever");
        let statement = format!("{statement} /* {words} */");
        let query = json!({ "statement": statement, "readOnly": read_only, "timeout": "500ms" });
        let started = Instant::now();
        assert_eq!(backend.fault(&query, "[]").await, QueryFault::TimedOut, "{statement}");
        assert!(started.elapsed() >= Duration::from_millis(500));
        busy(&mut admin, &words, 0).await;
        backend.is_at_rest().await;
        assert_eq!(backend.rows(&read("select 1 as one"), "[]").await, [r#"{"one":1}"#]);
    }
    let counted = backend.rows(&read(&format!("select count(*) as c from {table}")), "[]").await;
    assert_eq!(counted, [r#"{"c":0}"#]);
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
    let _ = admin.close().await;
}

#[tokio::test]
async fn a_query_whose_caller_disconnects_is_cancelled_on_the_server() {
    let mut admin = admin().await;
    let backend = Backend::of(System::Mariadb);
    let words = unique("abandoned");
    let statement = format!("select sleep(600) as n /* {words} */");
    let answer = backend.start(&json!({ "statement": statement, "timeout": "10m", "readOnly": true }), "[]");
    busy(&mut admin, &words, 1).await;
    drop(answer);
    busy(&mut admin, &words, 0).await;
    backend.is_at_rest().await;
    assert_eq!(backend.rows(&read("select 1 as one"), "[]").await, [r#"{"one":1}"#]);
    let _ = admin.close().await;
}

#[tokio::test]
async fn a_million_rows_stream_to_a_slow_reader_and_stop_when_it_goes() {
    let mut admin = admin().await;
    let backend = Backend::of(System::Mariadb);
    let words = unique("stream");
    let statement = format!("select seq as n, repeat('x', 1000) as x from seq_1_to_1000000 /* {words} */");
    let query = json!({ "statement": statement, "maxRows": 1_000_000, "timeout": "10m", "readOnly": true });
    let mut answer = backend.start(&query, "[]");
    for (number, row) in (1..=100).zip(first(&mut answer, 100).await.lines()) {
        assert!(row.starts_with(&format!("{{\"n\":{number},")), "{row}");
    }
    // A gigabyte is on its way, and the server waits with most of it.
    busy(&mut admin, &words, 1).await;
    drop(answer);
    busy(&mut admin, &words, 0).await;
    backend.is_at_rest().await;
    assert_eq!(backend.rows(&read("select 1 as one"), "[]").await, [r#"{"one":1}"#]);
    let _ = admin.close().await;
}
