//! `/v1/apis`: calls of an ExternalApi, within what its spec allows.

mod attempts;
mod circuits;
mod client;
mod headers;
mod in_flight;
mod replayable_body;
mod response_body;
mod web_socket;

use std::{borrow::Cow, fmt, sync::Arc};

use axum::{
    Router,
    http::{Method, Request, Response, uri::PathAndQuery},
};
use hyper::body::{Bytes, Incoming};
use percent_encoding::percent_decode_str;
use prometheus_client::encoding::DescriptorEncoder;
use serde_json::{Map, Value, json};

use super::{
    CallDeps,
    access_log::CallRecord,
    call_guard::CallGuard,
    client_cache::ClientCache,
    family::{Route, RouteFamily},
    problem::{Problem, ProblemKind},
};
use crate::{
    api::{Kind, v1alpha1::ExternalApi},
    cluster::{object_cache::ObjectCache, review::Permission},
    domain::path,
    store::ReplicaState,
};

use client::ApiClient;
pub(super) use response_body::ResponseBody;

/// What is before the namespace in the paths of [`INVOKE`].
const PREFIX: &str = "/v1/apis/";

static INVOKE: Route = Route {
    path: "/v1/apis/{namespace}/{name}/{path}",
    permission: Permission { kind: Kind::ExternalApi, subresource: Some("invoke"), verb: "create" },
    operations,
};

/// The routes of ExternalApis.
pub(super) struct Family {
    deps: Arc<CallDeps>,
    clients: ClientCache<ApiClient>,
}

/// What the path of a call leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    namespace: Cow<'a, str>,
    name: Cow<'a, str>,
    /// What follows the name, as it was sent: decoded, `%2F` could not be told from a slash.
    path: &'a str,
}

/// The target of a call; none where the path is another route's.
pub(super) fn target_of(path: &str) -> Option<Target<'_>> {
    let decoded = |segment| {
        percent_decode_str(segment).decode_utf8().ok().filter(|segment: &Cow<'_, str>| !segment.is_empty())
    };
    let (namespace, rest) = path.strip_prefix(PREFIX)?.split_once('/')?;
    let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    Some(Target { namespace: decoded(namespace)?, name: decoded(name)?, path })
}

impl RouteFamily for Family {
    fn routes() -> &'static [Route] {
        std::slice::from_ref(&INVOKE)
    }

    /// Without the route that is matched by hand.
    fn router(self: Arc<Self>) -> Router {
        Router::new()
    }

    fn evict(&self) {
        let exists = |namespace: &str, name: &str| self.clients.has(namespace, name);
        self.deps.metrics.gateway.retain(Kind::ExternalApi, exists);
        self.deps.metrics.gateway.retain_limited(exists);
    }

    fn replica_state(&self, state: &mut ReplicaState) {
        state.circuits.extend(circuits::open(&self.clients.all()));
    }

    fn encode_metrics(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        circuits::encode(&self.clients.all(), encoder)
    }
}

impl Family {
    pub(super) fn new(deps: &Arc<CallDeps>, objects: &ObjectCache<ExternalApi>) -> Self {
        Self { deps: Arc::clone(deps), clients: ClientCache::new(objects, deps) }
    }

    /// Calls an API.
    pub(super) async fn call(
        &self,
        Target { namespace, name, path }: &Target<'_>,
        request: Request<Incoming>,
        record: CallRecord,
    ) -> Result<Response<ResponseBody>, Problem> {
        let (reviewer, metrics) = (&self.deps.reviewer, &self.deps.metrics.gateway);
        let mut guard =
            CallGuard::admit(reviewer, &INVOKE, (namespace, name), request.headers(), record).await?;
        let api = self.clients.get(namespace, name).await?;
        guard.count(&api.call_counters, operation(request.method()));
        let sent = async {
            let upgrade = web_socket::is_wanted(&request);
            let target = api.target(request.method().as_str(), path, request.uri().query(), upgrade)?;
            api.admit(guard.caller())?;
            let own_path = format!("{PREFIX}{namespace}/{name}");
            if upgrade {
                return web_socket::open(&api, request, target, &own_path, &mut guard, &self.deps.stopping)
                    .await;
            }
            attempts::send(&api, request, target, &own_path, &mut guard).await
        };
        let response = sent.await;
        if guard.attempts() > 0 {
            guard.served();
        }
        match &response {
            Ok(response) => guard.answered(response.status()),
            Err(problem) => {
                if problem.kind == ProblemKind::RateLimited {
                    guard.limited();
                    metrics.limited(namespace, name);
                }
                guard.answered(problem.kind.status());
            }
        }
        response
    }
}

