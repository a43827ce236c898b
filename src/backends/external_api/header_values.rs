//! Values of the header `Authorization` and of API key headers.

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::{api::Reason, backends::Fault};

/// `Bearer` with a token (RFC 6750, section 2.1).
///
/// # Errors
/// A token that a header cannot carry.
pub(super) fn bearer(token: &SecretString) -> Result<HeaderValue, Fault> {
    sensitive(&format!("Bearer {}", token.expose_secret()), "token")
}

/// `Basic` with user and password (RFC 7617, section 2).
///
/// # Errors
/// A user name that has a colon, where the password would begin.
pub(super) fn basic(username: &str, password: &SecretString) -> Result<HeaderValue, Fault> {
    if username.contains(':') {
        return Err(Fault::new(Reason::SecretInvalidValue, "the user name must not contain a colon"));
    }
    let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.expose_secret()));
    sensitive(&format!("Basic {pair}"), "password")
}

/// A secret header value: neither logged nor put into HTTP/2's header table.
///
/// # Errors
/// A value that a header cannot carry; `what` names it.
pub(super) fn sensitive(text: &str, what: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        let problem =
            format!("the {what} contains characters that a header cannot carry, such as a line break");
        Fault::new(Reason::SecretInvalidValue, problem)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_base64_of_utf_8() {
        // The second example of RFC 7617, section 2.1.
        assert_eq!(basic("test", &"123£".into()).unwrap(), "Basic dGVzdDoxMjPCow==");
        assert_eq!(basic("a:b", &"c".into()).unwrap_err().reason, Reason::SecretInvalidValue);
    }

    #[test]
    fn a_token_with_a_line_break_is_refused_and_not_repeated() {
        let fault = bearer(&"hunter2\r\nX-Admin: yes".into()).unwrap_err();
        assert_eq!(fault.reason, Reason::SecretInvalidValue);
        assert!(!fault.detail.contains("hunter2"), "{fault}");
        assert!(!format!("{:?}", bearer(&"hunter2".into()).unwrap()).contains("hunter2"));
    }
}
