//! `ServiceRegistration`: resolve -> connect -> observe -> decide -> act -> report. All registrations of one service share one
//! Service: any of their reconciles sees to all of it.

mod instance_cache;
mod report;
mod service;
mod target;

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;

use super::{
    Error, Finalized, ObjectIndex, ObserveContext, ReconcileContext, Reconciler, ReconcilerDeps, Report,
    coalescer::Coalescer,
    discovery::endpoint_targets::{RETRY_INTERVAL, carry_over_registered, resolve_hosts},
    targets::{Member, TargetSets},
};
use crate::{
    api::{
        Reason,
        shared::Reference,
        status::ServiceStatus,
        v1alpha1::{
            ServiceRegistration, external_api::CheckType, service_registration::ServiceRegistrationStatus,
        },
    },
    backends::{Fault, http::Egress},
    cluster::service_publisher::PublishOutcome,
    domain::instances::Stage,
    resolving,
};
use instance_cache::{InstanceAddress, InstanceCache, InstanceName};
use service::ServiceOutcome;

pub use target::{AddressProbe, ProbeTarget};

/// The controller of `ServiceRegistration`.
pub struct Controller {
    targets: TargetSets<ProbeTarget>,
    egress: Egress,
    indexes: Mutex<Vec<Arc<ObjectIndex<ServiceRegistration>>>>,
    instances: InstanceCache,
    /// By namespace and service.
    coalescer: Coalescer<(String, String), ServiceOutcome>,
}

/// An instance as it was observed.
struct Observed {
    /// What users read of it.
    report: Report<ServiceRegistrationStatus>,
    /// For each address the membership in its monitor; none, where nothing is probed.
    members: Vec<Option<Member<ProbeTarget>>>,
}

impl Controller {
    /// No objects yet.
    #[must_use]
    pub fn new(deps: &ReconcilerDeps) -> Self {
        Self {
            targets: TargetSets::new(Self::NAME, Arc::clone(&deps.metrics)),
            egress: deps.instance_egress.clone(),
            indexes: Mutex::default(),
            instances: InstanceCache::default(),
            coalescer: Coalescer::default(),
        }
    }

    async fn observe_instance(
        &self,
        registration: &ServiceRegistration,
        cx: &ObserveContext<'_>,
    ) -> Result<Observed, Error> {
        if registration.spec.health_check.check_type == CheckType::None {
            self.targets.forget(&registration.uid().unwrap_or_default());
            let members = registration.spec.addresses.iter().map(|_| None).collect();
            return Ok(Observed { report: report::unprobed(registration), members });
        }
        let resolved = resolving::service_registration::resolve(registration).map_err(Error::from);
        let target = |settings| {
            let (load, egress) = (registration.spec.load.clone(), self.egress.clone());
            ProbeTarget { settings, load, egress }
        };
        let resolved = resolved.map(|resolved| resolved.map(target));
        let observed = self.targets.observe(registration, resolved, cx.requeue).await?;
        let report = report::probed(&observed, registration);
        let members = observed.targets.into_iter().map(|target| Some(target.member)).collect();
        Ok(Observed { report, members })
    }

    /// Resolves the addresses of the instance, and makes the Service route to them.
    async fn register(
        &self,
        registration: &ServiceRegistration,
        observed: Observed,
        cx: &ReconcileContext,
    ) -> Result<Report<ServiceRegistrationStatus>, Error> {
        let Observed { mut report, members } = observed;
        let (hosts, service) = (&registration.spec.addresses, &registration.spec.service_name);
        let mut resolved = resolve_hosts(hosts.iter().map(String::as_str), cx).await;
        for (host, addresses) in hosts.iter().zip(&mut resolved.addresses) {
            // While no DNS server answers, the last addresses stay, be it that an earlier process knew them.
            *addresses = addresses.take().or_else(|| instance_cache::resolved(registration, host));
        }
        report.status.resolved = report::resolved(hosts, &resolved.addresses);
        let addresses = resolved.addresses.iter().map(|addresses| addresses.clone().unwrap_or_default());
        let addresses =
            addresses.zip(members).map(|(addresses, member)| InstanceAddress { addresses, member });
        let uid = registration.uid().unwrap_or_default();
        self.instances.insert(&uid, InstanceName::of(registration), addresses.collect());

        let ServiceOutcome { outcome, ports } = match self.publish(registration, cx).await {
            Ok(outcome) => outcome,
            Err(error) => {
                carry_over_registered(registration, error, &mut report);
                return Ok(report);
            }
        };
        if let PublishOutcome::Done { next, .. } = &outcome {
            report.status.common.service_ref = Some(ServiceStatus { name: service.clone() });
            if let Some(next) = next {
                report.requeue_within(*next);
            }
        }
        if let Some(valid) = resolved.valid {
            report.requeue_within(valid);
        }
        if resolved.no_dns_answer.is_some() || !matches!(outcome, PublishOutcome::Done { .. }) {
            report.requeue_within(RETRY_INTERVAL);
        }
        let without_port = match outcome {
            PublishOutcome::Done { .. } => report::without_port(registration, &ports),
            PublishOutcome::Conflict(_) | PublishOutcome::Refused(_) => None,
        };
        report.conditions.push(without_port.unwrap_or_else(|| resolved.condition(&outcome, service)));
        Ok(report)
    }

