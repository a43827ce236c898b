//! Parses and checks an expression, on a stack that is large enough.

use cel::{IdedExpr, parser::Parser};

use regex::Regex;

use super::{DEPTH, Invalid, Variable, check};

/// The stack of the parser, which takes up to 120 KB for each level.
const STACK: usize = 32 << 20;

/// The parser recurses once for each bracket and each `?`, and its own bound comes only after that.
pub(super) fn parse(source: &str, variables: &[Variable]) -> Result<(IdedExpr, Vec<Regex>), Invalid> {
    let syntax = |(line, column), problem| Invalid::Syntax { line, column, problem };
    if is_too_deep(source) {
        return Err(syntax((1, 1), format!("more than {DEPTH} nested brackets, or conditionals")));
    }
    let parse = || {
        let parsed = Parser::new().max_recursion_depth(DEPTH).parse(source);
        let expression = parsed.map_err(|errors| {
            let first = errors.errors.into_iter().next();
            let (at, problem) = first.map_or(((1, 1), String::new()), |first| (first.pos, first.msg));
            syntax(at, problem.chars().take(200).collect())
        })?;
        check::check(expression, variables)
    };
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, parse);
        // The parser was generated, and nobody has proven that it never panics.
        let parsed = parser.ok().and_then(|parser| parser.join().ok());
        parsed.unwrap_or(Err(Invalid::NotOffered("the expression is")))
    })
}

/// Whether an expression is nested too deep; brackets in strings count as well.
fn is_too_deep(source: &str) -> bool {
    let (mut depth, mut conditionals) = (0_u16, 0_u16);
    source.bytes().any(|byte| {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'?' => conditionals += 1,
            _ => {}
        }
        depth > DEPTH || conditionals > DEPTH
    })
}
