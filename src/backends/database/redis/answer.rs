//! Answers as JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use redis::Value;

use crate::backends::database::query::quoted;

/// The rows of an answer: the elements of a list, else the one value that it is. Each is JSON.
pub(super) fn rows(answer: Value) -> Vec<Value> {
    match answer {
        Value::Array(values) | Value::Set(values) => values,
        Value::Attribute { data, .. } => rows(*data),
        value => vec![value],
    }
}

/// A value as JSON. Texts are strings; what is no text is an object whose field `base64` has it.
pub(super) fn json(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Int(integer) => out.push_str(&integer.to_string()),
        Value::Boolean(boolean) => out.push_str(&boolean.to_string()),
        // Infinities are no numbers in JSON.
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
        // Nil, and what the driver may learn of.
        _ => out.push_str("null"),
    }
}

/// A field's name is a string, whatever the key is.
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
    out.push_str(&quoted(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn each_value_has_its_form() {
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
    fn a_list_is_rows_and_all_else_is_one() {
        assert_eq!(rows(Value::Array(vec![Value::Int(1), Value::Int(2)])), [Value::Int(1), Value::Int(2)]);
        assert_eq!(rows(Value::Array(Vec::new())), []);
        assert_eq!(rows(Value::Nil), [Value::Nil]);
        assert_eq!(rows(text("a")), [text("a")]);
    }
}
