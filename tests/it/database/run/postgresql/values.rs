//! What goes in, and what comes out.

use serde_json::json;

use crate::{
    database::run::{Backend, End, QueryFault, read, unique, write},
    support::{SOON, System, eventually},
};

const ALL: [&str; 8] = ["text", "integer", "number", "boolean", "timestamp", "uuid", "json", "bytes"];

#[tokio::test]
async fn every_type_of_parameter_comes_back_as_it_was_given() {
    let backend = Backend::of(System::Postgresql);
    let query = json!({
        "statement": "select $1 as text, $2 as integer, $3 as number, $4 as boolean, $5 as time, $6 as uuid, $7 as json, $8 as bytes",
        "params": ALL,
        "readOnly": true,
    });
    backend.fits(&query).await;
    let given = r#"["a \"b\" \\ é 😀", -9223372036854775808, 12345678901234567890.123456789012345678900, true,
        "2024-05-06T07:08:09.123456+02:00", "6f1c2a9e-0b3d-4c5e-8f70-112233445566", {"b": 1.50, "a": [null]}, "AP8="]"#;
    let wanted = concat!(
        r#"{"text":"a \"b\" \\ é 😀","integer":-9223372036854775808,"number":12345678901234567890.123456789012345678900,"#,
        r#""boolean":true,"time":"2024-05-06T05:08:09.123456+00:00","uuid":"6f1c2a9e-0b3d-4c5e-8f70-112233445566","#,
        r#""json":{"a": [null], "b": 1.50},"bytes":"AP8="}"#
    );
    assert_eq!(backend.rows(&query, given).await, [wanted]);
    let nulls = backend.rows(&query, "[null, null, null, null, null, null, null, null]").await;
    let wanted = r#"{"text":null,"integer":null,"number":null,"boolean":null,"time":null,"uuid":null,"json":null,"bytes":null}"#;
    assert_eq!(nulls, [wanted]);
}

