//! `/v1/discovery`: the registered instances of a service, the least loaded one first.

mod filter;
mod openapi;
mod watch;

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    sync::Arc,
};

use axum::{
    Extension, Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures::Stream;
use kube::{Resource, ResourceExt, core::SelectorExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    CallDeps,
    access_log::CallRecord,
    call_guard::{CallCounters, CallGuard},
    family::{Route, RouteFamily},
    problem::{Problem, ProblemKind},
    routes::Names,
};
use crate::{
    api::{ConditionType, Kind, v1alpha1::ServiceRegistration},
    cluster::{object_cache::ObjectCache, review::Permission},
};
use filter::{Filter, parsed};
use watch::Watcher;

/// The name in RBAC is that of the service.
const GET: Permission = Permission { kind: Kind::ServiceRegistration, subresource: None, verb: "get" };

static ROUTES: [Route; 2] = [FIND, WATCH];

const FIND: Route =
    Route { path: "/v1/discovery/{namespace}/{service}", permission: GET, operations: openapi::find };

const WATCH: Route =
    Route { path: "/v1/discovery/{namespace}/{service}/watch", permission: GET, operations: openapi::watch };

/// The routes of ServiceRegistrations.
pub(super) struct Family {
    deps: Arc<CallDeps>,
    registrations: ObjectCache<ServiceRegistration>,
}

impl RouteFamily for Family {
    fn routes() -> &'static [Route] {
        &ROUTES
    }

    fn schemas() -> Value {
        openapi::schemas()
    }

    fn router(self: Arc<Self>) -> Router {
        Router::new().route(FIND.path, get(find)).route(WATCH.path, get(watch)).with_state(self)
    }

    fn evict(&self) {
        let registrations = self.registrations.all();
        let services = registrations.iter().filter_map(|guard| {
            let it = guard.0.as_ref().ok()?;
            Some((it.meta().namespace.as_deref()?, it.spec.service_name.as_str()))
        });
        let services: HashSet<_> = services.collect();
        let exists = |namespace: &str, service: &str| services.contains(&(namespace, service));
        self.deps.metrics.gateway.retain(Kind::ServiceRegistration, exists);
    }
}

/// An instance as callers see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    #[serde(rename = "instanceId")]
    id: String,
    addresses: Vec<String>,
    ports: Vec<Port>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    weight: u16,
    labels: BTreeMap<String, String>,
    healthy: bool,
    draining: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: String,
    #[serde(rename = "port")]
    number: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_protocol: Option<String>,
}

/// Lists the instances.
async fn find(
    State(family): State<Arc<Family>>,
    Names((namespace, service)): Names<(String, String)>,
    Extension(record): Extension<CallRecord>,
    filter: Result<Query<Filter>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    family.admit(&FIND, "find", (&namespace, &service), &headers, record).await?;
    let instances = family.instances(&namespace, &service, &parsed(filter)?);
    if instances.is_empty() && !family.is_registered(&namespace, &service) {
        let detail =
            format!("no instance of the service {service} is registered in the namespace {namespace}");
        return Err(Problem::new(ProblemKind::ServiceNotFound, detail));
    }
    Ok(Json(json!({ "service": service, "instances": instances })))
}

/// Reports every change, beginning with the current instances: `register`, `deregister` and `health_change`.
async fn watch(
    State(family): State<Arc<Family>>,
    Names((namespace, service)): Names<(String, String)>,
    Extension(record): Extension<CallRecord>,
    filter: Result<Query<Filter>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    family.admit(&WATCH, "watch", (&namespace, &service), &headers, record).await?;
    // An instance that becomes unhealthy is reported, so it must not be filtered out.
    let filter = Filter { healthy: false, ..parsed(filter)? };
    let watcher = Watcher::new(family, namespace, service, filter, headers);
    Ok(Sse::new(watcher.events()).keep_alive(KeepAlive::default()))
}

