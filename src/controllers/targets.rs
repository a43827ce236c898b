//! What is held for each object: its shares in the monitors of its targets, and the credential that is in use.

mod credential_backoff;
mod report;

use std::{collections::HashMap, sync::Arc};

use futures::future::join_all;
use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::{Mutex, MutexGuard};

use super::Error;
use crate::{
    api::{
        ConditionType, Managed, Reason,
        status::{EndpointStatus, HealthState, Status},
    },
    backends::Fault,
    probing::{FIRST_PROBE_WAIT, Membership, Monitors, Observation, Target},
    resolving::Resolved,
    telemetry::metrics::Metrics,
};

pub use credential_backoff::RefusedCredential;
use credential_backoff::{CredentialBackoff, Keys};
pub(super) use report::unprobed;

/// How one target is reached: plain values, with the credential.
pub trait TargetSettings: Clone + Send + Sync + 'static {
    /// What is probed.
    type Target: Target;

    /// Why `Connected` is true when the probes pass, and in words.
    const CONNECTED: (Reason, &'static str);

    /// The same for settings that reach the same target with the same credential; they share a monitor and a pool.
    fn key(&self) -> [u8; 32];

    /// The same for settings that reach the same target, whatever the credential.
    fn target_key(&self) -> [u8; 32];

    /// The same for settings of which one login says whether the others can log in.
    fn login_key(&self) -> [u8; 32] {
        self.key()
    }

    /// Host name or address.
    fn host(&self) -> &str;

    /// TCP port.
    fn port(&self) -> u16;

    /// Whether its probes carry the credential.
    fn proves_credential(&self) -> bool {
        true
    }

    /// Whether it is probed at all; what is not is taken to be well.
    fn is_probed(&self) -> bool {
        true
    }

    /// Prepares the target; it connects at the first probe.
    ///
    /// # Errors
    /// A setting that cannot be used.
    fn target(&self) -> Result<Self::Target, Fault>;

    /// `host:port`, as users read it.
    fn endpoint(&self) -> String {
        match self.host() {
            host if host.contains(':') => format!("[{host}]:{}", self.port()),
            host => format!("{host}:{}", self.port()),
        }
    }
}

/// What a probe of these settings' target learns.
pub type FactsOf<S> = <<S as TargetSettings>::Target as Target>::Facts;

/// An object's share in the monitor of one target.
pub type Member<S> = Arc<Membership<<S as TargetSettings>::Target>>;

/// Starts another pass of the object.
pub type RequeueFn = Arc<dyn Fn() + Send + Sync>;

/// What is held for every object of a kind.
pub struct TargetSets<S: TargetSettings> {
    monitors: Arc<Monitors<S::Target>>,
    metrics: Arc<Metrics>,
    by_uid: Mutex<HashMap<String, TargetSet<S>>>,
    refusals: CredentialBackoff,
}

#[derive(Clone)]
struct TargetSet<S: TargetSettings> {
    resolved: Resolved<S>,
    members: Vec<Member<S>>,
    verified: Option<Timestamp>,
    /// The credential has replaced another one, and the status may not tell so yet.
    rotated: bool,
    refused: Option<RefusedCredential>,
}

/// What one look at an object's targets gave.
pub struct TargetObservation<S: TargetSettings> {
    /// How they were reached.
    pub resolved: Resolved<S>,
    /// One for each target.
    pub members: Vec<Member<S>>,
    /// One for each target.
    pub observations: Vec<Observation<FactsOf<S>>>,
    /// When the credential in use first worked.
    pub verified: Option<Timestamp>,
    /// The changed credential does not work, and the previous one does.
    pub refused: Option<RefusedCredential>,
    /// The changed credential works, and is in use from now on; until the status tells so.
    pub rotated: bool,
}

impl<S: TargetSettings> TargetSet<S> {
    fn new(members: Vec<Member<S>>, resolved: Resolved<S>) -> Self {
        Self { resolved, members, verified: None, rotated: false, refused: None }
    }
}

impl<S: TargetSettings> TargetSets<S> {
    /// Nothing yet; `kind` is the metrics' label.
    #[must_use]
    pub fn new(kind: &'static str, metrics: Arc<Metrics>) -> Self {
        let monitors = Arc::new(Monitors::new(kind, metrics.probes.clone()));
        Self { monitors, metrics, by_uid: Mutex::default(), refusals: CredentialBackoff::default() }
    }

