//! What goes in, and what comes out.

use serde_json::json;

use crate::{
    database::run::{Backend, End, read, unique, write},
    support::System,
};

const ALL: [&str; 8] = ["text", "integer", "number", "boolean", "timestamp", "uuid", "json", "bytes"];

#[tokio::test]
async fn every_type_of_parameter_comes_back_as_it_was_given() {
    let backend = Backend::of(System::Mariadb);
    let query = json!({
        "statement": "select ? as text, ? as i, ? as number, ? as boolean, ? as time, ? as uuid, ? as json, ? as bytes",
        "params": ALL,
        "readOnly": true,
    });
    backend.fits(&query).await;
    let given = r#"["a \"b\" \\ é 😀", -9223372036854775808, 12345678901234567890.123456789012345678900, true,
        "2024-05-06T07:08:09.123456+02:00", "6f1c2a9e-0b3d-4c5e-8f70-112233445566", {"b": 1.50, "a": [null]}, "AP8="]"#;
    let wanted = concat!(
        r#"{"text":"a \"b\" \\ é 😀","i":-9223372036854775808,"number":12345678901234567890.123456789012345678900,"#,
        r#""boolean":1,"time":"2024-05-06 05:08:09.123456","uuid":"6f1c2a9e-0b3d-4c5e-8f70-112233445566","#,
        r#""json":"{\"b\": 1.50, \"a\": [null]}","bytes":"AP8="}"#
    );
    assert_eq!(backend.rows(&query, given).await, [wanted]);
    let nulls = backend.rows(&query, "[null, null, null, null, null, null, null, null]").await;
    let wanted = r#"{"text":null,"i":null,"number":null,"boolean":null,"time":null,"uuid":null,"json":null,"bytes":null}"#;
    assert_eq!(nulls, [wanted]);
}

#[tokio::test]
async fn a_table_keeps_every_digit_and_byte() {
    let backend = Backend::of(System::Mariadb);
    let table = unique("exact");
    let create = format!(
        "create table {table} (n decimal(60, 30), f double, t timestamp(6), p datetime(6), b blob, u bigint unsigned)"
    );
    backend.rows(&write(&create, &json!([])), "[]").await;
    let insert = write(
        &format!("insert into {table} values (?, ?, ?, ?, ?, ?)"),
        &json!(["number", "number", "timestamp", "timestamp", "bytes", "number"]),
    );
    let given = r#"["123456789012345678901234567890.123456789012345678901234567890", 0.1, "1999-12-31T23:59:59.999999Z",
        "1999-12-31T23:59:59.999999Z", "AAECA//+/Q==", 18446744073709551615]"#;
    let ran = backend.run(&insert, given).await;
    assert_eq!(ran.end, Ok(End { truncated: false, affected: Some(1) }));
    let wanted = concat!(
        r#"{"n":123456789012345678901234567890.123456789012345678901234567890,"f":0.1,"#,
        r#""t":"1999-12-31T23:59:59.999999Z","p":"1999-12-31T23:59:59.999999","b":"AAECA//+/Q==","u":18446744073709551615}"#
    );
    assert_eq!(backend.rows(&read(&format!("select * from {table}")), "[]").await, [wanted]);
    // As a text, the decimal would be compared as a float, and fit one that differs in the last digit.
    let count = json!({
        "statement": format!("select count(*) as c from {table} where n = ? and b = ? and t = ? and p = ?"),
        "params": ["number", "bytes", "timestamp", "timestamp"],
    });
    for (last, counted) in [("9", 1), ("8", 0)] {
        let given = format!(
            r#"[123456789012345678901234567890.1234567890123456789012345678{last}, "AAECA//+/Q==", "2000-01-01T00:59:59.999999+01:00", "1999-12-31T23:59:59.999999Z"]"#
        );
        assert_eq!(backend.rows(&count, &given).await, [format!("{{\"c\":{counted}}}")]);
    }
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_number_is_a_decimal_whatever_its_exponent() {
    let backend = Backend::of(System::Mariadb);
    let query = json!({ "statement": "select cast(? as decimal(65, 30)) as n", "params": ["number"], "readOnly": true });
    for (given, wanted) in [
        ("1e-30", "0.000000000000000000000000000001"),
        ("1.5E30", "1500000000000000000000000000000.000000000000000000000000000000"),
        ("-0.00000001", "-0.000000010000000000000000000000"),
    ] {
        assert_eq!(backend.rows(&query, &format!("[{given}]")).await, [format!("{{\"n\":{wanted}}}")]);
    }
}

