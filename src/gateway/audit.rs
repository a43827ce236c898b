//! One line in the log for each call, without payload; its request id, and its metrics.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Response},
    middleware::Next,
};

use super::{State, problem};
use crate::telemetry::{audit, metrics::GatewayCall};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a route knows of a call; it travels with the response.
#[derive(Clone)]
pub(super) struct Called {
    kind: &'static str,
    namespace: String,
    name: String,
    operation: String,
    more: Arc<Mutex<More>>,
}

#[derive(Default)]
struct More {
    caller: String,
    endpoint: String,
    attempts: u32,
    /// Whether the object is there, so that its name may be a metric's label: callers cannot make new series.
    exists: bool,
}

impl Called {
    /// A call of an object.
    pub(super) fn new(kind: &'static str, namespace: &str, name: &str, operation: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            operation: operation.to_owned(),
            more: Arc::default(),
        }
    }

    /// The caller has the right.
    pub(super) fn by(&self, caller: &str) {
        caller.clone_into(&mut self.more.lock().unwrap_or_else(PoisonError::into_inner).caller);
    }

    /// There is such an object.
    pub(super) fn found(&self) {
        self.more.lock().unwrap_or_else(PoisonError::into_inner).exists = true;
    }

    /// Whether it was sent anywhere.
    pub(super) fn was_sent(&self) -> bool {
        self.more.lock().unwrap_or_else(PoisonError::into_inner).attempts > 0
    }

    /// It is sent to this endpoint.
    pub(super) fn attempt(&self, endpoint: &str) {
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        more.attempts += 1;
        endpoint.clone_into(&mut more.endpoint);
    }
}

/// Around every route.
pub(super) async fn each(state: State, mut request: Request, next: Next) -> Response<Body> {
    let started = Instant::now();
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let trace = request.headers().get("traceparent").cloned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id.clone());
    let took = started.elapsed();
    let status = response.status().as_u16();
    let problem = response.extensions().get::<problem::Kind>().map(|kind| kind.as_str());
    let Some(called) = response.extensions_mut().remove::<Called>() else { return response };
    let more = called.more.lock().unwrap_or_else(PoisonError::into_inner);
    if more.exists {
        let Called { kind, namespace, name, operation, .. } = called.clone();
        state.metrics.gateway.observe(&GatewayCall { kind, namespace, name, operation, code: status }, took);
    }
    audit::write(&audit::Call {
        method: method.as_str(),
        path: &path,
        status,
        caller: &more.caller,
        endpoint: &more.endpoint,
        attempts: more.attempts,
        problem,
        request_id: id.to_str().unwrap_or_default(),
        traceparent: trace.as_ref().and_then(|trace| trace.to_str().ok()),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    });
    drop(more);
    response
}

/// The caller's own, where it can be one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let own = headers
        .get(REQUEST_ID)
        .filter(|id| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    own.cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", rand::random::<u128>());
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_kept_where_it_is_one() {
        let given = |id: &[u8]| {
            let id = HeaderValue::from_bytes(id).expect("a value");
            request_id(&HeaderMap::from_iter([(REQUEST_ID, id)]))
        };
        assert_eq!(given(b"order-7/retry"), "order-7/retry");
        for bad in [&b""[..], b"two words", "\u{e9}".as_bytes(), &[b'a'; 129]] {
            assert_eq!(given(bad).len(), 32, "{bad:?}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
