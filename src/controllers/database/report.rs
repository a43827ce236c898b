//! What users read of the observed servers.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;

use super::{ProbeTarget, TargetObservation};
use crate::{
    api::{
        ConditionType, Reason,
        v1alpha1::{
            Database,
            database::{DatabaseStatus, Engine, InvalidQuery, PoolStatus, ServerStatus, TlsStatus},
        },
    },
    backends::database::Role,
    controllers::{
        Report, discovery::EndpointTarget, external_api::CERTIFICATE_HORIZON, targets::ObservedTarget,
    },
    domain::{
        conditions::{ConditionUpdate, advise},
        endpoint_slices::Port,
        latency::millis,
    },
};

/// Fills in the role of each server. Until this process has been there, the role that an earlier one has found holds.
pub(super) fn set_roles(observed: &mut TargetObservation, database: &Database) {
    let before = database.status.as_ref().filter(|before| observed.is_of(&before.common));
    for (index, target) in observed.targets.iter_mut().enumerate() {
        let earlier = || before?.common.endpoints.get(index)?.role.clone();
        target.status.role = match target.facts() {
            Some(facts) => Some(facts.server.role.as_str().to_owned()),
            None => earlier(),
        };
    }
}

/// What users read of the servers; `saturated`: whether the pool of a gateway is exhausted.
pub(super) async fn report(
    observed: &TargetObservation,
    database: &Database,
    saturated: bool,
) -> Report<DatabaseStatus> {
    // What is known of other servers says nothing of these.
    let before = database.status.as_ref().filter(|before| observed.is_of(&before.common));
    let mut report = observed.report(database);
    if let Some(options) = ignored_options(observed)
        && let Some(resolved) = report.conditions.iter_mut().find(|it| it.kind == ConditionType::ResolvedRefs)
    {
        resolved.message = format!("{}; ignored options of the URI: {options}", resolved.message);
    }
    let room = pool_condition(observed, saturated);
    if room.holds == Some(false) {
        report.degrade(room.reason, POOL_EXHAUSTED);
    }
    report.conditions.push(room);
    let status = &mut report.status;
    // While nothing answers, what was known last stays: the conditions say that it is down.
    let preferred = preferred(observed);
    let shown = preferred.or(observed.targets.first());
    let server = shown.and_then(server);
    let replaced = replaced(observed, server.as_ref(), before);
    status.server = server.or_else(|| before.and_then(|status| status.server.clone()));
    status.tls = certificates(observed, before);
    status.pool = shown.map(pool);
    status.invalid_queries = invalid_queries(preferred, database, before).await;

    let queries: Vec<_> = status.invalid_queries.iter().map(|query| query.name.as_str()).collect();
    if !queries.is_empty() {
        let message = format!("queries that cannot be prepared: {}", queries.join(", "));
        report.degrade(Reason::QueryInvalid, &message);
    }
    warn_of_expiry(&mut report);
    if let Some(message) = replaced {
        report.degrade(Reason::ServerReplaced, message);
        // For one reconcile: the next one compares with the new identity.
        report.requeue_within(observed.schedule.interval);
    }
    report
}

/// The names of the URI's options that are ignored.
fn ignored_options(observed: &TargetObservation) -> Option<String> {
    let ignored = &observed.targets.first()?.settings.settings.ignored_options;
    (!ignored.is_empty()).then(|| ignored.join(", "))
}

fn certificates(observed: &TargetObservation, before: Option<&DatabaseStatus>) -> Option<TlsStatus> {
    let settings = &observed.targets.first()?.settings.settings;
    // Until this process has connected to every server that works, what an earlier one has seen holds.
    let unseen = observed.targets.iter().any(|target| target.works() && target.facts().is_none());
    let before =
        before.filter(|_| unseen).and_then(|before| Some(before.tls.as_ref()?.not_after.as_ref()?.0));
    let expiries = observed.targets.iter().filter_map(|target| target.facts()?.server.not_after);
    let tls = TlsStatus {
        not_after: expiries.chain(before).min().map(Time),
        client_not_after: settings.tls.client_not_after().map(Time),
    };
    (tls != TlsStatus::default()).then_some(tls)
}

/// How often it is checked whether a certificate expires soon.
const EXPIRY_INTERVAL: Duration = Duration::from_hours(24);

fn warn_of_expiry(report: &mut Report<DatabaseStatus>) {
    let Some(tls) = report.status.tls.clone() else { return };
    for (what, time) in
        [("a server certificate", tls.not_after), ("the client certificate", tls.client_not_after)]
    {
        let Some(time) = time else { continue };
        if time.0 < Timestamp::now() + CERTIFICATE_HORIZON {
            let detail = format!("{what} expires at {:.0}", time.0);
            report.degrade(Reason::CertificateExpiringSoon, &detail);
        } else {
            // Nothing else triggers a reconcile when the expiry comes near.
            report.requeue_within(EXPIRY_INTERVAL);
        }
    }
}

