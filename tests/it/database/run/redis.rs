//! Redis.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Backend, End, QueryFault, read, unique, write};
use crate::support::{SOON, Server, System, eventually};

#[tokio::test]
async fn every_type_of_parameter_comes_back_as_it_was_given() {
    let backend = Backend::of(System::Redis);
    let key = unique("values");
    let push = json!({
        "statement": format!("RPUSH {key} $1 $2 $3 $4 $5 $6 $7 $8"),
        "params": ["text", "integer", "number", "boolean", "timestamp", "uuid", "json", "bytes"],
    });
    backend.fits(&push).await;
    let given = r#"["a \"b\" \\ é 😀\r\n", -9223372036854775808, 12345678901234567890.123456789012345678900, true,
        "2024-05-06T07:08:09.123456+02:00", "6f1c2a9e-0b3d-4c5e-8f70-112233445566", {"b": 1.50, "a": [null]}, "AP8="]"#;
    let ran = backend.run(&push, given).await;
    assert_eq!(ran.rows, ["8"]);
    assert_eq!(ran.end, Ok(End { truncated: false, affected: None }));
    let wanted = [
        r#""a \"b\" \\ é 😀\r\n""#,
        r#""-9223372036854775808""#,
        r#""12345678901234567890.123456789012345678900""#,
        r#""true""#,
        r#""2024-05-06T05:08:09.123456Z""#,
        r#""6f1c2a9e-0b3d-4c5e-8f70-112233445566""#,
        r#""{\"b\": 1.50, \"a\": [null]}""#,
        r#"{"base64":"AP8="}"#,
    ];
    assert_eq!(backend.rows(&read(&format!("LRANGE {key} 0 -1")), "[]").await, wanted);
    let null = backend.fault(&write("GET $1", &json!(["text"])), "[null]").await;
    assert!(matches!(null, QueryFault::Value(_)), "{null}");
    backend.rows(&write(&format!("DEL {key}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_command_in_a_parameter_is_only_a_value() {
    let backend = Backend::of(System::Redis);
    let key = unique("name");
    let (set, get) =
        (write("SET $1 $2", &json!(["text", "text"])), json!({ "statement": "GET $1", "params": ["text"] }));
    for value in ["x\r\nFLUSHALL\r\n", "a b", "\"quoted\"", "$1", "*3\r\n$3\r\nDEL"] {
        let both = json!([key, value]).to_string();
        assert_eq!(backend.rows(&set, &both).await, [r#""OK""#]);
        assert_eq!(backend.rows(&get, &json!([key]).to_string()).await, [json!(value).to_string()]);
    }
    assert_eq!(backend.rows(&get, &json!([format!("{key} x")]).to_string()).await, ["null"]);
    backend.rows(&write("DEL $1", &json!(["text"])), &json!([key]).to_string()).await;
}

#[tokio::test]
async fn a_result_is_truncated_at_max_rows() {
    let backend = Backend::of(System::Redis);
    let key = unique("list");
    backend.rows(&write(&format!("RPUSH {key} 1 2 3"), &json!([])), "[]").await;
    for (max, sent, truncated) in [(2, 2, true), (3, 3, false)] {
        let query = json!({ "statement": format!("LRANGE {key} 0 -1"), "maxRows": max, "readOnly": true });
        let ran = backend.run(&query, "[]").await;
        assert_eq!(ran.rows.len(), sent);
        assert_eq!(ran.end, Ok(End { truncated, affected: None }));
    }
    backend.rows(&write(&format!("DEL {key}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn only_commands_flagged_readonly_are_read_only() {
    let backend = Backend::of(System::Redis);
    for statement in ["GET a", "strlen a", "OBJECT ENCODING a", "XINFO STREAM a", "EVAL_RO 'return 1' 0"] {
        backend.fits(&read(statement)).await;
    }
    for statement in ["SET a b", "EVAL 'return 1' 0", "GETDEL a", "CONFIG GET a", "FLUSHALL", "SORT a"] {
        assert!(backend.unfit(&read(statement)).await.contains("readonly"), "{statement}");
        let fault = backend.fault(&read(statement), "[]").await;
        assert!(matches!(fault, QueryFault::Invalid(_)), "{statement}: {fault}");
    }
    let script = read("EVAL_RO \"return redis.call('set', 'a', 'b')\" 0");
    let fault = backend.fault(&script, "[]").await;
    assert!(matches!(fault, QueryFault::Value(_)), "{fault}");
}

#[tokio::test]
async fn a_check_finds_the_errors_of_a_run() {
    let backend = Backend::of(System::Redis);
    for (statement, params, word) in [
        ("NOSUCH a", &[][..], "no command nosuch"),
        ("CONFIG NOSUCH a", &[], "no command config nosuch"),
        ("OBJECT $1 a", &["text"], "subcommand"),
        ("GET", &[], "number of arguments"),
        ("GET a b", &[], "number of arguments"),
        ("GET $1", &[], "has 1 placeholders, but params declares 0"),
        ("GET $1", &["text", "text"], "has 1 placeholders, but params declares 2"),
        ("GET key:$1", &["text"], "quote it"),
        ("GET 'a", &[], "not closed"),
        ("MULTI", &[], "changes the connection"),
    ] {
        let said = backend.unfit(&json!({ "statement": statement, "params": params })).await;
        assert!(said.contains(word), "{statement}: {said}");
    }
}

#[tokio::test]
async fn query_errors_are_classified_and_leave_the_connection_usable() {
    let backend = Backend::of(System::Redis);
    let key = unique("text");
    backend.rows(&write(&format!("SET {key} text"), &json!([])), "[]").await;
    for (statement, wanted) in [
        (format!("INCR {key}"), "value"),
        (format!("LPUSH {key} 1"), "value"),
        (format!("SETRANGE {key} -1 x"), "value"),
        ("EVALSHA 0000000000000000000000000000000000000000 0".to_owned(), "invalid"),
        ("NOSUCH".to_owned(), "invalid"),
    ] {
        let fault = backend.fault(&write(&statement, &json!([])), "[]").await;
        assert_eq!(fault.as_str(), wanted, "{statement}: {fault}");
    }
    assert_eq!(backend.database.pool().size, 1);
    backend.rows(&write(&format!("DEL {key}"), &json!([])), "[]").await;

    let limited = Backend::on(System::Redis, System::Redis.port(), "limited", "limited-secret");
    let denied = limited.fault(&write("PING", &json!([])), "[]").await;
    assert!(matches!(denied, QueryFault::Denied(_)), "{denied}");
}

/// Waits until so many clients wait for a key.
async fn waits(backend: &Backend, wanted: usize) {
    eventually(SOON, "clients that wait", async || {
        let info = backend.rows(&write("INFO clients", &json!([])), "[]").await.concat();
        if info.contains(&format!("blocked_clients:{wanted}\\r")) { Ok(()) } else { Err(info) }
    })
    .await;
}

#[tokio::test]
async fn a_blocking_command_times_out_and_consumes_nothing_afterwards() {
    let server = Server::start(System::Redis);
    let backend = Backend::on(System::Redis, server.port, "app", "app-secret");
    let other = Backend::on(System::Redis, server.port, "app", "app-secret");
    let pop = |timeout: &str| json!({ "statement": "BLPOP queue 0", "timeout": timeout });
    let started = Instant::now();
    assert_eq!(backend.fault(&pop("500ms"), "[]").await, QueryFault::TimedOut);
    assert!(started.elapsed() >= Duration::from_millis(500));
    backend.is_at_rest().await;
    let answer = backend.start(&pop("10m"), "[]");
    waits(&other, 1).await;
    drop(answer);
    waits(&other, 0).await;
    backend.is_at_rest().await;
    backend.rows(&write("RPUSH queue x", &json!([])), "[]").await;
    assert_eq!(backend.rows(&read("LRANGE queue 0 -1"), "[]").await, [r#""x""#]);
    // One that waits for less than its time is no fault, however long the driver would like to wait.
    let slow = json!({ "statement": "BLPOP nothing 1", "timeout": "10s" });
    assert_eq!(backend.rows(&slow, "[]").await, ["null"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restarted_since_costs_no_query() {
    let server = Server::start(System::Redis);
    let backend = Backend::on(System::Redis, server.port, "app", "app-secret");
    let set = write("SET a b", &json!([]));
    backend.rows(&set, "[]").await;
    server.kill();
    server.resume();
    assert_eq!(backend.rows(&set, "[]").await, [r#""OK""#]);
}

#[tokio::test]
async fn a_key_of_another_node_of_a_cluster_is_refused_with_the_node() {
    let nodes = [0, 1].map(|_| Server::start_with(System::Redis, &[("MODE", "cluster")]));
    for (node, slots) in nodes.iter().zip([["0", "8191"], ["8192", "16383"]]) {
        node.redis(&["cluster", "addslotsrange", slots[0], slots[1]]);
    }
    nodes[0].redis(&["cluster", "meet", "127.0.0.1", &nodes[1].port.to_string()]);
    let backend = Backend::on(System::Redis, nodes[0].port, "app", "app-secret");
    eventually(SOON, "a cluster", async || backend.database.probe().await.map_err(|fault| fault.to_string()))
        .await;
    // Their slots are 7365 and 15495.
    assert_eq!(backend.rows(&read("GET c"), "[]").await.len(), 1);
    let fault = backend.fault(&read("GET a"), "[]").await;
    let node = nodes[1].port.to_string();
    assert!(
        matches!(&fault, QueryFault::Invalid(text) if text.contains(&node) && text.contains("redirects")),
        "{fault}"
    );
}
