//! The targets of each object: its membership in their monitors, and the credential that is in use.

mod credential_backoff;
mod report;
mod settings;

use std::{collections::HashMap, sync::Arc};

use futures::future::join_all;
use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::{Mutex, MutexGuard};

use super::{Error, RequeueFn};
use crate::{
    api::{
        ConditionType, Managed, Reason,
        status::{EndpointStatus, HealthState, Status},
    },
    backends::Fault,
    domain::schedule::Schedule,
    probing::{FIRST_PROBE_WAIT, Membership, Monitors, Observation},
    resolving::{CredentialSource, Resolved},
    telemetry::metrics::Metrics,
};

pub use credential_backoff::RefusedCredential;
use credential_backoff::{CredentialBackoff, Keys};
pub(super) use report::unprobed;
pub use settings::{FactsOf, TargetSettings};

/// An object's membership in the monitor of one target.
pub type Member<S> = Arc<Membership<<S as TargetSettings>::Target>>;

/// The targets of every object of a kind.
pub struct TargetSets<S: TargetSettings> {
    monitors: Arc<Monitors<S::Target>>,
    metrics: Arc<Metrics>,
    by_uid: Mutex<HashMap<String, TargetSet<S>>>,
    backoff: CredentialBackoff,
}

/// The targets of one object.
#[derive(Clone)]
struct TargetSet<S: TargetSettings> {
    targets: Vec<MonitoredTarget<S>>,
    schedule: Schedule,
    source: Option<CredentialSource>,
    verified: Option<Timestamp>,
    /// The credential has replaced another one, and the status may not say so yet.
    rotated: bool,
    refused: Option<RefusedCredential>,
}

#[derive(Clone)]
struct MonitoredTarget<S: TargetSettings> {
    settings: S,
    member: Member<S>,
}

/// The targets of one object as they were observed.
pub struct TargetObservation<S: TargetSettings> {
    /// In the order of the spec.
    pub targets: Vec<ObservedTarget<S>>,
    /// When they are probed.
    pub schedule: Schedule,
    /// Where the credential in use came from; none where the spec names none.
    pub source: Option<CredentialSource>,
    /// When the credential in use first worked.
    pub verified: Option<Timestamp>,
    /// The changed credential does not work, and the previous one does.
    pub refused: Option<RefusedCredential>,
    /// The changed credential works, and is in use from now on; until the status says so.
    pub rotated: bool,
}

/// One target as it was observed.
pub struct ObservedTarget<S: TargetSettings> {
    /// How it is reached.
    pub settings: S,
    /// The membership in its monitor.
    pub member: Member<S>,
    /// What its probes have found.
    pub observation: Observation<FactsOf<S>>,
    /// The same as users read it.
    pub status: EndpointStatus,
}

impl<S: TargetSettings> TargetSets<S> {
    /// No objects yet; `kind` is the metrics' label.
    #[must_use]
    pub fn new(kind: &'static str, metrics: Arc<Metrics>) -> Self {
        let monitors = Arc::new(Monitors::new(kind, metrics.probes.clone()));
        Self { monitors, metrics, by_uid: Mutex::default(), backoff: CredentialBackoff::default() }
    }

    /// Joins the monitors of what the object resolves to, and waits a moment for what each has found.
    ///
    /// # Errors
    /// That of `resolved`, settings that cannot be used, and [`Error::FirstProbePending`]: reconciles are few at a time, and many
    /// silent targets must not keep other objects from theirs.
    pub async fn observe<K: Managed>(
        &self,
        object: &K,
        resolved: Result<Resolved<S>, Error>,
        requeue: &RequeueFn,
    ) -> Result<TargetObservation<S>, Error> {
        let uid = object.uid().unwrap_or_default();
        let resolved = resolved.inspect_err(|error| {
            // A spec that does not resolve any more must not go on using what it resolved to before.
            if error.condition().is_some() {
                self.forget(&uid);
            }
        })?;
        // It stays where it is until it is replaced: a reconcile that is cut off must not lose a credential that works. What
        // reaches other targets goes with it, once the new ones are joined: those that stay keep their monitors.
        let before = self.all().get(&uid).cloned();
        let before = before.filter(|before| before.has_keys(&resolved, S::target_key));
        let known = known_health(object, &resolved);
        let selected = self.select_credential(resolved, before, known, requeue).await;
        let mut set = selected.inspect_err(|_| self.forget(&uid))?;
        set.rotated &= !is_reported(object, set.source.as_ref());
        let observed = tokio::time::timeout(FIRST_PROBE_WAIT, set.observations()).await;
        let Ok(observations) = observed else {
            let before = self.all().insert(uid, set);
            drop(before);
            return Err(Error::FirstProbePending);
        };
        // A credential whose first login failed is verified by the first one that succeeds.
        if set.proves_credential() && observations.iter().any(proven::<S>) {
            set.verified = set.verified.or_else(|| Some(Timestamp::now()));
            self.backoff.remove(&set.keys(S::login_key));
        }
        let targets = set.targets.iter().cloned().zip(observations);
        let observation = TargetObservation {
            targets: targets.map(|(target, observation)| ObservedTarget::new(target, observation)).collect(),
            schedule: set.schedule,
            source: set.source.clone(),
            verified: set.verified,
            refused: set.refused.clone(),
            rotated: set.rotated,
        };
        // Not under the lock: the last member of a monitor ends it.
        let before = self.all().insert(uid, set);
        drop(before);
        Ok(observation)
    }

