//! Types of events, and patterns of them.

/// A pattern of event types: `user.created`, `user.*`, `*`.
///
/// A type consists of parts between dots. A `*` stands for one part or more at the end, and for exactly one elsewhere: `user.*` is
/// `user.created` and `user.role.added` and not `user`; `*.created` is `user.created` and not `user.role.created`; `*` is every type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// A pattern that cannot match anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no pattern of event types: write parts of letters, digits, - and _ with dots between them, or * in place of a whole part"
)]
pub struct InvalidPattern;

/// The longest type, in bytes.
pub const LONGEST: usize = 256;

/// Whether this is a type: parts of letters, digits, `-`, `_`, `:` and `/`, with dots between them.
#[must_use]
pub fn is_event_type(text: &str) -> bool {
    text.len() <= LONGEST && !text.is_empty() && text.split('.').all(is_part)
}

fn is_part(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':' | b'/');
    !part.is_empty() && part.bytes().all(allowed)
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A text that is none.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let right = text.len() <= LONGEST && text.split('.').all(|part| part == "*" || is_part(part));
        if right { Ok(Self(text.to_owned())) } else { Err(InvalidPattern) }
    }

    /// Whether it matches the type.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        let (mut patterns, mut parts) = (self.0.split('.').peekable(), event_type.split('.'));
        while let Some(pattern) = patterns.next() {
            let Some(part) = parts.next() else { return false };
            if pattern == "*" && patterns.peek().is_none() {
                return true;
            }
            if pattern != "*" && pattern != part {
                return false;
            }
        }
        parts.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_part_and_at_the_end_any_number() {
        let rows = [
            ("*", "user.created", true),
            ("*", "ping", true),
            ("user.*", "user.created", true),
            ("user.*", "user.role.added", true),
            ("user.*", "user", false),
            ("user.*", "users.created", false),
            ("*.created", "user.created", true),
            ("*.created", "user.role.created", false),
            ("user.*.added", "user.role.added", true),
            ("user.created", "user.created", true),
            ("user.created", "user.created.twice", false),
            ("user.created", "USER.created", false),
        ];
        for (pattern, event_type, matches) in rows {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(event_type),
                matches,
                "{pattern} {event_type}"
            );
        }
    }

    #[test]
    fn what_can_be_no_type_is_no_pattern() {
        for text in ["", "user.", ".created", "user..created", "us*", "user.cre ated", "user.\0", "**", "ü"]
        {
            assert_eq!(Pattern::parse(text), Err(InvalidPattern), "{text}");
            assert!(!is_event_type(text), "{text}");
        }
        assert!(!is_event_type("*") && is_event_type("com.example/v1:user_created-2"));
        assert!(!is_event_type(&"a".repeat(LONGEST + 1)) && is_event_type(&"a".repeat(LONGEST)));
    }
}
