//! `/v1/discovery`: the instances of a service, as they are registered, the least loaded one first.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    time::Duration,
};

use axum::{
    Json,
    extract::{Path, Query},
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, stream};
use kube::{
    Resource, ResourceExt,
    core::{Expression, Selector, SelectorExt},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Gateway, State,
    access_log::CallRecord,
    problem::{Kind, Problem},
};
use crate::{
    api::{ConditionType, v1alpha1::ServiceRegistration},
    cluster::review::Permission,
};

/// How often the permission of a caller that watches is looked up, beyond what is remembered of it.
const REVIEW: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// As `kubectl` takes it: `version=2,!canary`.
    selector: Option<String>,
    /// Only instances there.
    zone: Option<String>,
    /// Only those whose probes pass, and that are not drained.
    #[serde(default = "yes")]
    healthy: bool,
}

fn yes() -> bool {
    true
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

type Names = Path<(String, String)>;

/// Lists the instances.
pub(super) async fn find(
    state: State,
    Path((namespace, service)): Names,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let mut record = CallRecord::default();
    let found = async {
        state.0.admit_to("find", (&namespace, &service), &headers, &mut record).await?;
        let (asked, selector) = understand(asked)?;
        let instances = state.0.instances(&namespace, &service, &asked, &selector);
        if instances.is_empty() && !state.0.is_registered(&namespace, &service) {
            let detail =
                format!("no instance of the service {service} is registered in the namespace {namespace}");
            return Err(Problem::new(Kind::ServiceNotFound, detail));
        }
        Ok(Json(serde_json::json!({ "service": service, "instances": instances })))
    };
    let mut response = found.await.into_response();
    response.extensions_mut().insert(record);
    response
}

/// Tells of every change, beginning with what is there: `register`, `deregister` and `health_change`.
pub(super) async fn watch(
    state: State,
    Path((namespace, service)): Names,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let mut record = CallRecord::default();
    let begun = async {
        state.0.admit_to("watch", (&namespace, &service), &headers, &mut record).await?;
        let (mut asked, selector) = understand(asked)?;
        // What becomes unhealthy is told of, so it must not vanish from view.
        asked.healthy = false;
        let watcher = Watcher {
            changes: state.0.registrations.changes(),
            state: state.clone(),
            headers,
            admitted: Instant::now(),
            known: BTreeMap::new(),
            pending: Vec::new(),
            first: true,
            namespace,
            service,
            asked,
            selector,
        };
        Ok::<_, Problem>(Sse::new(watcher.events()).keep_alive(KeepAlive::default()))
    };
    let mut response = begun.await.into_response();
    response.extensions_mut().insert(record);
    response
}

fn understand(
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<(Asked, Selector), Problem> {
    let bad = |detail: String| Problem::new(Kind::BadRequest, detail);
    let Query(asked) =
        asked.map_err(|error| bad(format!("the query cannot be read: {}", error.body_text())))?;
    let selector = selector(asked.selector.as_deref().unwrap_or_default()).map_err(bad)?;
    Ok((asked, selector))
}

/// The equality-based form of Kubernetes' selectors.
fn selector(text: &str) -> Result<Selector, String> {
    let name = |name: &str| {
        let name = name.trim();
        let good = !name.is_empty() && !name.contains([' ', '(', ')', '!', '=']);
        good.then(|| name.to_owned()).ok_or_else(|| {
            format!("{name} is no label: write selectors such as version=2,tier!=test,canary,!old")
        })
    };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let expressions = parts.map(|part| {
        Ok(if let Some((key, value)) = part.split_once("!=") {
            Expression::NotEqual(name(key)?, value.trim().to_owned())
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            Expression::Equal(name(key)?, value.trim().to_owned())
        } else if let Some(key) = part.strip_prefix('!') {
            Expression::DoesNotExist(name(key)?)
        } else {
            Expression::Exists(name(part)?)
        })
    });
    expressions.collect::<Result<_, String>>()
}

fn permission<'a>(namespace: &'a str, service: &'a str) -> Permission<'a> {
    Permission { verb: "get", resource: "serviceregistrations", subresource: None, namespace, name: service }
}

impl Gateway {
    /// Lets a caller in that may do this.
    async fn admit_to(
        &self,
        operation: &'static str,
        (namespace, service): (&str, &str),
        headers: &HeaderMap,
        record: &mut CallRecord,
    ) -> Result<(), Problem> {
        record.by = Some(self.admit(headers, &permission(namespace, service)).await?);
        if self.is_registered(namespace, service) {
            let calls = self.metrics.gateway.calls("ServiceRegistration", namespace, service);
            record.found = Some((calls.into(), operation.into()));
        }
        Ok(())
    }

    fn is_registered(&self, namespace: &str, service: &str) -> bool {
        let all = self.registrations.all_in(namespace);
        all.iter().any(|guard| guard.0.as_ref().is_ok_and(|it| it.spec.service_name == service))
    }

    /// By load, those that say none last; then by weight, the heavier first.
    fn instances(&self, namespace: &str, service: &str, asked: &Asked, selector: &Selector) -> Vec<Instance> {
        let all = self.registrations.all_in(namespace);
        let registered = all.iter().filter_map(|guard| guard.0.as_ref().ok());
        let wanted = registered.filter(|it| it.spec.service_name == service && is_accepted(it));
        let mut wanted: Vec<_> = wanted.collect();
        // Of several objects with one id the oldest has it, and none that goes while another one is there.
        let age = |it: &ServiceRegistration| {
            (it.meta().deletion_timestamp.is_some(), it.creation_timestamp(), it.uid())
        };
        wanted.sort_by_cached_key(|it| age(it));
        let mut ids = HashSet::new();
        wanted.retain(|it| ids.insert(it.spec.instance_id.as_str()));
        let mut instances: Vec<_> = wanted
            .into_iter()
            .filter(|it| selector.matches(&it.spec.labels))
            .filter(|it| asked.zone.is_none() || asked.zone == it.spec.zone)
            .map(Instance::of)
            .filter(|it| !asked.healthy || it.healthy && !it.draining)
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

/// The younger of two objects with one instance id is none.
fn is_accepted(registration: &ServiceRegistration) -> bool {
    let status = registration.status.as_ref();
    let accepted = status.and_then(|status| status.common.condition(ConditionType::Accepted));
    accepted.is_none_or(|accepted| accepted.status != "False")
}

impl Instance {
    fn of(registration: &ServiceRegistration) -> Self {
        let (spec, status) = (&registration.spec, registration.status.as_ref());
        let endpoints = status.map(|status| status.common.endpoints.as_slice()).unwrap_or_default();
        let healthy = endpoints.iter().any(|endpoint| endpoint.ready);
        // ReplayableBody something is healthy, only that; before, all that is declared.
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

/// One caller that watches a service.
struct Watcher {
    state: State,
    namespace: String,
    service: String,
    asked: Asked,
    selector: Selector,
    headers: HeaderMap,
    admitted: Instant,
    changes: crate::cluster::object_cache::CacheChanges,
    known: BTreeMap<String, Instance>,
    pending: Vec<Event>,
    first: bool,
}

impl Watcher {
    /// Ends with the process, or when the caller's permission does.
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut watcher| async {
            loop {
                if !watcher.pending.is_empty() {
                    let event = watcher.pending.remove(0);
                    return Some((Ok(event), watcher));
                }
                if !watcher.next().await {
                    return None;
                }
                watcher.compare();
            }
        })
    }

    /// Waits for a change; false at the end.
    async fn next(&mut self) -> bool {
        if std::mem::take(&mut self.first) {
            return true;
        }
        loop {
            let review = self.admitted + REVIEW;
            tokio::select! {
                () = self.state.0.stopping.cancelled() => return false,
                () = self.changes.next() => return true,
                () = tokio::time::sleep_until(review) => {
                    self.admitted = Instant::now();
                    // Known rights serve on while the API server is away, for as long as they may.
                    if self.state.0.admit(&self.headers, &permission(&self.namespace, &self.service)).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    fn compare(&mut self) {
        let now = self.state.0.instances(&self.namespace, &self.service, &self.asked, &self.selector);
        let now: BTreeMap<_, _> = now.into_iter().map(|it| (it.id.clone(), it)).collect();
        for (id, instance) in &now {
            let serves = |it: &Instance| it.healthy && !it.draining;
            match self.known.get(id) {
                None => self.tell("register", instance),
                Some(before) if serves(before) != serves(instance) => self.tell("health_change", instance),
                // To those who choose among the instances and call them, that is another one.
                Some(before) if declared(before) != declared(instance) => self.tell("register", instance),
                Some(_) => {}
            }
        }
        let gone: Vec<_> = self.known.values().filter(|it| !now.contains_key(&it.id)).cloned().collect();
        for instance in gone {
            self.tell("deregister", &instance);
        }
        self.known = now;
    }

    fn tell(&mut self, what: &str, instance: &Instance) {
        // An instance is always JSON.
        self.pending.extend(Event::default().event(what).json_data(instance).ok());
    }
}

/// What is declared of an instance, be it where it is or what it is chosen by. Not the load, which changes all the time.
fn declared(it: &Instance) -> impl PartialEq {
    (&it.addresses, &it.ports, &it.zone, it.weight, &it.labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_read_as_kubectl_reads_it() {
        let labels =
            BTreeMap::from([("version", "2"), ("tier", "prod")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let matches = |text: &str| selector(text).expect(text).matches(&labels);
        assert!(
            matches("")
                && matches("version=2")
                && matches("version==2, tier!=test")
                && matches("tier,!canary")
        );
        assert!(
            !matches("version=1")
                && !matches("canary")
                && !matches("!tier")
                && !matches("tier=prod,version=3")
        );
        assert!(selector("version in (1)").is_err() && selector("=2").is_err());
    }
}