/// The method as metrics have it: callers cannot make new ones.
fn operation(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

impl ApiClient {
    /// The path and query to call, if the spec allows it.
    ///
    /// # Errors
    /// `BadRequest` for an ambiguous path, `CallNotAllowed`.
    fn target(
        &self,
        method: &str,
        raw: &str,
        query: Option<&str>,
        upgrade: bool,
    ) -> Result<PathAndQuery, Problem> {
        let path = path::normalize(raw)
            .map_err(|problem| Problem::new(ProblemKind::BadRequest, format!("the path {problem}")))?;
        let entries = || self.allow.iter().filter(|allow| allow.matches(method, &path));
        let mut forwarding = entries().filter(|allow| allow.takes_slashes(&path)).peekable();
        let (kind, problem) = if entries().next().is_none() {
            (ProblemKind::CallNotAllowed, "is not in spec.allow")
        } else if forwarding.peek().is_none() {
            (
                ProblemKind::BadRequest,
                "contains an encoded slash (%2F), which needs encodedSlashes in spec.allow",
            )
        } else if upgrade && !forwarding.any(|allow| allow.web_socket) {
            (ProblemKind::CallNotAllowed, "opens a WebSocket, which needs webSocket in spec.allow")
        } else {
            return target(&path, query);
        };
        let detail = format!("{method} {path} {problem} of the ExternalApi {}", self.name);
        Err(Problem::new(kind, detail))
    }
}

fn target(path: &path::Path, query: Option<&str>) -> Result<PathAndQuery, Problem> {
    let target = match query {
        Some(query) => Cow::Owned(format!("{path}?{query}")),
        None => Cow::Borrowed(path.as_str()),
    };
    PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(target.as_bytes()))
        .map_err(|_| Problem::new(ProblemKind::BadRequest, "the path or the query is invalid"))
}

fn operations() -> Value {
    let methods = ["get", "head", "post", "put", "patch", "delete", "options"];
    let operation = |method: &&str| {
        let operation = json!({
            "operationId": format!("{method}Api"),
            "summary": "Calls an ExternalApi, within its spec.allow",
            "description": "The path is passed on with its slashes as they are. A client must not encode them as %2F, as generated \
                            ones do: an encoded slash is part of a segment, and needs encodedSlashes in spec.allow.",
            "responses": {
                "default": { "description": "the response of the API, or a problem document (RFC 9457)" },
            },
        });
        ((*method).to_owned(), operation)
    };
    methods.iter().map(operation).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_name_of_an_api_is_taken_as_it_was_sent() {
        let rows = [
            ("/v1/apis/shop/billing", "/"),
            ("/v1/apis/shop/billing/", "/"),
            ("/v1/apis/shop/billing/a%2Fb//c", "/a%2Fb//c"),
            ("/v1/apis/shop/billing/../../x", "/../../x"),
            ("/v1/apis/sho%70/billin%67/%67", "/%67"),
        ];
        for (path, rest) in rows {
            let target = Target { namespace: "shop".into(), name: "billing".into(), path: rest };
            assert_eq!(target_of(path), Some(target), "{path}");
        }
    }

    #[test]
    fn all_else_is_another_route() {
        for path in [
            "/",
            "/v1/apis",
            "/v1/apis/shop",
            "/v1/apis/shop/",
            "/v1/apis//billing/x",
            "/v1/apis/%ff/billing/x",
            "/v2/apis/shop/billing",
            "//v1/apis/shop/billing",
            "/v1/databases/shop/orders/queries/by-id",
            "/v1/discovery/shop/billing",
            "/openapi.json",
        ] {
            assert_eq!(target_of(path), None, "{path}");
        }
    }

    #[test]
    fn calls_are_matched_by_the_path_of_the_route() {
        assert!(INVOKE.path.starts_with(PREFIX));
    }
}