    /// The instance is not registered, or not any more: takes it out of the Service, and reports why.
    async fn refuse(
        &self,
        registration: &ServiceRegistration,
        error: Error,
        cx: &ReconcileContext,
    ) -> Result<Report<ServiceRegistrationStatus>, Error> {
        let uid = registration.uid().unwrap_or_default();
        self.targets.forget(&uid);
        self.instances.insert(&uid, InstanceName::of(registration), Vec::new());
        match self.publish(registration, cx).await {
            Ok(_) => Err(error),
            Err(failure) => Ok(Report { error: Some(failure), ..Report::of_error(registration, error) }),
        }
    }
}

impl Reconciler for Controller {
    type Object = ServiceRegistration;

    const NAME: &'static str = "ServiceRegistration";

    fn coalesces(reference: &Reference) -> bool {
        matches!(reference, Reference::Service(_))
    }

    fn set_index(&self, objects: ObjectIndex<ServiceRegistration>) {
        self.indexes.lock().push(Arc::new(objects));
    }

    async fn observe(
        &self,
        registration: &ServiceRegistration,
        cx: &ObserveContext<'_>,
    ) -> Result<Report<ServiceRegistrationStatus>, Error> {
        Ok(self.observe_instance(registration, cx).await?.report)
    }

    async fn reconcile(
        &self,
        registration: &ServiceRegistration,
        cx: &ReconcileContext,
    ) -> Result<Report<ServiceRegistrationStatus>, Error> {
        if let Some(duplicate) = self.duplicate(registration) {
            return self.refuse(registration, duplicate, cx).await;
        }
        if !self.instances.has(&registration.uid().unwrap_or_default()) {
            // One that is younger may have been here first.
            self.requeue_namesakes(registration);
        }
        match self.observe_instance(registration, &cx.observing()).await {
            Err(error) if error.condition().is_some() => self.refuse(registration, error, cx).await,
            Err(error) => Err(error),
            Ok(observed) => self.register(registration, observed, cx).await,
        }
    }

    async fn reject(&self, namespace: &str, uid: &str, cx: &ReconcileContext) -> Result<(), Error> {
        Ok(cx.publisher.mark_endpoints_not_ready(namespace, uid, &cx.fence).await?)
    }

    /// The endpoints are drained, then go, and then the object does. The instance may be registered anew at once.
    async fn finalize(
        &self,
        registration: &ServiceRegistration,
        cx: &ReconcileContext,
    ) -> Result<Finalized, Error> {
        self.requeue_namesakes(registration);
        let namespace = registration.namespace().unwrap_or_default();
        let stage = self.instance(registration, Timestamp::now()).stage;
        match (self.publish(registration, cx).await?.outcome, stage) {
            (PublishOutcome::Done { .. }, Stage::Terminating(left)) if !left.is_zero() => {
                Ok(Finalized::RequeueAfter(left))
            }
            // Where there is no Service, as in a namespace that is going, there is nothing to drain.
            (PublishOutcome::Refused(why), _)
                if cx.publisher.has(&namespace, &registration.spec.service_name) =>
            {
                Err(Error::Cleanup(Fault::new(Reason::ServiceRefused, why)))
            }
            _ => Ok(Finalized::Done),
        }
    }

    fn forget(&self, uid: &str) {
        self.targets.forget(uid);
        if let Some(name) = self.instances.forget(uid) {
            self.requeue_heirs(&name, uid);
        }
    }

    async fn on_leadership_lost(&self) {
        self.targets.clear();
        self.instances.clear();
        self.coalescer.clear();
    }
}