/// The servers as they are to be published. Whoever writes must not end at a server that only follows another one, so such a
/// server is ready only while none is known as a primary, be it dead or alive.
pub(super) fn endpoint_targets(observed: &TargetObservation) -> Vec<EndpointTarget> {
    let primary_known = observed.targets.iter().any(|target| has_role(target, Role::Primary));
    let each = observed.targets.iter().map(|target| {
        let settings = &target.settings.settings;
        EndpointTarget {
            host: settings.host.clone(),
            port: Port {
                name: settings.engine.as_str().to_owned(),
                port: settings.port,
                app_protocol: Some(settings.engine.as_str().to_owned()),
            },
            healthy: target.works() && !(primary_known && has_role(target, Role::Replica)),
            zone: None,
        }
    });
    each.collect()
}

/// Whether the server is known to have this role.
pub(super) fn has_role(target: &ObservedTarget<ProbeTarget>, role: Role) -> bool {
    target.status.role.as_deref() == Some(role.as_str())
}

/// The server to show and to hand out: a primary that works, else any that works.
pub(super) fn preferred(observed: &TargetObservation) -> Option<&ObservedTarget<ProbeTarget>> {
    let working = || observed.targets.iter().filter(|target| target.works());
    working().find(|target| has_role(target, Role::Primary)).or_else(|| working().next())
}

/// Whether the server is another one than before; of several, one takes over from another without being new.
fn replaced(
    observed: &TargetObservation,
    now: Option<&ServerStatus>,
    before: Option<&DatabaseStatus>,
) -> Option<&'static str> {
    let before = before?.server.as_ref()?.identity.as_ref()?;
    let now = now?.identity.as_ref()?;
    match observed.targets.as_slice() {
        [only] if before != now && only.settings.settings.engine == Engine::Redis => {
            Some("the server was restarted or replaced, and data that it did not persist is lost")
        }
        [_] if before != now => Some("another server answers at the same address"),
        _ => None,
    }
}

fn server(target: &ObservedTarget<ProbeTarget>) -> Option<ServerStatus> {
    let server = &target.facts()?.server;
    Some(ServerStatus {
        version: server.version.clone(),
        role: server.role.as_str().to_owned(),
        mode: server.clustered.then(|| "Cluster".to_owned()),
        tls: target.settings.settings.tls.enabled(),
        identity: server.identity.clone(),
    })
}

fn pool(target: &ObservedTarget<ProbeTarget>) -> PoolStatus {
    let view = target.member.target().pool();
    PoolStatus {
        summary: format!("{}/{}", view.size, view.max),
        size: view.size,
        idle: view.idle,
        in_use: view.size.saturating_sub(view.idle),
        waiting: view.waiting,
        acquire_p95_ms: millis(view.acquire_p95),
    }
}

const POOL_EXHAUSTED: &str = "connection pool exhausted; callers are waiting";

fn pool_condition(observed: &TargetObservation, elsewhere: bool) -> ConditionUpdate {
    let saturated =
        |target: &ObservedTarget<ProbeTarget>| target.facts().is_some_and(|facts| facts.saturated);
    if elsewhere || observed.targets.iter().any(saturated) {
        let message = advise(Reason::PoolSaturated, POOL_EXHAUSTED);
        ConditionUpdate::is_false(ConditionType::PoolHealthy, Reason::PoolSaturated, message)
    } else if observed.targets.iter().any(ObservedTarget::works) {
        let message = "callers get a connection without waiting";
        ConditionUpdate::is_true(ConditionType::PoolHealthy, Reason::WithinBounds, message)
    } else {
        ConditionUpdate::unknown(ConditionType::PoolHealthy, Reason::Pending, "not connected")
    }
}

async fn invalid_queries(
    preferred: Option<&ObservedTarget<ProbeTarget>>,
    database: &Database,
    before: Option<&DatabaseStatus>,
) -> Vec<InvalidQuery> {
    let Some(target) = preferred else { return Vec::new() };
    // It is healthy by what an earlier process knew, and may be silent now; of other queries nothing is known.
    if target.facts().is_none() {
        let before = before.filter(|it| it.common.observed_generation == database.meta().generation);
        return before.map(|before| before.invalid_queries.clone()).unwrap_or_default();
    }
    let checks = target.member.target().check(&database.spec.queries).await;
    checks.into_iter().map(|(name, fault)| InvalidQuery { name, message: fault.message() }).collect()
}
