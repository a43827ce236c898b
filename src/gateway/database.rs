//! `/v1/databases`: the declared queries of a Database, by name.

mod client;
mod rows;

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Request, Response, header},
    routing::post,
};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::{Instant, timeout_at};

use super::{
    CallDeps,
    access_log::CallRecord,
    call_guard::CallGuard,
    client_cache::ClientCache,
    family::{Route, RouteFamily},
    problem::{Problem, ProblemKind},
    routes::Names,
};
use crate::{
    api::{Kind, Reason, v1alpha1::Database},
    backends::database::{BoundQuery, Item, QueryFault, RowStream},
    cluster::{object_cache::ObjectCache, review::Permission},
    store::ReplicaState,
};
use client::DatabaseClient;
use rows::RowBuffer;

/// Limit of the body of a request, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// How long the body of a request may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Rows that come within this time and have at most so many bytes are sent as a whole; all others are streamed.
const WHOLE_WITHIN: Duration = Duration::from_millis(1);
const WHOLE_BYTES: usize = 64 * 1024;

static QUERY: Route = Route {
    path: "/v1/databases/{namespace}/{name}/queries/{query}",
    permission: Permission { kind: Kind::Database, subresource: Some("query"), verb: "create" },
    operations,
};

/// The routes of Databases.
pub(super) struct Family {
    deps: Arc<CallDeps>,
    clients: ClientCache<DatabaseClient>,
}

impl RouteFamily for Family {
    fn routes() -> &'static [Route] {
        std::slice::from_ref(&QUERY)
    }

    fn schemas() -> Value {
        json!({ "Rows": {
            "type": "object", "required": ["rows", "truncated", "affected"],
            "properties": {
                "rows": { "type": "array" },
                "truncated": { "type": "boolean", "description": "there were more rows than maxRows" },
                "affected": { "type": ["integer", "null"], "description": "rows changed by a statement that returns none" },
            },
        } })
    }

    fn router(self: Arc<Self>) -> Router {
        Router::new().route(QUERY.path, post(run)).with_state(self)
    }

    fn evict(&self) {
        let exists = |namespace: &str, name: &str| self.clients.has(namespace, name);
        self.deps.metrics.gateway.retain(Kind::Database, exists);
        self.deps.metrics.queries.retain(exists);
    }

    fn replica_state(&self, state: &mut ReplicaState) {
        let saturated =
            self.clients.all().into_iter().filter(|it| it.client.servers.iter().any(|it| it.saturated()));
        state.saturated.extend(saturated.map(|it| it.uid));
    }
}

impl Family {
    pub(super) fn new(deps: &Arc<CallDeps>, objects: &ObjectCache<Database>) -> Self {
        Self { deps: Arc::clone(deps), clients: ClientCache::new(objects, deps) }
    }
}

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryRequest {
    #[serde(default)]
    params: Vec<Box<RawValue>>,
}

/// Runs a declared query.
async fn run(
    State(family): State<Arc<Family>>,
    Names((namespace, name, query)): Names<(String, String, String)>,
    Extension(record): Extension<CallRecord>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let (object, deps) = ((&*namespace, &*name), &family.deps);
    let mut guard = CallGuard::admit(&deps.reviewer, &QUERY, object, request.headers(), record).await?;
    let client = family.clients.get(&namespace, &name).await?;
    let declared = client.queries.get(&query).ok_or_else(|| {
        let detail = format!("the Database {name} declares no query {query}");
        Problem::new(ProblemKind::QueryNotFound, detail)
    })?;
    guard.count(&client.call_counters, query.clone());
    let lines = wants_lines(request.headers());
    let body = read(request.into_body()).await?;
    let bound = BoundQuery::new(declared, &client.limits, &body.params)
        .map_err(|mismatch| Problem::new(ProblemKind::ParameterInvalid, mismatch.to_string()))?;
    let server = client
        .server()
        .ok_or_else(|| Problem::new(ProblemKind::NotReady, format!("the Database {name} has no server")))?;
    let observed = deps.metrics.queries.start(client.engine, &namespace, &name, &query);
    let rows = Arc::clone(&**server).run(bound, observed);
    RunningQuery { rows, guard, buffer: RowBuffer::new(lines) }.respond().await
}

async fn read(body: Body) -> Result<QueryRequest, Problem> {
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let body = body
        .map_err(|_| Problem::new(ProblemKind::BadRequest, "the request body did not arrive in time"))?
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => {
                let detail = format!("the request body must have at most {MAX_BODY} bytes");
                Problem::new(ProblemKind::TooLarge, detail)
            }
            None => Problem::new(ProblemKind::BadRequest, "the caller aborted the request"),
        })?
        .to_bytes();
    if body.is_empty() {
        return Ok(QueryRequest { params: Vec::new() });
    }
    parsed(&body).ok_or_else(|| Problem::new(ProblemKind::BadRequest, diagnose(&body)))
}

