//! `/v1/apis`: calls of an ExternalApi, within what its spec allows.

mod attempts;
mod client;
mod headers;
mod replayable_body;
mod response_body;

use std::{borrow::Cow, sync::Arc};

use axum::http::{Method, Request, Response, uri::PathAndQuery};
use hyper::body::{Bytes, Incoming};

use super::{
    Gateway,
    access_log::CallRecord,
    problem::{Kind, Problem},
    usage::UsageGuard,
};
use crate::{cluster::review::Permission, domain::path};

pub(super) use client::ApiClient;
pub(super) use response_body::ResponseBody;

/// Calls the API of this namespace and name, on a path that is given as it was sent.
pub(super) async fn call(
    gateway: &Gateway,
    (namespace, name): (&str, &str),
    path: &str,
    request: Request<Incoming>,
    record: &mut CallRecord,
) -> Result<Response<ResponseBody>, Problem> {
    let permission =
        Permission { verb: "create", resource: "externalapis", subresource: Some("invoke"), namespace, name };
    let caller = gateway.admit(request.headers(), &permission).await?;
    let api = gateway.apis.get(namespace, name).await?;
    record.by = Some(Arc::clone(&caller));
    record.found = Some((Arc::clone(&api.calls), operation(request.method()).into()));
    let mut usage = UsageGuard::start(&api.tally);
    let sent = async {
        let target = api.target(request.method().as_str(), path, request.uri().query())?;
        api.admit(&caller.name)?;
        attempts::send(&api, request, target, record).await
    };
    let answer = sent.await;
    if record.attempts > 0 {
        usage.served();
    }
    match &answer {
        Ok(answer) => usage.answered(answer.status().as_u16()),
        Err(problem) => {
            if problem.kind == Kind::RateLimited {
                usage.limited();
                gateway.metrics.gateway.limited(namespace, name);
            }
            usage.answered(problem.kind.status().as_u16());
        }
    }
    answer
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
    /// Path and query to call, if the spec allows it.
    ///
    /// # Errors
    /// `BadRequest` for a path that could be read in more than one way, `CallNotAllowed`.
    fn target(&self, method: &str, raw: &str, query: Option<&str>) -> Result<PathAndQuery, Problem> {
        let path = path::normalize(raw)
            .map_err(|problem| Problem::new(Kind::BadRequest, format!("the path {problem}")))?;
        if !self.allow.iter().any(|allow| allow.matches(method, &path)) {
            let detail = format!("{method} {path} is not in spec.allow of the ExternalApi {}", self.name);
            return Err(Problem::new(Kind::CallNotAllowed, detail));
        }
        let target = match query {
            Some(query) => Cow::Owned(format!("{path}?{query}")),
            None => Cow::Borrowed(path.as_str()),
        };
        PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(target.as_bytes()))
            .map_err(|_| Problem::new(Kind::BadRequest, "the path or the query cannot be sent"))
    }
}
