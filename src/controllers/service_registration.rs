//! `ServiceRegistration`: resolve -> connect -> observe -> decide -> act -> report. All registrations of one service
//! share one HttpEndpoint: whichever pass comes sees to all of it.

mod instance_cache;
mod report;
mod service;
mod target;

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;

use super::{
    Cleanup, Context, Error, ObjectIndex, Reconciler, Report,
    coalescer::Coalescer,
    discovery::endpoint_targets::{RETRY, look_up, unsettled},
    reconcile::refused,
    targets::{Member, RequeueFn, TargetSets},
};
use crate::{
    api::{
        Reason,
        status::ServiceStatus,
        v1alpha1::{
            ServiceRegistration, external_api::CheckType, service_registration::ServiceRegistrationStatus,
        },
    },
    backends::{Fault, http::Egress},
    cluster::service_publisher::PublishOutcome,
    domain::instances::Stage,
    resolving,
    telemetry::metrics::Metrics,
};
use instance_cache::{Known, Name, Site};
use service::Outcome;

pub use target::{AddressProbe, ProbeTarget};

/// The controller of `ServiceRegistration`.
pub struct ServiceRegistrations {
    held: TargetSets<ProbeTarget>,
    egress: Egress,
    peers: Mutex<Vec<Arc<ObjectIndex<ServiceRegistration>>>>,
    known: Known,
    /// By namespace and service.
    coalescer: Coalescer<(String, String), Outcome>,
}

/// What one look at an instance gave.
pub struct TargetObservation {
    /// What users read of it.
    pub report: Report<ServiceRegistrationStatus>,
    /// For each address what watches it; nothing, where nothing is probed.
    members: Vec<Option<Member<ProbeTarget>>>,
}

impl ServiceRegistrations {
    /// No objects yet. Probes go to where `egress` lets them.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, egress: Egress) -> Self {
        Self {
            held: TargetSets::new(Self::NAME, metrics),
            egress,
            peers: Mutex::default(),
            known: Known::default(),
            coalescer: Coalescer::default(),
        }
    }

    /// Connects and observes: everything but writing. `authlink check` does just this.
    ///
    /// # Errors
    /// An address that is none, and settings that cannot be used.
    pub async fn look(
        &self,
        registration: &ServiceRegistration,
        wake: RequeueFn,
    ) -> Result<TargetObservation, Error> {
        if registration.spec.health_check.check_type == CheckType::None {
            self.held.forget(&registration.uid().unwrap_or_default());
            let members = registration.spec.addresses.iter().map(|_| None).collect();
            return Ok(TargetObservation { report: report::unprobed(registration), members });
        }
        let wanted = resolving::service_registration::resolve(registration).map_err(Error::from);
        let reached = |settings| {
            let (load, egress) = (registration.spec.load.clone(), self.egress.clone());
            ProbeTarget { settings, load, egress }
        };
        let look = self.held.look(registration, wanted.map(|wanted| wanted.map(reached)), wake).await?;
        let report = report::probed(&look, registration);
        Ok(TargetObservation { report, members: look.members.into_iter().map(Some).collect() })
    }

    /// Finds its addresses, and sees to it that the HttpEndpoint backend to them.
    async fn register(
        &self,
        registration: &ServiceRegistration,
        look: TargetObservation,
        cx: &Context,
    ) -> Result<Report<ServiceRegistrationStatus>, Error> {
        let TargetObservation { mut report, members } = look;
        let (hosts, service) = (&registration.spec.addresses, &registration.spec.service_name);
        let mut found = look_up(hosts.iter().map(String::as_str), cx).await;
        for (host, addresses) in hosts.iter().zip(&mut found.addresses) {
            // While nobody answers what is known stays, be it that an earlier process knew it.
            *addresses = addresses.take().or_else(|| instance_cache::resolved(registration, host));
        }
        report.status.resolved = report::resolved(hosts, &found.addresses);
        let addresses = found.addresses.iter().map(|found| found.clone().unwrap_or_default());
        let sites = addresses.zip(members).map(|(addresses, member)| Site { addresses, member });
        let uid = registration.uid().unwrap_or_default();
        self.known.place(&uid, Name::of(registration), sites.collect());

        let Outcome { settled, ports } = match self.settle(registration, cx).await {
            Ok(outcome) => outcome,
            Err(error) => {
                unsettled(registration, error, &mut report);
                return Ok(report);
            }
        };
        if let PublishOutcome::Done { next, .. } = &settled {
            report.status.common.service_ref = Some(ServiceStatus { name: service.clone() });
            if let Some(next) = next {
                report.requeue_within(*next);
            }
        }
        if let Some(valid) = found.valid {
            report.requeue_within(valid);
        }
        if found.unanswered.is_some() || !matches!(settled, PublishOutcome::Done { .. }) {
            report.requeue_within(RETRY);
        }
        let without_port = match settled {
            PublishOutcome::Done { .. } => report::without_port(registration, &ports),
            PublishOutcome::Conflict(_) | PublishOutcome::Refused(_) => None,
        };
        report.verdicts.push(without_port.unwrap_or_else(|| found.verdict(&settled, service)));
        Ok(report)
    }

    /// It is not registered, or not any more: sees to its going from the HttpEndpoint, and tells why.
    async fn refuse(
        &self,
        registration: &ServiceRegistration,
        error: Error,
        cx: &Context,
    ) -> Result<Report<ServiceRegistrationStatus>, Error> {
        let uid = registration.uid().unwrap_or_default();
        self.held.forget(&uid);
        self.known.place(&uid, Name::of(registration), Vec::new());
        match self.settle(registration, cx).await {
            Ok(_) => Err(error),
            Err(failure) => Ok(Report { unfinished: Some(failure), ..refused(registration, &error) }),
        }
    }
}

