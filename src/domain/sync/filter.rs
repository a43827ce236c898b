//! Search filters (RFC 4515): read with the place of each mistake, and filled in as values, so that what callers send is never
//! syntax.

mod parse;

use std::fmt::{self, Write as _};

pub use parse::FilterError;

/// A filter over values of this type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<V> {
    /// All of them.
    And(Vec<Self>),
    /// One of them.
    Or(Vec<Self>),
    /// Not this one.
    Not(Box<Self>),
    /// An attribute compared with a value.
    Compare(Comparison, String, V),
    /// `attribute=initial*any*any*last`; the ends may be missing.
    Substrings(String, Option<V>, Vec<V>, Option<V>),
    /// `attribute=*`.
    Present(String),
    /// A comparison by a matching rule.
    Extensible {
        /// Its name or OID; by default the attribute's.
        rule: Option<String>,
        /// By default all that the rule fits.
        attribute: Option<String>,
        /// The value.
        value: V,
        /// Whether the parts of the entry's name count too.
        dn: bool,
    },
}

/// How an attribute is compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `~=`
    Like,
}

/// A filter that can be sent.
pub type Filter = Node<Vec<u8>>;

/// A filter with places, `{}`, for a value that is known later.
pub type Template = Node<Vec<Piece>>;

/// A part of a value in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Stands for itself.
    Bytes(Vec<u8>),
    /// `{}`
    Place,
}

impl<V> Node<V> {
    /// The same filter with each value changed.
    fn map<W>(&self, change: &impl Fn(&V) -> W) -> Node<W> {
        let all = |nodes: &[Self]| nodes.iter().map(|node| node.map(change)).collect();
        match self {
            Self::And(nodes) => Node::And(all(nodes)),
            Self::Or(nodes) => Node::Or(all(nodes)),
            Self::Not(node) => Node::Not(Box::new(node.map(change))),
            Self::Compare(how, attribute, value) => Node::Compare(*how, attribute.clone(), change(value)),
            Self::Substrings(attribute, initial, any, last) => Node::Substrings(
                attribute.clone(),
                initial.as_ref().map(change),
                any.iter().map(change).collect(),
                last.as_ref().map(change),
            ),
            Self::Present(attribute) => Node::Present(attribute.clone()),
            Self::Extensible { rule, attribute, value, dn } => Node::Extensible {
                rule: rule.clone(),
                attribute: attribute.clone(),
                value: change(value),
                dn: *dn,
            },
        }
    }

    /// Whether one of these attributes is asked for, whose names are compared without case.
    #[must_use]
    pub fn mentions(&self, attributes: &[&str]) -> bool {
        let among = |name: &str| attributes.iter().any(|attribute| attribute.eq_ignore_ascii_case(name));
        match self {
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().any(|node| node.mentions(attributes)),
            Self::Not(node) => node.mentions(attributes),
            Self::Compare(_, name, _) | Self::Substrings(name, ..) | Self::Present(name) => among(name),
            Self::Extensible { attribute, .. } => attribute.as_deref().is_some_and(among),
        }
    }
}

