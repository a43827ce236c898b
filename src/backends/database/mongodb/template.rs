//! A declared command document; a whole value may be a placeholder, the string `"$1"`, `"$2"` and so on.

use bson::Document;
use serde_json::{Map, Value as Json};

use super::value::{extended, has_dollar_text};
use crate::domain::parameters::Parameter;

/// Commands that change nothing, except by an aggregate's stages.
const READ_ONLY_COMMANDS: [&str; 11] = [
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

/// Aggregation stages that write.
const WRITING_STAGES: [&str; 2] = ["$out", "$merge"];

/// Commands for authentication, sessions and cursors, which belong to the driver.
const SESSION_COMMANDS: [&str; 12] = [
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

/// A command with placeholders.
#[derive(Debug)]
pub(super) struct Template {
    name: String,
    read_only: bool,
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Json(String),
    /// The index of a parameter, and whether any text is literal at its place.
    Parameter(usize, bool),
}

impl Template {
    /// A JSON object whose first field is the command.
    ///
    /// # Errors
    /// A syntax error, as a message for the author of the query.
    pub(super) fn parse(statement: &str) -> Result<Self, String> {
        let parsed: Map<String, Json> = serde_json::from_str(statement)
            .map_err(|error| format!("the command is not a JSON object ({error})"))?;
        let strings = strings(statement);
        let Some(name) = strings.first().and_then(|first| serde_json::from_str::<String>(first.text).ok())
        else {
            return Err("the command document is empty".to_owned());
        };
        if SESSION_COMMANDS.contains(&name.as_str()) {
            return Err(format!("{name} changes the connection, which later queries reuse"));
        }
        let read_only = READ_ONLY_COMMANDS.contains(&name.as_str()) && !parsed.values().any(writes);
        let (mut pieces, mut start) = (Vec::new(), 0);
        for string in &strings {
            if let Some(index) = string.placeholder() {
                pieces.push(Piece::Json(statement[start..string.at].to_owned()));
                pieces.push(Piece::Parameter(index, is_literal(&string.path)));
                start = string.at + string.text.len();
            }
        }
        pieces.push(Piece::Json(statement[start..].to_owned()));
        Ok(Self { name, read_only, pieces })
    }

    /// The command's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it changes nothing, whatever the values are.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The indices of the parameters that are used.
    pub(super) fn placeholders(&self) -> Vec<usize> {
        let placeholder =
            |piece: &Piece| if let Piece::Parameter(index, _) = piece { Some(*index) } else { None };
        self.pieces.iter().filter_map(placeholder).collect()
    }

    /// The command with these values.
    ///
    /// # Errors
    /// A value that BSON cannot represent, or that could be read as an expression.
    pub(super) fn fill(&self, parameters: &[Parameter]) -> Result<Document, String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Json(json) => text.push_str(json),
                Piece::Parameter(index, literal) => match parameters.get(*index).and_then(Parameter::value) {
                    Some(value) if !literal && has_dollar_text(value) => return Err(expression(index + 1)),
                    Some(value) => {
                        let value = extended(value);
                        text.push_str(&value.map_err(|error| format!("parameter {}: {error}", index + 1))?);
                    }
                    None => text.push_str("null"),
                },
            }
        }
        serde_json::from_str(&text)
            .map_err(|error| format!("the command with its values is not a document ({error})"))
    }
}

fn expression(parameter: usize) -> String {
    format!(
        "parameter {parameter}: a text that begins with $ would be read as a field or variable here; write \
         {{\"$literal\": \"${parameter}\"}} in the statement"
    )
}

