//! The parts of which names in Kubernetes consist.

/// Whether it is such a part (RFC 1123 2.1), however long: the API server counts the letters of a whole name, not of its parts.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(allowed)
}
