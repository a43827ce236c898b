//! Headers of the user's own.

/// Those that every delivery or some scheme or form of one sets, and those that belong to the connection. A receiver trusts them, so that
/// whoever may edit an object must not be able to set them.
const OURS: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "http2-settings",
    "x-webhook-signature",
    "x-webhook-id",
    "x-hub-signature",
    "x-hub-signature-256",
    "x-github-event",
    "x-github-delivery",
];
const OUR_PREFIXES: &[&str] = &["webhook-", "ce-", "proxy-"];

/// Why a header cannot be sent. None of these texts has its value in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// Not a name (RFC 9110, section 5.1).
    #[error("{0:?} is no name of a header: use letters, digits and -")]
    Name(String),
    /// One that is set by us.
    #[error("the header {0} is set by authlink itself: remove it")]
    Ours(String),
    /// Given twice.
    #[error("the header {0} is given twice: names differ by more than upper and lower case")]
    Twice(String),
    /// A value that would end the header, or that is not ASCII.
    #[error(
        "the value of the header {0} has a line end or a character that is not printable ASCII: correct it"
    )]
    Value(String),
}

/// Checks names, and that none is given twice.
///
/// # Errors
/// The first that cannot be used.
pub fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), InvalidHeader> {
    let mut seen = Vec::new();
    for name in names {
        let lower = name.to_ascii_lowercase();
        if lower.is_empty() || !lower.bytes().all(is_token) {
            return Err(InvalidHeader::Name(name.to_owned()));
        }
        if OURS.contains(&lower.as_str()) || OUR_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
            return Err(InvalidHeader::Ours(name.to_owned()));
        }
        if seen.contains(&lower) {
            return Err(InvalidHeader::Twice(name.to_owned()));
        }
        seen.push(lower);
    }
    Ok(())
}

/// The value as it is sent: without one line end, which an editor has put behind it.
///
/// # Errors
/// One that HTTP cannot carry as it is.
pub fn check_value<'a>(name: &str, value: &'a [u8]) -> Result<&'a [u8], InvalidHeader> {
    let value = super::keys::without_line_end(value);
    let printable = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    if value.iter().all(printable) { Ok(value) } else { Err(InvalidHeader::Value(name.to_owned())) }
}

/// A letter of a name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_ours_are_refused_whatever_their_case() {
        let ours = [
            "Host",
            "webhook-ID",
            "Webhook-Signature",
            "X-Webhook-Signature",
            "x-webhook-id",
            "X-Hub-Signature-256",
            "X-GitHub-Event",
            "Content-Type",
            "Content-Encoding",
            "Expect",
            "ce-id",
            "CE-Subject",
            "Proxy-Authorization",
            "Transfer-Encoding",
            "TE",
        ];
        for name in ours {
            assert_eq!(check_names([name]), Err(InvalidHeader::Ours(name.to_owned())));
        }
        assert_eq!(check_names(["Authorization", "X-Env", "User-Agent", "Accept"]), Ok(()));
    }

    #[test]
    fn what_is_no_name_or_is_given_twice_is_refused() {
        for name in ["", "X A", "X-Ä", "X:", "X\r\n"] {
            assert_eq!(check_names([name]), Err(InvalidHeader::Name(name.to_owned())));
        }
        assert_eq!(check_names(["X-A", "x-a"]), Err(InvalidHeader::Twice("x-a".to_owned())));
    }

    #[test]
    fn one_line_end_is_taken_off_and_any_other_is_refused_without_the_value_in_the_text() {
        assert_eq!(check_value("A", b"Bearer x\n"), Ok(&b"Bearer x"[..]));
        assert_eq!(check_value("A", b"Bearer x\r\n"), Ok(&b"Bearer x"[..]));
        for value in [&b"hunter2\nX: y"[..], b"hunter2\n\n", "hünter2".as_bytes(), b"hunter2\0"] {
            let refused = check_value("Authorization", value).unwrap_err().to_string();
            assert!(refused.contains("Authorization") && !refused.contains("nter2"), "{refused}");
        }
    }
}
