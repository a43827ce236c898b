//! A declared command: arguments as `redis-cli` parses them; a whole argument may be a placeholder `$1`, `$2` and so on.

use crate::domain::parameters::{Parameter, Value};

/// Commands that change the state of the connection, which later queries reuse.
const SESSION_COMMANDS: [&str; 24] = [
    "asking",
    "auth",
    "client",
    "discard",
    "exec",
    "hello",
    "monitor",
    "multi",
    "psubscribe",
    "psync",
    "punsubscribe",
    "quit",
    "readonly",
    "readwrite",
    "replconf",
    "reset",
    "select",
    "ssubscribe",
    "subscribe",
    "sunsubscribe",
    "sync",
    "unsubscribe",
    "unwatch",
    "watch",
];

/// A command with placeholders.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    /// The index of a parameter.
    Parameter(usize),
}

impl Template {
    /// Arguments are separated by whitespace. Escapes in double quotes are `\"`, `\\`, `\n`, `\r`, `\t` and `\xHH`, in single quotes `\'`.
    /// A quoted argument is never a placeholder.
    ///
    /// # Errors
    /// A syntax error, as a message for the author of the query.
    pub(super) fn parse(statement: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), statement.trim_ascii_start().as_bytes());
        while let Some(first) = rest.first() {
            let (part, after) = match first {
                b'"' => double(&rest[1..])?,
                b'\'' => single(&rest[1..])?,
                _ => plain(rest)?,
            };
            if after.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                return Err("whitespace must follow a quoted argument".to_owned());
            }
            parts.push(part);
            rest = after.trim_ascii_start();
        }
        let template = Self(parts);
        match template.name() {
            None => Err("the command must begin with its name".to_owned()),
            Some(name) if SESSION_COMMANDS.contains(&name.as_str()) => {
                Err(format!("{name} changes the connection, which later queries reuse"))
            }
            Some(_) => Ok(template),
        }
    }

    /// The command's name.
    pub(super) fn name(&self) -> Option<String> {
        self.word(0)
    }

    /// The first argument, if it is not a placeholder.
    pub(super) fn subcommand(&self) -> Option<String> {
        self.word(1)
    }

    fn word(&self, index: usize) -> Option<String> {
        match self.0.get(index)? {
            Part::Literal(word) => String::from_utf8(word.to_ascii_lowercase()).ok(),
            Part::Parameter(_) => None,
        }
    }

    /// The number of arguments, the name included.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The indices of the parameters that are used.
    pub(super) fn placeholders(&self) -> Vec<usize> {
        let placeholder = |part: &Part| if let Part::Parameter(index) = part { Some(*index) } else { None };
        self.0.iter().filter_map(placeholder).collect()
    }

    /// The command with these values, each of which is one argument.
    ///
    /// # Errors
    /// Null, which Redis does not have.
    pub(super) fn fill(&self, parameters: &[Parameter]) -> Result<redis::Cmd, String> {
        let mut command = redis::Cmd::new();
        for part in &self.0 {
            match part {
                Part::Literal(argument) => command.arg(argument),
                Part::Parameter(index) => {
                    let value = parameters.get(*index).and_then(Parameter::value);
                    let argument = value.map(argument).ok_or("redis has no null value")?;
                    command.arg(argument)
                }
            };
        }
        Ok(command)
    }
}

fn argument(value: &Value) -> Vec<u8> {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(integer) => integer.to_string(),
        Value::Number(number) => number.to_plain_string(),
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Timestamp(timestamp) => timestamp.to_string(),
        Value::Uuid(uuid) => uuid.to_string(),
        Value::Json(json) => json.get().to_owned(),
        Value::Bytes(bytes) => return bytes.clone(),
    }
    .into_bytes()
}

type Parsed<'a> = Result<(Part, &'a [u8]), String>;

fn plain(text: &[u8]) -> Parsed<'_> {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    let mut dollars = word.iter().enumerate().filter(|(_, byte)| **byte == b'$').map(|(index, _)| index);
    let next_is_digit = |index: usize| word.get(index + 1).is_some_and(u8::is_ascii_digit);
    if !dollars.any(next_is_digit) {
        return Ok((Part::Literal(word.to_vec()), after));
    }
    let number =
        word.strip_prefix(b"$").and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
    match number.and_then(|number| number.checked_sub(1)) {
        Some(index) => Ok((Part::Parameter(index), after)),
        None => Err(format!(
            "{} is not a placeholder: a placeholder such as $1 must be a whole argument; quote it to use it literally",
            String::from_utf8_lossy(word)
        )),
    }
}

