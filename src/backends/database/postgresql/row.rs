//! Decodes rows from the binary formats of the server's types (the `send` functions of its `utils/adt`) to JSON, formatted as the server
//! itself would; this is cheaper here than `to_json` on the server.

use std::{error::Error as StdError, fmt::Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio_postgres::{
    Row,
    types::{FromSql, Type},
};
use uuid::Uuid;

use crate::{
    api::Reason,
    backends::{
        Fault,
        database::query::{json_string, single_line_json},
    },
};

/// Days from 1970 to 2000, the server's epoch.
const EPOCH_DAYS: i64 = 10_957;

const DAY_MICROS: i64 = 86_400_000_000;

/// A column of a result.
pub(super) struct Column {
    /// As a JSON literal with its colon.
    name: String,
    /// The server converts it to JSON.
    as_json: bool,
}

/// The types that are decoded here; the server converts all others to JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnType {
    Boolean,
    Integer,
    Oid,
    Float,
    Numeric,
    Text,
    Uuid,
    Date,
    Timestamp,
    TimestampTz,
    Bytes,
    Json,
    Jsonb,
}

impl ColumnType {
    /// None for a type that the server converts to JSON.
    pub(super) fn of(kind: &Type) -> Option<Self> {
        Some(match *kind {
            Type::BOOL => Self::Boolean,
            Type::INT2 | Type::INT4 | Type::INT8 => Self::Integer,
            Type::OID => Self::Oid,
            Type::FLOAT4 | Type::FLOAT8 => Self::Float,
            Type::NUMERIC => Self::Numeric,
            // A function without a result returns an empty text.
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::VOID => Self::Text,
            Type::UUID => Self::Uuid,
            Type::DATE => Self::Date,
            Type::TIMESTAMP => Self::Timestamp,
            Type::TIMESTAMPTZ => Self::TimestampTz,
            Type::BYTEA => Self::Bytes,
            Type::JSON => Self::Json,
            Type::JSONB => Self::Jsonb,
            _ => return None,
        })
    }

    fn write(self, out: &mut String, bytes: &[u8]) -> Option<()> {
        match self {
            Self::Boolean => out.push_str(if *bytes.first()? == 0 { "false" } else { "true" }),
            Self::Integer => {
                let number = integer(bytes)?;
                out.push_str(if number < 0 { "-" } else { "" });
                digits(out, number.unsigned_abs(), 1);
            }
            Self::Oid => write!(out, "{}", u32::from_be_bytes(bytes.try_into().ok()?)).ok()?,
            Self::Float => float(out, bytes)?,
            Self::Numeric => numeric(out, bytes)?,
            Self::Text => quote(out, std::str::from_utf8(bytes).ok()?),
            Self::Uuid => write!(out, "\"{}\"", Uuid::from_slice(bytes).ok()?).ok()?,
            Self::Date => date(out, i32::from_be_bytes(bytes.try_into().ok()?)),
            Self::Timestamp => timestamp(out, integer(bytes)?, ""),
            // The session is in UTC.
            Self::TimestampTz => timestamp(out, integer(bytes)?, "+00:00"),
            Self::Bytes => write!(out, "\"{}\"", STANDARD.encode(bytes)).ok()?,
            Self::Json => out.push_str(&single_line_json(std::str::from_utf8(bytes).ok()?)?),
            // The first byte is the version.
            Self::Jsonb => {
                out.push_str(&single_line_json(std::str::from_utf8(bytes.strip_prefix(&[1])?).ok()?)?);
            }
        }
        Some(())
    }
}

impl Column {
    pub(super) fn new(name: &str, as_json: bool) -> Self {
        Self { name: json_string(name) + ":", as_json }
    }

    /// How a value of the type that the server reports now is decoded; none if it cannot be.
    pub(super) fn decoder(&self, kind: &Type) -> Option<ColumnType> {
        if self.as_json { Some(ColumnType::Json) } else { ColumnType::of(kind) }
    }
}

/// Writes a row as a JSON object.
pub(super) fn json(columns: &[Column], row: &Row, out: &mut String) -> Result<(), Fault> {
    out.push('{');
    for (index, (column, given)) in columns.iter().zip(row.columns()).enumerate() {
        out.push_str(if index == 0 { "" } else { "," });
        out.push_str(&column.name);
        let decoder = column.decoder(given.type_()).ok_or_else(undecodable)?;
        let value: Option<Raw<'_>> = row.try_get(index).map_err(|_| undecodable())?;
        match value {
            Some(Raw(bytes)) => decoder.write(out, bytes).ok_or_else(undecodable)?,
            None => out.push_str("null"),
        }
    }
    out.push('}');
    Ok(())
}

