//! Whether an account may be used, by the flags of each make of directory.

use jiff::Timestamp;

use super::{entry::Entry, ids, preset::Preset, times};

/// Why an account may not log in, told to nobody but the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Switched off.
    Disabled,
    /// Its time has run out.
    Expired,
    /// Locked after too many bad passwords; that may end by itself.
    Locked,
    /// The password must be changed first.
    PasswordMustChange,
    /// The password is too old.
    PasswordExpired,
    /// Not now, or not from here.
    NotPermitted,
}

impl Refusal {
    /// One word for the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "Disabled",
            Self::Expired => "Expired",
            Self::Locked => "Locked",
            Self::PasswordMustChange => "PasswordMustChange",
            Self::PasswordExpired => "PasswordExpired",
            Self::NotPermitted => "NotPermitted",
        }
    }
}

// [MS-ADTS] 2.2.16
const DISABLED: i64 = 0x2;
const LOCKED: i64 = 0x10;
const PASSWORD_EXPIRED: i64 = 0x80_0000;

/// Locked until an administrator unlocks it (draft-behera-ldap-password-policy-10, section 5.3.3); any other time is that of a lock
/// which ends by itself.
const FOR_GOOD: &str = "000001010000Z";

/// Whether the account is switched on; nothing where a flag that every account has may not be read. What ends by itself, such as a
/// lock after bad passwords, does not switch off.
#[must_use]
pub fn enabled(preset: Preset, entry: &Entry, now: Timestamp) -> Option<bool> {
    Some(match preset {
        Preset::ActiveDirectory => {
            let control = number(entry, "userAccountControl")?;
            control & DISABLED == 0 && !has_expired(entry, now)
        }
        Preset::FreeIpa | Preset::Ds389 => !is_locked_389(entry),
        Preset::OpenLdap => entry.text("pwdAccountLockedTime") != Some(FOR_GOOD),
    })
}

/// Why the account may not log in, although its password is right.
#[must_use]
pub fn refusal(preset: Preset, entry: &Entry, now: Timestamp) -> Option<Refusal> {
    match preset {
        Preset::ActiveDirectory => {
            let control = number(entry, "userAccountControl");
            let computed = number(entry, "msDS-User-Account-Control-Computed").unwrap_or_default();
            // Whoever may not read the flag gets no verdict from it: the server itself refuses a disabled account.
            match control {
                Some(control) if control & DISABLED != 0 => Some(Refusal::Disabled),
                _ if has_expired(entry, now) => Some(Refusal::Expired),
                _ if computed & LOCKED != 0 => Some(Refusal::Locked),
                _ if number(entry, "pwdLastSet") == Some(0) => Some(Refusal::PasswordMustChange),
                _ if computed & PASSWORD_EXPIRED != 0 => Some(Refusal::PasswordExpired),
                _ => None,
            }
        }
        Preset::FreeIpa | Preset::Ds389 => is_locked_389(entry).then_some(Refusal::Disabled),
        Preset::OpenLdap => match entry.text("pwdAccountLockedTime") {
            Some(FOR_GOOD) => Some(Refusal::Disabled),
            _ => entry.text("pwdReset").filter(|it| is_true(it)).map(|_| Refusal::PasswordMustChange),
        },
    }
}

/// Why Active Directory refused a bind: it says so by a number in the text of its answer, and by nothing else.
#[must_use]
pub fn refusal_in(text: &str) -> Option<Refusal> {
    let (_, rest) = text.split_once(", data ")?;
    match rest.split([',', ' ']).next()? {
        "530" | "531" => Some(Refusal::NotPermitted),
        "532" => Some(Refusal::PasswordExpired),
        "533" => Some(Refusal::Disabled),
        "701" => Some(Refusal::Expired),
        "773" => Some(Refusal::PasswordMustChange),
        "775" => Some(Refusal::Locked),
        _ => None,
    }
}

/// Whether an entry of Active Directory is an account of the system and not a person: a computer or a domain's trust, `krbtgt` or
/// `Guest`, whatever the language has made of their names.
#[must_use]
pub fn is_no_person(entry: &Entry) -> bool {
    const GUEST: u32 = 501;
    const KRBTGT: u32 = 502;
    let name = entry.text("sAMAccountName").unwrap_or_default();
    let relative = entry.values("objectSid").first().and_then(|sid| ids::relative_id(sid));
    name.ends_with('$')
        || ["krbtgt", "guest"].iter().any(|known| known.eq_ignore_ascii_case(name))
        || matches!(relative, Some(GUEST | KRBTGT))
}

fn number(entry: &Entry, name: &str) -> Option<i64> {
    entry.text(name)?.trim().parse().ok()
}

fn has_expired(entry: &Entry, now: Timestamp) -> bool {
    number(entry, "accountExpires").and_then(times::filetime).is_some_and(|end| end <= now)
}