fn double(text: &[u8]) -> Parsed<'_> {
    let (mut argument, mut rest) = (Vec::new(), text);
    loop {
        let (byte, after) = match rest {
            [b'"', after @ ..] => return Ok((Part::Literal(argument), after)),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digits = [*high, *low];
                let byte = std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                (byte.unwrap_or_default(), after)
            }
            [b'\\', b'n', after @ ..] => (b'\n', after),
            [b'\\', b'r', after @ ..] => (b'\r', after),
            [b'\\', b't', after @ ..] => (b'\t', after),
            [b'\\', escaped, after @ ..] => (*escaped, after),
            [byte, after @ ..] => (*byte, after),
            [] => return Err("a double quote is not closed".to_owned()),
        };
        argument.push(byte);
        rest = after;
    }
}

fn single(text: &[u8]) -> Parsed<'_> {
    let (mut argument, mut rest) = (Vec::new(), text);
    loop {
        let (byte, after) = match rest {
            [b'\'', after @ ..] => return Ok((Part::Literal(argument), after)),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
            [] => return Err("a single quote is not closed".to_owned()),
        };
        argument.push(byte);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::{
        api::v1alpha1::database::ParamType, backends::database::query::check_placeholders,
        domain::parameters::bind,
    };

    fn literal(text: &[u8]) -> Part {
        Part::Literal(text.to_vec())
    }

    #[test]
    fn arguments_are_read_as_redis_cli_reads_them() {
        let Template(parts) =
            Template::parse("  SET\tkey:{$} $2 \"a \\\"b\\\" \\x00\\n\" '$1 \\n \\'' $1 \"\"").unwrap();
        let wanted = [
            literal(b"SET"),
            literal(b"key:{$}"),
            Part::Parameter(1),
            literal(b"a \"b\" \0\n"),
            literal(b"$1 \\n '"),
            Part::Parameter(0),
            literal(b""),
        ];
        assert_eq!(parts, wanted);
    }

    #[test]
    fn a_partial_placeholder_is_refused() {
        for statement in ["GET key:$1", "GET $1x", "GET $0", "GET $99999999999999999999", "GET a$1b"] {
            assert!(Template::parse(statement).unwrap_err().contains("quote it"), "{statement}");
        }
    }

    #[test]
    fn a_command_has_a_name_and_closed_quotes() {
        for statement in ["", " ", "$1 key", "GET \"key", "GET 'key", "GET \"a\"b"] {
            assert!(Template::parse(statement).is_err(), "{statement}");
        }
    }

    #[test]
    fn a_command_that_changes_the_connection_is_refused() {
        for statement in ["SELECT 1", "multi", "\"Subscribe\" x", "CLIENT REPLY OFF"] {
            assert!(
                Template::parse(statement).unwrap_err().contains("changes the connection"),
                "{statement}"
            );
        }
    }

    #[test]
    fn placeholders_must_match_the_declared_parameters() {
        let check = |statement, declared| {
            check_placeholders(&Template::parse(statement).unwrap().placeholders(), declared)
        };
        assert_eq!(check("GET key", 0), Ok(()));
        assert_eq!(check("SET $2 $1 $1", 2), Ok(()));
        assert!(check("GET $1", 0).unwrap_err().contains("has 1 placeholders, but params declares 0"));
        assert!(check("GET $2", 2).unwrap_err().contains("does not use it"));
    }

    #[test]
    fn a_value_is_always_one_argument() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        let parameters =
            bind(&[ParamType::Text, ParamType::Bytes], &[raw(r#""a b\r\nFLUSHALL""#), raw(r#""AP8=""#)]);
        let command = Template::parse("SET $1 $2").unwrap().fill(&parameters.unwrap()).unwrap();
        let wanted = b"*3\r\n$3\r\nSET\r\n$13\r\na b\r\nFLUSHALL\r\n$2\r\n\0\xff\r\n";
        assert_eq!(command.get_packed_command(), wanted);
        let null = bind(&[ParamType::Text], &[raw("null")]).unwrap();
        assert!(Template::parse("GET $1").unwrap().fill(&null).is_err());
    }
}
