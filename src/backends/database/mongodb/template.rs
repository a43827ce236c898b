//! A declared command document, with strings that are `"$1"`, `"$2"` and so on in place of whole values.

use std::str::FromStr;

use bson::{Bson, Decimal128, Document};
use serde_json::{Map, Value as Json};

use crate::{
    backends::database::query::quoted,
    domain::parameters::{Parameter, Value},
};

/// Commands that change nothing, an aggregate's stages aside.
const READS: [&str; 11] = [
    "find",
    "aggregate",
    "count",
    "distinct",
    "listCollections",
    "listIndexes",
    "dbStats",
    "collStats",
    "ping",
    "hello",
    "buildInfo",
];

/// Stages that write what an aggregate finds.
const WRITING_STAGES: [&str; 2] = ["$out", "$merge"];

/// Commands about the connection, its session or another one's cursor, which belong to the driver.
const OF_THE_CONNECTION: [&str; 12] = [
    "abortTransaction",
    "authenticate",
    "commitTransaction",
    "endSessions",
    "getMore",
    "killAllSessions",
    "killCursors",
    "killSessions",
    "logout",
    "saslContinue",
    "saslStart",
    "startSession",
];

/// A command with places for values.
#[derive(Debug)]
pub(super) struct Template {
    name: String,
    reads: bool,
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Json(String),
    /// The index of a parameter.
    Parameter(usize),
}

impl Template {
    /// A JSON object whose first field is the command.
    ///
    /// # Errors
    /// What is wrong, for whoever declared it.
    pub(super) fn parse(statement: &str) -> Result<Self, String> {
        let parsed: Map<String, Json> = serde_json::from_str(statement)
            .map_err(|error| format!("the command is not a JSON object ({error})"))?;
        let strings = strings(statement);
        let Some(name) = strings.first().and_then(|first| serde_json::from_str::<String>(first.text).ok())
        else {
            return Err("the command document is empty".to_owned());
        };
        if OF_THE_CONNECTION.contains(&name.as_str()) {
            return Err(format!("{name} changes the connection, which other queries use after it"));
        }
        let reads = READS.contains(&name.as_str()) && !parsed.values().any(writes);
        let (mut pieces, mut start) = (Vec::new(), 0);
        for string in &strings {
            if let Some(index) = string.place() {
                pieces.push(Piece::Json(statement[start..string.at].to_owned()));
                pieces.push(Piece::Parameter(index));
                start = string.at + string.text.len();
            }
        }
        pieces.push(Piece::Json(statement[start..].to_owned()));
        Ok(Self { name, reads, pieces })
    }

    /// The command's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it changes nothing, whatever the values are.
    pub(super) fn reads(&self) -> bool {
        self.reads
    }

    /// The indices of parameters that have a place.
    pub(super) fn places(&self) -> Vec<usize> {
        let place = |piece: &Piece| if let Piece::Parameter(index) = piece { Some(*index) } else { None };
        self.pieces.iter().filter_map(place).collect()
    }

    /// The command with these values.
    ///
    /// # Errors
    /// A value that there is no form for.
    pub(super) fn fill(&self, parameters: &[Parameter]) -> Result<Document, String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Json(json) => text.push_str(json),
                Piece::Parameter(index) => match parameters.get(*index).and_then(Parameter::value) {
                    Some(value) => text.push_str(&extended(value)?),
                    None => text.push_str("null"),
                },
            }
        }
        serde_json::from_str(&text)
            .map_err(|error| format!("the command with its values is not a document ({error})"))
    }
}

/// A string in a JSON text.
struct Token<'a> {
    at: usize,
    /// With its quotes.
    text: &'a str,
    /// The name of a field, and no value.
    name: bool,
}

impl Token<'_> {
    fn place(&self) -> Option<usize> {
        let number = self.text.strip_prefix("\"$")?.strip_suffix('"')?;
        let digits =
            !self.name && !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse::<usize>().ok().filter(|_| digits)?.checked_sub(1)
    }
}

/// Every string of a text that is JSON.
fn strings(json: &str) -> Vec<Token<'_>> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(at) = json[from..].find('"').map(|offset| from + offset) {
        let mut end = at + 1;
        while json.as_bytes().get(end).is_some_and(|byte| *byte != b'"') {
            end += if json.as_bytes()[end] == b'\\' { 2 } else { 1 };
        }
        let (Some(text), Some(after)) = (json.get(at..=end), json.get(end + 1..)) else { break };
        found.push(Token { at, text, name: after.trim_start().starts_with(':') });
        from = end + 1;
    }
    found
}

fn writes(value: &Json) -> bool {
    match value {
        Json::Object(fields) => {
            fields.iter().any(|(name, value)| WRITING_STAGES.contains(&name.as_str()) || writes(value))
        }
        Json::Array(values) => values.iter().any(writes),
        _ => false,
    }
}