impl Template {
    /// Reads a template as people write it: the outer parentheses may be missing, and blanks and line breaks may stand between
    /// parts.
    ///
    /// # Errors
    /// Where and what the first mistake is.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::template(text)
    }

    /// Whether there is a place.
    #[must_use]
    pub fn has_place(&self) -> bool {
        let of = |value: &Vec<Piece>| value.contains(&Piece::Place);
        match self {
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().any(Self::has_place),
            Self::Not(node) => node.has_place(),
            Self::Compare(_, _, value) | Self::Extensible { value, .. } => of(value),
            Self::Substrings(_, initial, any, last) => initial.iter().chain(any).chain(last).any(of),
            Self::Present(_) => false,
        }
    }

    /// The attribute that is compared with the place; none where there is no place, or where several attributes are.
    #[must_use]
    pub fn place_attribute(&self) -> Option<String> {
        let mut found = Vec::new();
        self.place_attributes(&mut found);
        found.dedup();
        match found.as_slice() {
            [only] => Some((*only).clone()),
            _ => None,
        }
    }

    fn place_attributes<'a>(&'a self, found: &mut Vec<&'a String>) {
        match self {
            Self::And(nodes) | Self::Or(nodes) => {
                for node in nodes {
                    node.place_attributes(found);
                }
            }
            Self::Compare(_, attribute, value) if value.contains(&Piece::Place) => found.push(attribute),
            Self::Not(_)
            | Self::Compare(..)
            | Self::Substrings(..)
            | Self::Present(_)
            | Self::Extensible { .. } => {}
        }
    }

    /// The filter with this value in every place.
    #[must_use]
    pub fn fill(&self, value: &[u8]) -> Filter {
        self.map(&|pieces| {
            let bytes = |piece: &Piece| match piece {
                Piece::Bytes(bytes) => bytes.clone(),
                Piece::Place => value.to_vec(),
            };
            pieces.iter().flat_map(bytes).collect()
        })
    }

    /// The filter that finds everybody whom some value would find: anything may stand in a place.
    ///
    /// # Errors
    /// The attribute whose comparison cannot say that, so that a filter for the listing is needed.
    pub fn listing(&self) -> Result<Filter, NoListing> {
        let all = |nodes: &[Self]| nodes.iter().map(Self::listing).collect::<Result<_, _>>();
        let fixed = |value: &Vec<Piece>, of: &str| {
            if value.contains(&Piece::Place) { Err(NoListing(of.to_owned())) } else { Ok(joined(value)) }
        };
        Ok(match self {
            Self::And(nodes) => Filter::And(all(nodes)?),
            Self::Or(nodes) => Filter::Or(all(nodes)?),
            Self::Not(node) if node.has_place() => return Err(NoListing("a negated part".to_owned())),
            Self::Not(node) => Filter::Not(Box::new(node.listing()?)),
            Self::Compare(Comparison::Equal, attribute, value) if value.contains(&Piece::Place) => {
                substrings(attribute, std::slice::from_ref(value))
            }
            Self::Compare(how, attribute, value) => {
                Filter::Compare(*how, attribute.clone(), fixed(value, attribute)?)
            }
            Self::Substrings(attribute, initial, any, last) => {
                let nothing = Vec::new();
                let mut values = vec![initial.as_ref().unwrap_or(&nothing).clone()];
                values.extend(any.iter().cloned());
                values.push(last.as_ref().unwrap_or(&nothing).clone());
                substrings(attribute, &values)
            }
            Self::Present(attribute) => Filter::Present(attribute.clone()),
            Self::Extensible { rule, attribute, value, dn } => {
                let name = attribute.as_deref().or(rule.as_deref()).unwrap_or_default();
                let value = fixed(value, name)?;
                Filter::Extensible { rule: rule.clone(), attribute: attribute.clone(), value, dn: *dn }
            }
        })
    }
}

/// A template that cannot be turned into a listing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{{}} in the comparison of {0} cannot stand for everybody: give a filter for the listing")]
pub struct NoListing(String);

fn joined(pieces: &[Piece]) -> Vec<u8> {
    let bytes = pieces.iter().filter_map(|piece| match piece {
        Piece::Bytes(bytes) => Some(bytes.as_slice()),
        Piece::Place => None,
    });
    bytes.collect::<Vec<_>>().concat()
}

/// These values with anything between two of them, and in each place.
fn substrings(attribute: &str, values: &[Vec<Piece>]) -> Filter {
    let mut fixed = vec![Vec::new()];
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            fixed.push(Vec::new());
        }
        for piece in value {
            match piece {
                Piece::Place => fixed.push(Vec::new()),
                Piece::Bytes(bytes) => fixed.last_mut().into_iter().for_each(|last| last.extend(bytes)),
            }
        }
    }
    let full = |bytes: Vec<u8>| Some(bytes).filter(|bytes| !bytes.is_empty());
    let last = if fixed.len() > 1 { fixed.pop().and_then(full) } else { None };
    let mut fixed = fixed.into_iter();
    let initial = fixed.next().and_then(full);
    let any: Vec<_> = fixed.filter_map(full).collect();
    if initial.is_none() && any.is_empty() && last.is_none() {
        return Filter::Present(attribute.to_owned());
    }
    Filter::Substrings(attribute.to_owned(), initial, any, last)
}

impl Filter {
    /// `attribute=value`.
    pub fn equal(attribute: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self::Compare(Comparison::Equal, attribute.into(), value.into())
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::And(vec![self, other])
    }
}

