//! What is refused of an expression, and what is put in place of some of it, before it is ever run.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators},
};
use regex::{Regex, RegexBuilder};

use super::{Invalid, Variable};

/// Names that no expression can have in it: our functions.
pub(super) const EQUAL: &str = "@equal";
pub(super) const MEMBER: &str = "@member";
pub(super) const MATCHES: &str = "@matches";
pub(super) const STEP: &str = "@step";

/// Compiled, a pattern may take so many bytes.
const PATTERN_SIZE: usize = 256 << 10;

/// How many values each function takes: of its target and its arguments together. Those with a target may have it as their first
/// argument, too.
const FUNCTIONS: &[(&str, usize, bool)] = &[
    ("startsWith", 2, true),
    ("endsWith", 2, true),
    ("contains", 2, true),
    ("size", 1, true),
    ("string", 1, false),
    ("double", 1, false),
    ("int", 1, false),
    ("uint", 1, false),
];

const OPERATORS: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::NOT_STRICTLY_FALSE,
];

/// How deep the operations of an expression may be.
const NESTED: u16 = 100;

/// The expression as it is to be run, and the patterns that it uses.
pub(super) fn check(expression: IdedExpr, variables: &[Variable]) -> Result<(IdedExpr, Vec<Regex>), Invalid> {
    let mut checker = Checker { variables, loops: Vec::new(), patterns: Vec::new(), depth: 0 };
    let expression = checker.expression(expression)?;
    Ok((expression, checker.patterns))
}

struct Checker<'a> {
    variables: &'a [Variable],
    /// The variables of the loops around.
    loops: Vec<String>,
    patterns: Vec<Regex>,
    depth: u16,
}

impl Checker<'_> {
    /// A chain of operators is as deep as it is long, and whoever runs it recurses as deep.
    fn expression(&mut self, expression: IdedExpr) -> Result<IdedExpr, Invalid> {
        if self.depth == NESTED {
            return Err(Invalid::NotOffered("more than 100 nested operations are"));
        }
        self.depth += 1;
        let checked = self.operation(expression);
        self.depth -= 1;
        checked
    }

    fn operation(&mut self, IdedExpr { id, expr }: IdedExpr) -> Result<IdedExpr, Invalid> {
        let expr = match expr {
            Expr::Literal(LiteralValue::Bytes(_)) => return Err(Invalid::NotOffered("bytes are")),
            Expr::Struct(_) => return Err(Invalid::NotOffered("messages are")),
            Expr::Unspecified => return Err(Invalid::NotOffered("the expression is")),
            Expr::Literal(literal) => Expr::Literal(literal),
            Expr::Ident(name) => self.known(name)?,
            Expr::Select(mut select) => {
                if let Expr::Ident(name) = &select.operand.expr {
                    self.has_field(name, &select.field)?;
                }
                select.operand = Box::new(self.expression(*select.operand)?);
                Expr::Select(select)
            }
            Expr::List(mut list) => {
                list.elements = self.all(list.elements)?;
                Expr::List(list)
            }
            Expr::Map(mut map) => {
                for entry in &mut map.entries {
                    match &mut entry.expr {
                        EntryExpr::StructField(_) => return Err(Invalid::NotOffered("messages are")),
                        EntryExpr::MapEntry(entry) => {
                            entry.key = self.expression(std::mem::take(&mut entry.key))?;
                            entry.value = self.expression(std::mem::take(&mut entry.value))?;
                        }
                    }
                }
                Expr::Map(map)
            }
            Expr::Call(call) => self.call(call)?,
            Expr::Comprehension(comprehension) => {
                Expr::Comprehension(Box::new(self.comprehension(*comprehension)?))
            }
        };
        Ok(IdedExpr { id, expr })
    }

    fn all(&mut self, expressions: Vec<IdedExpr>) -> Result<Vec<IdedExpr>, Invalid> {
        expressions.into_iter().map(|expression| self.expression(expression)).collect()
    }

    fn known(&self, name: String) -> Result<Expr, Invalid> {
        // The accumulator of a loop.
        let known = name.starts_with('@')
            || self.loops.contains(&name)
            || self.variables.iter().any(|variable| variable.name == name);
        if known {
            return Ok(Expr::Ident(name));
        }
        let variables = self.variables.iter().map(|variable| variable.name);
        let names: Vec<_> = variables.chain(self.loops.iter().map(String::as_str)).collect();
        Err(Invalid::Name(format!("unknown variable {name}; available: {}", names.join(", "))))
    }

    fn has_field(&self, name: &str, field: &str) -> Result<(), Invalid> {
        let shadowed = self.loops.iter().any(|variable| variable == name);
        let variable = self.variables.iter().find(|variable| variable.name == name && !shadowed);
        match variable {
            Some(Variable { fields, .. }) if !fields.is_empty() && !fields.contains(&field) => {
                Err(Invalid::Name(format!("{name} has no field {field}; available: {}", fields.join(", "))))
            }
            _ => Ok(()),
        }
    }

    fn call(&mut self, CallExpr { func_name, target, args }: CallExpr) -> Result<Expr, Invalid> {
        let has_target = target.is_some();
        let mut args = target.map(|target| *target).into_iter().chain(args).collect::<Vec<_>>();
        if func_name == "matches" {
            return self.matches(args);
        }
        args = self.all(args)?;
        match func_name.as_str() {
            operators::EQUALS => Ok(equal(args)),
            operators::NOT_EQUALS => Ok(call(operators::LOGICAL_NOT, vec![of(equal(args))])),
            operators::IN => Ok(call(MEMBER, args)),
            name if !has_target && OPERATORS.contains(&name) => Ok(call(name, args)),
            name => {
                let function = FUNCTIONS.iter().find(|(function, ..)| *function == name);
                let (_, wanted, method) =
                    function.ok_or_else(|| Invalid::Name(format!("unknown function {name}")))?;
                if args.len() != *wanted || (has_target && !method) {
                    return Err(Invalid::Name(format!("wrong number of arguments for {name}()")));
                }
                // The interpreter knows them by their target alone.
                let target = method.then(|| Box::new(args.remove(0)));
                Ok(Expr::Call(CallExpr { func_name, target, args }))
            }
        }
    }

    /// Patterns are compiled here, once.
    fn matches(&mut self, args: Vec<IdedExpr>) -> Result<Expr, Invalid> {
        let needs = || Invalid::Name("the pattern of matches() must be a string literal".to_owned());
        let [text, pattern] = <[IdedExpr; 2]>::try_from(args).map_err(|_| needs())?;
        let Expr::Literal(LiteralValue::String(pattern)) = pattern.expr else { return Err(needs()) };
        let compiled = RegexBuilder::new(pattern.inner()).size_limit(PATTERN_SIZE).build().map_err(|_| {
            let problem = "the pattern of matches() is not a valid regular expression, or is too large";
            Invalid::Name(problem.to_owned())
        })?;
        self.patterns.push(compiled);
        let text = self.expression(text)?;
        Ok(call(MATCHES, vec![text, integer(self.patterns.len() - 1)]))
    }

    fn comprehension(&mut self, it: ComprehensionExpr) -> Result<ComprehensionExpr, Invalid> {
        let iter_range = self.expression(it.iter_range)?;
        let accu_init = self.expression(it.accu_init)?;
        self.loops.push(it.iter_var.clone());
        let loop_step = self.expression(it.loop_step)?;
        let condition = self.expression(it.loop_cond)?;
        self.loops.pop();
        let result = self.expression(it.result)?;
        // Each mention of what is outside of the loop copies that, at the most all of the input; its own items are copied once in all.
        let times = mentions(&loop_step, &it.iter_var);
        let makes_list = matches!(accu_init.expr, Expr::List(_));
        let made =
            if makes_list { Expr::Ident(it.accu_var.clone()) } else { Expr::Literal(LiteralValue::Null) };
        let paid = of(call(STEP, vec![integer(times), of(made)]));
        let no = of(Expr::Literal(LiteralValue::Boolean(false.into())));
        let loop_cond = of(call(operators::CONDITIONAL, vec![paid, condition, no]));
        Ok(ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, ..it })
    }
}

