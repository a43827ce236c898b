//! Roles: what the members of a group may be.

use regex::Regex;

use super::dn::Dn;

/// A group's members get a role.
#[derive(Clone, Debug)]
pub struct RoleMapping {
    /// Which groups.
    pub group: GroupMatch,
    /// The role.
    pub role: String,
    /// Whether members of groups in the group get it too.
    pub nested: bool,
}

/// Which groups are meant.
#[derive(Clone, Debug)]
pub enum GroupMatch {
    /// The one of this name in the directory.
    Dn(Dn),
    /// Those of this name, whatever its case.
    Name(String),
    /// Those whose whole name has this pattern.
    Pattern(Regex),
}

impl GroupMatch {
    /// Those whose whole name has this pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn pattern(text: &str) -> Result<Self, String> {
        let whole = regex::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(1 << 20).build();
        whole.map(Self::Pattern).map_err(|error| error.to_string())
    }

    /// Whether a group is meant.
    #[must_use]
    pub fn matches(&self, name: &str, dn: &str) -> bool {
        match self {
            Self::Dn(wanted) => *wanted == Dn::parse(dn),
            Self::Name(wanted) => wanted.to_lowercase() == name.to_lowercase(),
            Self::Pattern(pattern) => pattern.is_match(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_meant_by_dn_by_name_and_by_pattern() {
        let dn = "CN=App Admins,OU=Groups,DC=x";
        let rows = [
            (GroupMatch::Dn(Dn::parse("cn=app admins, ou=groups, dc=x")), true),
            (GroupMatch::Dn(Dn::parse("cn=app admins,dc=x")), false),
            (GroupMatch::Name("app ADMINS".to_owned()), true),
            (GroupMatch::Name("app".to_owned()), false),
            (GroupMatch::pattern("App .*").unwrap(), true),
            (GroupMatch::pattern("App").unwrap(), false),
            (GroupMatch::pattern("x|App Admins").unwrap(), true),
        ];
        for (group, matches) in rows {
            assert_eq!(group.matches("App Admins", dn), matches, "{group:?}");
        }
        assert!(GroupMatch::pattern("(").is_err());
        assert!(GroupMatch::pattern("a{1000}{1000}").is_err());
    }
}
