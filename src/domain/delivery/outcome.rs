//! How an attempt ended, and what follows from that.

use std::time::Duration;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The whole head of a 2xx was read.
    Delivered,
    /// 410: the receiver wants no more of it.
    Gone,
    /// 429, or 503 with a `Retry-After`: later.
    Throttled,
    /// 3xx, which is not followed.
    Redirected,
    /// Any other 4xx.
    Rejected,
    /// Any other 5xx.
    ServerError,
    /// No whole head in time. The receiver may have handled it.
    Timeout,
    /// The connection ended before the head did. The receiver may have handled it.
    ConnectionLost,
    /// What came is not HTTP.
    ProtocolError,
    /// Nothing listens there, or nothing answers.
    ConnectFailed,
    /// The handshake failed.
    TlsFailed,
    /// The name has no address, or nobody says.
    DnsFailed,
    /// An address that must not be called.
    AddressDenied,
    /// The key or a header is not to be had.
    SecretUnavailable,
    /// Given up by us: the process ends, or it has lost its lease.
    Aborted,
}

/// What an outcome means for the delivery and for its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Whether it is one of the delivery's attempts.
    pub spends_attempt: bool,
    /// What the circuit makes of it: success, failure, or nothing.
    pub circuit: Option<bool>,
    /// What the disable policy makes of it: success, failure, or nothing.
    pub policy: Option<bool>,
    /// Whether it shows that there is a way to the outside: where many endpoints have none at once, it is ours that is missing.
    pub way_out: Option<bool>,
}

impl Outcome {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::Delivered,
        Self::Gone,
        Self::Throttled,
        Self::Redirected,
        Self::Rejected,
        Self::ServerError,
        Self::Timeout,
        Self::ConnectionLost,
        Self::ProtocolError,
        Self::ConnectFailed,
        Self::TlsFailed,
        Self::DnsFailed,
        Self::AddressDenied,
        Self::SecretUnavailable,
        Self::Aborted,
    ];

    /// Of an answer with this status. `retry_after` is whether it says when to come again.
    #[must_use]
    pub const fn of_status(code: u16, retry_after: bool) -> Self {
        match code {
            200..=299 => Self::Delivered,
            300..=399 => Self::Redirected,
            410 => Self::Gone,
            429 => Self::Throttled,
            503 if retry_after => Self::Throttled,
            400..=499 => Self::Rejected,
            500..=599 => Self::ServerError,
            _ => Self::ProtocolError,
        }
    }

    /// The word in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "Delivered",
            Self::Gone => "Gone",
            Self::Throttled => "Throttled",
            Self::Redirected => "Redirected",
            Self::Rejected => "Rejected",
            Self::ServerError => "ServerError",
            Self::Timeout => "Timeout",
            Self::ConnectionLost => "ConnectionLost",
            Self::ProtocolError => "ProtocolError",
            Self::ConnectFailed => "ConnectFailed",
            Self::TlsFailed => "TlsFailed",
            Self::DnsFailed => "DnsFailed",
            Self::AddressDenied => "AddressDenied",
            Self::SecretUnavailable => "SecretUnavailable",
            Self::Aborted => "Aborted",
        }
    }

    /// The outcome that has this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|outcome| outcome.as_str() == word)
    }

    /// What it means. An attempt is spent when the receiver, or whoever answers in its place, has had its chance: not by what is wrong
    /// on our side, and not by being asked to wait.
    #[must_use]
    pub const fn effect(self) -> Effect {
        let failure =
            Effect { spends_attempt: true, circuit: Some(false), policy: Some(false), way_out: Some(true) };
        match self {
            Self::Delivered => Effect { circuit: Some(true), policy: Some(true), ..failure },
            Self::Gone
            | Self::Redirected
            | Self::Rejected
            | Self::ServerError
            | Self::ConnectionLost
            | Self::ProtocolError
            | Self::TlsFailed => failure,
            // Somebody took the connection, or the way is broken behind that.
            Self::Timeout => Effect { way_out: None, ..failure },
            Self::ConnectFailed => Effect { way_out: Some(false), ..failure },
            Self::Throttled => Effect { spends_attempt: false, circuit: None, policy: None, ..failure },
            Self::DnsFailed => {
                Effect { spends_attempt: false, circuit: None, policy: Some(false), way_out: Some(false) }
            }
            Self::AddressDenied | Self::SecretUnavailable | Self::Aborted => {
                Effect { spends_attempt: false, circuit: None, policy: None, way_out: None }
            }
        }
    }

    /// How long to wait before the next attempt that is no attempt spent, where the answer says nothing.
    #[must_use]
    pub const fn pause(self) -> Duration {
        match self {
            Self::Throttled => Duration::from_secs(5),
            Self::Aborted => Duration::ZERO,
            _ => Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_how_it_ended() {
        let of =
            |codes: &[u16]| codes.iter().map(|code| Outcome::of_status(*code, false)).collect::<Vec<_>>();
        assert_eq!(of(&[200, 204, 299]), [Outcome::Delivered; 3]);
        assert_eq!(of(&[301, 307, 304]), [Outcome::Redirected; 3]);
        assert_eq!(of(&[400, 401, 404, 451]), [Outcome::Rejected; 4]);
        assert_eq!(of(&[500, 502, 503, 504]), [Outcome::ServerError; 4]);
        assert_eq!(of(&[410, 429]), [Outcome::Gone, Outcome::Throttled]);
        assert_eq!(of(&[100, 199, 600, 999]), [Outcome::ProtocolError; 4]);
        assert_eq!(Outcome::of_status(503, true), Outcome::Throttled);
        assert_eq!(Outcome::of_status(500, true), Outcome::ServerError);
    }

    #[test]
    fn being_asked_to_wait_and_our_own_faults_spend_no_attempt() {
        use Outcome::{Aborted, AddressDenied, DnsFailed, SecretUnavailable, Throttled};
        let free = [Throttled, DnsFailed, AddressDenied, SecretUnavailable, Aborted];
        for outcome in Outcome::ALL {
            assert_eq!(outcome.effect().spends_attempt, !free.contains(outcome), "{outcome:?}");
            assert_eq!(outcome.effect().circuit.is_some(), !free.contains(outcome), "{outcome:?}");
        }
    }

    #[test]
    fn only_an_answer_of_2xx_is_a_success() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.effect().circuit == Some(true), *outcome == Outcome::Delivered);
            assert_eq!(Outcome::named(outcome.as_str()), Some(*outcome));
        }
    }
}
