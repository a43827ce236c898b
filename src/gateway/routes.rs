//! From a request to the route that handles it. Calls of APIs carry the load and are matched by hand, without a box or a copy;
//! all other routes are `axum`'s.

use std::sync::Arc;

use axum::{
    Extension, Json, RequestPartsExt, Router,
    body::Body,
    extract::{FromRequestParts, Path},
    http::{Request, Response, Uri, request::Parts},
    response::IntoResponse,
    routing::get,
};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tower_service::Service;

use super::{
    Gateway,
    access_log::{AccessLogEntry, CallRecord},
    body::GatewayBody,
    external_api, openapi,
    problem::{Problem, ProblemKind},
};

/// The routes of every family.
#[derive(Clone)]
pub struct Routes {
    apis: Arc<external_api::Family>,
    others: Router,
}

impl Routes {
    /// Those of this gateway.
    #[must_use]
    pub fn new(gateway: &Gateway) -> Self {
        let families = gateway.families.all().fold(Router::new(), |all, family| all.merge(family.router()));
        let others = families
            .route("/openapi.json", get(|| async { Json(openapi::document()) }))
            .fallback(async |uri: Uri| no_route(&uri))
            .method_not_allowed_fallback(method_not_allowed);
        Self { apis: Arc::clone(&gateway.families.external_api), others }
    }

    /// Responds to any request.
    pub(super) async fn respond(mut self, mut request: Request<Incoming>) -> Response<GatewayBody> {
        let entry = AccessLogEntry::new(&mut request);
        let uri = request.uri().clone();
        let mut response = if let Some(target) = external_api::target_of(uri.path()) {
            let response = self.apis.call(&target, request, entry.record()).await;
            response.map_or_else(|problem| GatewayBody::own(problem.into_response()), GatewayBody::api)
        } else {
            request.extensions_mut().insert(entry.record());
            let Ok(response) = self.others.call(request.map(Body::new)).await;
            GatewayBody::own(response)
        };
        entry.end(&mut response);
        response
    }
}

fn no_route(uri: &Uri) -> Problem {
    Problem::new(ProblemKind::RouteNotFound, format!("there is no route {}: see /openapi.json", uri.path()))
}

async fn method_not_allowed(Extension(record): Extension<CallRecord>, request: Request<Body>) -> Problem {
    record.begin();
    let (method, path) = (request.method(), request.uri().path());
    let detail = format!("{method} is not allowed for {path}: see /openapi.json");
    Problem::new(ProblemKind::MethodNotAllowed, detail)
}

/// The names in the path of a request.
pub(super) struct Names<T>(pub(super) T);

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Path(names) = parts.extract::<Path<T>>().await.map_err(|error| {
            Problem::new(ProblemKind::BadRequest, format!("invalid path: {}", error.body_text()))
        })?;
        Ok(Self(names))
    }
}