    /// Joins the monitors of what the object resolves to, and waits a moment for what each has seen.
    ///
    /// # Errors
    /// That of `wanted`, settings that cannot be used, and [`Error::NotProbedYet`]: passes are few at a time, and many
    /// silent targets must not keep the others from theirs.
    pub async fn look<K: Managed>(
        &self,
        object: &K,
        wanted: Result<Resolved<S>, Error>,
        wake: RequeueFn,
    ) -> Result<TargetObservation<S>, Error> {
        let uid = object.uid().unwrap_or_default();
        let wanted = wanted.inspect_err(|error| {
            // A spec that does not resolve any more must not go on using what it resolved to before.
            if error.condition().is_some() {
                self.forget(&uid);
            }
        })?;
        // It stays where it is until it is replaced: a pass that is cut off must not lose a credential that works. What
        // reaches other targets goes with it, once the new ones are joined: those that stay keep their monitors.
        let before = self.all().get(&uid).cloned();
        let before = before.filter(|held| same(&held.resolved, &wanted, S::target_key));
        let known = known_health(object, &wanted);
        let chosen = self.choose(wanted, before, known, &wake).await;
        let mut held = chosen.inspect_err(|_| self.forget(&uid))?;
        held.rotated &= !is_told(object, &held.resolved);
        let Ok(observations) = tokio::time::timeout(FIRST_PROBE_WAIT, observe::<S>(&held.members)).await
        else {
            let before = self.all().insert(uid, held);
            drop(before);
            return Err(Error::NotProbedYet);
        };
        // A credential whose first login failed is verified by the first one that succeeds.
        if proves(&held.resolved) && observations.iter().any(proven) {
            held.verified = held.verified.or_else(|| Some(Timestamp::now()));
            self.refusals.remove(&keys(&held.resolved, S::login_key));
        }
        let look = TargetObservation {
            observations,
            members: held.members.clone(),
            resolved: held.resolved.clone(),
            verified: held.verified,
            refused: held.refused.clone(),
            rotated: held.rotated,
        };
        // Not under the lock: the last member of a monitor ends it.
        let before = self.all().insert(uid, held);
        drop(before);
        Ok(look)
    }

