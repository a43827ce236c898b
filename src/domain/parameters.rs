//! Query parameters: validates and converts the values of a caller by their declared types, without loss.
//!
//! The length of texts is limited by the size of the request body. Numbers have a limit of their own, because a short
//! text such as `1e999999` can stand for a very long number.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bigdecimal::BigDecimal;
use jiff::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::api::v1alpha1::database::ParamType;

/// The maximum number of digits of a number without an exponent; `1e9` has ten. Database columns support fewer.
pub const MAX_DIGITS: u64 = 1000;

/// A value with its declared type.
#[derive(Clone)]
pub struct Parameter {
    kind: ParamType,
    value: Option<Value>,
}

/// A value of a declared type.
#[derive(Clone)]
#[allow(missing_docs, reason = "the names are those of the types")]
pub enum Value {
    Text(String),
    Integer(i64),
    Number(BigDecimal),
    Boolean(bool),
    Timestamp(Timestamp),
    Uuid(Uuid),
    Json(Box<RawValue>),
    Bytes(Vec<u8>),
}

impl Parameter {
    /// Its declared type.
    #[must_use]
    pub const fn kind(&self) -> ParamType {
        self.kind
    }

    /// The value, or none for null.
    #[must_use]
    pub const fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }
}

/// Without the value, since this may be logged.
impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.as_str())
    }
}

/// A value that does not match its declaration. The message has the position and the types, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Wrong number of values.
    #[error("expected {expected} parameters, got {given}")]
    Count {
        /// The number of declared parameters.
        expected: usize,
        /// The number of values.
        given: usize,
    },
    /// A value of the wrong type.
    #[error("parameter {position}: expected {}, got {given}", accepted(*.expected))]
    Type {
        /// Counted from 1.
        position: usize,
        /// The declared type.
        expected: ParamType,
        /// The JSON type of the value, with its article.
        given: &'static str,
    },
}

/// The values that a type accepts.
const fn accepted(kind: ParamType) -> &'static str {
    match kind {
        ParamType::Text => "a string",
        ParamType::Integer => "a 64-bit integer (number or string)",
        ParamType::Number => "a decimal number of at most 1000 digits (number or string)",
        ParamType::Boolean => "true or false",
        ParamType::Timestamp => "an RFC 3339 timestamp with at most microseconds (string)",
        ParamType::Uuid => "a UUID (string)",
        ParamType::Json => "a JSON value",
        ParamType::Bytes => "base64 with padding (string)",
    }
}

/// Converts each value to the declared type at its position. Null is valid for every type.
///
/// # Errors
/// The first value of the wrong type, or a wrong number of values.
pub fn bind(types: &[ParamType], values: &[Box<RawValue>]) -> Result<Vec<Parameter>, Mismatch> {
    if types.len() != values.len() {
        return Err(Mismatch::Count { expected: types.len(), given: values.len() });
    }
    let pairs = types.iter().zip(values).enumerate();
    pairs
        .map(|(index, (&kind, raw))| {
            if raw.get() == "null" {
                return Ok(Parameter { kind, value: None });
            }
            let mismatch = || Mismatch::Type { position: index + 1, expected: kind, given: json_type(raw) };
            read(kind, raw).map(|value| Parameter { kind, value: Some(value) }).ok_or_else(mismatch)
        })
        .collect()
}

