//! CEL expressions over JSON (<https://github.com/google/cel-spec>), compiled once and bounded in what they cost.
//!
//! The interpreter is the crate `cel`; what it leaves open is closed here, when an expression is compiled:
//! - Names that do not exist are refused then, and not at the first event.
//! - `3`, `3u` and `3.0` are equal, as the specification wants it for JSON, whose numbers have no types.
//! - Whatever the interpreter would panic at, or that is worth no cost of its own (bytes, messages, time), is refused.
//! - Each step of a loop pays for what it copies, and patterns are compiled once.

mod check;
mod json;
mod parse;

use std::{
    cell::Cell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use cel::{Context, ExecutionError, IdedExpr, Value, extractors::This, functions, objects::Key};
use regex::Regex;

pub use json::{Json, NotJson};
pub(in crate::domain) use json::{render, type_of};

/// What loops may copy in all, in bytes.
const BUDGET: u64 = 16 << 20;

/// The largest list that a loop may make, in bytes.
const LARGEST: u64 = 1 << 20;

/// What a step costs besides what it copies.
const STEP: u64 = 256;

/// How deep an expression may be.
const DEPTH: u16 = 48;

/// A variable that an expression may use.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its fields, where it has always the same.
    pub fields: &'static [&'static str],
}

/// Why a text is no expression that can be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is not CEL.
    #[error("invalid CEL expression: line {line}, column {column}: {problem}")]
    Syntax {
        /// From 1.
        line: isize,
        /// From 1.
        column: isize,
        /// What the parser says.
        problem: String,
    },
    /// It uses something that is not there.
    #[error("{0}")]
    Name(String),
    /// It uses a part of CEL that is not offered.
    #[error("{0} not supported")]
    NotOffered(&'static str),
}

/// Why an expression failed. The texts have nothing in them of what it was run on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A key that is not there.
    #[error("a field or key does not exist; test for it with has()")]
    Missing,
    /// Values of types for which there is no such operator or function.
    #[error("an operator or function does not support the types of its operands")]
    Types,
    /// A number that has no place in its type, or a division by zero.
    #[error("a number is out of range, or a division by zero")]
    Range,
    /// Loops over too much.
    #[error(
        "the cost limit is exceeded: loops may copy at most 16 MiB, lists and results may have at most 1 MiB"
    )]
    Cost,
    /// The result is something else than what is needed.
    #[error("the result is {found}, not {wanted}")]
    Result {
        /// What it is.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// The data cannot be read as JSON.
    #[error("the data of the event cannot be parsed as JSON")]
    Data,
    /// The interpreter failed.
    #[error("internal error of the interpreter")]
    Broken,
}

/// A compiled expression.
pub struct Program {
    source: String,
    expression: IdedExpr,
    context: Context<'static>,
}

