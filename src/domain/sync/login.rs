//! Logins: what may be sent to a directory, what its answer means, and how often it may be asked.

use std::time::Duration;

use super::account::{self, Refusal};

/// Bounds of what callers send, in bytes.
const LONGEST_NAME: usize = 1024;
const LONGEST_PASSWORD: usize = 4096;

/// What cannot be a login, so that nobody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLogin {
    /// No name.
    #[error("the user name is empty")]
    NoName,
    /// A name that no directory has.
    #[error("the user name is longer than 1024 bytes, or has a zero byte in it")]
    ImpossibleName,
    /// No password: a directory would let anybody in, as nobody (RFC 4513, section 5.1.2).
    #[error("the password is empty")]
    NoPassword,
    /// A password that no directory has.
    #[error("the password is longer than 4096 bytes, or has a zero byte in it")]
    ImpossiblePassword,
}

/// Whether a directory may be asked about this login.
///
/// # Errors
/// Why not.
pub fn check(name: &str, password: &str) -> Result<(), InvalidLogin> {
    if name.trim().is_empty() {
        return Err(InvalidLogin::NoName);
    }
    if name.len() > LONGEST_NAME || name.contains('\0') {
        return Err(InvalidLogin::ImpossibleName);
    }
    if password.is_empty() {
        return Err(InvalidLogin::NoPassword);
    }
    if password.len() > LONGEST_PASSWORD || password.contains('\0') {
        return Err(InvalidLogin::ImpossiblePassword);
    }
    Ok(())
}

/// What the answer to a bind means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindVerdict {
    /// The password is right.
    Accepted,
    /// It is not, or the account may not log in; sometimes the server says why.
    Refused(Option<Refusal>),
    /// The server takes no password over a connection that is not encrypted, whichever one it is.
    NeedsTls,
    /// The server cannot tell now.
    Unavailable,
}

/// Reads the result of a bind (RFC 4511, appendix A).
#[must_use]
pub fn bind_verdict(code: u32, text: &str) -> BindVerdict {
    match code {
        0 => BindVerdict::Accepted,
        // confidentialityRequired, strongerAuthRequired
        8 | 13 => BindVerdict::NeedsTls,
        // constraintViolation: how 389-ds tells of too many bad passwords
        19 => BindVerdict::Refused(Some(Refusal::Locked)),
        // unwillingToPerform: how 389-ds tells of an account that is switched off, and others of an empty password
        53 if text.contains("inactivated") => BindVerdict::Refused(Some(Refusal::Disabled)),
        // noSuchObject, invalidDNSyntax, inappropriateAuthentication, invalidCredentials, insufficientAccessRights
        32 | 34 | 48 | 49 | 50 | 53 => BindVerdict::Refused(account::refusal_in(text)),
        _ => BindVerdict::Unavailable,
    }
}

/// How many failures in a row are let through, and how long one waits after each further one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// So many without waiting.
    pub free: u32,
    /// After the next one; twice as long after each further one.
    pub first: Duration,
    /// At most so long.
    pub longest: Duration,
    /// After so long without a failure all is forgotten.
    pub forget: Duration,
}

impl Throttle {
    /// For the entry that a name leads to: whoever guesses learns nothing from another spelling.
    pub const ENTRY: Self = Self {
        free: 4,
        first: Duration::from_secs(5),
        longest: Duration::from_mins(5),
        forget: Duration::from_mins(15),
    };

    /// For a caller, who logs in many people, some of whom mistype.
    pub const CALLER: Self = Self {
        free: 100,
        first: Duration::from_secs(1),
        longest: Duration::from_secs(30),
        forget: Duration::from_mins(5),
    };
}

/// Failures in a row. What has begun counts as failed until it has succeeded, so that many at once gain nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    failures: u32,
    last: Duration,
}

impl Attempts {
    /// Begins an attempt at `now`, a time since any start.
    ///
    /// # Errors
    /// How long to wait.
    pub fn begin(&mut self, throttle: &Throttle, now: Duration) -> Result<(), Duration> {
        let since = now.saturating_sub(self.last);
        if since >= throttle.forget {
            self.failures = 0;
        }
        let wait = match self.failures.checked_sub(throttle.free) {
            None => Duration::ZERO,
            Some(more) => throttle.first.saturating_mul(1 << more.min(16)).min(throttle.longest),
        };
        if since < wait {
            return Err(wait.saturating_sub(since));
        }
        *self = Self { failures: self.failures.saturating_add(1), last: now };
        Ok(())
    }

    /// It has succeeded.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }

    /// It was not the password's fault.
    pub fn take_back(&mut self) {
        self.failures = self.failures.saturating_sub(1);
    }

    /// Whether nothing is to be remembered.
    #[must_use]
    pub fn is_forgotten(&self, throttle: &Throttle, now: Duration) -> bool {
        self.failures == 0 || now.saturating_sub(self.last) >= throttle.forget
    }
}

