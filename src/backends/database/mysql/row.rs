//! Decodes rows of the binary protocol to JSON (MySQL internals, "Binary Protocol Value"). The driver's own types would lose zero dates,
//! times beyond a day and decimals of 65 digits.

use std::fmt::Write;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sqlx::{
    Column, Decode, MySql, Row, Type, TypeInfo,
    mysql::{MySqlColumn, MySqlRow, MySqlTypeInfo},
};

use crate::{
    api::Reason,
    backends::{
        Fault,
        database::query::{QueryFault, json_string, single_line_json},
    },
};

/// The columns of a result.
pub(super) struct Columns(Vec<(String, ColumnType)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnType {
    Signed,
    Unsigned,
    Float,
    Decimal,
    Bits,
    Date,
    DateTime,
    /// A point in time: the session is in UTC.
    Timestamp,
    Time,
    Json,
    Text,
    Bytes,
}

impl Columns {
    /// Decoders for rows with these columns.
    pub(super) fn of(columns: &[MySqlColumn]) -> Result<Self, QueryFault> {
        for (index, column) in columns.iter().enumerate() {
            if columns[..index].iter().any(|before| before.name() == column.name()) {
                let name = column.name();
                let text = format!("two columns are named {name}: rename one with \"as\"");
                return Err(QueryFault::Invalid(text));
            }
        }
        let decoder = |column: &MySqlColumn| (json_string(column.name()), ColumnType::of(column.type_info()));
        Ok(Self(columns.iter().map(decoder).collect()))
    }

    /// A row as a JSON object.
    pub(super) fn json(&self, row: &MySqlRow) -> Result<String, Fault> {
        let mut out = String::from("{");
        for (index, (name, kind)) in self.0.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { "," });
            out.push_str(name);
            out.push(':');
            let value = row.try_get_raw(index).map_err(|_| undecodable())?;
            // Not by `is_null`: the driver treats zero dates as null.
            match <&[u8] as Decode<MySql>>::decode(value) {
                Ok(bytes) => kind.write(&mut out, bytes).ok_or_else(undecodable)?,
                Err(_) => out.push_str("null"),
            }
        }
        out.push('}');
        Ok(out)
    }
}

fn undecodable() -> Fault {
    Fault::new(Reason::ProtocolError, "a value in the server's response cannot be decoded")
}

impl ColumnType {
    fn of(info: &MySqlTypeInfo) -> Self {
        match info.name() {
            "FLOAT" | "DOUBLE" => Self::Float,
            "DECIMAL" => Self::Decimal,
            "BIT" => Self::Bits,
            "DATE" => Self::Date,
            "DATETIME" => Self::DateTime,
            "TIMESTAMP" => Self::Timestamp,
            "TIME" => Self::Time,
            "JSON" => Self::Json,
            // The type's name does not tell signed from unsigned, and texts may have the flag of a binary collation as well.
            _ if <u64 as Type<MySql>>::compatible(info) => Self::Unsigned,
            _ if <i64 as Type<MySql>>::compatible(info) => Self::Signed,
            "YEAR" => Self::Unsigned,
            "SET" | "ENUM" => Self::Text,
            _ if <str as Type<MySql>>::compatible(info) => Self::Text,
            _ => Self::Bytes,
        }
    }

    fn write(self, out: &mut String, bytes: &[u8]) -> Option<()> {
        match self {
            Self::Signed => write!(out, "{}", signed(bytes)?).ok()?,
            Self::Unsigned => write!(out, "{}", unsigned(bytes.iter().rev())?).ok()?,
            Self::Bits => write!(out, "{}", unsigned(bytes.iter())?).ok()?,
            Self::Float => match bytes.len() {
                4 => out.push_str(&serde_json::to_string(&f32::from_le_bytes(bytes.try_into().ok()?)).ok()?),
                _ => out.push_str(&serde_json::to_string(&f64::from_le_bytes(bytes.try_into().ok()?)).ok()?),
            },
            Self::Decimal => decimal(out, std::str::from_utf8(bytes).ok()?),
            Self::Date => write!(out, "\"{}\"", date(&padded(bytes)?)).ok()?,
            Self::DateTime | Self::Timestamp => {
                let padded = padded(bytes)?;
                let zone = if self == Self::Timestamp { "Z" } else { "" };
                write!(out, "\"{}T{}{zone}\"", date(&padded), clock(padded[4].into(), &padded[5..])).ok()?;
            }
            Self::Time => write!(out, "\"{}\"", time(bytes)?).ok()?,
            Self::Json => out.push_str(&single_line_json(std::str::from_utf8(bytes).ok()?)?),
            Self::Text => out.push_str(&json_string(std::str::from_utf8(bytes).ok()?)),
            Self::Bytes => write!(out, "\"{}\"", STANDARD.encode(bytes)).ok()?,
        }
        Some(())
    }
}

/// From the most significant byte to the least.
fn unsigned<'a>(bytes: impl Iterator<Item = &'a u8>) -> Option<u64> {
    let mut bytes = bytes.peekable();
    bytes.peek()?;
    bytes.try_fold(0_u64, |sum, byte| Some(sum.checked_mul(256)? | u64::from(*byte)))
}