fn is_locked_389(entry: &Entry) -> bool {
    entry.text("nsAccountLock").is_some_and(is_true)
}

fn is_true(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sync::entry::tests::entry;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn ad(control: &str, expires: &str) -> Entry {
        entry("cn=a", &[("useraccountcontrol", &[control]), ("accountExpires", &[expires])])
    }

    #[test]
    fn the_numbers_of_active_directory_are_read_as_they_mean() {
        let yesterday = ((now().as_second() - 86_400 + 11_644_473_600) * 10_000_000).to_string();
        let tomorrow = ((now().as_second() + 86_400 + 11_644_473_600) * 10_000_000).to_string();
        let never = ["0", "9223372036854775807", "9223372032559808511", tomorrow.as_str()];
        for (control, on) in
            [("512", true), ("514", false), ("66048", true), ("66082", false), ("8389120", true)]
        {
            for expires in never {
                let account = ad(control, expires);
                assert_eq!(
                    enabled(Preset::ActiveDirectory, &account, now()),
                    Some(on),
                    "{control} {expires}"
                );
            }
        }
        assert_eq!(enabled(Preset::ActiveDirectory, &ad("512", &yesterday), now()), Some(false));
        assert_eq!(refusal(Preset::ActiveDirectory, &ad("512", &yesterday), now()), Some(Refusal::Expired));
        assert_eq!(refusal(Preset::ActiveDirectory, &ad("514", "0"), now()), Some(Refusal::Disabled));
    }

    #[test]
    fn a_flag_that_may_not_be_read_gives_no_verdict() {
        let nothing = entry("cn=a", &[]);
        assert_eq!(enabled(Preset::ActiveDirectory, &nothing, now()), None);
        assert_eq!(enabled(Preset::ActiveDirectory, &ad("", "0"), now()), None);
        assert_eq!(enabled(Preset::Ds389, &nothing, now()), Some(true));
        assert_eq!(enabled(Preset::OpenLdap, &nothing, now()), Some(true));
    }

    #[test]
    fn a_lock_of_389_is_written_in_any_case() {
        for (text, on) in [("true", false), ("TRUE", false), ("false", true), ("", true)] {
            let account = entry("cn=a", &[("nsaccountlock", &[text])]);
            assert_eq!(enabled(Preset::FreeIpa, &account, now()), Some(on), "{text}");
        }
    }

    #[test]
    fn a_lock_that_ends_by_itself_does_not_switch_off() {
        let locked = |text: &str| entry("cn=a", &[("pwdAccountLockedTime", &[text])]);
        assert_eq!(enabled(Preset::OpenLdap, &locked("20261130165452Z"), now()), Some(true));
        assert_eq!(enabled(Preset::OpenLdap, &locked(FOR_GOOD), now()), Some(false));
        let locked = entry(
            "cn=a",
            &[("userAccountControl", &["512"]), ("msDS-User-Account-Control-Computed", &["16"])],
        );
        assert_eq!(enabled(Preset::ActiveDirectory, &locked, now()), Some(true));
        assert_eq!(refusal(Preset::ActiveDirectory, &locked, now()), Some(Refusal::Locked));
    }

    #[test]
    fn a_password_that_must_be_changed_lets_nobody_in() {
        let reset = entry("cn=a", &[("userAccountControl", &["512"]), ("pwdLastSet", &["0"])]);
        assert_eq!(refusal(Preset::ActiveDirectory, &reset, now()), Some(Refusal::PasswordMustChange));
        let reset = entry("cn=a", &[("pwdReset", &["TRUE"])]);
        assert_eq!(refusal(Preset::OpenLdap, &reset, now()), Some(Refusal::PasswordMustChange));
    }

    #[test]
    fn active_directory_says_why_by_a_number_in_its_text() {
        let text = |data: &str| {
            format!(
                "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data {data}, v1db1"
            )
        };
        let rows = [
            ("52e", None),
            ("525", None),
            ("530", Some(Refusal::NotPermitted)),
            ("532", Some(Refusal::PasswordExpired)),
            ("533", Some(Refusal::Disabled)),
            ("701", Some(Refusal::Expired)),
            ("773", Some(Refusal::PasswordMustChange)),
            ("775", Some(Refusal::Locked)),
        ];
        for (data, refusal) in rows {
            assert_eq!(refusal_in(&text(data)), refusal, "{data}");
        }
        assert_eq!(refusal_in("invalid credentials"), None);
    }

    #[test]
    fn accounts_of_the_system_are_no_people() {
        for name in ["PC1$", "krbtgt", "Guest"] {
            assert!(is_no_person(&entry("cn=a", &[("sAMAccountName", &[name])])), "{name}");
        }
        assert!(!is_no_person(&entry("cn=a", &[("sAMAccountName", &["anna"])])));
    }
}