/// Whether a text that begins with $ is literal at this path: in a filter, a document or an update with operators. Elsewhere it could be
/// read as an expression (MongoDB manual, "Aggregation Expressions").
fn is_literal(path: &[String]) -> bool {
    let path: Vec<_> = path.iter().map(String::as_str).filter(|field| *field != "explain").collect();
    let literal = match path[..] {
        ["filter" | "query" | "documents" | "arrayFilters" | "pwd", ..]
        | ["deletes", "", "q", ..]
        | ["updates", "", "q" | "arrayFilters", ..] => true,
        // An array is a pipeline.
        ["update", ref update @ ..] | ["updates", "", "u", ref update @ ..] => update.first() != Some(&""),
        ["pipeline", ..] => {
            let filters = ["$match", "restrictSearchWithMatch"];
            path.iter().any(|field| filters.contains(field))
                || path.windows(2).any(|two| two == ["$geoNear", "query"])
        }
        _ => false,
    };
    literal && !path.contains(&"$expr") || path.contains(&"$literal")
}

/// A string in a JSON text.
struct Token<'a> {
    at: usize,
    /// Including its quotes.
    text: &'a str,
    /// The name of a field, not a value.
    name: bool,
    /// The enclosing fields; an array's item is an empty name.
    path: Vec<String>,
}

impl Token<'_> {
    fn placeholder(&self) -> Option<usize> {
        let number = self.text.strip_prefix("\"$")?.strip_suffix('"')?;
        let digits =
            !self.name && !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse::<usize>().ok().filter(|_| digits)?.checked_sub(1)
    }
}