/// How many times an expression mentions variables other than the loop's own.
fn mentions(IdedExpr { expr, .. }: &IdedExpr, own: &str) -> usize {
    match expr {
        Expr::Ident(name) => usize::from(!name.starts_with('@') && name != own),
        Expr::Select(select) => mentions(&select.operand, own),
        Expr::List(list) => list.elements.iter().map(|element| mentions(element, own)).sum(),
        Expr::Map(map) => {
            let entries = map.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::StructField(_) => 0,
                EntryExpr::MapEntry(entry) => mentions(&entry.key, own) + mentions(&entry.value, own),
            });
            entries.sum()
        }
        Expr::Call(call) => {
            let target = call.target.as_ref().map_or(0, |target| mentions(target, own));
            target + call.args.iter().map(|arg| mentions(arg, own)).sum::<usize>()
        }
        // Its own steps pay for what is inside of it.
        Expr::Comprehension(inner) => mentions(&inner.iter_range, own),
        Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => 0,
    }
}

/// Where one side is known to be no number, and to have no number in it, the interpreter's own operator does, and copies nothing.
fn equal(args: Vec<IdedExpr>) -> Expr {
    let no_number = |arg: &IdedExpr| {
        matches!(
            arg.expr,
            Expr::Literal(LiteralValue::String(_) | LiteralValue::Boolean(_) | LiteralValue::Null)
        )
    };
    let name = if args.iter().any(no_number) { operators::EQUALS } else { EQUAL };
    call(name, args)
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

fn of(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn integer(number: usize) -> IdedExpr {
    of(Expr::Literal(LiteralValue::Int(i64::try_from(number).unwrap_or(i64::MAX).into())))
}