fn undecodable() -> Fault {
    Fault::new(Reason::ProtocolError, "a value in the server's response cannot be decoded")
}

/// The undecoded bytes of a value.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn integer(bytes: &[u8]) -> Option<i64> {
    Some(match bytes.len() {
        2 => i16::from_be_bytes(bytes.try_into().ok()?).into(),
        4 => i32::from_be_bytes(bytes.try_into().ok()?).into(),
        _ => i64::from_be_bytes(bytes.try_into().ok()?),
    })
}

/// The shortest digits that round-trip; NaN and infinities are strings.
fn float(out: &mut String, bytes: &[u8]) -> Option<()> {
    let (number, text) = if bytes.len() == 4 {
        let number = f32::from_be_bytes(bytes.try_into().ok()?);
        (f64::from(number), serde_json::to_string(&number).ok()?)
    } else {
        let number = f64::from_be_bytes(bytes.try_into().ok()?);
        (number, serde_json::to_string(&number).ok()?)
    };
    out.push_str(match number {
        _ if number.is_finite() => &text,
        _ if number.is_nan() => "\"NaN\"",
        _ if number > 0.0 => "\"Infinity\"",
        _ => "\"-Infinity\"",
    });
    Some(())
}

/// Number of base-10000 digits, weight of the first, sign, display scale, digits.
fn numeric(out: &mut String, bytes: &[u8]) -> Option<()> {
    let (head, groups) = bytes.split_at_checked(8)?;
    let part = |index: usize| u16::from_be_bytes([head[index], head[index + 1]]);
    let weight = i64::from(part(2).cast_signed());
    let (sign, number) = match part(4) {
        0x0000 => ("", true),
        0x4000 => ("-", true),
        0xC000 => ("\"NaN\"", false),
        0xD000 => ("\"Infinity\"", false),
        0xF000 => ("\"-Infinity\"", false),
        _ => return None,
    };
    out.push_str(sign);
    if !number {
        return Some(());
    }
    let digit = |of: i64| {
        let at = usize::try_from(weight - of).ok().map(|index| index * 2);
        at.and_then(|at| groups.get(at..at + 2)).map_or(0, |digit| u16::from_be_bytes([digit[0], digit[1]]))
    };
    digits(out, digit(weight.max(0)).into(), 1);
    for of in (0..weight).rev() {
        digits(out, digit(of).into(), 4);
    }
    let scale = usize::from(part(6));
    if scale > 0 {
        out.push('.');
        let end = out.len() + scale;
        for of in 1..=i64::try_from(scale.div_ceil(4)).ok()? {
            digits(out, digit(-of).into(), 4);
        }
        out.truncate(end);
    }
    Some(())
}

fn date(out: &mut String, days: i32) {
    match days {
        i32::MAX => out.push_str("\"infinity\""),
        i32::MIN => out.push_str("\"-infinity\""),
        days => {
            out.push('"');
            let era = civil(out, days.into());
            out.extend([era, "\""]);
        }
    }
}

fn timestamp(out: &mut String, micros: i64, zone: &str) {
    match micros {
        i64::MAX => return out.push_str("\"infinity\""),
        i64::MIN => return out.push_str("\"-infinity\""),
        _ => {}
    }
    out.push('"');
    let era = civil(out, micros.div_euclid(DAY_MICROS));
    let time = micros.rem_euclid(DAY_MICROS).unsigned_abs();
    let (seconds, fraction) = (time / 1_000_000, time % 1_000_000);
    for (before, part) in [("T", seconds / 3600), (":", seconds / 60 % 60), (":", seconds % 60)] {
        out.push_str(before);
        digits(out, part, 2);
    }
    if fraction > 0 {
        out.push('.');
        digits(out, fraction, 6);
        out.truncate(out.trim_end_matches('0').len());
    }
    out.extend([zone, era, "\""]);
}

