//! From a request to the route that answers it. The two that carry the load are found by hand, without a box or a copy on their
//! way; all others are `axum`'s.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll},
};

use axum::{
    Json, Router,
    body::{Body, Bytes, HttpBody},
    http::{Method, Request, Response, Uri},
    response::IntoResponse,
    routing::get,
};
use hyper::body::{Frame, Incoming, SizeHint};
use percent_encoding::percent_decode_str;
use tower_service::Service;

use super::{
    Gateway,
    access_log::{AccessLogEntry, CallRecord},
    database, external_api, openapi,
    problem::{Kind, Problem},
    service_registration,
};

/// The routes.
#[derive(Clone)]
pub struct Routes {
    gateway: Arc<Gateway>,
    others: Router,
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    /// Of the namespace and the name, and what follows, as it was sent: what was decoded could not be told from what was meant.
    Api(Cow<'a, str>, Cow<'a, str>, &'a str),
    /// Of the namespace, the name and the query.
    Query(Cow<'a, str>, Cow<'a, str>, Cow<'a, str>),
    /// Something else.
    Other,
}

impl Routes {
    /// Those of this gateway.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let others = Router::new()
            .route("/v1/discovery/{namespace}/{service}", get(service_registration::find))
            .route("/v1/discovery/{namespace}/{service}/watch", get(service_registration::watch))
            .route("/openapi.json", get(|| async { Json(openapi::document()) }))
            .fallback(async |uri: Uri| no_route(&uri))
            .method_not_allowed_fallback(async |uri: Uri| wrong_method(&uri))
            .with_state(Arc::clone(&gateway));
        Self { gateway, others }
    }

    /// Answers whatever is asked for.
    pub(super) async fn answer(mut self, mut request: Request<Incoming>) -> Response<Outgoing> {
        let mut began = AccessLogEntry::of(&mut request);
        let uri = request.uri().clone();
        let answered = match route(uri.path()) {
            Route::Api(namespace, name, path) => {
                let record = began.record.insert(CallRecord::default());
                external_api::call(&self.gateway, (&namespace, &name), path, request, record)
                    .await
                    .map(Outgoing::api)
            }
            Route::Query(namespace, name, query) if request.method() == Method::POST => {
                let record = began.record.insert(CallRecord::default());
                let names = (namespace.as_ref(), name.as_ref(), query.as_ref());
                database::run(&self.gateway, names, request, record).await.map(Outgoing::own)
            }
            Route::Query(..) => {
                began.record = Some(CallRecord::default());
                Err(wrong_method(&uri))
            }
            Route::Other => {
                let Ok(mut response) = self.others.call(request.map(Body::new)).await;
                began.record = response.extensions_mut().remove();
                Ok(Outgoing::own(response))
            }
        };
        let mut response = answered.unwrap_or_else(|problem| Outgoing::own(problem.into_response()));
        began.end(&mut response);
        response
    }
}

fn route(path: &str) -> Route<'_> {
    let decoded = |segment| {
        percent_decode_str(segment).decode_utf8().ok().filter(|segment: &Cow<'_, str>| !segment.is_empty())
    };
    let found = || {
        let (family, rest) = path.strip_prefix("/v1/")?.split_once('/')?;
        let (namespace, rest) = rest.split_once('/')?;
        let (name, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (namespace, name) = (decoded(namespace)?, decoded(name)?);
        match family {
            "apis" => Some(Route::Api(namespace, name, if rest.is_empty() { "/" } else { rest })),
            "databases" => {
                let query = rest.strip_prefix("/queries/").filter(|query| !query.contains('/'))?;
                Some(Route::Query(namespace, name, decoded(query)?))
            }
            _ => None,
        }
    };
    found().unwrap_or(Route::Other)
}

fn no_route(uri: &Uri) -> Problem {
    Problem::new(Kind::RouteNotFound, format!("there is no route {}: see /openapi.json", uri.path()))
}

fn wrong_method(uri: &Uri) -> Problem {
    Problem::new(Kind::MethodNotAllowed, format!("{} has other methods: see /openapi.json", uri.path()))
}

/// The body of an answer.
pub(super) struct Outgoing {
    source: Source,
    /// Why it breaks off, held back once: the server sends what it has only while it waits for more, and a caller whose answer
    /// breaks off is to have its head and all that came until then.
    broken: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// What says of the connection that this call is under way.
    call: Option<Arc<AtomicU64>>,
}

enum Source {
    /// That of an API, on its way through.
    Api(external_api::ResponseBody),
    /// One that is made here.
    Own(Body),
}

impl Source {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Api(body) => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }
}

impl Outgoing {
    fn api(response: Response<external_api::ResponseBody>) -> Response<Self> {
        response.map(|body| Self { source: Source::Api(body), broken: None, call: None })
    }

    fn own(response: Response<Body>) -> Response<Self> {
        response.map(|body| Self { source: Source::Own(body), broken: None, call: None })
    }

    /// Holds this until all of the answer was given out.
    pub(super) fn hold(&mut self, call: Arc<AtomicU64>) {
        self.call = Some(call);
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { source, broken, call } = self.get_mut();
        if let Some(error) = broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match source {
            Source::Api(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Source::Own(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        };
        if let Poll::Ready(Some(Err(error))) = frame {
            *broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // The server keeps the body for as long as its caller does not take the last frame.
        if matches!(frame, Poll::Ready(None)) || source.is_end_stream() {
            *call = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Api(body) => body.size_hint(),
            Source::Own(body) => body.size_hint(),
        }
    }
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
            assert_eq!(route(path), Route::Api("shop".into(), "billing".into(), rest), "{path}");
        }
    }

    #[test]
    fn a_query_has_three_names() {
        let found = Route::Query("shop".into(), "orders".into(), "by-id".into());
        assert_eq!(route("/v1/databases/shop/orders/queries/by-id"), found);
        assert_eq!(route("/v1/databases/shop/orders/queries/by%2Did"), found);
    }

    #[test]
    fn all_else_is_somebody_elses() {
        for path in [
            "/",
            "/v1/apis",
            "/v1/apis/shop",
            "/v1/apis/shop/",
            "/v1/apis//billing/x",
            "/v1/apis/%ff/billing/x",
            "/v2/apis/shop/billing",
            "//v1/apis/shop/billing",
            "/v1/databases/shop/orders",
            "/v1/databases/shop/orders/queries/",
            "/v1/databases/shop/orders/queries/a/b",
            "/v1/discovery/shop/billing",
            "/openapi.json",
        ] {
            assert_eq!(route(path), Route::Other, "{path}");
        }
    }
}
