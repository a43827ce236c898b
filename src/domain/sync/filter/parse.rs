//! The reader of filters. It is more patient than the RFC with blanks and with the outer parentheses, and not with anything else.

use super::{Comparison, Node, Piece, Template};
use crate::domain::sync::dn::digit;

/// How deep filters may be nested: servers refuse much less than what would be too much for us.
const DEPTH: usize = 32;

/// A mistake in a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {what}")]
pub struct FilterError {
    /// Its place, counted from 1.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

pub(super) fn template(text: &str) -> Result<Template, FilterError> {
    let mut reader = Reader { text, at: 0 };
    reader.blanks();
    let filter = if reader.peek() == Some(b'(') { reader.filter(DEPTH)? } else { reader.inner(DEPTH)? };
    reader.blanks();
    match reader.peek() {
        None => Ok(filter),
        Some(b')') => Err(reader.error("this closing parenthesis has no opening one")),
        Some(_) => Err(reader.error("the filter has ended: several are put together by (&...) or (|...)")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error(&self, what: &'static str) -> FilterError {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        FilterError { at: before.chars().count() + 1, what }
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// A filter in its parentheses.
    fn filter(&mut self, depth: usize) -> Result<Template, FilterError> {
        if !self.eat(b'(') {
            return Err(self.error("an opening parenthesis is missing"));
        }
        let inner = self.inner(depth)?;
        self.blanks();
        match self.peek() {
            Some(b')') => self.at += 1,
            Some(b'(') => return Err(self.error("an opening parenthesis in a value is written \\28")),
            _ => return Err(self.error("a closing parenthesis is missing")),
        }
        Ok(inner)
    }

    /// What stands in the parentheses.
    fn inner(&mut self, depth: usize) -> Result<Template, FilterError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.error("the filter is nested too deeply"));
        };
        self.blanks();
        match self.peek() {
            Some(b'&') => Ok(Node::And(self.list(depth)?)),
            Some(b'|') => Ok(Node::Or(self.list(depth)?)),
            Some(b'!') => {
                self.at += 1;
                self.blanks();
                Ok(Node::Not(Box::new(self.filter(depth)?)))
            }
            _ => self.item(),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Template>, FilterError> {
        self.at += 1;
        let mut all = Vec::new();
        loop {
            self.blanks();
            match self.peek() {
                Some(b'(') => all.push(self.filter(depth)?),
                _ if all.is_empty() => return Err(self.error("at least one filter must follow")),
                _ => return Ok(all),
            }
        }
    }

    /// A comparison.
    fn item(&mut self) -> Result<Template, FilterError> {
        let attribute = self.word().to_owned();
        self.blanks();
        match self.peek() {
            Some(b':') => return self.extensible(attribute),
            Some(b'=' | b'>' | b'<' | b'~') if attribute.is_empty() => {
                return Err(self.error("the name of an attribute is missing"));
            }
            Some(b'=') => {}
            Some(sign @ (b'>' | b'<' | b'~')) => {
                self.at += 1;
                if !self.eat(b'=') {
                    return Err(self.error("= is missing"));
                }
                let how = match sign {
                    b'>' => Comparison::AtLeast,
                    b'<' => Comparison::AtMost,
                    _ => Comparison::Like,
                };
                return Ok(Node::Compare(how, attribute, self.single()?));
            }
            _ if attribute.is_empty() => return Err(self.error("the name of an attribute is missing")),
            _ => return Err(self.error("= is missing")),
        }
        self.at += 1;
        let mut parts = vec![self.value()?];
        while self.eat(b'*') {
            parts.push(self.value()?);
        }
        if parts.len() == 1 {
            return Ok(Node::Compare(Comparison::Equal, attribute, parts.swap_remove(0)));
        }
        if parts.len() == 2 && parts.iter().all(Vec::is_empty) {
            return Ok(Node::Present(attribute));
        }
        let full = |value: Option<Vec<Piece>>| value.filter(|value| !value.is_empty());
        let last = full(parts.pop());
        let initial = full(Some(parts.remove(0)));
        parts.retain(|part| !part.is_empty());
        Ok(Node::Substrings(attribute, initial, parts, last))
    }

    /// `attribute:dn:rule:=value`
    fn extensible(&mut self, attribute: String) -> Result<Template, FilterError> {
        let (mut rule, mut dn) = (None, false);
        while self.eat(b':') {
            if self.eat(b'=') {
                let attribute = Some(attribute).filter(|attribute| !attribute.is_empty());
                if attribute.is_none() && rule.is_none() {
                    return Err(self.error("an attribute or a matching rule is missing"));
                }
                let value = self.single()?;
                return Ok(Node::Extensible { rule, attribute, value, dn });
            }
            let word = self.word();
            if word.eq_ignore_ascii_case("dn") && !dn && rule.is_none() {
                dn = true;
            } else if !word.is_empty() && rule.is_none() {
                rule = Some(word.to_owned());
            } else {
                return Err(self.error("the name of a matching rule is missing"));
            }
        }
        Err(self.error(":= is missing"))
    }

    /// A name: of an attribute with its options, or of a matching rule.
    fn word(&mut self) -> &str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';' | b'_');
        let length = rest.bytes().take_while(fits).count();
        self.at += length;
        &rest[..length]
    }

    /// A value without a wildcard.
    fn single(&mut self) -> Result<Vec<Piece>, FilterError> {
        let value = self.value()?;
        match self.peek() {
            Some(b'*') => Err(self.error("a star in this comparison is written \\2a")),
            _ => Ok(value),
        }
    }

    /// A value up to a star, a parenthesis or the end.
    fn value(&mut self) -> Result<Vec<Piece>, FilterError> {
        let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
        while let Some(byte) = self.peek() {
            match byte {
                b'*' | b'(' | b')' => break,
                0 => return Err(self.error("a zero byte is written \\00")),
                b'\\' => bytes.push(self.escaped()?),
                b'{' if self.text[self.at..].starts_with("{}") => {
                    if !bytes.is_empty() {
                        pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                    }
                    pieces.push(Piece::Place);
                    self.at += 2;
                }
                _ => {
                    bytes.push(byte);
                    self.at += 1;
                }
            }
        }
        if !bytes.is_empty() {
            pieces.push(Piece::Bytes(bytes));
        }
        Ok(pieces)
    }

    fn escaped(&mut self) -> Result<u8, FilterError> {
        let digits = self.text.as_bytes().get(self.at + 1..self.at + 3);
        match digits {
            Some([high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                self.at += 3;
                Ok(digit(*high) << 4 | digit(*low))
            }
            _ => {
                Err(self.error("two hexadecimal digits must follow a backslash (a backslash itself is \\5c)"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_are_read_as_people_write_them() {
        let rows = [
            ("(uid={})", "(uid=v)"),
            ("uid={}", "(uid=v)"),
            ("&(objectClass=person)(uid={})", "(&(objectClass=person)(uid=v))"),
            (" (&\n  (objectClass=person)\n  (uid={}) )\n", "(&(objectClass=person)(uid=v))"),
            ("(!(a=b))", "(!(a=b))"),
            ("(| (a=b) (c=d))", "(|(a=b)(c=d))"),
            ("(a>=1)", "(a>=1)"),
            ("(a<=1)", "(a<=1)"),
            ("(a~=b)", "(a~=b)"),
            ("(a=*)", "(a=*)"),
            ("(a=b*)", "(a=b*)"),
            ("(a=*b**c)", "(a=*b*c)"),
            ("(a=)", "(a=)"),
            ("(cn=\\28x\\29)", "(cn=\\28x\\29)"),
            (
                "(userAccountControl:1.2.840.113556.1.4.803:=2)",
                "(userAccountControl:1.2.840.113556.1.4.803:=2)",
            ),
            ("(:dn:2.4.6:=x)", "(:dn:2.4.6:=x)"),
            ("(o:dn:=x)", "(o:dn:=x)"),
            ("(cn;lang-de=ü)", "(cn;lang-de=\\c3\\bc)"),
            ("(a=\\7b\\7d)", "(a=\\7b})"),
        ];
        for (text, means) in rows {
            let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(template.fill(b"v").to_string(), means, "{text}");
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let deep = "(!".repeat(40);
        let rows = [
            ("", 1, "the name of an attribute is missing"),
            ("(uid={}", 8, "a closing parenthesis is missing"),
            ("(uid={}))", 9, "this closing parenthesis has no opening one"),
            ("(uid={})(mail={})", 9, "the filter has ended: several are put together by (&...) or (|...)"),
            ("(memberOf=cn=app (x),ou=groups)", 18, "an opening parenthesis in a value is written \\28"),
            ("(=x)", 2, "the name of an attribute is missing"),
            ("(uid)", 5, "= is missing"),
            ("(ü=x)", 2, "the name of an attribute is missing"),
            ("(ü", 2, "the name of an attribute is missing"),
            ("(&)", 3, "at least one filter must follow"),
            ("(a>1)", 4, "= is missing"),
            ("(a>=1*)", 6, "a star in this comparison is written \\2a"),
            ("(a=\\2)", 4, "two hexadecimal digits must follow a backslash (a backslash itself is \\5c)"),
            ("(a=ü\\zz)", 5, "two hexadecimal digits must follow a backslash (a backslash itself is \\5c)"),
            ("(a=\0)", 4, "a zero byte is written \\00"),
            ("(:=x)", 4, "an attribute or a matching rule is missing"),
            ("(a:b:c:=x)", 7, "the name of a matching rule is missing"),
            ("(a:b)", 5, ":= is missing"),
            (deep.as_str(), 66, "the filter is nested too deeply"),
        ];
        for (text, at, what) in rows {
            assert_eq!(Template::parse(text), Err(FilterError { at, what }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[(&|!=<>~:*a{}\\\\2 ü\0)]{0,40}") {
            let _ = Template::parse(&text);
        }

        #[test]
        fn what_is_written_is_read_as_the_same(value: Vec<u8>, more: Vec<u8>) {
            let filter = Node::Or(vec![
                Node::Compare(Comparison::Equal, "a".to_owned(), value.clone()),
                Node::Substrings("b".to_owned(), Some([b"x".as_slice(), &value].concat()), vec![], Some([b"y".as_slice(), &more].concat())),
            ]);
            prop_assert_eq!(Template::parse(&filter.to_string()).unwrap().fill(b""), filter);
        }
    }
}