impl Family {
    pub(super) fn new(deps: &Arc<CallDeps>, registrations: &ObjectCache<ServiceRegistration>) -> Self {
        Self { deps: Arc::clone(deps), registrations: registrations.clone() }
    }

    /// Admits a call, and counts it for a service that is registered.
    async fn admit(
        &self,
        route: &Route,
        operation: &'static str,
        (namespace, service): (&str, &str),
        headers: &HeaderMap,
        record: CallRecord,
    ) -> Result<(), Problem> {
        let reviewer = &self.deps.reviewer;
        let mut guard = CallGuard::admit(reviewer, route, (namespace, service), headers, record).await?;
        if self.is_registered(namespace, service) {
            let calls = self.deps.metrics.gateway.calls(Kind::ServiceRegistration, namespace, service);
            guard.count(&CallCounters { calls: calls.into(), tally: None }, operation);
        }
        Ok(())
    }

    fn is_registered(&self, namespace: &str, service: &str) -> bool {
        let all = self.registrations.all_in(namespace);
        all.iter().any(|guard| guard.0.as_ref().is_ok_and(|it| it.spec.service_name == service))
    }

    /// By load, those without one last; then by weight, the heavier first.
    fn instances(&self, namespace: &str, service: &str, filter: &Filter) -> Vec<Instance> {
        let all = self.registrations.all_in(namespace);
        let registered = all.iter().filter_map(|guard| guard.0.as_ref().ok());
        let accepted = registered.filter(|it| it.spec.service_name == service && is_accepted(it));
        let mut accepted: Vec<_> = accepted.collect();
        // Of several objects with one id the oldest has it, and none that is being deleted while there is another one.
        let age = |it: &ServiceRegistration| {
            (it.meta().deletion_timestamp.is_some(), it.creation_timestamp(), it.uid())
        };
        accepted.sort_by_cached_key(|it| age(it));
        let mut ids = HashSet::new();
        accepted.retain(|it| ids.insert(it.spec.instance_id.as_str()));
        let mut instances: Vec<_> = accepted
            .into_iter()
            .filter(|it| filter.selector.matches(&it.spec.labels))
            .filter(|it| filter.zone.is_none() || filter.zone == it.spec.zone)
            .map(Instance::new)
            .filter(|it| !filter.healthy || it.healthy && !it.draining)
            .collect();
        instances.sort_by(|one, other| {
            let load = |it: &Instance| it.load.unwrap_or(f64::INFINITY);
            load(one)
                .total_cmp(&load(other))
                .then(other.weight.cmp(&one.weight))
                .then_with(|| one.id.cmp(&other.id))
        });
        instances
    }
}

/// The younger of two objects with one instance id is not accepted.
fn is_accepted(registration: &ServiceRegistration) -> bool {
    let status = registration.status.as_ref();
    let accepted = status.and_then(|status| status.common.condition(ConditionType::Accepted));
    accepted.is_none_or(|accepted| accepted.status != "False")
}

impl Instance {
    fn new(registration: &ServiceRegistration) -> Self {
        let (spec, status) = (&registration.spec, registration.status.as_ref());
        let endpoints = status.map(|status| status.common.endpoints.as_slice()).unwrap_or_default();
        let healthy = endpoints.iter().any(|endpoint| endpoint.ready);
        // Once an address is healthy only healthy ones; before, all that are declared.
        let ready =
            |address: &&String| !healthy || endpoints.iter().any(|it| it.ready && it.address == **address);
        Self {
            id: spec.instance_id.clone(),
            addresses: spec.addresses.iter().filter(ready).cloned().collect(),
            ports: spec
                .ports
                .iter()
                .map(|port| Port {
                    name: port.name.clone(),
                    number: port.port,
                    app_protocol: port.app_protocol.clone(),
                })
                .collect(),
            zone: spec.zone.clone(),
            weight: spec.weight,
            labels: spec.labels.clone(),
            healthy,
            draining: spec.drain || registration.metadata.deletion_timestamp.is_some(),
            load: status.and_then(|status| status.load.as_ref()?.parse().ok()),
        }
    }
}
