//! `/v1/events` accepts events; `/v1/webhooks` tests an endpoint, lists its attempts and replays its deliveries.

mod endpoints;
mod events;
mod openapi;
mod outbox;

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Query, State, rejection::QueryRejection},
    http::{HeaderMap, Request, StatusCode},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    CallDeps,
    access_log::CallRecord,
    call_guard::{CallCounters, CallGuard},
    family::{Route, RouteFamily},
    problem::{Problem, ProblemKind},
    routes::Names,
};
use crate::{
    api::{Kind, v1alpha1::Webhook},
    cluster::{object_cache::ObjectCache, review::Permission},
    delivery::{AcceptError, AcceptedId, Matched, MatchedState, TestError},
    domain::delivery::{outcome::Outcome, scheduler::Uid},
    store::{
        self, ReplicaState,
        delivery::{AttemptFilter, LoggedAttempt, Origin, ReplaySelection},
    },
};
use endpoints::Endpoints;

/// How long the body of a request may take to arrive.
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Attempts on a page: as many as there are unless the caller says otherwise, and at the most.
const PAGE: (u32, u32) = (100, 500);

const fn permission(subresource: &'static str, verb: &'static str) -> Permission {
    Permission { kind: Kind::Webhook, subresource: Some(subresource), verb }
}

static ROUTES: [Route; 4] = [EVENTS, TEST, ATTEMPTS, REPLAY];

/// Of all Webhooks of a namespace: a Role that grants it must not name some of them.
const EVENTS: Route = Route {
    path: "/v1/events/{namespace}",
    permission: permission("trigger", "create"),
    operations: openapi::events,
};

const TEST: Route = Route {
    path: "/v1/webhooks/{namespace}/{name}/test",
    permission: permission("trigger", "create"),
    operations: openapi::test,
};

const ATTEMPTS: Route = Route {
    path: "/v1/webhooks/{namespace}/{name}/attempts",
    permission: permission("attempts", "get"),
    operations: openapi::attempts,
};

const REPLAY: Route = Route {
    path: "/v1/webhooks/{namespace}/{name}/replay",
    permission: permission("replay", "create"),
    operations: openapi::replay,
};

/// The routes of Webhooks.
pub(super) struct Family {
    deps: Arc<CallDeps>,
    endpoints: Endpoints,
}

impl RouteFamily for Family {
    fn routes() -> &'static [Route] {
        &ROUTES
    }

    fn schemas() -> Value {
        openapi::schemas()
    }

    fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(EVENTS.path, post(accept))
            .route(TEST.path, post(test))
            .route(ATTEMPTS.path, get(attempts))
            .route(REPLAY.path, post(replay))
            // Bodies are read by hand, with limits of their own.
            .layer(DefaultBodyLimit::disable())
            .with_state(self)
    }

    fn evict(&self) {
        let exists = |namespace: &str, name: &str| {
            if name.is_empty() {
                self.endpoints.has_any(namespace)
            } else {
                self.endpoints.has(namespace, name)
            }
        };
        self.deps.metrics.gateway.retain(Kind::Webhook, exists);
    }

    fn replica_state(&self, state: &mut ReplicaState) {
        state.webhooks = self.endpoints.loaded_version();
    }
}

/// Accepts events.
async fn accept(
    State(family): State<Arc<Family>>,
    Names(namespace): Names<String>,
    Extension(record): Extension<CallRecord>,
    request: Request<Body>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut guard = family.admit(&EVENTS, (&namespace, ""), request.headers(), record).await?;
    if !family.endpoints.is_loaded() {
        let detail = "the gateway has not read all Webhooks yet";
        return Err(Problem::new(ProblemKind::NotReady, detail).after(std::time::Duration::from_secs(1)));
    }
    if family.endpoints.has_any(&namespace) {
        guard.count(&family.counters(&namespace, ""), "events");
    }
    let (parts, body) = request.into_parts();
    let form = events::Form::of(&parts.headers);
    let body = read(body, form.most()).await?;
    let events = form.parse(&parts.headers, &body, &format!("/namespaces/{namespace}"), Timestamp::now())?;
    let accepted = family.deps.engine.accept(&namespace, events).await?;
    guard.served();
    let conflict = "another event of this source has the same id: nothing was stored";
    match &*accepted {
        [AcceptedId { id: None, .. }] if form != events::Form::Batch => {
            Err(Problem::new(ProblemKind::EventConflict, conflict))
        }
        [one] if form != events::Form::Batch => Ok((StatusCode::ACCEPTED, Json(shown(one)))),
        all => {
            let all: Vec<_> = all.iter().map(shown).collect();
            Ok((StatusCode::ACCEPTED, Json(json!({ "events": all }))))
        }
    }
}

