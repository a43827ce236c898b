//! Distinguished names (RFC 4514): compared by value, escaped where one is made.

use std::fmt::Write as _;

use super::key::{Key, Kind};

/// A name, its most specific part first, in a form in which equal names are equal: types and values without case, spaces at the
/// ends of a value left out and several taken for one, the parts of a multi-valued part in order. That is `caseIgnoreMatch`, which
/// the naming attributes of all the usual schemas have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dn(Vec<String>);

impl Dn {
    /// Reads a name as servers and people write it. What is no name is taken for one part of that text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        for part in split(text, &[',', ';']) {
            let mut pairs: Vec<_> = split(part, &['+']).into_iter().map(pair).collect();
            pairs.sort_unstable();
            parts.push(pairs.join("+"));
        }
        Self(parts)
    }

    /// Whether it is `base`, or below of it.
    #[must_use]
    pub fn is_within(&self, base: &Self) -> bool {
        self.0.ends_with(&base.0)
    }

    /// What stands for it where many are kept.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of(Kind::Dn, self.0.iter().map(String::as_str))
    }
}

/// The key of a name as a server writes it.
#[must_use]
pub fn key(dn: &str) -> Key {
    Dn::parse(dn).key()
}

/// Splits at each of these characters that is neither escaped nor in quotes. Nothing is in an empty name.
fn split<'a>(text: &'a str, at: &[char]) -> Vec<&'a str> {
    let (mut parts, mut start, mut escaped, mut quoted) = (Vec::new(), 0, false, false);
    for (index, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted && at.contains(&char) => {
                parts.push(&text[start..index]);
                start = index + char.len_utf8();
            }
            _ => {}
        }
    }
    if start < text.len() {
        parts.push(&text[start..]);
    }
    parts
}

/// `type=value` in its canonical form.
fn pair(text: &str) -> String {
    let Some((kind, value)) = text.split_once('=') else { return canonical(&unescape(text)) };
    let kind = kind.trim().to_ascii_lowercase();
    let kind = kind.strip_prefix("oid.").unwrap_or(&kind);
    format!("{kind}={}", canonical(&unescape(value)))
}

/// Without case and needless spaces; what separates parts is escaped, so that a value never looks like several.
fn canonical(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for word in value.split_whitespace() {
        if !text.is_empty() {
            text.push(' ');
        }
        for char in word.chars().flat_map(char::to_lowercase) {
            if matches!(char, '+' | ',' | '\\') {
                text.push('\\');
            }
            text.push(char);
        }
    }
    text
}

fn unescape(value: &str) -> String {
    let value = value.trim_start();
    // A space at the end stands for itself if it is escaped, and so it is left for `canonical`.
    let value = value.strip_prefix('"').and_then(|value| value.trim_end().strip_suffix('"')).unwrap_or(value);
    if !value.contains('\\') {
        return value.to_owned();
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(value.len()), value.as_bytes());
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'\\', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(digit(*high) << 4 | digit(*low));
                after
            }
            (b'\\', [char, after @ ..]) => {
                bytes.push(*char);
                after
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value of a hexadecimal digit.
pub(super) const fn digit(char: u8) -> u8 {
    match char {
        b'0'..=b'9' => char - b'0',
        b'a'..=b'f' => char - b'a' + 10,
        b'A'..=b'F' => char - b'A' + 10,
        _ => 0,
    }
}

/// A value for a name that is put together (RFC 4514, section 2.4).
#[must_use]
pub fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, char) in value.chars().enumerate() {
        match char {
            '\0' => text.push_str("\\00"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => text.extend(['\\', char]),
            '#' if index == 0 => text.push_str("\\#"),
            ' ' if index == 0 || index == last => text.push_str("\\ "),
            _ if char.is_control() => {
                let mut buffer = [0; 4];
                for byte in char.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(text, "\\{byte:02x}");
                }
            }
            _ => text.push(char),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_equal_by_value() {
        let equal = [
            ("UID=Jim,OU=People,dc=Example,dc=org", "uid=jim, ou=people , DC=example,DC=org"),
            ("cn=A\\, B,dc=x", "cn=a\\2c b,dc=X"),
            ("cn=Jürgen", "cn=J\\c3\\bcrgen"),
            ("cn=a  b", "cn= A B "),
            ("ou=s+cn=j,dc=x", "CN=J+OU=S,dc=x"),
            ("cn=\"a,b\",dc=x", "cn=a\\,b,dc=x"),
            ("OID.2.5.4.3=a", "2.5.4.3=A"),
        ];
        for (one, other) in equal {
            assert_eq!(Dn::parse(one), Dn::parse(other), "{one}");
            assert_eq!(key(one), key(other), "{one}");
        }
        let different = [
            ("cn=a\\,ou=b,dc=x", "cn=a,ou=b,dc=x"),
            ("cn=a\\+ou=b", "cn=a+ou=b"),
            ("cn=a", "cn=b"),
            ("cn=a,dc=x", "cn=a"),
        ];
        for (one, other) in different {
            assert_ne!(Dn::parse(one), Dn::parse(other), "{one}");
            assert_ne!(key(one), key(other), "{one}");
        }
    }

    #[test]
    fn an_escaped_comma_does_not_lead_into_a_base() {
        let base = Dn::parse("ou=people,dc=x");
        assert!(Dn::parse("cn=a,OU=People,DC=X").is_within(&base));
        assert!(base.is_within(&base));
        assert!(!Dn::parse("cn=a\\,ou=people,dc=x").is_within(&base));
        assert!(!Dn::parse("cn=a,xou=people,dc=x").is_within(&base));
        assert!(base.is_within(&Dn::parse("")), "the empty name is above all others");
    }

    #[test]
    fn what_is_escaped_stays_one_value() {
        let rows = [
            ("x,cn=admins", "x\\,cn\\=admins"),
            (" lead", "\\ lead"),
            ("end ", "end\\ "),
            (" ", "\\ "),
            ("#x", "\\#x"),
            ("a#x", "a#x"),
            ("\0", "\\00"),
            ("ü", "ü"),
            ("a\nb", "a\\0ab"),
            ("\"+;<>\\", "\\\"\\+\\;\\<\\>\\\\"),
        ];
        for (value, escaped) in rows {
            assert_eq!(escape(value), escaped);
        }
    }

    proptest! {
        #[test]
        fn an_escaped_value_never_adds_a_part(value in "\\PC{0,12}|[,+=\\\\\"#; <>\0]{0,6}") {
            let name = format!("uid={},ou=people", escape(&value));
            prop_assert_eq!(Dn::parse(&name).0.len(), 2);
            prop_assert_eq!(Dn::parse(&name).0[0].matches("uid=").count() >= 1, true);
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".{0,40}") {
            let _ = key(&text);
        }
    }
}