#[tokio::test]
async fn every_type_of_the_server_is_returned() {
    let backend = Backend::of(System::Mariadb);
    let table = unique("kinds");
    let columns = [
        ("tinyint", "-128", "-128"),
        ("tinyint(1)", "5", "5"),
        ("tinyint(1) unsigned", "255", "255"),
        ("smallint unsigned", "65535", "65535"),
        ("mediumint", "-8388608", "-8388608"),
        ("mediumint unsigned", "16777215", "16777215"),
        ("int unsigned", "4294967295", "4294967295"),
        ("int zerofill", "7", "7"),
        ("bigint", "-9223372036854775808", "-9223372036854775808"),
        ("decimal(10, 2) zerofill", "7.5", "7.50"),
        ("float", "0.1", "0.1"),
        ("double", "-1.5e300", "-1.5e+300"),
        ("bit(9)", "b'100000001'", "257"),
        ("bit(64)", "18446744073709551615", "18446744073709551615"),
        ("year", "2024", "2024"),
        ("date", "'2024-02-29'", r#""2024-02-29""#),
        ("time(6)", "'-838:59:59.000001'", r#""-838:59:59.000001""#),
        ("time", "'25:00:00'", r#""25:00:00""#),
        ("datetime", "'2024-02-29 01:02:03'", r#""2024-02-29T01:02:03""#),
        ("varchar(9) collate utf8mb4_bin", "'a\"é'", r#""a\"é""#),
        ("char(3) character set latin1", "'é'", r#""é""#),
        ("longtext", "'x'", r#""x""#),
        ("enum('a', 'b')", "'b'", r#""b""#),
        ("set('a', 'b')", "'a,b'", r#""a,b""#),
        ("binary(3)", "'a'", r#""YQAA""#),
        ("varbinary(3)", "x'00ff'", r#""AP8=""#),
        ("longblob", "x'00ff'", r#""AP8=""#),
        ("json", "'{\"a\": 1.50}'", r#""{\"a\": 1.50}""#),
        ("uuid", "'6f1c2a9e-0b3d-4c5e-8f70-112233445566'", r#""6f1c2a9e-0b3d-4c5e-8f70-112233445566""#),
        ("int", "null", "null"),
    ];
    let defined: Vec<_> =
        columns.iter().enumerate().map(|(at, (kind, ..))| format!("c{at} {kind} null")).collect();
    backend.rows(&write(&format!("create table {table} ({})", defined.join(", ")), &json!([])), "[]").await;
    let values: Vec<_> = columns.iter().map(|(_, value, _)| *value).collect();
    backend
        .rows(&write(&format!("insert into {table} values ({})", values.join(", ")), &json!([])), "[]")
        .await;
    let wanted: Vec<_> =
        columns.iter().enumerate().map(|(at, (.., json))| format!("\"c{at}\":{json}")).collect();
    let rows = backend.rows(&read(&format!("select * from {table}")), "[]").await;
    assert_eq!(rows, [format!("{{{}}}", wanted.join(","))]);
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn zero_dates_fail_nothing() {
    let backend = Backend::of(System::Mariadb);
    let table = unique("zero");
    let create = format!("create table {table} (d date, p datetime, t timestamp, m datetime)");
    backend.rows(&write(&create, &json!([])), "[]").await;
    let insert = format!("insert ignore into {table} values (0, 0, 0, null)");
    backend.rows(&write(&insert, &json!([])), "[]").await;
    let wanted = r#"{"d":"0000-00-00","p":"0000-00-00T00:00:00","t":"0000-00-00T00:00:00Z","m":null}"#;
    assert_eq!(backend.rows(&read(&format!("select * from {table}")), "[]").await, [wanted]);
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn sql_in_a_parameter_is_only_a_value() {
    let backend = Backend::of(System::Mariadb);
    let table = unique("users");
    backend.rows(&write(&format!("create table {table} (name text)"), &json!([])), "[]").await;
    let insert = write(&format!("insert into {table} values (?)"), &json!(["text"]));
    for text in [
        "'; drop table users; --",
        "') ; delete from users; select ('",
        "\\'; select sleep(60) #",
        "?",
        "*/ or 1=1 /*!",
    ] {
        backend.rows(&insert, &json!([text]).to_string()).await;
        let found =
            json!({ "statement": format!("select name from {table} where name = ?"), "params": ["text"] });
        let rows = backend.rows(&found, &json!([text]).to_string()).await;
        assert_eq!(rows, [json!({ "name": text }).to_string()]);
    }
    let found = json!({ "statement": format!("select count(*) as c from {table} where name = ?"), "params": ["text"] });
    assert_eq!(backend.rows(&found, r#"["' or ''='"]"#).await, [r#"{"c":0}"#]);
    assert_eq!(
        backend.rows(&read(&format!("select count(*) as c from {table}")), "[]").await,
        [r#"{"c":5}"#]
    );
    backend.rows(&write(&format!("drop table {table}"), &json!([])), "[]").await;
}

#[tokio::test]
async fn a_statement_means_what_it_means_to_other_clients() {
    let backend = Backend::of(System::Mariadb);
    // Not a concatenation, which the driver would have made of it.
    assert_eq!(backend.rows(&read("select 'a' || 'b' as n"), "[]").await, [r#"{"n":0}"#]);
}