/// Sends an event to one endpoint, and says how that went.
async fn test(
    State(family): State<Arc<Family>>,
    Names((namespace, name)): Names<(String, String)>,
    Extension(record): Extension<CallRecord>,
    request: Request<Body>,
) -> Result<Json<Value>, Problem> {
    let (mut guard, uid) =
        family.begin(&TEST, "test", (&namespace, &name), request.headers(), record).await?;
    let (parts, body) = request.into_parts();
    let form = events::Form::of(&parts.headers);
    let body = match read(body, form.most()).await? {
        empty if empty.is_empty() => Bytes::from_static(events::EXAMPLE.as_bytes()),
        body => body,
    };
    let events = form.parse(&parts.headers, &body, &format!("/namespaces/{namespace}"), Timestamp::now())?;
    let [event] = <[_; 1]>::try_from(events)
        .map_err(|_| Problem::new(ProblemKind::BadRequest, "send one event, or none for an example"))?;
    let report = family.deps.engine.test(&uid, event).await.map_err(|error| match error {
        TestError::Unknown => not_found(&namespace, &name),
        error => Problem::new(ProblemKind::NotReady, format!("the Webhook {name}: {error}")),
    })?;
    guard.served();
    Ok(Json(json!({
        "eventId": report.event_id,
        "outcome": report.outcome.as_str(),
        "status": report.status,
        "durationMs": u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        "detail": report.detail,
        "response": String::from_utf8_lossy(&report.body),
    })))
}

/// Which attempts are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AttemptQuery {
    outcome: Option<String>,
    event_id: Option<String>,
    before: Option<i64>,
    limit: Option<u32>,
}

/// Lists the attempts at an endpoint, the latest first.
async fn attempts(
    State(family): State<Arc<Family>>,
    Names((namespace, name)): Names<(String, String)>,
    Extension(record): Extension<CallRecord>,
    query: Result<Query<AttemptQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let (mut guard, uid) = family.begin(&ATTEMPTS, "attempts", (&namespace, &name), &headers, record).await?;
    let bad = |detail: String| Problem::new(ProblemKind::BadRequest, detail);
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    let outcome = query.outcome.map(|word| {
        let known = Outcome::ALL.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
        Outcome::named(&word).ok_or_else(|| bad(format!("outcome: expected one of {known}")))
    });
    let limit = query.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1);
    let filter =
        AttemptFilter { outcome: outcome.transpose()?, event_id: query.event_id, before: query.before };
    let found = family.deps.store.deliveries().attempts(&uid, &filter, limit).await?;
    guard.served();
    let full = u32::try_from(found.len()).is_ok_and(|found| found == limit);
    let next = found.last().filter(|_| full).map(|last| last.id);
    let attempts: Vec<_> = found.iter().map(attempt).collect();
    Ok(Json(json!({ "attempts": attempts, "next": next })))
}

/// Which deliveries are replayed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ReplayRequest {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    #[serde(default = "yes")]
    only_failed: bool,
    event_id: Option<String>,
}

const fn yes() -> bool {
    true
}

/// Has deliveries of an endpoint made once more.
async fn replay(
    State(family): State<Arc<Family>>,
    Names((namespace, name)): Names<(String, String)>,
    Extension(record): Extension<CallRecord>,
    request: Request<Body>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (mut guard, uid) =
        family.begin(&REPLAY, "replay", (&namespace, &name), request.headers(), record).await?;
    let asked: ReplayRequest = parsed(&read(request.into_body(), 16 << 10).await?)?;
    if asked.since.is_none() && asked.event_id.is_none() {
        let detail = "give since, such as 2026-01-31T12:00:00Z, or eventId";
        return Err(Problem::new(ProblemKind::BadRequest, detail));
    }
    let time = |time: Timestamp| {
        std::time::Duration::from_millis(u64::try_from(time.as_millisecond()).unwrap_or_default())
    };
    let selection = ReplaySelection {
        since: asked.since.map(time),
        until: asked.until.map(time),
        only_failed: asked.only_failed,
        event_id: asked.event_id,
    };
    let replayed = family.deps.engine.replay(&uid, &selection).await?;
    guard.served();
    Ok((StatusCode::ACCEPTED, Json(json!({ "replayed": replayed }))))
}

