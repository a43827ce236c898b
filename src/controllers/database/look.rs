//! What one look at the servers gave, and what users read of it.

use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Facts, Resolved, Server};
use crate::{
    api::{
        ConditionType, Reason,
        status::{CredentialStatus, EndpointStatus, HealthState, HealthStatus},
        v1alpha1::{
            Database,
            database::{DatabaseStatus, Engine, InvalidQuery, PoolStatus, ServerStatus},
        },
    },
    backends::{Fault, database::Role},
    controllers::{
        Note, Report,
        error::{accepted, resolved},
    },
    domain::{
        conditions::{Verdict, advise},
        endpoints::{Endpoint, judge},
        latency::millis,
    },
    probing::{Membership, Observation},
};

/// An object's share in the monitor of one server.
pub(super) type Member = Arc<Membership<Server>>;

/// What one look at the servers gave.
pub struct Look {
    /// One for each server.
    pub observations: Vec<Observation<Facts>>,
    pub(super) members: Vec<Member>,
    pub(super) resolved: Resolved,
    pub(super) verified: Option<Timestamp>,
    /// The new credential does not work, and the previous one does.
    pub(super) refused: Option<Fault>,
    pub(super) rotated: bool,
}

impl Look {
    /// What users read of it.
    pub async fn report(&self, database: &Database) -> Report<DatabaseStatus> {
        let mut report =
            Report::<DatabaseStatus> { verdicts: vec![accepted(), resolved()], ..Report::default() };
        report.verdicts.extend(judge(&self.endpoints()));
        report.verdicts.push(self.pool_verdict());
        let status = &mut report.status;
        status.common.health = self.health();
        status.common.endpoints = self.endpoint_statuses();
        let before = database.status.as_ref();
        status.common.credentials = self.credentials(before);
        status.common.binding = before.and_then(|status| status.common.binding.clone());
        // While nothing answers, what was known last stays: the conditions say that it is down.
        status.server = self.server().or_else(|| before.and_then(|status| status.server.clone()));
        status.pool = self.pool();
        status.invalid_queries = self.invalid_queries(database).await;

        let queries: Vec<_> = status.invalid_queries.iter().map(|query| query.name.as_str()).collect();
        if !queries.is_empty() {
            let message = format!("cannot be prepared: {}", queries.join(", "));
            degrade(&mut report, Reason::QueryInvalid, &message);
        }
        if let Some(message) = self.replaced(before) {
            degrade(&mut report, Reason::ServerReplaced, message);
            // For one pass: the next one compares with the new identity.
            report.again = Some(self.resolved.schedule.interval);
        }
        if let Some(fault) = &self.refused {
            let message = format!("the changed Secret does not work ({})", fault.message());
            degrade(&mut report, Reason::PreviousCredentialInUse, &message);
            report.again = Some(self.resolved.schedule.interval);
        }
        if self.rotated {
            let message = "the changed credential was verified and replaces the previous one".to_owned();
            report.notes.push(Note { warning: false, reason: Reason::CredentialRotated, message });
        }
        report
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let named = self.resolved.servers.iter().zip(&self.observations);
        named
            .map(|(settings, seen)| Endpoint {
                name: settings.endpoint(),
                state: seen.state,
                failure: seen.fault.as_ref().map(|fault| (fault.reason, fault.message())),
            })
            .collect()
    }

    fn endpoint_statuses(&self) -> Vec<EndpointStatus> {
        let named = self.resolved.servers.iter().zip(&self.observations);
        named
            .map(|(settings, seen)| EndpointStatus {
                address: settings.host.clone(),
                port: settings.port,
                ready: works(seen),
                reason: match (&seen.fault, works(seen)) {
                    (Some(fault), false) => fault.reason.to_string(),
                    _ => Reason::ProbeSucceeded.to_string(),
                },
                role: seen
                    .facts
                    .as_ref()
                    .filter(|_| works(seen))
                    .map(|facts| facts.server.role.as_str().to_owned()),
            })
            .collect()
    }

    /// The health of the first server that works; where none does, of the first.
    fn health(&self) -> Option<HealthStatus> {
        let best = self.observations.iter().find(|seen| works(seen)).or(self.observations.first());
        best.map(|seen| seen.status.clone())
    }

    /// The index of the server to show: a primary that works, else any that works.
    pub(super) fn chosen(&self) -> Option<usize> {
        let working = || self.observations.iter().enumerate().filter(|(_, seen)| works(seen));
        let primary = working()
            .find(|(_, seen)| seen.facts.as_ref().is_some_and(|facts| facts.server.role == Role::Primary));
        primary.or_else(|| working().next()).map(|(index, _)| index)
    }