/// How often one version of a credential may be refused: directories lock an account after few bad passwords, whoever sends them.
/// Once more after a while, since a new password may take its time to get to every server; then never again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindBudget {
    refusals: u32,
    last: Duration,
    proven: bool,
}

impl BindBudget {
    const MOST: u32 = 2;
    const PAUSE: Duration = Duration::from_mins(5);

    /// Whether the credential may be tried at `now`, a time since any start.
    #[must_use]
    pub fn allows(&self, now: Duration) -> bool {
        self.refusals == 0 || self.refusals < Self::MOST && now.saturating_sub(self.last) >= Self::PAUSE
    }

    /// It was refused.
    pub fn refuse(&mut self, now: Duration) {
        *self = Self { refusals: self.refusals + 1, last: now, proven: false };
    }

    /// It was taken.
    pub fn accept(&mut self) {
        *self = Self { proven: true, ..Self::default() };
    }

    /// Whether it was taken, and not refused since: otherwise one after the other may try it.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        self.proven
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_cannot_be_a_login_is_sent_to_nobody() {
        let long = "x".repeat(10_240);
        let rows = [
            ("", "x", Err(InvalidLogin::NoName)),
            (" ", "x", Err(InvalidLogin::NoName)),
            ("a\0b", "x", Err(InvalidLogin::ImpossibleName)),
            (&long, "x", Err(InvalidLogin::ImpossibleName)),
            ("a", "", Err(InvalidLogin::NoPassword)),
            ("a", "a\0", Err(InvalidLogin::ImpossiblePassword)),
            ("a", &long, Err(InvalidLogin::ImpossiblePassword)),
            ("*)(uid=*", "(*)\\", Ok(())),
            ("ü", " ", Ok(())),
        ];
        for (name, password, verdict) in rows {
            assert_eq!(check(name, password), verdict);
        }
    }

    #[test]
    fn each_answer_to_a_bind_has_one_meaning() {
        use BindVerdict::{Accepted, NeedsTls, Refused, Unavailable};
        let ad = "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 533, v1db1";
        let rows = [
            (0, "", Accepted),
            (49, "", Refused(None)),
            (49, ad, Refused(Some(Refusal::Disabled))),
            (50, "", Refused(None)),
            (53, "", Refused(None)),
            (53, "Account inactivated. Contact system administrator.", Refused(Some(Refusal::Disabled))),
            (19, "Exceed password retry limit. Please try later.", Refused(Some(Refusal::Locked))),
            (32, "", Refused(None)),
            (8, "", NeedsTls),
            (13, "", NeedsTls),
            (51, "", Unavailable),
            (52, "", Unavailable),
            (80, "", Unavailable),
        ];
        for (code, text, verdict) in rows {
            assert_eq!(bind_verdict(code, text), verdict, "{code} {text}");
        }
    }

    #[test]
    fn who_guesses_waits_longer_each_time() {
        let throttle = Throttle::ENTRY;
        let mut attempts = Attempts::default();
        let mut now = SECOND * 1000;
        for _ in 0..throttle.free {
            assert_eq!(attempts.begin(&throttle, now), Ok(()), "all at once");
        }
        assert_eq!(attempts.begin(&throttle, now), Err(SECOND * 5));
        now += SECOND * 5;
        assert_eq!(attempts.begin(&throttle, now), Ok(()));
        assert_eq!(attempts.begin(&throttle, now + SECOND), Err(SECOND * 9));
        for _ in 0..40 {
            now += Duration::from_mins(5);
            assert_eq!(attempts.begin(&throttle, now), Ok(()), "never longer than that");
        }
        attempts.succeed();
        assert_eq!(attempts.begin(&throttle, now), Ok(()));
        assert_eq!(attempts, Attempts { failures: 1, last: now });
    }

    #[test]
    fn failures_are_forgotten_after_a_while() {
        let throttle = Throttle::ENTRY;
        let mut attempts = Attempts::default();
        for _ in 0..throttle.free {
            attempts.begin(&throttle, SECOND).unwrap();
        }
        let later = SECOND + throttle.forget;
        assert!(attempts.is_forgotten(&throttle, later));
        assert_eq!(attempts.begin(&throttle, later), Ok(()));
        attempts.take_back();
        assert!(attempts.is_forgotten(&throttle, later));
    }

    #[test]
    fn a_refused_credential_is_tried_once_more_and_never_again() {
        let mut budget = BindBudget::default();
        assert!(budget.allows(SECOND));
        budget.refuse(SECOND);
        assert!(!budget.allows(SECOND * 300));
        assert!(budget.allows(SECOND * 301));
        budget.refuse(SECOND * 301);
        assert!(!budget.allows(SECOND * 1_000_000));
        assert!(!budget.is_proven());
        budget.accept();
        assert!(budget.allows(SECOND) && budget.is_proven());
    }
}