/// Every string of a valid JSON text.
fn strings(json: &str) -> Vec<Token<'_>> {
    let (mut found, mut from, mut path) = (Vec::new(), 0, Vec::new());
    while let Some(at) = json[from..].find('"').map(|offset| from + offset) {
        for byte in json[from..at].bytes() {
            match byte {
                b'{' | b'[' => path.push(String::new()),
                b'}' | b']' => drop(path.pop()),
                _ => {}
            }
        }
        let mut end = at + 1;
        while json.as_bytes().get(end).is_some_and(|byte| *byte != b'"') {
            end += if json.as_bytes()[end] == b'\\' { 2 } else { 1 };
        }
        let (Some(text), Some(after)) = (json.get(at..=end), json.get(end + 1..)) else { break };
        let name = after.trim_start().starts_with(':');
        if let (true, Some(last)) = (name, path.last_mut()) {
            *last = serde_json::from_str(text).unwrap_or_default();
        }
        found.push(Token { at, text, name, path: path.clone() });
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
    fn a_value_is_never_a_field_nor_a_placeholder() {
        let two = [(ParamType::Text, r#""$2""#), (ParamType::Text, r#""b""#)];
        let statement = r#"{"find": "$2", "filter": {"a": "$1"}, "$1": "x$1", "b": "\u00241"}"#;
        let command = filled(statement, &two).unwrap();
        assert_eq!(command, doc! { "find": "b", "filter": { "a": "$2" }, "$1": "x$1", "b": "$1" });
    }

    #[test]
    fn a_text_that_begins_with_a_dollar_is_accepted_only_where_it_is_literal() {
        for statement in [
            r#"{"find": "a", "filter": {"a": [{"b": {"$in": ["x", "$1"]}}]}}"#,
            r#"{"limit": [{"$expr": {}}], "count": "a", "query": "$1"}"#,
            r#"{"insert": "a", "documents": [{"u": [{"$set": "$1"}]}]}"#,
            r#"{"delete": "a", "deletes": [{"q": {"a": {"$eq": "$1"}}, "limit": 1}]}"#,
            r#"{"update": "a", "updates": [{"q": {"b": 1}, "u": {"$set": {"a": ["$1"]}}}]}"#,
            r#"{"update": "a", "updates": [{"q": {"b": "$1"}, "u": [{"$set": {"a": 1}}]}]}"#,
            r#"{"findAndModify": "a", "query": {}, "update": {"$push": {"a": "$1"}}}"#,
            r#"{"aggregate": "a", "pipeline": [{"$project": {"b": "$a"}}, {"$match": {"a": "$1"}}]}"#,
            r#"{"aggregate": "a", "pipeline": [{"$facet": {"x": [{"$match": {"a": "$1"}}]}}]}"#,
            r#"{"aggregate": "a", "pipeline": [{"$project": {"b": {"$literal": "$1"}}}]}"#,
            r#"{"find": "a", "filter": {"$expr": {"$eq": ["$a", {"$literal": "$1"}]}}}"#,
            r#"{"updateUser": "a", "pwd": "$1"}"#,
        ] {
            for (kind, value) in [(ParamType::Text, r#""$a""#), (ParamType::Json, r#"{"a": ["$$ROOT"]}"#)] {
                assert!(filled(statement, &[(kind, value)]).is_ok(), "{statement}");
            }
        }
        for statement in [
            r#"{"find": "a", "filter": {"$expr": {"$eq": ["$1", "b"]}}}"#,
            r#"{"find": "a", "filter": {"$or": [{"\u0024expr": {"$eq": ["$1", "b"]}}]}}"#,
            r#"{"find": "a", "filter": {"a": {"b": 1}}, "projection": {"a": "$1"}}"#,
            r#"{"find": "a", "filter": {}, "let": {"a": "$1"}}"#,
            r#"{"update": "a", "updates": [{"q": {}, "u": [{"$set": {"a": "$1"}}]}]}"#,
            r#"{"findAndModify": "a", "update": [{"$set": {"a": "$1"}}]}"#,
            r#"{"aggregate": "a", "pipeline": [{"$match": {"a": 1}}, {"$project": {"a": "$1"}}]}"#,
            r#"{"aggregate": "a", "pipeline": [{"$match": {"$expr": {"$eq": ["$1", "b"]}}}]}"#,
            r#"{"aggregate": "a", "pipeline": [{"$group": {"_id": "$1"}}]}"#,
            r#"{"aggregate": "a", "pipeline": [{"$lookup": {"let": {"a": "$1"}, "pipeline": [{"$match": {}}]}}]}"#,
            r#"{"aggregate": "a", "pipeline": "$1"}"#,
            r#"{"explain": {"find": "a", "projection": {"a": "$1"}}}"#,
        ] {
            for json in [r#""$a""#, r#"["b", {"a": "$$ROOT"}]"#, r#""\u0024a""#] {
                let refused = filled(statement, &[(ParamType::Json, json)]).unwrap_err();
                assert!(
                    refused.starts_with("parameter 1:") && refused.contains("begins with $"),
                    "{refused}"
                );
            }
            assert!(filled(statement, &[(ParamType::Text, r#""$a""#)]).is_err(), "{statement}");
            assert!(filled(statement, &[(ParamType::Text, r#""a$""#)]).is_ok(), "{statement}");
        }
    }

    #[test]
    fn a_value_may_be_part_of_extended_json() {
        let command =
            filled(r#"{"find": {"$oid": "$1"}}"#, &[(ParamType::Text, r#""6f1c2a9e0b3d4c5e8f701122""#)]);
        assert!(command.unwrap().get_object_id("find").is_ok());
        assert!(filled(r#"{"find": {"$oid": "$1"}}"#, &[(ParamType::Text, r#""x""#)]).is_err());
    }

    #[test]
    fn only_known_commands_are_read_only() {
        let read_only = |statement| Template::parse(statement).unwrap().is_read_only();
        assert!(read_only(r#"{"find": "a"}"#));
        assert!(read_only(r#"{"aggregate": "a", "pipeline": [{"$match": {"out": "$merge"}}]}"#));
        assert!(!read_only(r#"{"aggregate": "a", "pipeline": [{"$match": {}}, {"$out": "b"}]}"#));
        assert!(!read_only(r#"{"aggregate": "a", "pipeline": [{"$facet": {"x": [{"$merge": "b"}]}}]}"#));
        for statement in [
            r#"{"insert": "a"}"#,
            r#"{"findAndModify": "a"}"#,
            r#"{"Find": "a"}"#,
            r#"{"mapReduce": "a", "find": 1}"#,
        ] {
            assert!(!read_only(statement), "{statement}");
        }
    }

    #[test]
    fn invalid_and_session_commands_are_refused() {
        for statement in ["", "find", "[]", "{}", r#"{"find": }"#, r#"{"logout": 1}"#, r#"{"getMore": 1}"#] {
            assert!(Template::parse(statement).is_err(), "{statement}");
        }
    }
}