    /// Whether the server is another one than before; of several, one takes over from another without being new.
    fn replaced(&self, before: Option<&DatabaseStatus>) -> Option<&'static str> {
        let before = before?.server.as_ref()?.identity.clone()?;
        let now = self.server()?.identity?;
        match self.resolved.servers.as_slice() {
            [only] if before != now && only.engine == Engine::Redis => {
                Some("the server was started anew or replaced, and what it did not persist is lost")
            }
            [_] if before != now => Some("another server answers at the same address"),
            _ => None,
        }
    }

    fn server(&self) -> Option<ServerStatus> {
        let index = self.chosen().unwrap_or(0);
        let facts = self.observations.get(index)?.facts.as_ref()?;
        Some(ServerStatus {
            version: facts.server.version.clone(),
            role: facts.server.role.as_str().to_owned(),
            tls: self.resolved.servers.get(index)?.tls.enabled(),
            identity: facts.server.identity.clone(),
        })
    }

    fn pool(&self) -> Option<PoolStatus> {
        let view = self.members.get(self.chosen().unwrap_or(0))?.target().pool();
        Some(PoolStatus {
            summary: format!("{}/{}", view.size, view.max),
            size: view.size,
            idle: view.idle,
            in_use: view.size.saturating_sub(view.idle),
            waiting: view.waiting,
            acquire_p95_ms: millis(view.acquire_p95),
        })
    }

    fn pool_verdict(&self) -> Verdict {
        let saturated = |seen: &Observation<Facts>| seen.facts.as_ref().is_some_and(|facts| facts.saturated);
        if self.observations.iter().any(saturated) {
            let message = advise(Reason::PoolSaturated, "every connection is lent, and callers wait");
            Verdict::no(ConditionType::PoolHealthy, Reason::PoolSaturated, message)
        } else if self.chosen().is_some() {
            Verdict::yes(ConditionType::PoolHealthy, Reason::WithinBounds, "callers get a connection at once")
        } else {
            Verdict::unknown(ConditionType::PoolHealthy, Reason::Pending, "there is no connection")
        }
    }

    fn credentials(&self, before: Option<&DatabaseStatus>) -> Vec<CredentialStatus> {
        let (Some(secret), Some(fingerprint)) =
            (&self.resolved.credential_secret, self.resolved.fingerprint())
        else {
            return Vec::new();
        };
        // The time of the first login with this value: a restart of the operator is no reason to write it again.
        let known = before.and_then(|status| status.common.credentials.first());
        let known = known.filter(|known| known.secret == secret.name && known.fingerprint == fingerprint);
        let verified_time = known.and_then(|known| known.verified_time.clone()).or(self.verified.map(Time));
        vec![CredentialStatus { secret: secret.name.clone(), fingerprint, verified_time }]
    }

    async fn invalid_queries(&self, database: &Database) -> Vec<InvalidQuery> {
        let Some(member) = self.chosen().and_then(|index| self.members.get(index)) else { return Vec::new() };
        let checks = member.target().check(&database.spec.queries).await;
        checks.into_iter().map(|(name, fault)| InvalidQuery { name, message: fault.message() }).collect()
    }
}

/// Adds to `Degraded`; several faults share the one condition, under the reason of the first.
pub(super) fn degrade(report: &mut Report<DatabaseStatus>, reason: Reason, detail: &str) {
    let message = advise(reason, detail);
    let degraded = report.verdicts.iter_mut().find(|verdict| verdict.kind == ConditionType::Degraded);
    match degraded {
        Some(degraded) => degraded.message = format!("{}; {reason}: {message}", degraded.message),
        None => report.verdicts.push(Verdict::yes(ConditionType::Degraded, reason, message)),
    }
}

/// What each monitor has seen, once its first probe is over.
pub(super) async fn observe(members: &[Member]) -> Vec<Observation<Facts>> {
    join_all(members.iter().map(|member| member.observed())).await.into_iter().flatten().collect()
}

/// Whether this very process has logged in there.
pub(super) fn proven(observation: &Observation<Facts>) -> bool {
    works(observation) && observation.facts.is_some()
}

/// Whether the server can be used.
pub(super) fn works(observation: &Observation<Facts>) -> bool {
    observation.state == HealthState::Healthy
}
