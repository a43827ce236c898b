//! Entries of a directory, as they come.

use bytes::Bytes;

/// An entry, cut down to what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its distinguished name, as the server writes it; by RFC 4514 UTF-8, which not every server keeps to.
    pub dn: Bytes,
    /// In the order in which they came.
    pub attributes: Vec<Attribute>,
}

/// An attribute and its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its description: a name, in any case, and options (`member;range=0-1499`).
    pub name: Bytes,
    /// At least one, save where only the name was asked for or the value was taken away.
    pub values: Vec<Bytes>,
}

impl Attribute {
    /// The name without options.
    #[must_use]
    pub fn base(&self) -> &[u8] {
        self.name.split(|byte| *byte == b';').next().unwrap_or_default()
    }

    /// The bounds that a ranged attribute has, `(first, last)`; the last range has no last value ([MS-ADTS] 3.1.1.3.1.3.3).
    #[must_use]
    pub fn range(&self) -> Option<(u32, Option<u32>)> {
        let options = self.name.split(|byte| *byte == b';').skip(1);
        let mut options = options.filter_map(|option| std::str::from_utf8(option).ok());
        let bounds = options.find_map(|option| {
            let (name, bounds) = option.split_once('=')?;
            name.eq_ignore_ascii_case("range").then_some(bounds)
        })?;
        let (first, last) = bounds.split_once('-')?;
        let last = if last == "*" { None } else { Some(last.parse().ok()?) };
        Some((first.parse().ok()?, last))
    }
}

impl Entry {
    /// Its name as text.
    #[must_use]
    pub fn dn(&self) -> Option<&str> {
        std::str::from_utf8(&self.dn).ok()
    }

    /// The values of an attribute, whose name is compared without case (RFC 4512, section 2.5). Those of its subtypes
    /// (`cn;lang-de`) are none of its own.
    #[must_use]
    pub fn values(&self, name: &str) -> &[Bytes] {
        let found =
            self.attributes.iter().find(|attribute| attribute.name.eq_ignore_ascii_case(name.as_bytes()));
        found.map_or(&[], |attribute| attribute.values.as_slice())
    }

    /// The first value of an attribute, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values(name).first().and_then(|value| std::str::from_utf8(value).ok())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An entry with these attributes.
    pub(crate) fn entry(dn: &str, attributes: &[(&str, &[&str])]) -> Entry {
        let value = |text: &&str| Bytes::copy_from_slice(text.as_bytes());
        let attributes = attributes.iter().map(|(name, values)| Attribute {
            name: Bytes::copy_from_slice(name.as_bytes()),
            values: values.iter().map(value).collect(),
        });
        Entry { dn: Bytes::copy_from_slice(dn.as_bytes()), attributes: attributes.collect() }
    }

    #[test]
    fn names_of_attributes_are_compared_without_case_and_subtypes_are_others() {
        let entry = entry("cn=a", &[("cn;lang-de", &["Ein"]), ("CN", &["One"]), ("mail", &[])]);
        assert_eq!(entry.text("cn"), Some("One"));
        assert_eq!(entry.text("mail"), None);
        assert_eq!(entry.values("sn"), <[Bytes; 0]>::default());
    }

    #[test]
    fn ranges_are_read_from_the_options() {
        let range =
            |name: &str| Attribute { name: Bytes::copy_from_slice(name.as_bytes()), values: vec![] }.range();
        assert_eq!(range("member;range=0-1499"), Some((0, Some(1499))));
        assert_eq!(range("member;Range=1500-*"), Some((1500, None)));
        for none in ["member", "member;range=", "member;range=a-b", "member;range=1-99999999999"] {
            assert_eq!(range(none), None, "{none}");
        }
    }
}
