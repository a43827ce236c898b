//! Why a reconcile failed: a variant for each step, and for each one answer to "why", "which condition shows it" and "when is it
//! retried".

use std::time::Duration;

use crate::{
    api::{ConditionType, Reason},
    backends::Fault,
    cluster::{fence::NotLeader, resources::NotSynced, service_publisher},
    domain::{
        backoff::Retry,
        conditions::{ConditionUpdate, advise},
    },
    resolving::Unresolved,
};

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec says something that no schema rule can refuse.
    #[error("{field}: {problem}")]
    InvalidSpec {
        /// Where in the object.
        field: String,
        /// What is wrong.
        problem: String,
    },

    /// An older object has registered the same.
    #[error("{what} was registered before, by {owner}")]
    Duplicate {
        /// What both want to be.
        what: String,
        /// Kind and name of the older object.
        owner: String,
    },

    /// What the spec names is missing, or cannot serve.
    #[error(transparent)]
    Unresolved(Unresolved),

    /// A driver cannot use the settings.
    #[error("{0}")]
    Settings(Fault),

    /// The API server refused or failed a request.
    #[error("the API server failed a request: {0}")]
    Cluster(#[from] kube::Error),

    /// What the spec names may be in a list that is not here yet.
    #[error(transparent)]
    NotSynced(NotSynced),

    /// This process may not write any more.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),

    /// A first probe takes long; its end requeues the object.
    #[error("the first probe is in progress")]
    FirstProbePending,

    /// The reconcile took too long.
    #[error("reconcile timed out after {0:?}")]
    TimedOut(Duration),

    /// Cleaning up external state failed.
    #[error("cleaning up external state failed: {0}")]
    Cleanup(Fault),
}

impl From<service_publisher::PublishError> for Error {
    fn from(failure: service_publisher::PublishError) -> Self {
        match failure {
            service_publisher::PublishError::Cluster(error) => Self::Cluster(error),
            service_publisher::PublishError::NotLeader(error) => Self::NotLeader(error),
        }
    }
}

impl From<Unresolved> for Error {
    /// That the API server failed says nothing of what the spec names.
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::Cluster(error) => Self::Cluster(error),
            Unresolved::NotSynced(kind) => Self::NotSynced(kind),
            Unresolved::Invalid { field, problem } => Self::InvalidSpec { field, problem },
            missing => Self::Unresolved(missing),
        }
    }
}

impl Error {
    /// The word that users read.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::InvalidSpec { .. } => Reason::InvalidSpec,
            Self::Duplicate { .. } => Reason::Duplicate,
            Self::Unresolved(unresolved) => unresolved.reason(),
            Self::Settings(fault) => fault.reason,
            Self::Cluster(_) | Self::NotSynced(_) | Self::NotLeader(_) => Reason::ClusterFailed,
            Self::FirstProbePending => Reason::Pending,
            Self::TimedOut(_) => Reason::DeadlineExceeded,
            Self::Cleanup(_) => Reason::CleanupFailed,
        }
    }

    /// When the reconcile is retried.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            // A referenced object may become ready by itself, which requeues this one.
            Self::Settings(_) | Self::Unresolved(Unresolved::RefNotReady { .. }) => Retry::AfterInterval,
            Self::InvalidSpec { .. }
            | Self::Duplicate { .. }
            | Self::Unresolved(_)
            | Self::FirstProbePending => Retry::OnChange,
            Self::Cluster(_)
            | Self::NotSynced(_)
            | Self::NotLeader(_)
            | Self::TimedOut(_)
            | Self::Cleanup(_) => Retry::Backoff,
        }
    }

    /// The condition that shows it; none for what says nothing of the object, as failures of the operator's own.
    #[must_use]
    pub fn condition(&self) -> Option<ConditionType> {
        match self {
            Self::InvalidSpec { .. } | Self::Duplicate { .. } => Some(ConditionType::Accepted),
            Self::Unresolved(_) => Some(ConditionType::ResolvedRefs),
            Self::Settings(_) => Some(ConditionType::Connected),
            Self::Cluster(_)
            | Self::NotSynced(_)
            | Self::NotLeader(_)
            | Self::FirstProbePending
            | Self::TimedOut(_)
            | Self::Cleanup(_) => None,
        }
    }

    /// The conditions of a reconcile that failed so: everything before the failing step holds, and nothing is known of what comes
    /// after it.
    #[must_use]
    pub fn conditions(&self, order: &[ConditionType]) -> Vec<ConditionUpdate> {
        let Some(failing) = self.condition() else { return Vec::new() };
        let (reason, message) = (self.reason(), advise(self.reason(), &self.to_string()));
        let mut updates: Vec<_> = order
            .iter()
            .take_while(|kind| **kind != failing)
            .filter_map(|kind| match kind {
                ConditionType::Accepted => Some(accepted()),
                ConditionType::ResolvedRefs => Some(resolved()),
                _ => None,
            })
            .collect();
        updates.push(ConditionUpdate::is_false(failing, reason, message.clone()));
        if self.retry() == Retry::OnChange {
            updates.push(ConditionUpdate::is_true(ConditionType::Stalled, reason, message));
        }
        updates
    }
}