/// In decimal, zero-padded to `width`.
fn digits(out: &mut String, mut number: u64, width: usize) {
    let mut text = [b'0'; 20];
    let mut start = text.len();
    while number > 0 {
        start -= 1;
        text[start] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
    let text = &text[start.min(text.len() - width)..];
    out.push_str(std::str::from_utf8(text).unwrap_or_default());
}

/// A JSON string; the fast path is for those without anything to escape (RFC 8259, section 7).
fn quote(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.push_str(&json_string(text));
    } else {
        out.extend(["\"", text, "\""]);
    }
}

/// Writes the date this many days after 2000-01-01 in the proleptic Gregorian calendar; gives the suffix for years before Christ.
/// The server's years range from -4713 to 294276, beyond that of date libraries.
fn civil(out: &mut String, days: i64) -> &'static str {
    // By years that begin in March, in eras of 400 years (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let days = days + EPOCH_DAYS + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    // There is no year zero.
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    digits(out, year.unsigned_abs(), 4);
    for part in [month, day] {
        out.push('-');
        digits(out, part.unsigned_abs(), 2);
    }
    era
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: ColumnType, bytes: &[u8]) -> String {
        let mut out = String::new();
        kind.write(&mut out, bytes).expect("decodable");
        out
    }

    #[test]
    fn a_numeric_is_written_with_its_display_scale() {
        let numeric = |weight: i16, sign: u16, scale: u16, digits: &[u16]| {
            let count = u16::try_from(digits.len()).unwrap();
            let parts =
                [count, weight.cast_unsigned(), sign, scale].into_iter().chain(digits.iter().copied());
            written(ColumnType::Numeric, &parts.flat_map(u16::to_be_bytes).collect::<Vec<_>>())
        };
        assert_eq!(numeric(0, 0, 0, &[]), "0");
        assert_eq!(numeric(0, 0, 2, &[]), "0.00");
        assert_eq!(numeric(0, 0x4000, 2, &[1, 5000]), "-1.50");
        assert_eq!(numeric(1, 0, 0, &[12, 34]), "120034");
        assert_eq!(numeric(2, 0, 0, &[1]), "100000000");
        assert_eq!(numeric(-2, 0, 9, &[12, 3000]), "0.000000123");
        assert_eq!(numeric(0, 0, 5, &[7, 1, 2000]), "7.00012");
        assert_eq!(numeric(0, 0xC000, 0, &[]), "\"NaN\"");
    }

    #[test]
    fn dates_follow_the_proleptic_gregorian_calendar() {
        let at = |micros: i64| written(ColumnType::Timestamp, &micros.to_be_bytes());
        assert_eq!(at(0), "\"2000-01-01T00:00:00\"");
        assert_eq!(at(-1), "\"1999-12-31T23:59:59.999999\"");
        assert_eq!(at(1_100_000), "\"2000-01-01T00:00:01.1\"");
        assert_eq!(at(i64::MAX), "\"infinity\"");
        assert_eq!(written(ColumnType::TimestampTz, &i64::MIN.to_be_bytes()), "\"-infinity\"");
        assert_eq!(written(ColumnType::TimestampTz, &0_i64.to_be_bytes()), "\"2000-01-01T00:00:00+00:00\"");
        let on = |days: i32| written(ColumnType::Date, &days.to_be_bytes());
        assert_eq!(on(59), "\"2000-02-29\"");
        assert_eq!(on(60), "\"2000-03-01\"");
        assert_eq!(on(-36_524 + 59), "\"1900-03-01\"");
        assert_eq!(on(-730_119), "\"0001-01-01\"");
        assert_eq!(on(-730_120), "\"0001-12-31 BC\"");
    }

    #[test]
    fn truncated_values_are_undecodable_and_do_not_panic() {
        let all = [
            ColumnType::Boolean,
            ColumnType::Integer,
            ColumnType::Oid,
            ColumnType::Float,
            ColumnType::Numeric,
            ColumnType::Uuid,
            ColumnType::Date,
            ColumnType::Timestamp,
            ColumnType::Json,
            ColumnType::Jsonb,
        ];
        for kind in all {
            for bytes in [&[][..], &[255; 3]] {
                assert!(
                    kind.write(&mut String::new(), bytes).is_none() || kind == ColumnType::Boolean,
                    "{kind:?}"
                );
            }
        }
        for bytes in [&b"{"[..], b"1,2", b"\"a\nb\""] {
            assert!(ColumnType::Json.write(&mut String::new(), bytes).is_none());
        }
        assert_eq!(written(ColumnType::Json, b"{\r\n\"a\":\n1}"), "{  \"a\": 1}");
    }
}
