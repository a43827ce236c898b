//! Converts values to and from BSON.

use std::str::FromStr;

use bson::{Bson, Decimal128};
use serde_json::Value as Json;

use crate::{backends::database::query::json_string, domain::parameters::Value};

/// A value as canonical extended JSON, which keeps its type.
pub(super) fn extended(value: &Value) -> Result<String, String> {
    let bson = match value {
        Value::Text(text) => Bson::String(text.clone()),
        Value::Integer(integer) => Bson::Int64(*integer),
        Value::Number(number) => Bson::Decimal128(
            Decimal128::from_str(&number.to_plain_string())
                .map_err(|_| "a number has more than the 34 digits of a Decimal128")?,
        ),
        Value::Boolean(boolean) => Bson::Boolean(*boolean),
        Value::Timestamp(timestamp) => {
            if timestamp.subsec_nanosecond() % 1_000_000 != 0 {
                return Err("a timestamp is more precise than mongodb's milliseconds".to_owned());
            }
            Bson::DateTime(bson::DateTime::from_millis(timestamp.as_millisecond()))
        }
        Value::Uuid(uuid) => Bson::Binary(bson::Uuid::from_bytes(*uuid.as_bytes()).into()),
        Value::Bytes(bytes) => {
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: bytes.clone() })
        }
        Value::Json(json) => {
            let value: Json = serde_json::from_str(json.get()).map_err(|error| error.to_string())?;
            if has_operator(&value) {
                return Err("a json value has a field whose name begins with $, which could be an operator"
                    .to_owned());
            }
            return Ok(json.get().to_owned());
        }
    };
    Ok(bson.into_canonical_extjson().to_string())
}

fn has_operator(value: &Json) -> bool {
    match value {
        Json::Object(fields) => {
            fields.iter().any(|(name, value)| name.starts_with('$') || has_operator(value))
        }
        Json::Array(values) => values.iter().any(has_operator),
        _ => false,
    }
}

/// Whether it is, or contains, a text that begins with $.
pub(super) fn has_dollar_text(value: &Value) -> bool {
    fn within(value: &Json) -> bool {
        match value {
            Json::String(text) => text.starts_with('$'),
            Json::Object(fields) => fields.values().any(within),
            Json::Array(values) => values.iter().any(within),
            _ => false,
        }
    }
    match value {
        Value::Text(text) => text.starts_with('$'),
        Value::Json(json) => serde_json::from_str(json.get()).is_ok_and(|json| within(&json)),
        _ => false,
    }
}

/// A value as relaxed extended JSON, with its fields in order.
pub(super) fn relaxed(value: Bson) -> String {
    match value {
        Bson::Document(document) => {
            let fields = document
                .into_iter()
                .map(|(name, value)| format!("{}:{}", json_string(&name), relaxed(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Bson::Array(values) => format!("[{}]", values.into_iter().map(relaxed).collect::<Vec<_>>().join(",")),
        value => value.into_relaxed_extjson().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use serde_json::value::RawValue;

    use super::*;
    use crate::{api::v1alpha1::database::ParamType, domain::parameters::bind};

    fn value(kind: ParamType, json: &str) -> Result<Bson, String> {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        let parameters = bind(&[kind], &[raw]).unwrap();
        let text = parameters[0].value().map_or(Ok("null".to_owned()), extended)?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn each_value_has_its_type() {
        assert_eq!(value(ParamType::Text, r#""a \"$2\" \\""#).unwrap(), Bson::from("a \"$2\" \\"));
        assert_eq!(value(ParamType::Integer, "9223372036854775807").unwrap(), Bson::Int64(i64::MAX));
        assert_eq!(value(ParamType::Number, "1.50").unwrap().to_string(), "1.50");
        assert_eq!(value(ParamType::Boolean, "true").unwrap(), Bson::Boolean(true));
        let date = bson::DateTime::from_millis(1_714_979_289_123);
        assert_eq!(
            value(ParamType::Timestamp, r#""2024-05-06T07:08:09.123Z""#).unwrap(),
            Bson::DateTime(date)
        );
        let uuid = bson::Uuid::parse_str("6f1c2a9e-0b3d-4c5e-8f70-112233445566").unwrap();
        assert_eq!(value(ParamType::Uuid, &format!("\"{uuid}\"")).unwrap(), Bson::Binary(uuid.into()));
        let bytes = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0, 255] };
        assert_eq!(value(ParamType::Bytes, r#""AP8=""#).unwrap(), Bson::Binary(bytes));
        let json = value(ParamType::Json, r#"{"b": [1, null], "a": "x"}"#).unwrap();
        assert_eq!(json, Bson::Document(doc! { "b": [1, null], "a": "x" }));
        assert_eq!(value(ParamType::Text, "null").unwrap(), Bson::Null);
    }

    #[test]
    fn values_that_would_lose_precision_are_refused() {
        assert!(value(ParamType::Number, "12345678901234567890123456789012345").is_err());
        assert!(value(ParamType::Timestamp, r#""2024-05-06T07:08:09.1234Z""#).is_err());
    }

    #[test]
    fn a_value_is_never_an_operator() {
        assert_eq!(value(ParamType::Text, r#""{\"$ne\": null}""#).unwrap(), Bson::from("{\"$ne\": null}"));
        for json in
            [r#"{"$ne": null}"#, r#"[{"a": {"$where": "1"}}]"#, r#"{"$oid": "6f1c2a9e0b3d4c5e8f701122"}"#]
        {
            assert!(value(ParamType::Json, json).unwrap_err().contains("begins with $"), "{json}");
        }
    }

    #[test]
    fn documents_come_out_in_order_and_without_loss() {
        let document = doc! { "z": i64::MAX, "a": { "y": "\"\n", "b": [1, null, f64::NAN] }, "d": bson::DateTime::from_millis(0) };
        let wanted = r#"{"z":9223372036854775807,"a":{"y":"\"\n","b":[1,null,{"$numberDouble":"NaN"}]},"d":{"$date":"1970-01-01T00:00:00Z"}}"#;
        assert_eq!(relaxed(Bson::Document(document)), wanted);
    }
}