/// A value as canonical extended JSON, which the server takes for that value alone.
fn extended(value: &Value) -> Result<String, String> {
    let bson = match value {
        Value::Text(text) => Bson::String(text.clone()),
        Value::Integer(integer) => Bson::Int64(*integer),
        Value::Number(number) => Bson::Decimal128(
            Decimal128::from_str(&number.to_plain_string())
                .map_err(|_| "a number has more than the 34 digits that mongodb keeps")?,
        ),
        Value::Boolean(boolean) => Bson::Boolean(*boolean),
        Value::Timestamp(timestamp) => {
            if timestamp.subsec_nanosecond() % 1_000_000 != 0 {
                return Err("a timestamp is finer than the milliseconds that mongodb keeps".to_owned());
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

/// A value as relaxed extended JSON, its fields in their order.
pub(super) fn relaxed(value: Bson) -> String {
    match value {
        Bson::Document(document) => {
            let fields =
                document.into_iter().map(|(name, value)| format!("{}:{}", quoted(&name), relaxed(value)));
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

    fn filled(statement: &str, values: &[(ParamType, &str)]) -> Result<Document, String> {
        let types: Vec<_> = values.iter().map(|(kind, _)| *kind).collect();
        let raw: Vec<_> =
            values.iter().map(|(_, json)| RawValue::from_string((*json).to_owned()).unwrap()).collect();
        Template::parse(statement)?.fill(&bind(&types, &raw).unwrap())
    }

    fn value(kind: ParamType, json: &str) -> Result<Bson, String> {
        filled(r#"{"find": "users", "filter": {"a": "$1"}}"#, &[(kind, json)])
            .map(|command| command.get_document("filter").unwrap().get("a").unwrap().clone())
    }

    #[test]
    fn fields_keep_their_order_and_the_first_is_the_command() {
        let command = filled(
            r#"{"find": "z", "filter": {"b": 1, "a": {"$oid": "6f1c2a9e0b3d4c5e8f701122"}}, "a": -1}"#,
            &[],
        )
        .unwrap();
        let oid = bson::oid::ObjectId::parse_str("6f1c2a9e0b3d4c5e8f701122").unwrap();
        assert_eq!(command, doc! { "find": "z", "filter": { "b": 1, "a": oid }, "a": -1_i64 });
        assert_eq!(Template::parse(r#" { "find" : 1, "a": 2 }"#).unwrap().name(), "find");
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
    fn what_would_lose_digits_is_refused() {
        assert!(value(ParamType::Number, "12345678901234567890123456789012345").is_err());
        assert!(value(ParamType::Timestamp, r#""2024-05-06T07:08:09.1234Z""#).is_err());
    }

    #[test]
    fn a_value_is_never_an_operator_nor_a_field_nor_a_place() {
        assert_eq!(value(ParamType::Text, r#""{\"$ne\": null}""#).unwrap(), Bson::from("{\"$ne\": null}"));
        for json in
            [r#"{"$ne": null}"#, r#"[{"a": {"$where": "1"}}]"#, r#"{"$oid": "6f1c2a9e0b3d4c5e8f701122"}"#]
        {
            assert!(value(ParamType::Json, json).unwrap_err().contains("begins with $"), "{json}");
        }
        let two = [(ParamType::Text, r#""$2""#), (ParamType::Text, r#""b""#)];
        let command = filled(r#"{"find": "$2", "a": "$1", "$1": "x$1", "b": "\u00241"}"#, &two).unwrap();
        assert_eq!(command, doc! { "find": "b", "a": "$2", "$1": "x$1", "b": "$1" });
    }

    #[test]
    fn a_value_may_stand_within_an_extended_one() {
        let command =
            filled(r#"{"find": {"$oid": "$1"}}"#, &[(ParamType::Text, r#""6f1c2a9e0b3d4c5e8f701122""#)]);
        assert!(command.unwrap().get_object_id("find").is_ok());
        assert!(filled(r#"{"find": {"$oid": "$1"}}"#, &[(ParamType::Text, r#""x""#)]).is_err());
    }

    #[test]
    fn only_known_reads_read() {
        let reads = |statement| Template::parse(statement).unwrap().reads();
        assert!(reads(r#"{"find": "a"}"#));
        assert!(reads(r#"{"aggregate": "a", "pipeline": [{"$match": {"out": "$merge"}}]}"#));
        assert!(!reads(r#"{"aggregate": "a", "pipeline": [{"$match": {}}, {"$out": "b"}]}"#));
        assert!(!reads(r#"{"aggregate": "a", "pipeline": [{"$facet": {"x": [{"$merge": "b"}]}}]}"#));
        for statement in [
            r#"{"insert": "a"}"#,
            r#"{"findAndModify": "a"}"#,
            r#"{"Find": "a"}"#,
            r#"{"mapReduce": "a", "find": 1}"#,
        ] {
            assert!(!reads(statement), "{statement}");
        }
    }

    #[test]
    fn what_is_no_command_of_a_query_is_refused() {
        for statement in ["", "find", "[]", "{}", r#"{"find": }"#, r#"{"logout": 1}"#, r#"{"getMore": 1}"#] {
            assert!(Template::parse(statement).is_err(), "{statement}");
        }
    }

    #[test]
    fn documents_come_out_in_order_and_without_loss() {
        let document = doc! { "z": i64::MAX, "a": { "y": "\"\n", "b": [1, null, f64::NAN] }, "d": bson::DateTime::from_millis(0) };
        let wanted = r#"{"z":9223372036854775807,"a":{"y":"\"\n","b":[1,null,{"$numberDouble":"NaN"}]},"d":{"$date":"1970-01-01T00:00:00Z"}}"#;
        assert_eq!(relaxed(Bson::Document(document)), wanted);
    }
}