/// The request, if it is one: serde takes a list for a struct, too.
fn parsed(body: &[u8]) -> Option<QueryRequest> {
    let is_object = body.trim_ascii_start().starts_with(b"{");
    serde_json::from_slice(body).ok().filter(|_| is_object)
}

/// Why a body is no request.
fn diagnose(body: &[u8]) -> String {
    let Ok(fields) = serde_json::from_slice::<HashMap<String, &RawValue>>(body) else {
        return "the request body must be a JSON object such as {\"params\": [\"a@example.com\"]}".to_owned();
    };
    match fields.keys().find(|name| *name != "params") {
        Some(unknown) => format!("unknown field `{unknown}`: expected params"),
        None => "params must be a list such as [\"a@example.com\"]".to_owned(),
    }
}

fn wants_lines(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| accept.as_bytes().starts_with(rows::LINES.as_bytes()))
}

/// A query that runs, and its rows on their way to the caller.
struct RunningQuery {
    rows: RowStream,
    guard: CallGuard,
    buffer: RowBuffer,
}

impl RunningQuery {
    /// The head of the response waits for the first rows: a query that fails at once is answered by a problem.
    async fn respond(mut self) -> Result<Response<Body>, Problem> {
        let kind = HeaderValue::from_static(self.buffer.content_type());
        let mut next = self.rows.next().await;
        let deadline = Instant::now() + WHOLE_WITHIN;
        while let Some(item) = next {
            self.take(item).map_err(|fault| problem(&fault))?;
            if self.buffer.len() > WHOLE_BYTES {
                break;
            }
            let Ok(more) = timeout_at(deadline, self.rows.next()).await else { break };
            next = more;
            if next.is_none() {
                return Ok(respond(kind, Body::from(self.buffer.take())));
            }
        }
        self.rows.detach();
        let first = self.buffer.take();
        let rest = stream::unfold(Some(self), async |running| {
            let mut running = running?;
            let taken = match running.rows.next().await? {
                Err(fault) if running.buffer.has_lines() => {
                    running.failed(&fault);
                    running.buffer.fault(&problem(&fault));
                    Ok(())
                }
                item => running.take(item),
            };
            match taken {
                Ok(()) => Some((Ok(running.buffer.take()), Some(running))),
                Err(fault) => Some((Err(fault), None)),
            }
        });
        let all = stream::iter([Ok::<Bytes, QueryFault>(first)]).chain(rest);
        Ok(respond(kind, Body::from_stream(all)))
    }

    fn take(&mut self, item: Result<Item, QueryFault>) -> Result<(), QueryFault> {
        match item.inspect_err(|fault| self.failed(fault))? {
            Item::Rows(rows) => self.buffer.rows(&rows),
            Item::End { truncated, affected } => {
                self.guard.served();
                self.buffer.end(truncated, affected);
            }
        }
        Ok(())
    }

    fn failed(&mut self, fault: &QueryFault) {
        self.guard.served();
        self.guard.answered(problem(fault).kind.status());
    }
}

fn respond(kind: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn problem(fault: &QueryFault) -> Problem {
    let kind = match fault {
        QueryFault::Value(_) => ProblemKind::ParameterInvalid,
        QueryFault::Constraint(_) | QueryFault::Conflict(_) | QueryFault::ReadOnly(_) => {
            ProblemKind::QueryRefused
        }
        QueryFault::TimedOut => ProblemKind::UpstreamTimeout,
        QueryFault::Invalid(_) => ProblemKind::QueryInvalid,
        QueryFault::Server(fault) => match fault.reason {
            Reason::PoolSaturated => ProblemKind::Overloaded,
            Reason::Timeout => ProblemKind::UpstreamTimeout,
            _ => ProblemKind::Upstream,
        },
        QueryFault::Denied(_) => ProblemKind::Upstream,
    };
    let problem = Problem::new(kind, fault.to_string());
    if kind == ProblemKind::Overloaded { problem.after(Duration::from_secs(1)) } else { problem }
}

fn operations() -> Value {
    json!({ "post": {
        "operationId": "query",
        "summary": "Runs a declared query of a Database",
        "requestBody": { "content": { "application/json": { "schema": {
            "type": "object", "additionalProperties": false,
            "properties": { "params": { "type": "array", "description": "the values of spec.queries[].params, in order" } },
        } } } },
        "responses": {
            "200": {
                "description": "the rows: one JSON document, or with `Accept: application/x-ndjson` one line for each row and a last \
                                line with $end or $problem",
                "content": {
                    "application/json": { "schema": { "$ref": "#/components/schemas/Rows" } },
                    "application/x-ndjson": {},
                },
            },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_no_request_says_what_was_expected() {
        let rows = [
            (r#"{"parms": []}"#, "unknown field `parms`: expected params"),
            (r#"{"params": 1}"#, "params must be a list such as [\"a@example.com\"]"),
            ("[]", "the request body must be a JSON object such as {\"params\": [\"a@example.com\"]}"),
        ];
        for (body, expected) in rows {
            assert!(parsed(body.as_bytes()).is_none(), "{body}");
            assert_eq!(diagnose(body.as_bytes()), expected);
        }
    }
}
