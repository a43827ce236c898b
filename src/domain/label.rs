//! DNS labels, the parts of Kubernetes names.

/// Whether the text is a DNS label (RFC 1123 2.1). Its length is not checked: the API server limits the length of the
/// whole name.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(allowed)
}
