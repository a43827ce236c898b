//! JSON to values of CEL, and back.

use std::{collections::HashMap, sync::Arc};

use cel::{
    Value,
    objects::{Key, Map},
};

use super::Sorted;

/// JSON as CEL has it, and how large it is.
#[derive(Clone, Debug)]
pub struct Json {
    value: Value,
    size: u64,
}

/// What is not JSON, or has a number that no type holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be parsed as JSON")]
pub struct NotJson;

impl Json {
    /// Of a JSON text. Of members with the same name the last one counts.
    ///
    /// # Errors
    /// The text is none.
    pub fn parse(text: &[u8]) -> Result<Self, NotJson> {
        let json = serde_json::from_slice(text).map_err(|_| NotJson)?;
        Ok(Self::of(from_json(json)))
    }

    /// Of a text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::of(Value::String(Arc::new(text.to_owned())))
    }

    /// `null`.
    #[must_use]
    pub fn null() -> Self {
        Self::of(Value::Null)
    }

    /// An object with these members.
    #[must_use]
    pub fn object<'a>(members: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let members = members.into_iter().map(|(name, member)| (name.to_owned(), member.value));
        Self::of(map(members))
    }

    /// Of JSON that was read.
    #[must_use]
    pub fn from_value(json: serde_json::Value) -> Self {
        Self::of(from_json(json))
    }

    fn of(value: Value) -> Self {
        Self { size: size_of(&value), value }
    }

    pub(super) fn value(&self) -> Value {
        self.value.clone()
    }

    /// About how many bytes a copy of it takes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

fn map(members: impl Iterator<Item = (String, Value)>) -> Value {
    let members: HashMap<_, _> =
        members.map(|(name, member)| (Key::String(Arc::new(name)), member)).collect();
    Value::Map(Map { map: Arc::new(members) })
}

fn from_json(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(bool) => Value::Bool(bool),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text)),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.into_iter().map(from_json).collect())),
        serde_json::Value::Object(members) => {
            map(members.into_iter().map(|(name, member)| (name, from_json(member))))
        }
    }
}

/// About how many bytes a copy of the value takes.
pub(super) fn size_of(value: &Value) -> u64 {
    const EACH: u64 = 16;
    let length = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    EACH + match value {
        Value::String(text) => length(text.len()),
        Value::List(items) => items.iter().map(size_of).sum(),
        Value::Map(map) => {
            map.map.iter().map(|(key, member)| length(key.to_string().len()) + size_of(member)).sum()
        }
        _ => 0,
    }
}

/// The value as JSON: the same bytes for the same value.
///
/// # Errors
/// What JSON does not have, by its type.
pub(in crate::domain) fn render(value: &Value) -> Result<Vec<u8>, &'static str> {
    let mut text = Vec::new();
    write(value, &mut text)?;
    Ok(text)
}

fn write(value: &Value, text: &mut Vec<u8>) -> Result<(), &'static str> {
    let plain = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(bool) => bool.to_string(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => {
            serde_json::Number::from_f64(*number).ok_or("not a finite number")?.to_string()
        }
        Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::List(items) => {
            text.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                write(item, text)?;
            }
            "]".to_owned()
        }
        Value::Map(map) => {
            text.push(b'{');
            let members: Sorted<'_> = map.map.iter().map(|(key, member)| (key.to_string(), member)).collect();
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                text.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
                text.push(b':');
                write(member, text)?;
            }
            "}".to_owned()
        }
        other => return Err(type_of(other)),
    };
    text.extend_from_slice(plain.as_bytes());
    Ok(())
}

/// As users read it.
pub(in crate::domain) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => "a number",
        Value::String(_) => "a string",
        Value::List(_) => "a list",
        Value::Map(_) => "an object",
        _ => "not a JSON value",
    }
}