/// A value for a filter that is put together (RFC 4515, section 3): every byte that could be syntax, or could be taken for another
/// one on the way, as `\XX`.
#[must_use]
pub fn escape(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value {
        match byte {
            b'*' | b'(' | b')' | b'\\' | b'{' | 0x80.. | ..0x20 | 0x7f => {
                let _ = write!(text, "\\{byte:02x}");
            }
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |f: &mut fmt::Formatter<'_>, sign: char, nodes: &[Self]| {
            write!(f, "({sign}")?;
            nodes.iter().try_for_each(|node| node.fmt(f))?;
            f.write_str(")")
        };
        match self {
            Self::And(nodes) => all(f, '&', nodes),
            Self::Or(nodes) => all(f, '|', nodes),
            Self::Not(node) => write!(f, "(!{node})"),
            Self::Present(attribute) => write!(f, "({attribute}=*)"),
            Self::Compare(how, attribute, value) => {
                let sign = match how {
                    Comparison::Equal => "=",
                    Comparison::AtLeast => ">=",
                    Comparison::AtMost => "<=",
                    Comparison::Like => "~=",
                };
                write!(f, "({attribute}{sign}{})", escape(value))
            }
            Self::Substrings(attribute, initial, any, last) => {
                let end = |value: &Option<Vec<u8>>| value.as_deref().map(escape).unwrap_or_default();
                write!(f, "({attribute}={}*", end(initial))?;
                any.iter().try_for_each(|value| write!(f, "{}*", escape(value)))?;
                write!(f, "{})", end(last))
            }
            Self::Extensible { rule, attribute, value, dn } => {
                f.write_str("(")?;
                f.write_str(attribute.as_deref().unwrap_or_default())?;
                f.write_str(if *dn { ":dn" } else { "" })?;
                rule.iter().try_for_each(|rule| write!(f, ":{rule}"))?;
                write!(f, ":={})", escape(value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_value_fills_every_place_and_is_no_syntax() {
        let filter = template("(|(uid={})(mail={})(mail={}@example.org))").fill(b")(uid=*");
        let escaped = "\\29\\28uid=\\2a";
        assert_eq!(
            filter.to_string(),
            format!("(|(uid={escaped})(mail={escaped})(mail={escaped}@example.org))")
        );
        for name in ["*", "a*", ")(uid=*", "admin)(|(uid=*", "\\2a", "x,cn=admins", " lead", "#x", "ü"] {
            let filter = template("(uid={})").fill(name.as_bytes());
            assert_eq!(filter, Filter::equal("uid", name), "{name}");
            assert_eq!(Template::parse(&filter.to_string()).unwrap().fill(b""), filter, "{name}");
        }
    }

    #[test]
    fn a_listing_finds_everybody_whom_a_login_would() {
        let rows = [
            ("(uid={})", "(uid=*)"),
            (
                "(&(objectClass=inetOrgPerson)(|(uid={})(mail={})))",
                "(&(objectClass=inetOrgPerson)(|(uid=*)(mail=*)))",
            ),
            ("(mail={}@example.org)", "(mail=*@example.org)"),
            ("(cn=*{}*)", "(cn=*)"),
            ("(cn=a*{}b*c)", "(cn=a*b*c)"),
            ("(cn=x{}y{}z)", "(cn=x*y*z)"),
            ("(objectClass=person)", "(objectClass=person)"),
            ("(cn=a*b)", "(cn=a*b)"),
        ];
        for (login, listing) in rows {
            assert_eq!(template(login).listing().unwrap().to_string(), listing, "{login}");
        }
        for login in ["(uid:caseExactMatch:={})", "(uid>={})", "(uid~={})", "(!(uid={}))"] {
            let error = template(login).listing().unwrap_err().to_string();
            assert!(error.contains("give a filter for the listing"), "{login}: {error}");
        }
    }

    #[test]
    fn an_attribute_is_found_anywhere_and_in_any_case() {
        let filter = template("(&(uid={})(!(|(memberof=cn=a,dc=x)(sn=b))))");
        assert!(filter.mentions(&["memberOf"]));
        assert!(!filter.mentions(&["isMemberOf"]));
        assert!(template("(tokenGroups:caseIgnoreMatch:=x)").mentions(&["TOKENGROUPS"]));
    }
}