    /// Lets go of what is held for the object.
    pub fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        self.all().clear();
        self.refusals.clear();
    }

    /// Keeps what is held where nothing changed. A changed credential is tried first: where it works it replaces the
    /// previous one, whose connections drain; where it does not and the previous one does, that one stays, and the
    /// changed one is left alone for a while.
    async fn choose(
        &self,
        wanted: Resolved<S>,
        before: Option<TargetSet<S>>,
        known: Vec<HealthState>,
        wake: &RequeueFn,
    ) -> Result<TargetSet<S>, Error> {
        let Some(before) = before else {
            return Ok(TargetSet::new(self.join(&wanted, &known, wake)?, wanted));
        };
        if same(&before.resolved, &wanted, S::key) {
            let before = TargetSet { refused: None, ..before };
            if before.resolved.schedule == wanted.schedule {
                return Ok(before);
            }
            // Only the rhythm of the probes is another one: what they have seen holds.
            let state = |member: &Member<S>| member.last().map_or(HealthState::Unknown, |seen| seen.state);
            let known: Vec<_> = before.members.iter().map(state).collect();
            let members = self.join(&wanted, &known, wake)?;
            return Ok(TargetSet { resolved: wanted, members, ..before });
        }
        let (tried, login) = (keys(&wanted, S::key), keys(&wanted, S::login_key));
        let interval = wanted.schedule.interval;
        let own = before.refused.clone().filter(|refused| refused.keys == tried);
        let left_alone = own.clone().filter(RefusedCredential::is_left_alone);
        let _turn = if left_alone.is_none() { self.refusals.turn(&login).await } else { None };
        let others = || {
            let recent = self.refusals.recent(&login, interval)?;
            Some(RefusedCredential { keys: tried.clone(), ..recent })
        };
        let refused = left_alone.or_else(others);
        if refused.is_some() && observe::<S>(&before.members).await.iter().any(works) {
            return Ok(TargetSet { refused, ..before });
        }
        let last = own.or_else(|| self.refusals.last(&login));
        let (new, fault) = match self.join(&wanted, &vec![HealthState::Unknown; known.len()], wake) {
            Ok(members) => {
                let mut new = TargetSet::new(members, wanted);
                let seen = observe::<S>(&new.members).await;
                if seen.iter().any(proven) {
                    self.refusals.remove(&login);
                    // One that no probe carries is used, and nobody knows yet whether it works.
                    new.rotated = proves(&new.resolved);
                    if new.rotated {
                        self.metrics.rotation("rotated");
                    }
                    return Ok(new);
                }
                (Ok(new), seen.into_iter().find_map(|observation| observation.fault))
            }
            Err(Error::Settings(fault)) => (Err(Error::Settings(fault.clone())), Some(fault)),
            Err(error) => return Err(error),
        };
        match fault {
            Some(fault) if observe::<S>(&before.members).await.iter().any(works) => {
                self.metrics.rotation("refused");
                let refused = RefusedCredential::now(fault, tried, last.as_ref(), interval);
                self.refusals.add(&login, &refused);
                Ok(TargetSet { refused: Some(refused), ..before })
            }
            _ => new,
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, TargetSet<S>>> {
        self.by_uid.lock()
    }

    fn join(
        &self,
        wanted: &Resolved<S>,
        known: &[HealthState],
        wake: &RequeueFn,
    ) -> Result<Vec<Member<S>>, Error> {
        let join = |(settings, known): (&S, &HealthState)| {
            let wake = Arc::clone(wake);
            let key = (settings.key(), wanted.schedule);
            self.monitors.join(key, *known, move || wake(), || settings.target()).map(Arc::new)
        };
        wanted.targets.iter().zip(known).map(join).collect::<Result<_, _>>().map_err(Error::Settings)
    }
}

fn keys<S>(resolved: &Resolved<S>, key: impl Fn(&S) -> [u8; 32]) -> Keys {
    resolved.targets.iter().map(key).collect()
}

fn same<S>(one: &Resolved<S>, other: &Resolved<S>, key: impl Fn(&S) -> [u8; 32]) -> bool {
    one.targets.iter().map(&key).eq(other.targets.iter().map(&key))
}

/// Whether the status names the credential.
fn is_told<K: Managed, S>(object: &K, resolved: &Resolved<S>) -> bool {
    let told = object.status().and_then(|status| status.common().credentials.first());
    told.map(|told| (&told.secret, &told.fingerprint))
        == resolved.source.as_ref().map(|source| (&source.secret, &source.fingerprint))
}

/// The verdicts that an earlier process (or leader) has left in the status, if it is about the same spec and the same
/// credential: one slow probe after a restart must not turn `Ready`, which takes `unhealthyThreshold` of them.
fn known_health<K: Managed, S: TargetSettings>(object: &K, wanted: &Resolved<S>) -> Vec<HealthState> {
    let status = object.status().map(Status::common).filter(|status| {
        let fingerprint = status.credentials.first().map(|credential| &credential.fingerprint);
        status.observed_generation == object.meta().generation
            && fingerprint == wanted.source.as_ref().map(|source| &source.fingerprint)
    });
    let healthy = status.and_then(|status| status.condition(ConditionType::Healthy));
    let all_down = healthy.is_some_and(|healthy| healthy.status == "False");
    // By its place, since several may be at one address; of the same spec, they are in the same order.
    let known = |(index, settings): (usize, &S)| {
        let is = |it: &&EndpointStatus| (it.address.as_str(), it.port) == (settings.host(), settings.port());
        match status.and_then(|status| status.endpoints.get(index).filter(is)) {
            Some(endpoint) if endpoint.ready => HealthState::Healthy,
            Some(_) if all_down => HealthState::Unhealthy,
            _ => HealthState::Unknown,
        }
    };
    wanted.targets.iter().enumerate().map(known).collect()
}

/// What each monitor has seen, once its first probe is over.
async fn observe<S: TargetSettings>(members: &[Member<S>]) -> Vec<Observation<FactsOf<S>>> {
    join_all(members.iter().map(|member| member.observed())).await.into_iter().flatten().collect()
}

/// Whether a probe that passes says that the credential works.
fn proves<S: TargetSettings>(resolved: &Resolved<S>) -> bool {
    resolved.targets.iter().any(S::proves_credential)
}

/// Whether this very process has logged in there.
fn proven<F>(observation: &Observation<F>) -> bool {
    works(observation) && observation.facts.is_some()
}

/// Whether the target can be used.
pub fn works<F>(observation: &Observation<F>) -> bool {
    observation.state == HealthState::Healthy
}