thread_local! {
    /// What is left of the budget, and the size of what the expression runs on.
    static COST: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

impl Program {
    /// Compiles an expression that may use these variables.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(source: &str, variables: &[Variable]) -> Result<Self, Invalid> {
        let (expression, patterns) = parse::parse(source, variables)?;
        Ok(Self { source: source.to_owned(), expression, context: context(patterns) })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Runs it with its one variable.
    ///
    /// # Errors
    /// Why it has no result.
    pub fn run(&self, variable: Variable, value: &Json) -> Result<Value, Failure> {
        COST.set((BUDGET, value.size()));
        let run = AssertUnwindSafe(|| {
            let mut scope = self.context.new_inner_scope();
            scope.add_variable_from_value(variable.name, value.value());
            Value::resolve(&self.expression, &scope)
        });
        catch_unwind(run).map_err(|_| Failure::Broken)?.map_err(|error| failure(&error))
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Program").field(&self.source).finish()
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// The text of the interpreter's own error has values in it.
fn failure(error: &ExecutionError) -> Failure {
    match error {
        ExecutionError::NoSuchKey(_) | ExecutionError::IndexOutOfBounds(_) => Failure::Missing,
        ExecutionError::DivisionByZero(_)
        | ExecutionError::RemainderByZero(_)
        | ExecutionError::Overflow(..) => Failure::Range,
        ExecutionError::FunctionError { function, .. } if function == check::STEP => Failure::Cost,
        ExecutionError::FunctionError { function, .. }
            if ["int", "uint", "double"].contains(&&**function) =>
        {
            Failure::Range
        }
        _ => Failure::Types,
    }
}

/// The functions that expressions have.
fn context(patterns: Vec<Regex>) -> Context<'static> {
    let mut context = Context::empty();
    context.add_function("startsWith", functions::starts_with);
    context.add_function("endsWith", functions::ends_with);
    context.add_function("string", functions::string);
    context.add_function("double", functions::double);
    context.add_function("int", functions::int);
    context.add_function("uint", functions::uint);
    context
        .add_function("contains", |This(this): This<Arc<String>>, part: Arc<String>| this.contains(&*part));
    context.add_function("size", size);
    context.add_function(check::EQUAL, |one: Value, other: Value| one == other);
    context.add_function(check::MEMBER, member);
    context.add_function(check::STEP, step);
    context.add_function(check::MATCHES, move |text: Arc<String>, pattern: i64| {
        let pattern = usize::try_from(pattern).ok().and_then(|index| patterns.get(index));
        pattern.is_some_and(|pattern| pattern.is_match(&text))
    });
    context
}

fn size(This(this): This<Value>) -> Result<i64, ExecutionError> {
    let size = match &this {
        Value::String(text) => text.chars().count(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.map.len(),
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    Ok(i64::try_from(size).unwrap_or(i64::MAX))
}

#[expect(clippy::needless_pass_by_value, reason = "cel hands arguments over by value")]
fn member(value: Value, of: Value) -> Result<bool, ExecutionError> {
    match (&of, &value) {
        (Value::List(list), _) => Ok(list.contains(&value)),
        (Value::Map(map), Value::String(key)) => Ok(map.map.contains_key(&Key::String(Arc::clone(key)))),
        (Value::Map(_), _) => Ok(false),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// Pays for a step of a loop that copies the whole input `times` times, and the list that it makes.
#[expect(clippy::needless_pass_by_value, reason = "cel hands arguments over by value")]
fn step(times: i64, made: Value) -> Result<bool, ExecutionError> {
    let (left, input) = COST.get();
    let made = json::size_of(&made);
    let cost = u64::try_from(times).unwrap_or(u64::MAX).saturating_mul(input).saturating_add(made + STEP);
    if cost > left || made > LARGEST {
        return Err(ExecutionError::function_error(check::STEP, "too costly"));
    }
    COST.set((left - cost, input));
    Ok(true)
}

/// Text by which two maps of the same content are the same: keys in order.
type Sorted<'a> = BTreeMap<String, &'a Value>;

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Variable = Variable { name: "event", fields: &["type", "data"] };

    fn compile(source: &str) -> Result<Program, Invalid> {
        Program::compile(source, &[EVENT])
    }

    fn run(source: &str, data: &str) -> Result<String, Failure> {
        let program = compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let json = format!(r#"{{"type":"user.created","data":{data}}}"#);
        let value = program.run(EVENT, &Json::parse(json.as_bytes()).unwrap())?;
        Ok(String::from_utf8(json::render(&value).unwrap()).unwrap())
    }

    #[track_caller]
    fn gives(source: &str, data: &str, result: &str) {
        assert_eq!(run(source, data).as_deref(), Ok(result), "{source}");
    }

    #[test]
    fn numbers_are_equal_whatever_their_type() {
        for equal in [
            "3 == 3u",
            "3u == 3.0",
            "3.0 == 3",
            "event.data.n == 3",
            "event.data.n == 3u",
            "event.data.n == 3.0",
        ] {
            gives(equal, r#"{"n":3}"#, "true");
            gives(&format!("!({equal}) || {}", equal.replace("==", "!=")), r#"{"n":3}"#, "false");
        }
        gives("event.data.f == 3", r#"{"f":3.0}"#, "true");
        gives("event.data.n in [1u, 3.0]", r#"{"n":3}"#, "true");
        gives("event.data == [1.0, {'a': 2u}]", r#"[1,{"a":2}]"#, "true");
        gives("event.data.big == 18446744073709551615u", r#"{"big":18446744073709551615}"#, "true");
        gives("event.data.n < 3.5 && event.data.n > 2u", r#"{"n":3}"#, "true");
        gives("event.data.n == '3'", r#"{"n":3}"#, "false");
    }

    #[test]
    fn what_the_documents_name_works() {
        let data = r#"{"tenant":"acme","roles":["admin","user"],"note":null,"name":"Zoë"}"#;
        for holds in [
            "event.data.tenant == 'acme'",
            "has(event.data.tenant) && !has(event.data.other)",
            "event.type.startsWith('user.') && event.type.endsWith('created') && event.type.contains('.')",
            "event.type.matches('^user[.](created|deleted)$')",
            "matches(event.type, 'created')",
            "event.data.roles.exists(role, role == 'admin') && event.data.roles.all(role, size(role) > 3)",
            "event.data.roles.exists_one(role, role.matches('^a'))",
            "event.data.roles.filter(role, role != 'user') == ['admin']",
            "event.data.roles.map(role, role + '!')[1] == 'user!'",
            "'admin' in event.data.roles && 'tenant' in event.data",
            "event.data.note == null && event.data['name'].size() == 3",
            "int('7') == 7 && string(7) == '7' && double('0.5') == 0.5 && uint(3) == 3",
            "event.data.tenant == 'acme' ? true : false",
        ] {
            gives(holds, data, "true");
        }
    }

    #[test]
    fn names_that_do_not_exist_are_refused_when_it_is_compiled() {
        let rows = [
            ("evnt.type == 'a'", "unknown variable evnt; available: event"),
            ("event.typ == 'a'", "event has no field typ; available: type, data"),
            ("has(event.typ)", "event has no field typ; available: type, data"),
            ("event.data.lowerCase() == 'a'", "unknown function lowerCase"),
            ("event.data.a.exists(x, y == 1)", "unknown variable y; available: event, x"),
            ("x == 1 || event.data.all(x, true)", "unknown variable x; available: event"),
            ("event.type.matches(event.data)", "the pattern of matches() must be a string literal"),
            ("event.type.matches('(')", "the pattern of matches() is not a valid regular expression"),
            (
                "event.type.matches('(a{1000}){1000}')",
                "the pattern of matches() is not a valid regular expression, or is too large",
            ),
            ("b'a' == b'b'", "bytes are not supported"),
            ("Event{a: 1}.a", "messages are not supported"),
            ("timestamp('2026-01-01T00:00:00Z') == event.data", "unknown function timestamp"),
            ("size(1, 2) == 1", "wrong number of arguments for size()"),
            ("contains('a') ", "wrong number of arguments for contains()"),
            ("'a'.int() == 1", "wrong number of arguments for int()"),
        ];
        for (source, problem) in rows {
            let error = compile(source).expect_err(source).to_string();
            assert!(error.contains(problem), "{source}: {error}");
        }
        let error = compile("event.type ==").unwrap_err().to_string();
        assert!(error.starts_with("invalid CEL expression: line 1, column "), "{error}");
        for source in
            ["", "(", "'", "\u{0}", "a ? b", "[1,", &"(".repeat(3000), &"!".repeat(2000), &"[".repeat(2000)]
        {
            assert!(compile(source).is_err(), "{source}");
        }
        let nested = |depth| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
        assert!(compile(&nested(40)).is_ok() && compile(&nested(49)).is_err());
        let conditionals = "true ? true : ".repeat(49) + "true";
        assert!(compile(&conditionals).is_err());
        let sum = "1 + ".repeat(1000) + "1 == 1";
        assert!(compile(&sum).is_err(), "as deep as it is long");
    }

    #[test]
    fn why_it_failed_is_told_without_the_data() {
        let rows = [
            ("event.data.other == 1", Failure::Missing),
            ("event.data.roles[5] == 'a'", Failure::Missing),
            ("event.data.tenant + 1 == 2", Failure::Types),
            ("event.data.tenant < 1", Failure::Types),
            ("event.data.tenant && true", Failure::Types),
            ("1 / event.data.zero == 1", Failure::Range),
            ("int(event.data.tenant) == 1", Failure::Range),
            ("9223372036854775807 + 1 == 0", Failure::Range),
        ];
        for (source, failure) in rows {
            let failed = run(source, r#"{"tenant":"hunter2","roles":[],"zero":0}"#);
            assert_eq!(failed, Err(failure), "{source}");
        }
    }

    #[test]
    fn loops_are_bounded_by_what_they_copy() {
        let list = |length: usize| format!("[{}]", vec!["1"; length].join(","));
        gives("event.data.all(x, x == 1)", &list(10_000), "true");
        let cost = Err(Failure::Cost);
        assert_eq!(run("event.data.all(x, event.data.size() > 0)", &list(100_000)), cost);
        assert_eq!(run("event.data.all(x, event.data.all(y, event.data.all(z, z == x)))", &list(200)), cost);
        assert_eq!(run("event.data.map(x, event.data)", &list(2_000)), cost);
        assert_eq!(run("event.data.map(x, [x,x,x,x].map(y, [y,y,y,y]))", &list(20_000)), cost);
    }

    #[test]
    fn it_can_be_shared_and_each_run_has_its_own_budget() {
        fn shared<T: Send + Sync>(_: &T) {}
        let program = compile("event.data.all(x, x == 1)").unwrap();
        shared(&program);
        let json =
            Json::parse(format!(r#"{{"type":"a","data":[{}1]}}"#, "1,".repeat(5_000)).as_bytes()).unwrap();
        for _ in 0..100 {
            assert_eq!(program.run(EVENT, &json), Ok(Value::Bool(true)));
        }
    }
}
