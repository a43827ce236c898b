//! What a directory's answers mean.

use super::{ber::Malformed, message::Outcome};
use crate::{
    api::Reason,
    backends::Fault,
    domain::sync::login::{BindVerdict, bind_verdict},
};

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self::new(Reason::ProtocolError, "the server's answer is not LDAP")
    }
}

/// The fault behind the result of a search.
pub(super) fn of_search(outcome: &Outcome) -> Option<Fault> {
    let says = says(outcome);
    let (reason, detail) = match outcome.code {
        0 => return None,
        1 => (Reason::PermissionDenied, format!("the server refused the search: {says}")),
        3 => (Reason::LimitExceeded, format!("the server's time limit ended the search: {says}")),
        4 => (Reason::LimitExceeded, format!("the server's size limit ended the search: {says}")),
        11 => (Reason::LimitExceeded, format!("a limit of the server ended the search: {says}")),
        8 | 13 => (Reason::TlsFailed, format!("the server wants TLS: {says}")),
        10 => (Reason::SearchBaseMissing, format!("the search base is on another server: {says}")),
        12 => (
            Reason::PagingUnsupported,
            format!("the server does not know a control that the search needs: {says}"),
        ),
        16..=18 | 34 => (Reason::InvalidSpec, format!("the server cannot make sense of the search: {says}")),
        32 => {
            (Reason::SearchBaseMissing, format!("the search base does not exist, or may not be seen: {says}"))
        }
        50 => (Reason::PermissionDenied, format!("the account may not search there: {says}")),
        51 | 52 | 80 => (Reason::Unavailable, format!("the server cannot search now: {says}")),
        53 => (Reason::Unavailable, format!("the server refused to search: {says}")),
        _ => (Reason::ProtocolError, format!("the search failed: {says}")),
    };
    Some(Fault::new(reason, detail))
}

/// The fault behind the result of our own login.
pub(super) fn of_login(outcome: &Outcome) -> Option<Fault> {
    let says = says(outcome);
    Some(match bind_verdict(outcome.code, &outcome.text) {
        BindVerdict::Accepted => return None,
        BindVerdict::Refused(_) => {
            Fault::new(Reason::AuthenticationFailed, format!("the server refused the login: {says}"))
        }
        BindVerdict::NeedsTls => needs_tls(&says),
        BindVerdict::Unavailable => {
            Fault::new(Reason::Unavailable, format!("the server cannot log in now: {says}"))
        }
    })
}

pub(super) fn needs_tls(says: &str) -> Fault {
    let detail = format!("this server takes a password over TLS only: set spec.tls.mode ({says})");
    Fault::new(Reason::TlsFailed, detail)
}

/// The code, and the server's words for it; never longer than a condition should be, since they are the server's.
pub(super) fn says(outcome: &Outcome) -> String {
    let words = outcome.text.trim_matches(|char: char| char.is_whitespace() || char == '\0');
    let words: String = words.chars().filter(|char| !char.is_control()).take(200).collect();
    let code = name(outcome.code);
    if words.is_empty() { code } else { format!("{code}, {words:?}") }
}

/// A result code by its name (RFC 4511, appendix A.1), with its number.
fn name(code: u32) -> String {
    let name = match code {
        0 => "success",
        1 => "operationsError",
        2 => "protocolError",
        3 => "timeLimitExceeded",
        4 => "sizeLimitExceeded",
        7 => "authMethodNotSupported",
        8 => "strongerAuthRequired",
        10 => "referral",
        11 => "adminLimitExceeded",
        12 => "unavailableCriticalExtension",
        13 => "confidentialityRequired",
        16 => "noSuchAttribute",
        17 => "undefinedAttributeType",
        18 => "inappropriateMatching",
        19 => "constraintViolation",
        32 => "noSuchObject",
        34 => "invalidDNSyntax",
        48 => "inappropriateAuthentication",
        49 => "invalidCredentials",
        50 => "insufficientAccessRights",
        51 => "busy",
        52 => "unavailable",
        53 => "unwillingToPerform",
        80 => "other",
        4096 => "e-syncRefreshRequired",
        _ => return format!("result {code}"),
    };
    format!("{name} ({code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(code: u32, text: &str) -> Outcome {
        Outcome { code, text: text.to_owned() }
    }

    #[test]
    fn each_result_of_a_search_has_a_reason() {
        let rows = [
            (3, Reason::LimitExceeded),
            (4, Reason::LimitExceeded),
            (8, Reason::TlsFailed),
            (11, Reason::LimitExceeded),
            (12, Reason::PagingUnsupported),
            (32, Reason::SearchBaseMissing),
            (50, Reason::PermissionDenied),
            (51, Reason::Unavailable),
            (53, Reason::Unavailable),
            (2, Reason::ProtocolError),
        ];
        for (code, reason) in rows {
            assert_eq!(of_search(&outcome(code, "")).map(|fault| fault.reason), Some(reason), "{code}");
        }
        assert_eq!(of_search(&outcome(0, "")), None);
    }

    #[test]
    fn a_server_that_wants_tls_says_nothing_of_the_password() {
        for code in [8, 13] {
            let fault = of_login(&outcome(code, "")).unwrap();
            assert_eq!(fault.reason, Reason::TlsFailed);
            assert!(fault.detail.contains("spec.tls.mode"), "{}", fault.detail);
        }
        assert_eq!(of_login(&outcome(49, "")).unwrap().reason, Reason::AuthenticationFailed);
        assert_eq!(of_login(&outcome(52, "")).unwrap().reason, Reason::Unavailable);
    }

    #[test]
    fn a_servers_words_are_cut_and_harmless() {
        let words = says(&outcome(49, &format!("a\nb\0{}", "x".repeat(1000))));
        assert!(words.len() < 260 && !words.contains('\n'), "{words}");
        assert!(words.starts_with("invalidCredentials (49), \"ab"), "{words}");
    }
}
