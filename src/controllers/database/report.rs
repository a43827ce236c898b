//! What users read of one look at the servers.

use kube::Resource;

use super::{Facts, ProbeTarget, TargetObservation};
use crate::{
    api::{
        ConditionType, Reason,
        status::EndpointStatus,
        v1alpha1::{
            Database,
            database::{DatabaseStatus, Engine, InvalidQuery, PoolStatus, ServerStatus},
        },
    },
    backends::database::Role,
    controllers::{Report, discovery::Site, targets::works},
    domain::{
        conditions::{ConditionUpdate, advise},
        endpoint_slices::Port,
        latency::millis,
    },
    probing::Observation,
};

/// What users read of it; `saturated`: whether the pool of a gateway has no room for callers.
pub async fn report(
    look: &TargetObservation,
    database: &Database,
    saturated: bool,
) -> Report<DatabaseStatus> {
    // What is known of other servers says nothing of these.
    let before = database.status.as_ref().filter(|before| look.is_of(&before.common));
    let mut report = look.report(database);
    let room = pool_verdict(look, saturated);
    if room.holds == Some(false) {
        report.degrade(room.reason, LENT);
    }
    report.verdicts.push(room);
    let status = &mut report.status;
    for (index, (endpoint, seen)) in status.common.endpoints.iter_mut().zip(&look.observations).enumerate() {
        // Until this process has been there, what an earlier one has found holds.
        let earlier = || before?.common.endpoints.get(index)?.role.clone();
        let found = seen.facts.as_ref().map(|facts| facts.server.role.as_str().to_owned());
        endpoint.role = found.or_else(earlier);
    }
    // While nothing answers, what was known last stays: the conditions say that it is down.
    let chosen = chosen(&status.common.endpoints);
    let server = server(look, chosen);
    let replaced = replaced(look, server.as_ref(), before);
    status.server = server.or_else(|| before.and_then(|status| status.server.clone()));
    status.pool = pool(look, chosen);
    status.invalid_queries = invalid_queries(look, chosen, database, before).await;

    let queries: Vec<_> = status.invalid_queries.iter().map(|query| query.name.as_str()).collect();
    if !queries.is_empty() {
        let message = format!("cannot be prepared: {}", queries.join(", "));
        report.degrade(Reason::QueryInvalid, &message);
    }
    if let Some(message) = replaced {
        report.degrade(Reason::ServerReplaced, message);
        // For one pass: the next one compares with the new identity.
        report.requeue_within(look.resolved.schedule.interval);
    }
    report
}

/// The servers as they are to be registered; `told` is the status of each. Whoever writes must not end at a server that only
/// follows another one, so such a server is ready only while none is known as a primary, be it dead or alive.
pub(super) fn sites(look: &TargetObservation, told: &[EndpointStatus]) -> Vec<Site> {
    let primary_known = told.iter().any(|told| is(told, Role::Primary));
    let named = look.resolved.targets.iter().zip(told);
    named
        .map(|(ProbeTarget { settings, .. }, told)| Site {
            host: settings.host.clone(),
            port: Port {
                name: settings.engine.as_str().to_owned(),
                port: settings.port,
                app_protocol: Some(settings.engine.as_str().to_owned()),
            },
            healthy: told.ready && !(primary_known && is(told, Role::Replica)),
            zone: None,
        })
        .collect()
}

/// Whether the server is known to have this role.
pub(super) fn is(told: &EndpointStatus, role: Role) -> bool {
    told.role.as_deref() == Some(role.as_str())
}

/// The index of the server to show: a primary that works, else any that works.
pub(super) fn chosen(told: &[EndpointStatus]) -> Option<usize> {
    let working = || told.iter().enumerate().filter(|(_, told)| told.ready);
    let primary = working().find(|(_, told)| is(told, Role::Primary));
    primary.or_else(|| working().next()).map(|(index, _)| index)
}

/// Whether the server is another one than before; of several, one takes over from another without being new.
fn replaced(
    look: &TargetObservation,
    now: Option<&ServerStatus>,
    before: Option<&DatabaseStatus>,
) -> Option<&'static str> {
    let before = before?.server.as_ref()?.identity.as_ref()?;
    let now = now?.identity.as_ref()?;
    match look.resolved.targets.as_slice() {
        [only] if before != now && only.settings.engine == Engine::Redis => {
            Some("the server was started anew or replaced, and what it did not persist is lost")
        }
        [_] if before != now => Some("another server answers at the same address"),
        _ => None,
    }
}

fn server(look: &TargetObservation, chosen: Option<usize>) -> Option<ServerStatus> {
    let index = chosen.unwrap_or(0);
    let facts = look.observations.get(index)?.facts.as_ref()?;
    Some(ServerStatus {
        version: facts.server.version.clone(),
        role: facts.server.role.as_str().to_owned(),
        tls: look.resolved.targets.get(index)?.settings.tls.enabled(),
        identity: facts.server.identity.clone(),
    })
}

fn pool(look: &TargetObservation, chosen: Option<usize>) -> Option<PoolStatus> {
    let view = look.members.get(chosen.unwrap_or(0))?.target().pool();
    Some(PoolStatus {
        summary: format!("{}/{}", view.size, view.max),
        size: view.size,
        idle: view.idle,
        in_use: view.size.saturating_sub(view.idle),
        waiting: view.waiting,
        acquire_p95_ms: millis(view.acquire_p95),
    })
}

const LENT: &str = "every connection is lent, and callers wait";

fn pool_verdict(look: &TargetObservation, elsewhere: bool) -> ConditionUpdate {
    let saturated = |seen: &Observation<Facts>| seen.facts.as_ref().is_some_and(|facts| facts.saturated);
    if elsewhere || look.observations.iter().any(saturated) {
        let message = advise(Reason::PoolSaturated, LENT);
        ConditionUpdate::is_false(ConditionType::PoolHealthy, Reason::PoolSaturated, message)
    } else if look.observations.iter().any(works) {
        ConditionUpdate::is_true(
            ConditionType::PoolHealthy,
            Reason::WithinBounds,
            "callers get a connection at once",
        )
    } else {
        ConditionUpdate::unknown(ConditionType::PoolHealthy, Reason::Pending, "there is no connection")
    }
}

async fn invalid_queries(
    look: &TargetObservation,
    chosen: Option<usize>,
    database: &Database,
    before: Option<&DatabaseStatus>,
) -> Vec<InvalidQuery> {
    let working = |index| look.members.get(index).zip(look.observations.get(index));
    let Some((member, seen)) = chosen.and_then(working) else { return Vec::new() };
    // It is well by what an earlier process knew, and may be silent now; of other queries nothing is known.
    if seen.facts.is_none() {
        let before = before.filter(|it| it.common.observed_generation == database.meta().generation);
        return before.map(|before| before.invalid_queries.clone()).unwrap_or_default();
    }
    let checks = member.target().check(&database.spec.queries).await;
    checks.into_iter().map(|(name, fault)| InvalidQuery { name, message: fault.message() }).collect()
}
