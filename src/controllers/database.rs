//! `Database`: resolve -> connect -> observe -> decide -> act -> report.

mod binding;
mod resolve;
mod target;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{
    Context, Error, Note, Reconciler, Report,
    error::{accepted, resolved},
};
use crate::{
    api::{
        ConditionType, Reason,
        status::{BindingStatus, CredentialStatus, EndpointStatus, HealthState, HealthStatus},
        v1alpha1::{
            Database,
            database::{DatabaseStatus, Engine, InvalidQuery, PoolStatus, ServerStatus},
        },
    },
    backends::{Fault, database::Role},
    cluster::references::References,
    domain::{
        conditions::{Verdict, advise},
        endpoints::{Endpoint, judge},
        latency::millis,
    },
    probing::{Membership, Monitors, Observation, Schedule},
    telemetry::metrics::Metrics,
};

pub use resolve::{Resolved, resolve};
pub use target::{Facts, Server};

/// The controller of `Database`.
pub struct Databases {
    monitors: Arc<Monitors<Server>>,
    metrics: Arc<Metrics>,
    held: Mutex<HashMap<String, Held>>,
    bindings: binding::Bindings,
}

/// What is held for one object: a share in the monitor of each of its servers.
struct Held {
    resolved: Resolved,
    members: Vec<Arc<Membership<Server>>>,
    verified: Option<Timestamp>,
}

/// What one look at the servers gave.
pub struct Look {
    /// One for each server.
    pub observations: Vec<Observation<Facts>>,
    members: Vec<Arc<Membership<Server>>>,
    resolved: Resolved,
    verified: Option<Timestamp>,
    /// The new credential does not work, and the previous one does.
    refused: Option<Fault>,
    rotated: bool,
}

impl Databases {
    /// No objects yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let monitors = Arc::new(Monitors::new(Self::NAME, metrics.probes.clone()));
        Self { monitors, metrics, held: Mutex::default(), bindings: binding::Bindings::default() }
    }

    /// The servers that are watched now, for the metrics of their pools.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.monitors.targets()
    }

    /// Resolves, connects and observes: everything but writing. `authlink check` does just this.
    ///
    /// # Errors
    /// References that do not resolve, and settings that a driver cannot use.
    pub async fn look(
        &self,
        database: &Database,
        references: &dyn References,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Look, Error> {
        let uid = database.uid().unwrap_or_default();
        let wanted = resolve(database, references).await.inspect_err(|error| {
            // A spec that does not resolve any more must not go on using what it resolved to before.
            if error.condition().is_some() {
                self.forget(&uid);
            }
        })?;
        let before = self.take_held(&uid, &wanted);
        if let Some((members, verified)) =
            before.as_ref().filter(|held| held.resolved.same(&wanted)).map(Held::share)
        {
            let observations = observe(&members).await;
            // A credential whose first login failed is verified by the first one that succeeds.
            let verified = verified.or_else(|| observations.iter().any(works).then(Timestamp::now));
            self.hold(&uid, Held { resolved: wanted.clone(), members: members.clone(), verified });
            return Ok(Look {
                observations,
                members,
                resolved: wanted,
                verified,
                refused: None,
                rotated: false,
            });
        }
        let members = self.join(&wanted, &wake)?;
        let observations = observe(&members).await;
        let verified = observations.iter().any(works).then(Timestamp::now);
        if let Some(before) = before {
            let fault = observations.iter().find_map(|observation| observation.fault.clone());
            let (old_members, old_verified) = before.share();
            let old = observe(&old_members).await;
            if let (None, Some(fault), true) = (verified, fault, old.iter().any(works)) {
                self.metrics.rotation("refused");
                let resolved = before.resolved.clone();
                self.hold(&uid, before);
                return Ok(Look {
                    observations: old,
                    members: old_members,
                    resolved,
                    verified: old_verified,
                    refused: Some(fault),
                    rotated: false,
                });
            }
            if verified.is_some() {
                self.metrics.rotation("rotated");
            }
            self.hold(&uid, Held { resolved: wanted.clone(), members: members.clone(), verified });
            let rotated = verified.is_some();
            return Ok(Look { observations, members, resolved: wanted, verified, refused: None, rotated });
        }
        self.hold(&uid, Held { resolved: wanted.clone(), members: members.clone(), verified });
        Ok(Look { observations, members, resolved: wanted, verified, refused: None, rotated: false })
    }

    /// What was held for the object, unless it reaches other servers: then it is let go.
    fn take_held(&self, uid: &str, wanted: &Resolved) -> Option<Held> {
        self.held().remove(uid).filter(|held| held.resolved.same_target(wanted))
    }

    fn hold(&self, uid: &str, held: Held) {
        self.held().insert(uid.to_owned(), held);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(
        &self,
        wanted: &Resolved,
        wake: &Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Vec<Arc<Membership<Server>>>, Error> {
        let join = |settings: &crate::backends::database::Settings| {
            let wake = Arc::clone(wake);
            let key = (settings.key(), wanted.schedule);
            self.monitors.join(key, move || wake(), || Server::new(settings.clone())).map(Arc::new)
        };
        wanted.servers.iter().map(join).collect::<Result<_, _>>().map_err(Error::Settings)
    }
}

impl Held {
    fn share(&self) -> (Vec<Arc<Membership<Server>>>, Option<Timestamp>) {
        (self.members.clone(), self.verified)
    }
}

async fn observe(members: &[Arc<Membership<Server>>]) -> Vec<Observation<Facts>> {
    join_all(members.iter().map(|member| member.observed())).await.into_iter().flatten().collect()
}

fn works(observation: &Observation<Facts>) -> bool {
    observation.state == HealthState::Healthy
}

impl Reconciler for Databases {
    type Object = Database;

    const NAME: &'static str = "Database";

    async fn apply(&self, database: &Database, cx: &Context) -> Result<Report<DatabaseStatus>, Error> {
        let look = self.look(database, cx.references.as_ref(), Arc::clone(&cx.wake)).await?;
        let mut report = look.report(database).await;
        match self.bindings.settle(database, &look, cx).await? {
            Ok(binding) => report.status.common.binding = binding.map(|name| BindingStatus { name }),
            Err((reason, problem)) => degrade(&mut report, reason, &problem),
        }
        Ok(report)
    }

    fn forget(&self, uid: &str) {
        self.held().remove(uid);
        self.bindings.forget(uid);
    }

    fn stand_by(&self) {
        self.held().clear();
    }
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

    /// The health of the server that was reached; of several, the worst that some still serve with.
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
        let resolved = &self.resolved;
        let (Some(secret), Some(server)) = (&resolved.credential_secret, resolved.servers.first()) else {
            return Vec::new();
        };
        let fingerprint = server.credential.fingerprint(&secret.uid);
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
fn degrade(report: &mut Report<DatabaseStatus>, reason: Reason, detail: &str) {
    let message = advise(reason, detail);
    let degraded = report.verdicts.iter_mut().find(|verdict| verdict.kind == ConditionType::Degraded);
    match degraded {
        Some(degraded) => degraded.message = format!("{}; {reason}: {message}", degraded.message),
        None => report.verdicts.push(Verdict::yes(ConditionType::Degraded, reason, message)),
    }
}

impl From<&crate::api::shared::HealthCheck> for Schedule {
    fn from(check: &crate::api::shared::HealthCheck) -> Self {
        Self {
            interval: check.interval.get(),
            timeout: check.timeout.get(),
            jitter_percent: check.jitter_percent,
            unhealthy_threshold: check.unhealthy_threshold,
            healthy_threshold: check.healthy_threshold,
        }
    }
}
