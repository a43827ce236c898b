//! Responses as JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use redis::Value;

use crate::backends::database::query::json_string;

/// The rows of a response: the elements of an array, else the value itself.
pub(super) fn rows(response: Value) -> Vec<Value> {
    match response {
        Value::Array(values) | Value::Set(values) => values,
        Value::Attribute { data, .. } => rows(*data),
        value => vec![value],
    }
}

/// A value as JSON. UTF-8 is a string; other bytes are an object with the field `base64`.
pub(super) fn json(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Int(integer) => out.push_str(&integer.to_string()),
        Value::Boolean(boolean) => out.push_str(&boolean.to_string()),
        // JSON has no infinities.
        Value::Double(double) if double.is_finite() => out.push_str(&double.to_string()),
        Value::Double(double) => string(out, &double.to_string()),
        Value::BulkString(bytes) | Value::BigNumber(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => string(out, text),
            Err(_) => out.extend([r#"{"base64":""#, &STANDARD.encode(bytes), r#""}"#]),
        },
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => string(out, text),
        Value::Okay => string(out, "OK"),
        Value::Array(values) | Value::Set(values) | Value::Push { data: values, .. } => {
            list(out, ['[', ']'], values, write);
        }
        Value::Map(pairs) => list(out, ['{', '}'], pairs, field),
        Value::Attribute { data, .. } => write(out, data),
        Value::ServerError(error) => {
            out.push_str(r#"{"error":"#);
            string(out, &error.to_string());
            out.push('}');
        }
        // Nil, and types that the driver may add.
        _ => out.push_str("null"),
    }
}

/// Keys of other types become strings.
fn field(out: &mut String, (key, value): &(Value, Value)) {
    match json(key) {
        name if name.starts_with('"') => out.push_str(&name),
        name => string(out, &name),
    }
    out.push(':');
    write(out, value);
}

fn list<T>(out: &mut String, [open, close]: [char; 2], values: &[T], write: impl Fn(&mut String, &T)) {
    out.push(open);
    for (index, value) in values.iter().enumerate() {
        out.push_str(if index == 0 { "" } else { "," });
        write(out, value);
    }
    out.push(close);
}

fn string(out: &mut String, text: &str) {
    out.push_str(&json_string(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn values_are_written_as_json() {
        let pairs = [
            (Value::Nil, "null"),
            (Value::Int(-7), "-7"),
            (text("a \"b\"\n"), r#""a \"b\"\n""#),
            (Value::BulkString(vec![0, 255]), r#"{"base64":"AP8="}"#),
            (Value::Okay, r#""OK""#),
            (Value::Double(0.5), "0.5"),
            (Value::Double(f64::INFINITY), r#""inf""#),
            (Value::Boolean(true), "true"),
            (Value::Array(vec![Value::Int(1), Value::Array(vec![Value::Nil])]), "[1,[null]]"),
            (
                Value::Map(vec![(text("a"), Value::Int(1)), (Value::Int(2), Value::Nil)]),
                r#"{"a":1,"2":null}"#,
            ),
        ];
        for (value, wanted) in pairs {
            assert_eq!(json(&value), wanted);
        }
    }

    #[test]
    fn an_array_is_several_rows_and_any_other_value_is_one() {
        assert_eq!(rows(Value::Array(vec![Value::Int(1), Value::Int(2)])), [Value::Int(1), Value::Int(2)]);
        assert_eq!(rows(Value::Array(Vec::new())), []);
        assert_eq!(rows(Value::Nil), [Value::Nil]);
        assert_eq!(rows(text("a")), [text("a")]);
    }
}