fn signed(bytes: &[u8]) -> Option<i64> {
    Some(match bytes.len() {
        1 => i8::from_le_bytes(bytes.try_into().ok()?).into(),
        2 => i16::from_le_bytes(bytes.try_into().ok()?).into(),
        4 => i32::from_le_bytes(bytes.try_into().ok()?).into(),
        _ => i64::from_le_bytes(bytes.try_into().ok()?),
    })
}

/// JSON has no leading zeros, which a column with ZEROFILL has.
fn decimal(out: &mut String, text: &str) {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let digits = digits.trim_start_matches('0');
    let zero = if digits.is_empty() || digits.starts_with('.') { "0" } else { "" };
    out.extend([sign, zero, digits]);
}

/// The fields of a time after its length; the server omits trailing zeros.
fn padded<const LENGTH: usize>(bytes: &[u8]) -> Option<[u8; LENGTH]> {
    let (length, parts) = bytes.split_first()?;
    let mut padded = [0; LENGTH];
    padded.get_mut(..usize::from(*length))?.copy_from_slice(parts.get(..usize::from(*length))?);
    Some(padded)
}

fn date(parts: &[u8; 11]) -> String {
    format!("{:04}-{:02}-{:02}", u16::from_le_bytes([parts[0], parts[1]]), parts[2], parts[3])
}

/// Hours, minutes, seconds and four bytes of microseconds.
fn clock(hours: u64, rest: &[u8]) -> String {
    let fraction = match rest {
        [_, _, micros @ ..] => unsigned(micros.iter().rev()).filter(|micros| *micros > 0),
        _ => None,
    };
    let fraction = fraction.map_or_else(String::new, |micros| format!(".{micros:06}"));
    format!("{hours:02}:{:02}:{:02}{fraction}", rest[0], rest[1])
}

/// Sign, four bytes of days, hours and so on: a TIME ranges from -838 to 838 hours.
fn time(bytes: &[u8]) -> Option<String> {
    let parts = padded::<12>(bytes)?;
    let days = unsigned(parts[1..5].iter().rev())?;
    let sign = if parts[0] == 0 { "" } else { "-" };
    Some(format!("{sign}{}", clock(days * 24 + u64::from(parts[5]), &parts[6..])))
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
    fn integers_have_the_sign_and_the_width_of_their_column() {
        for (bytes, signed, unsigned) in [
            (&[0xff][..], "-1", "255"),
            (&[0xfe, 0xff], "-2", "65534"),
            (&[1, 0, 0, 0x80], "-2147483647", "2147483649"),
            (&[0xff; 8], "-1", "18446744073709551615"),
        ] {
            assert_eq!(written(ColumnType::Signed, bytes), signed);
            assert_eq!(written(ColumnType::Unsigned, bytes), unsigned);
        }
        assert_eq!(written(ColumnType::Bits, &[1, 0]), "256");
    }

    #[test]
    fn decimals_are_numbers_as_json_has_them() {
        let pairs = [
            ("1.50", "1.50"),
            ("-0.10", "-0.10"),
            ("0007.00", "7.00"),
            ("0000", "0"),
            ("-000.5", "-0.5"),
            ("000.0", "0.0"),
        ];
        for (text, wanted) in pairs {
            assert_eq!(written(ColumnType::Decimal, text.as_bytes()), wanted);
        }
    }

    #[test]
    fn times_keep_zeros_signs_days_and_microseconds() {
        let full = [11, 0xe8, 0x07, 5, 6, 7, 8, 9, 0x40, 0xe2, 0x01, 0];
        assert_eq!(written(ColumnType::DateTime, &full), "\"2024-05-06T07:08:09.123456\"");
        assert_eq!(
            written(
                ColumnType::Timestamp,
                &full[..8].iter().map(|byte| if *byte == 11 { 7 } else { *byte }).collect::<Vec<_>>()
            ),
            "\"2024-05-06T07:08:09Z\""
        );
        assert_eq!(written(ColumnType::Date, &[4, 0xe8, 0x07, 5, 6]), "\"2024-05-06\"");
        assert_eq!(written(ColumnType::DateTime, &[4, 0xe8, 0x07, 5, 6]), "\"2024-05-06T00:00:00\"");
        assert_eq!(written(ColumnType::DateTime, &[0]), "\"0000-00-00T00:00:00\"");
        assert_eq!(written(ColumnType::Time, &[0]), "\"00:00:00\"");
        assert_eq!(
            written(ColumnType::Time, &[12, 1, 34, 0, 0, 0, 22, 59, 59, 1, 0, 0, 0]),
            "\"-838:59:59.000001\""
        );
    }

    #[test]
    fn truncated_values_are_undecodable_and_do_not_panic() {
        for kind in [
            ColumnType::Signed,
            ColumnType::Unsigned,
            ColumnType::Bits,
            ColumnType::Float,
            ColumnType::Date,
            ColumnType::DateTime,
            ColumnType::Time,
        ] {
            assert!(kind.write(&mut String::new(), &[]).is_none(), "{kind:?}");
        }
        for kind in [ColumnType::Date, ColumnType::DateTime, ColumnType::Timestamp, ColumnType::Time] {
            for bytes in [&[11, 1][..], &[255; 300]] {
                assert!(kind.write(&mut String::new(), bytes).is_none(), "{kind:?}");
            }
        }
        assert!(ColumnType::Signed.write(&mut String::new(), &[1, 2, 3]).is_none());
        assert!(ColumnType::Text.write(&mut String::new(), &[0xff]).is_none());
    }
}