impl Family {
    pub(super) fn new(deps: &Arc<CallDeps>, objects: &ObjectCache<Webhook>) -> Self {
        Self { deps: Arc::clone(deps), endpoints: Endpoints::follow(objects, &deps.counters) }
    }

    /// Tells the engine of every change of a Webhook, and of what has happened to users, until `stop` is cancelled.
    pub(super) async fn follow(&self, stop: CancellationToken) {
        let relaying = outbox::relay(&self.endpoints, &self.deps, stop.clone());
        tokio::join!(self.endpoints.run(&self.deps, stop), relaying);
    }

    async fn admit(
        &self,
        route: &Route,
        object: (&str, &str),
        headers: &HeaderMap,
        record: CallRecord,
    ) -> Result<CallGuard, Problem> {
        CallGuard::admit(&self.deps.reviewer, route, object, headers, record).await
    }

    /// Admits a call for a Webhook that exists, and counts it.
    async fn begin(
        &self,
        route: &Route,
        operation: &'static str,
        (namespace, name): (&str, &str),
        headers: &HeaderMap,
        record: CallRecord,
    ) -> Result<(CallGuard, Uid), Problem> {
        let mut guard = self.admit(route, (namespace, name), headers, record).await?;
        let uid = self.endpoints.uid(namespace, name).ok_or_else(|| not_found(namespace, name))?;
        guard.count(&self.counters(namespace, name), operation);
        Ok((guard, uid))
    }

    fn counters(&self, namespace: &str, name: &str) -> CallCounters {
        let calls = self.deps.metrics.gateway.calls(Kind::Webhook, namespace, name);
        CallCounters { calls: calls.into(), tally: None }
    }
}

fn not_found(namespace: &str, name: &str) -> Problem {
    let detail = format!("there is no Webhook {name} in the namespace {namespace}");
    Problem::new(ProblemKind::ServiceNotFound, detail)
}

async fn read(body: Body, most: usize) -> Result<Bytes, Problem> {
    let body = timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await;
    let body = body
        .map_err(|_| Problem::new(ProblemKind::BadRequest, "the request body did not arrive in time"))?
        .map_err(|error| match error.downcast_ref::<http_body_util::LengthLimitError>() {
            Some(_) => {
                let detail = format!("the request body must have at most {most} bytes");
                Problem::new(ProblemKind::TooLarge, detail)
            }
            None => Problem::new(ProblemKind::BadRequest, "the caller aborted the request"),
        })?;
    Ok(body.to_bytes())
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::new(ProblemKind::BadRequest, format!("the request body: {error}")))
}

fn shown(event: &AcceptedId) -> Value {
    let webhook = |Matched { name, state, .. }: &Matched| {
        let state = match state {
            MatchedState::Pending => "Pending",
            MatchedState::Held => "Held",
            MatchedState::Skipped => "Skipped",
        };
        json!({ "name": name, "state": state })
    };
    let state = match (&event.id, event.duplicate) {
        (None, _) => "Conflict",
        (Some(_), true) => "Duplicate",
        (Some(_), false) => "Accepted",
    };
    let webhooks: Vec<_> = event.matched.iter().map(webhook).collect();
    json!({ "id": event.id, "state": state, "webhooks": webhooks })
}

fn attempt(LoggedAttempt { id, record }: &LoggedAttempt) -> Value {
    let origin = match record.origin {
        Origin::Event => "Event",
        Origin::Replay => "Replay",
        Origin::DeadLetter => "DeadLetter",
        Origin::Test => "Test",
    };
    let time = i64::try_from(record.at.as_millis()).ok().and_then(|it| Timestamp::from_millisecond(it).ok());
    json!({
        "id": id,
        "eventId": record.event_id,
        "number": record.number,
        "origin": origin,
        "time": time.map(|time| time.to_string()),
        "durationMs": u64::try_from(record.took.as_millis()).unwrap_or(u64::MAX),
        "outcome": record.outcome.as_str(),
        "status": record.status,
        "host": record.host,
        "detail": record.detail,
        "response": String::from_utf8_lossy(&record.body),
    })
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        Self::new(ProblemKind::StoreUnavailable, error.to_string()).after(std::time::Duration::from_secs(1))
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        let detail = error.to_string();
        match error {
            AcceptError::Backlog { retry_after } => {
                Self::new(ProblemKind::BacklogFull, detail).after(retry_after)
            }
            AcceptError::Store(error) => error.into(),
            AcceptError::Stopping => {
                Self::new(ProblemKind::NotReady, detail).after(std::time::Duration::from_secs(1))
            }
        }
    }
}