impl Reconciler for ServiceRegistrations {
    type Object = ServiceRegistration;

    const NAME: &'static str = "ServiceRegistration";

    const SHARES_SERVICES: bool = true;

    fn watch(&self, peers: ObjectIndex<ServiceRegistration>) {
        self.peers.lock().push(Arc::new(peers));
    }

    async fn apply(
        &self,
        registration: &ServiceRegistration,
        cx: &Context,
    ) -> Result<Report<ServiceRegistrationStatus>, Error> {
        if let Some(duplicate) = self.duplicate(registration) {
            return self.refuse(registration, duplicate, cx).await;
        }
        if !self.known.has(&registration.uid().unwrap_or_default()) {
            // One that is younger may have been here first.
            self.wake_others_called(registration);
        }
        match self.look(registration, Arc::clone(&cx.wake)).await {
            Err(error) if error.condition().is_some() => self.refuse(registration, error, cx).await,
            Err(error) => Err(error),
            Ok(look) => self.register(registration, look, cx).await,
        }
    }

    /// The endpoints are drained, then go, and then the object does. The instance may be registered anew at once.
    async fn cleanup(&self, registration: &ServiceRegistration, cx: &Context) -> Result<Cleanup, Error> {
        self.wake_others_called(registration);
        let namespace = registration.namespace().unwrap_or_default();
        let stage = self.instance(registration, Timestamp::now()).stage;
        match (self.settle(registration, cx).await?.settled, stage) {
            (PublishOutcome::Done { .. }, Stage::Leaving(left)) if !left.is_zero() => {
                Ok(Cleanup::Again(left))
            }
            // Where there is no HttpEndpoint, as in a namespace that is going, there is nothing to drain.
            (PublishOutcome::Refused(why), _)
                if cx.registry.has(&namespace, &registration.spec.service_name) =>
            {
                Err(Error::Cleanup(Fault::new(Reason::ServiceRefused, why)))
            }
            _ => Ok(Cleanup::Done),
        }
    }

    fn forget(&self, uid: &str) {
        self.held.forget(uid);
        if let Some(name) = self.known.forget(uid) {
            self.wake_heirs(&name, uid);
        }
    }

    fn on_leadership_lost(&self) {
        self.held.clear();
        self.known.clear();
        self.coalescer.clear();
    }
}