fn json_type(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn read(kind: ParamType, raw: &RawValue) -> Option<Value> {
    let text = || serde_json::from_str::<String>(raw.get()).ok();
    // The digits of a number, or of a number in a string.
    let digits = || if json_type(raw) == "a number" { Some(raw.get().to_owned()) } else { text() };
    match kind {
        ParamType::Text => text().map(Value::Text),
        ParamType::Integer => digits()?.parse().ok().map(Value::Integer),
        ParamType::Number => decimal(&digits()?).map(Value::Number),
        ParamType::Boolean => serde_json::from_str(raw.get()).ok().map(Value::Boolean),
        ParamType::Timestamp => timestamp(&text()?).map(Value::Timestamp),
        ParamType::Uuid => Uuid::try_parse(&text()?).ok().map(Value::Uuid),
        ParamType::Json => Some(Value::Json(raw.to_owned())),
        ParamType::Bytes => STANDARD.decode(text()?).ok().map(Value::Bytes),
    }
}

/// A number in JSON syntax (RFC 8259, section 6) of at most [`MAX_DIGITS`] digits.
fn decimal(text: &str) -> Option<BigDecimal> {
    // Parsing takes more than linear time, and a large exponent is a short text.
    if text.len() as u64 > MAX_DIGITS + 16 {
        return None;
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let exponent: i64 = exponent.parse().ok()?;
    if !digits(whole) || !digits(fraction) || exponent.unsigned_abs() > MAX_DIGITS {
        return None;
    }
    let number = BigDecimal::from_str(text).ok()?;
    let scale = number.fractional_digit_count();
    let written = if scale < 0 {
        number.digits() + scale.unsigned_abs()
    } else {
        number.digits().max(scale.unsigned_abs())
    };
    (written <= MAX_DIGITS).then_some(number)
}

/// A timestamp such as `2024-05-06T07:08:09.123456+02:00` (RFC 3339, section 5.6), with at most microseconds, the
/// resolution of databases.
fn timestamp(text: &str) -> Option<Timestamp> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let (time, rest) = text.as_bytes().split_at_checked(SHAPE.len())?;
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't'),
        _ => byte == shape,
    };
    let zone = match rest {
        [b'.', fraction @ ..] => {
            &fraction[fraction.iter().take_while(|byte| byte.is_ascii_digit()).count()..]
        }
        _ => rest,
    };
    let zoned = match zone {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', offset @ ..] => offset.len() == 5 && offset[2] == b':',
        _ => false,
    };
    // The parser below would read a leap second as the second before it.
    if !zoned || !time.iter().zip(SHAPE).all(fits) || time.ends_with(b"60") {
        return None;
    }
    let timestamp: Timestamp = text.parse().ok()?;
    (timestamp.subsec_nanosecond() % 1000 == 0).then_some(timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    /// The value as text with every digit; none if it is rejected.
    fn given(kind: ParamType, json: &str) -> Option<String> {
        let bound = bind(&[kind], &[raw(json)]).ok()?;
        Some(match bound[0].value().expect("not null") {
            Value::Text(text) => text.clone(),
            Value::Integer(integer) => integer.to_string(),
            Value::Number(number) => number.to_plain_string(),
            Value::Boolean(boolean) => boolean.to_string(),
            Value::Timestamp(timestamp) => timestamp.to_string(),
            Value::Uuid(uuid) => uuid.to_string(),
            Value::Json(raw) => raw.get().to_owned(),
            Value::Bytes(bytes) => format!("{bytes:?}"),
        })
    }

    fn accepts(kind: ParamType, pairs: &[(&str, &str)]) {
        for (json, wanted) in pairs {
            assert_eq!(given(kind, json).as_deref(), Some(*wanted), "{json}");
        }
    }

    fn rejects(kind: ParamType, values: &[&str]) {
        for json in values {
            assert_eq!(given(kind, json), None, "{json}");
        }
    }

    #[test]
    fn null_is_valid_for_every_type() {
        for kind in ParamType::ALL {
            let bound = bind(&[kind], &[raw("null")]).unwrap();
            assert!(bound[0].value().is_none());
            assert_eq!(bound[0].kind(), kind);
        }
    }

    #[test]
    fn a_text_is_any_string() {
        let injection = r#""'; drop table users; -- \u0000 $1""#;
        accepts(
            ParamType::Text,
            &[(r#""""#, ""), (injection, "'; drop table users; -- \0 $1"), (r#""\ud83d\ude00""#, "😀")],
        );
        rejects(ParamType::Text, &["1", "true", "[]", "{}", r#""\ud83d""#]);
    }

    #[test]
    fn an_integer_keeps_every_digit() {
        let (min, max) = ("-9223372036854775808", "9223372036854775807");
        accepts(
            ParamType::Integer,
            &[("0", "0"), (min, min), (max, max), (r#""9007199254740993""#, "9007199254740993")],
        );
        rejects(
            ParamType::Integer,
            &["9223372036854775808", "1.0", "1e3", r#""""#, r#"" 1""#, "true", "[1]"],
        );
    }

    #[test]
    fn a_number_keeps_every_digit_and_its_scale() {
        let long = "12345678901234567890123456789012345678.900";
        accepts(
            ParamType::Number,
            &[
                ("1.50", "1.50"),
                (long, long),
                (r#""0.1""#, "0.1"),
                ("-1e3", "-1000"),
                ("1.5E-3", "0.0015"),
                ("0", "0"),
            ],
        );
        rejects(
            ParamType::Number,
            &[
                r#""NaN""#,
                r#""Infinity""#,
                r#""""#,
                r#"".5""#,
                r#""5.""#,
                r#""+1""#,
                r#""1_0""#,
                r#""0x1""#,
                "true",
            ],
        );
    }

    #[test]
    fn a_number_with_too_many_digits_is_rejected_however_short_its_text_is() {
        accepts(ParamType::Number, &[("1e999", &format!("1{}", "0".repeat(999)))]);
        let digits = "9".repeat(1001);
        rejects(
            ParamType::Number,
            &["1e1000", "1e-1001", "1e999999999999", "0e99999", "1.5e9223372036854775807", &digits],
        );
    }

    #[test]
    fn a_boolean_is_true_or_false() {
        accepts(ParamType::Boolean, &[("true", "true"), ("false", "false")]);
        rejects(ParamType::Boolean, &["0", "1", r#""true""#]);
    }

    #[test]
    fn a_timestamp_has_a_zone_and_at_most_microseconds() {
        accepts(
            ParamType::Timestamp,
            &[
                (r#""2024-05-06T07:08:09Z""#, "2024-05-06T07:08:09Z"),
                (r#""2024-05-06T07:08:09.123456+02:00""#, "2024-05-06T05:08:09.123456Z"),
                (r#""2024-05-06t07:08:09.1234560z""#, "2024-05-06T07:08:09.123456Z"),
                (r#""0001-01-01T00:00:00-00:30""#, "0001-01-01T00:30:00Z"),
            ],
        );
        let rejected = [
            "2024-05-06T07:08:09",
            "2024-05-06",
            "2024-05-06 07:08:09Z",
            "20240506T070809Z",
            "2024-05-06T07:08:09.1234567Z",
            "2024-05-06T07:08:09.Z",
            "2024-05-06T07:08:60Z",
            "2024-02-30T07:08:09Z",
            "2024-05-06T07:08:09+0200",
            "2024-05-06T07:08:09+02:00[Europe/Berlin]",
            "2024-05-06T07:08:09é",
            "now",
        ];
        for text in rejected {
            rejects(ParamType::Timestamp, &[&format!("\"{text}\"")]);
        }
        rejects(ParamType::Timestamp, &["1714979289", "true"]);
    }

    #[test]
    fn a_uuid_is_a_string() {
        let uuid = "6f1c2a9e-0b3d-4c5e-8f70-112233445566";
        accepts(ParamType::Uuid, &[(&format!("\"{}\"", uuid.to_uppercase()), uuid)]);
        rejects(ParamType::Uuid, &[r#""6f1c""#, "6"]);
    }

    #[test]
    fn a_json_value_keeps_its_text() {
        accepts(
            ParamType::Json,
            &[(r#"{"b": 1.50, "a": [null]}"#, r#"{"b": 1.50, "a": [null]}"#), ("1", "1")],
        );
    }

    #[test]
    fn bytes_are_base64_with_padding() {
        accepts(ParamType::Bytes, &[(r#""AP8=""#, "[0, 255]"), (r#""""#, "[]")]);
        rejects(ParamType::Bytes, &[r#""AP8""#, r#""AP_/""#, "[0, 255]"]);
    }

    #[test]
    fn a_mismatch_has_the_position_and_the_types_and_never_the_value() {
        let types = [ParamType::Text, ParamType::Uuid];
        let mismatch = bind(&types, &[raw(r#""x""#), raw(r#""s3cr3t""#)]).unwrap_err();
        assert_eq!(mismatch, Mismatch::Type { position: 2, expected: ParamType::Uuid, given: "a string" });
        assert_eq!(mismatch.to_string(), "parameter 2: expected a UUID (string), got a string");
        let rows = [("1", "a number"), ("true", "a boolean"), ("[]", "an array"), ("{}", "an object")];
        for (json, given) in rows {
            let mismatch = bind(&types, &[raw(json), raw("null")]).unwrap_err();
            assert_eq!(mismatch, Mismatch::Type { position: 1, expected: ParamType::Text, given });
        }
        let mismatch = bind(&types, &[raw("null")]).unwrap_err();
        assert_eq!(mismatch, Mismatch::Count { expected: 2, given: 1 });
        assert_eq!(mismatch.to_string(), "expected 2 parameters, got 1");
        assert_eq!(format!("{:?}", bind(&[ParamType::Text], &[raw(r#""s3cr3t""#)]).unwrap()), "[text]");
    }
}