    /// Leaves the monitors of the object.
    pub fn forget(&self, uid: &str) {
        let gone = self.all().remove(uid);
        drop(gone);
    }

    /// Leaves all monitors.
    pub fn clear(&self) {
        let gone = std::mem::take(&mut *self.all());
        drop(gone);
        self.backoff.clear();
    }

    /// Keeps what is there where nothing changed. A changed credential is tried first: where it works it replaces the
    /// previous one, whose connections drain; where it does not and the previous one does, that one stays, and the
    /// changed one is tried again with backoff.
    async fn select_credential(
        &self,
        resolved: Resolved<S>,
        before: Option<TargetSet<S>>,
        known: Vec<HealthState>,
        requeue: &RequeueFn,
    ) -> Result<TargetSet<S>, Error> {
        let Some(before) = before else { return self.join(resolved, &known, requeue) };
        if before.has_keys(&resolved, S::key) {
            // The same credential may come from another Secret.
            let before = TargetSet { refused: None, source: resolved.source.clone(), ..before };
            if before.schedule == resolved.schedule {
                return Ok(before);
            }
            // Only the interval of the probes is another one: what they have found holds.
            let state = |target: &MonitoredTarget<S>| {
                target.member.last().map_or(HealthState::Unknown, |observed| observed.state)
            };
            let known: Vec<_> = before.targets.iter().map(state).collect();
            let TargetSet { targets, schedule, .. } = self.join(resolved, &known, requeue)?;
            return Ok(TargetSet { targets, schedule, ..before });
        }
        let (tried, login) = (resolved.keys(S::key), resolved.keys(S::login_key));
        let interval = resolved.schedule.interval;
        let own = before.refused.clone().filter(|refused| refused.keys == tried);
        let backing_off = own.clone().filter(RefusedCredential::is_backing_off);
        let _turn = if backing_off.is_none() { self.backoff.turn(&login).await } else { None };
        let others = || {
            let recent = self.backoff.recent(&login, interval)?;
            Some(RefusedCredential { keys: tried.clone(), ..recent })
        };
        let refused = backing_off.or_else(others);
        if refused.is_some() && before.observations().await.iter().any(usable::<S>) {
            return Ok(TargetSet { refused, ..before });
        }
        let last = own.or_else(|| self.backoff.last(&login));
        let (new, fault) = match self.join(resolved, &vec![HealthState::Unknown; known.len()], requeue) {
            Ok(mut new) => {
                let observed = new.observations().await;
                if observed.iter().any(proven::<S>) {
                    self.backoff.remove(&login);
                    // One that no probe carries is used, and nobody knows yet whether it works.
                    new.rotated = new.proves_credential();
                    if new.rotated {
                        self.metrics.rotation("rotated");
                    }
                    return Ok(new);
                }
                (Ok(new), observed.iter().find_map(fault::<S>).cloned())
            }
            Err(Error::Settings(fault)) => (Err(Error::Settings(fault.clone())), Some(fault)),
            Err(error) => return Err(error),
        };
        match fault {
            Some(fault) if before.observations().await.iter().any(usable::<S>) => {
                self.metrics.rotation("refused");
                let refused = RefusedCredential::now(fault, tried, last.as_ref(), interval);
                self.backoff.add(&login, &refused);
                Ok(TargetSet { refused: Some(refused), ..before })
            }
            _ => new,
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, TargetSet<S>>> {
        self.by_uid.lock()
    }

    /// Joins the monitor of each target.
    fn join(
        &self,
        resolved: Resolved<S>,
        known: &[HealthState],
        requeue: &RequeueFn,
    ) -> Result<TargetSet<S>, Error> {
        let Resolved { targets, schedule, source } = resolved;
        let join = |(settings, known): (S, &HealthState)| {
            let (requeue, key) = (Arc::clone(requeue), (settings.key(), schedule));
            let member = self.monitors.join(key, *known, move || requeue(), || settings.target());
            Ok(MonitoredTarget { member: Arc::new(member.map_err(Error::Settings)?), settings })
        };
        let targets = targets.into_iter().zip(known).map(join).collect::<Result<_, Error>>()?;
        Ok(TargetSet { targets, schedule, source, verified: None, rotated: false, refused: None })
    }
}

impl<S: TargetSettings> TargetSet<S> {
    fn keys(&self, key: impl Fn(&S) -> [u8; 32]) -> Keys {
        self.targets.iter().map(|target| key(&target.settings)).collect()
    }

    fn has_keys(&self, resolved: &Resolved<S>, key: impl Fn(&S) -> [u8; 32]) -> bool {
        self.keys(&key) == resolved.keys(&key)
    }

    /// What each monitor has found, once its first probe is over.
    async fn observations(&self) -> Vec<Observation<FactsOf<S>>> {
        join_all(self.targets.iter().map(|target| target.member.observed()))
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Whether a probe that passes says that the credential works.
    fn proves_credential(&self) -> bool {
        self.targets.iter().any(|target| target.settings.proves_credential())
    }
}

impl<S: TargetSettings> Resolved<S> {
    fn keys(&self, key: impl Fn(&S) -> [u8; 32]) -> Keys {
        self.targets.iter().map(key).collect()
    }
}

impl<S: TargetSettings> ObservedTarget<S> {
    fn new(target: MonitoredTarget<S>, observation: Observation<FactsOf<S>>) -> Self {
        let MonitoredTarget { settings, member } = target;
        let ready = works(&observation);
        let status = EndpointStatus {
            address: settings.host().to_owned(),
            port: settings.port(),
            ready,
            reason: match &observation.fault {
                Some(fault) if !ready => fault.reason.to_string(),
                _ if !settings.is_probed() => Reason::NotProbed.to_string(),
                _ => Reason::ProbeSucceeded.to_string(),
            },
            role: None,
        };
        Self { settings, member, observation, status }
    }

    /// Whether it can be used.
    #[must_use]
    pub fn works(&self) -> bool {
        works(&self.observation)
    }

    /// What this very process has learned of it.
    #[must_use]
    pub fn facts(&self) -> Option<&FactsOf<S>> {
        self.observation.facts.as_ref()
    }
}

/// Whether the status names the credential.
fn is_reported<K: Managed>(object: &K, source: Option<&CredentialSource>) -> bool {
    let reported = object.status().and_then(|status| status.common().credentials.first());
    reported.map(|reported| (&reported.secret, &reported.fingerprint))
        == source.map(|source| (&source.secret, &source.fingerprint))
}

/// The health that an earlier process (or leader) has left in the status, if it is about the same spec and the same
/// credential: one slow probe after a restart must not turn `Ready`, which takes `unhealthyThreshold` of them.
fn known_health<K: Managed, S: TargetSettings>(object: &K, resolved: &Resolved<S>) -> Vec<HealthState> {
    let status = object.status().map(Status::common).filter(|status| {
        let fingerprint = status.credentials.first().map(|credential| &credential.fingerprint);
        status.observed_generation == object.meta().generation
            && fingerprint == resolved.source.as_ref().map(|source| &source.fingerprint)
    });
    let healthy = status.and_then(|status| status.condition(ConditionType::Healthy));
    let all_down = healthy.is_some_and(|healthy| healthy.status == "False");
    // By its index, since several may be at one address; of the same spec, they are in the same order.
    let known = |(index, settings): (usize, &S)| {
        let is = |it: &&EndpointStatus| (it.address.as_str(), it.port) == (settings.host(), settings.port());
        match status.and_then(|status| status.endpoints.get(index).filter(is)) {
            Some(endpoint) if endpoint.ready => HealthState::Healthy,
            Some(_) if all_down => HealthState::Unhealthy,
            _ => HealthState::Unknown,
        }
    };
    resolved.targets.iter().enumerate().map(known).collect()
}

/// Whether this very process has logged in there.
fn proven<S: TargetSettings>(observation: &Observation<FactsOf<S>>) -> bool {
    usable::<S>(observation) && observation.facts.is_some()
}

/// Whether calls would succeed.
fn usable<S: TargetSettings>(observation: &Observation<FactsOf<S>>) -> bool {
    works(observation) && observation.facts.as_ref().and_then(S::credential_fault).is_none()
}

/// Why calls would fail.
fn fault<S: TargetSettings>(observation: &Observation<FactsOf<S>>) -> Option<&Fault> {
    observation.fault.as_ref().or_else(|| S::credential_fault(observation.facts.as_ref()?))
}

/// Whether the target can be used.
pub fn works<F>(observation: &Observation<F>) -> bool {
    observation.state == HealthState::Healthy
}