#[tokio::test]
async fn a_table_keeps_every_digit_and_byte() {
    let backend = Backend::of(System::Postgresql);
    let table = unique("exact");
    let create = format!(
        "create table {table} (n numeric(60, 30), f float8, t timestamptz, p timestamp, b bytea, i int4)"
    );
    backend.rows(&write(&create, &json!([])), "[]").await;
    let insert = write(
        &format!("insert into {table} values ($1, $2, $3, $4, $5, $6)"),
        &json!(["number", "number", "timestamp", "timestamp", "bytes", "integer"]),
    );
    let given = r#"["123456789012345678901234567890.123456789012345678901234567890", 0.1, "1999-12-31T23:59:59.999999Z",
        "1999-12-31T23:59:59.999999Z", "AAECA//+/Q==", 2147483647]"#;
    let ran = backend.run(&insert, given).await;
    assert_eq!(ran.end, Ok(End { truncated: false, affected: Some(1) }));
    let wanted = concat!(
        r#"{"n":123456789012345678901234567890.123456789012345678901234567890,"f":0.1,"#,
        r#""t":"1999-12-31T23:59:59.999999+00:00","p":"1999-12-31T23:59:59.999999","b":"AAECA//+/Q==","i":2147483647}"#
    );
    assert_eq!(backend.rows(&read(&format!("table {table}")), "[]").await, [wanted]);
    let found = json!({ "statement": format!("select i from {table} where n = $1 and b = $2"), "params": ["number", "bytes"] });
    let given = r#"[123456789012345678901234567890.12345678901234567890123456789, "AAECA//+/Q=="]"#;
    assert_eq!(backend.rows(&found, given).await, [r#"{"i":2147483647}"#]);
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn every_type_of_the_server_is_returned_as_json_on_one_line() {
    let backend = Backend::of(System::Postgresql);
    let pairs = [
        ("'NaN'::float8", r#""NaN""#),
        ("'-Infinity'::numeric", r#""-Infinity""#),
        ("'infinity'::timestamptz", r#""infinity""#),
        ("'1 year 2 days 03:04:05.000006'::interval", r#""1 year 2 days 03:04:05.000006""#),
        ("9223372036854775807", "9223372036854775807"),
        ("0.1::float4", "0.1"),
        ("array[1, null]", "[1,null]"),
        ("row(1, 'a')", r#"{"f1":1,"f2":"a"}"#),
        ("e'{\\n\"a\":\\r\\n1}'::json", r#"{ "a":  1}"#),
        ("e'a\\nb'", r#""a\nb""#),
        ("'x'", r#""x""#),
        ("repeat('x', 100)::bytea", &format!("\"{}\"", "eHh4".repeat(33) + "eA==")),
        ("pg_sleep(0)", r#""""#),
        ("current_setting('TimeZone')", r#""UTC""#),
    ];
    for (value, wanted) in pairs {
        let rows = backend.rows(&read(&format!("select {value} as value")), "[]").await;
        assert_eq!(rows, [format!("{{\"value\":{wanted}}}")], "{value}");
    }
    let named = read("select 1 as \"a \"\"b\"\"\", '\\x01'::bytea as \"c\n'\"");
    assert_eq!(backend.rows(&named, "[]").await, [r#"{"a \"b\"":1,"c\n'":"AQ=="}"#]);
}

#[tokio::test]
async fn values_are_formatted_as_the_server_does() {
    let backend = Backend::of(System::Postgresql);
    // The server makes the JSON of an array, and of what is in it.
    for (kind, values) in [
        (
            "numeric",
            "select (random() - 0.5)::numeric * 10::numeric ^ (n % 60 - 30) from generate_series(1, 2000) n",
        ),
        (
            "numeric",
            "select (n::numeric * 10000::numeric ^ (n % 9))::numeric(60, 5) from generate_series(-99, 99) n",
        ),
        ("numeric(9, -3)", "select n * 700 from generate_series(-9, 9) n"),
        (
            "numeric",
            "values ('0'), ('-0.000'), ('1e131071'), ('1e-16383'), ('NaN'), ('Infinity'), ('-Infinity')",
        ),
        ("int2", "values (-32768), (32767)"),
        ("int8", "values (-9223372036854775808), (9223372036854775807)"),
        ("bool", "values (true), (false), (null)"),
        (
            "timestamptz",
            "select '4713-01-01 00:00+00 BC'::timestamptz + n * interval '40 days 1.000001 s' from generate_series(0, 2000000, 997) n",
        ),
        (
            "timestamp",
            "values ('294276-12-31 23:59:59.999999'), ('4714-11-24 00:00:00 BC'), ('infinity'), ('-infinity'), ('0001-01-01')",
        ),
        (
            "date",
            "values ('5874897-12-31'), ('4714-11-24 BC'), ('infinity'), ('-infinity'), ('1900-02-28'), ('2000-02-29')",
        ),
        ("date", "select '0001-12-31 BC'::date + n from generate_series(-800, 800) n"),
        ("uuid", "values ('6f1c2a9e-0b3d-4c5e-8f70-112233445566')"),
        ("text", "select chr(n) from generate_series(1, 1000) n"),
        ("bpchar(3)", "values ('a')"),
        ("name", "values ('a\"b')"),
        ("jsonb", "values ('{\"b\": [1.50, \"\\n\"], \"a\": null}'), ('3')"),
        ("json", "values ('{\"b\": [1.50, \"\\n\"], \"b\": null}')"),
        (
            "float8",
            "values (0.1), (1e15), (-2.5), (1.7976931348623157e308), ('NaN'), ('Infinity'), ('-Infinity')",
        ),
    ] {
        let statement = format!("select v::{kind} as v, array[v::{kind}] as a from ({values}) as t (v)");
        let query = json!({ "statement": statement, "maxRows": 10_000, "readOnly": true, "timeout": "1m" });
        let rows = backend.rows(&query, "[]").await;
        assert!(!rows.is_empty());
        for row in rows {
            let (ours, theirs) = row
                .strip_prefix("{\"v\":")
                .and_then(|row| row.strip_suffix("]}"))
                .and_then(|row| row.rsplit_once(",\"a\":["))
                .expect("two columns");
            let number = |text: &str| text.parse::<f64>().ok();
            let same = if kind == "float8" && number(ours).is_some() {
                number(ours) == number(theirs)
            } else {
                ours == theirs
            };
            // The server escapes more characters than it has to.
            let text = |json: &str| serde_json::from_str::<String>(json).ok();
            assert!(
                same || (kind == "text" && text(ours).is_some() && text(ours) == text(theirs)),
                "{kind}: {row}"
            );
        }
    }
}

#[tokio::test]
async fn sql_in_a_parameter_is_only_a_value() {
    let backend = Backend::of(System::Postgresql);
    let table = unique("users");
    let quiet = json!([]);
    backend.rows(&write(&format!("create table {table} (name text)"), &quiet), "[]").await;
    let insert = write(&format!("insert into {table} values ($1) returning name"), &json!(["text"]));
    for text in [
        format!("'; drop table {table}; --"),
        format!("') ; delete from {table}; select ('"),
        "$1 || current_user".to_owned(),
        "\\'; select pg_sleep(60) --".to_owned(),
        "*/ or 1=1 /*".to_owned(),
    ] {
        let rows = backend.rows(&insert, &json!([text]).to_string()).await;
        assert_eq!(rows, [json!({ "name": text }).to_string()]);
    }
    let found =
        json!({ "statement": format!("select count(*) from {table} where name = $1"), "params": ["text"] });
    assert_eq!(backend.rows(&found, r#"["' or ''='"]"#).await, [r#"{"count":0}"#]);
    assert_eq!(backend.rows(&read(&format!("select count(*) from {table}")), "[]").await, [r#"{"count":5}"#]);
    backend.rows(&write(&format!("drop table {table}"), &quiet), "[]").await;
}

#[tokio::test]
async fn one_statement_with_two_lists_of_types_is_two_queries() {
    let backend = Backend::of(System::Postgresql);
    let with = |kind: &str| json!({ "statement": "select $1 as value", "params": [kind] });
    for _ in 0..2 {
        assert_eq!(backend.rows(&with("text"), r#"["1"]"#).await, [r#"{"value":"1"}"#]);
        assert_eq!(backend.rows(&with("number"), r#"["1"]"#).await, [r#"{"value":1}"#]);
        assert_eq!(backend.rows(&with("bytes"), r#"["MQ=="]"#).await, [r#"{"value":"MQ=="}"#]);
    }
}

#[tokio::test]
async fn a_table_that_changes_under_a_prepared_statement_is_read_correctly() {
    let backend = Backend::of(System::Postgresql);
    let table = unique("shape");
    let change = |statement: String| write(&statement, &json!([]));
    backend.rows(&change(format!("create table {table} as select 1 as a, '\\x01'::bytea as b")), "[]").await;
    let all = read(&format!("select * from {table}"));
    assert_eq!(backend.rows(&all, "[]").await, [r#"{"a":1,"b":"AQ=="}"#]);
    backend.rows(&change(format!("alter table {table} add c text default 'x'")), "[]").await;
    assert_eq!(backend.rows(&all, "[]").await, [r#"{"a":1,"b":"AQ==","c":"x"}"#]);
    // With a column of which the server makes JSON.
    backend.rows(&change(format!("alter table {table} add d int[]")), "[]").await;
    assert_eq!(backend.rows(&all, "[]").await, [r#"{"a":1,"b":"AQ==","c":"x","d":null}"#]);
    backend.rows(&change(format!("alter table {table} add e int default 5")), "[]").await;
    assert_eq!(backend.rows(&all, "[]").await, [r#"{"a":1,"b":"AQ==","c":"x","d":null,"e":5}"#]);
    backend.rows(&change(format!("alter table {table} drop d, drop e")), "[]").await;
    backend.rows(&change(format!("alter table {table} drop a")), "[]").await;
    assert_eq!(backend.rows(&all, "[]").await, [r#"{"b":"AQ==","c":"x"}"#]);
    backend
        .rows(&change(format!("alter table {table} alter c drop default, alter c type int using 7")), "[]")
        .await;
    assert_eq!(backend.rows(&all, "[]").await, [r#"{"b":"AQ==","c":7}"#]);
    backend.rows(&change(format!("drop table {table}")), "[]").await;
    assert!(matches!(backend.fault(&all, "[]").await, QueryFault::Invalid(_)));
}

#[tokio::test]
async fn a_new_session_reads_a_table_that_has_changed() {
    let other = Backend::of(System::Postgresql);
    let table = unique("reshaped");
    let change = async |statement: String| other.rows(&write(&statement, &json!([])), "[]").await;
    change(format!("create table {table} as select 1 as a")).await;
    let all = read(&format!("select * from {table}"));
    let update = write(&format!("update {table} set a = a returning a"), &json!([]));
    for (alter, wanted) in [
        ("alter a type text using 'x'", r#"{"a":"x"}"#),
        ("alter a type int[] using array[1]", r#"{"a":[1]}"#),
        ("alter a type int8 using 7", r#"{"a":7}"#),
        ("add b int default 2", r#"{"a":7,"b":2}"#),
        ("drop b", r#"{"a":7}"#),
    ] {
        let backend = Backend::with(System::Postgresql, System::Postgresql.port(), "app", "app-secret", 2);
        for query in [&all, &update] {
            assert_eq!(backend.rows(query, "[]").await.len(), 1);
        }
        change(format!("alter table {table} {alter}")).await;
        let busy = json!({ "statement": "select pg_sleep(600)", "timeout": "10m", "readOnly": true });
        let busy = backend.start(&busy, "[]");
        eventually(SOON, "the first session is lent", async || {
            let view = backend.database.pool();
            if (view.size, view.idle) == (1, 0) { Ok(()) } else { Err(format!("{view:?}")) }
        })
        .await;
        assert_eq!(backend.rows(&all, "[]").await, [wanted], "{alter}");
        let a = if wanted.contains("\"b\"") { r#"{"a":7}"# } else { wanted };
        assert_eq!(backend.rows(&update, "[]").await, [a], "{alter}");
        drop(busy);
    }
    change(format!("drop table {table}")).await;
}