/// `Accepted`, as every reconcile that got beyond it reports it.
#[must_use]
pub fn accepted() -> ConditionUpdate {
    ConditionUpdate::is_true(ConditionType::Accepted, Reason::Valid, "the spec is valid")
}

/// `ResolvedRefs`, as every reconcile that got beyond it reports it.
#[must_use]
pub fn resolved() -> ConditionUpdate {
    ConditionUpdate::is_true(ConditionType::ResolvedRefs, Reason::Resolved, "all references are resolved")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Kind;
    use ConditionType::{Accepted, Connected, ResolvedRefs, Stalled};

    fn text() -> String {
        "x".to_owned()
    }

    #[test]
    fn every_error_has_its_reason_its_retry_and_its_condition() {
        let refused = || kube::Error::Api(kube::core::Status::failure("no", "Forbidden").boxed());
        let rows = [
            (
                Error::InvalidSpec { field: text(), problem: text() },
                "InvalidSpec",
                Retry::OnChange,
                Some(Accepted),
            ),
            (Error::Duplicate { what: text(), owner: text() }, "Duplicate", Retry::OnChange, Some(Accepted)),
            (
                Unresolved::SecretNotFound { name: text() }.into(),
                "SecretNotFound",
                Retry::OnChange,
                Some(ResolvedRefs),
            ),
            (
                Unresolved::SecretMissingKeys { name: text(), keys: text() }.into(),
                "SecretMissingKeys",
                Retry::OnChange,
                Some(ResolvedRefs),
            ),
            (
                Unresolved::SecretWrongType { name: text(), type_: text(), wanted: "y" }.into(),
                "SecretWrongType",
                Retry::OnChange,
                Some(ResolvedRefs),
            ),
            (
                Unresolved::SecretInvalidValue { name: text(), key: text(), problem: text() }.into(),
                "SecretInvalidValue",
                Retry::OnChange,
                Some(ResolvedRefs),
            ),
            (
                Unresolved::RefNotFound { what: text() }.into(),
                "RefNotFound",
                Retry::OnChange,
                Some(ResolvedRefs),
            ),
            (
                Unresolved::RefNotReady { what: text() }.into(),
                "RefNotReady",
                Retry::AfterInterval,
                Some(ResolvedRefs),
            ),
            (
                Error::Settings(Fault::new(Reason::TlsFailed, text())),
                "TlsFailed",
                Retry::AfterInterval,
                Some(Connected),
            ),
            (Error::Cluster(refused()), "ClusterFailed", Retry::Backoff, None),
            (
                Unresolved::Invalid { field: text(), problem: text() }.into(),
                "InvalidSpec",
                Retry::OnChange,
                Some(Accepted),
            ),
            (Unresolved::Cluster(refused()).into(), "ClusterFailed", Retry::Backoff, None),
            (Error::NotLeader(NotLeader), "ClusterFailed", Retry::Backoff, None),
            (Unresolved::NotSynced(NotSynced(Kind::Database)).into(), "ClusterFailed", Retry::Backoff, None),
            (Error::FirstProbePending, "Pending", Retry::OnChange, None),
            (Error::TimedOut(Duration::from_secs(1)), "DeadlineExceeded", Retry::Backoff, None),
            (Error::Cleanup(Fault::new(Reason::Timeout, text())), "CleanupFailed", Retry::Backoff, None),
        ];
        for (error, reason, retry, condition) in rows {
            assert_eq!(
                (error.reason().as_str(), error.retry(), error.condition()),
                (reason, retry, condition),
                "{error}"
            );
        }
    }

    #[test]
    fn what_comes_before_the_failing_step_holds() {
        let error = Error::from(Unresolved::SecretNotFound { name: text() });
        let updates = error.conditions(&[Accepted, ResolvedRefs, Connected]);
        let said: Vec<_> = updates.iter().map(|update| (update.kind, update.holds)).collect();
        assert_eq!(said, [(Accepted, Some(true)), (ResolvedRefs, Some(false)), (Stalled, Some(true))]);
    }
}
