//! `Database`: resolve -> connect -> observe -> decide -> act -> report.

mod binding;
mod look;
mod resolve;
mod target;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use kube::ResourceExt;

use super::{Context, Error, Reconciler, Report};
use crate::{
    api::{
        status::BindingStatus,
        v1alpha1::{Database, database::DatabaseStatus},
    },
    backends::{Fault, database::Settings},
    cluster::references::References,
    probing::Monitors,
    telemetry::metrics::Metrics,
};

pub use look::Look;
use look::{Member, degrade, observe, works};
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
    members: Vec<Member>,
    verified: Option<Timestamp>,
}

/// What is held from now on.
struct Choice {
    held: Held,
    /// The new credential does not work, and the previous one does.
    refused: Option<Fault>,
    rotated: bool,
}

/// Starts another pass of the object.
type Wake = Arc<dyn Fn() + Send + Sync>;

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
        wake: Wake,
    ) -> Result<Look, Error> {
        let uid = database.uid().unwrap_or_default();
        let wanted = resolve(database, references).await.inspect_err(|error| {
            // A spec that does not resolve any more must not go on using what it resolved to before.
            if error.condition().is_some() {
                self.forget(&uid);
            }
        })?;
        let before = self.take_held(&uid, &wanted);
        let Choice { mut held, refused, rotated } = self.choose(wanted, before, &wake).await?;
        let observations = observe(&held.members).await;
        if held.verified.is_none() && observations.iter().any(works) {
            held.verified = Some(Timestamp::now());
        }
        let look = Look {
            observations,
            members: held.members.clone(),
            resolved: held.resolved.clone(),
            verified: held.verified,
            refused,
            rotated,
        };
        self.held().insert(uid, held);
        Ok(look)
    }

    /// Keeps what is held where nothing changed. A changed credential is tried first: where it works it replaces the
    /// previous one, whose connections drain; where it does not and the previous one does, that one stays.
    async fn choose(&self, wanted: Resolved, before: Option<Held>, wake: &Wake) -> Result<Choice, Error> {
        let before = match before {
            Some(held) if held.resolved.same(&wanted) => {
                return Ok(Choice { held, refused: None, rotated: false });
            }
            before => before,
        };
        let members = self.join(&wanted, wake)?;
        let new = Held { resolved: wanted, members, verified: None };
        let Some(before) = before else { return Ok(Choice { held: new, refused: None, rotated: false }) };
        let tried = observe(&new.members).await;
        if tried.iter().any(works) {
            self.metrics.rotation("rotated");
            return Ok(Choice { held: new, refused: None, rotated: true });
        }
        let fault = tried.into_iter().find_map(|observation| observation.fault);
        if fault.is_some() && observe(&before.members).await.iter().any(works) {
            self.metrics.rotation("refused");
            return Ok(Choice { held: before, refused: fault, rotated: false });
        }
        Ok(Choice { held: new, refused: None, rotated: false })
    }

    /// What was held for the object, unless it reaches other servers: then it is let go.
    fn take_held(&self, uid: &str, wanted: &Resolved) -> Option<Held> {
        self.held().remove(uid).filter(|held| held.resolved.same_target(wanted))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, wanted: &Resolved, wake: &Wake) -> Result<Vec<Member>, Error> {
        let join = |settings: &Settings| {
            let wake = Arc::clone(wake);
            let key = (settings.key(), wanted.schedule);
            self.monitors.join(key, move || wake(), || Server::new(settings.clone())).map(Arc::new)
        };
        wanted.servers.iter().map(join).collect::<Result<_, _>>().map_err(Error::Settings)
    }
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
