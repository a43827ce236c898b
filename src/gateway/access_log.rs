//! One line in the log for each call, without payload; its request id, and its metrics.

use std::{borrow::Cow, sync::Arc, time::Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};

use super::problem;
use crate::{
    cluster::review::Caller,
    telemetry::{access_log, metrics::Calls},
};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a route knows of a call; from `axum`'s it comes with the response.
#[derive(Clone, Default)]
pub(super) struct CallRecord {
    /// The caller has the permission.
    pub(super) by: Option<Arc<Caller>>,
    /// There is such an object: what was record of it, as metrics have it. Callers cannot make new series.
    pub(super) found: Option<(Arc<Calls>, Cow<'static, str>)>,
    /// The endpoint that it was sent to last, and how many times it was sent anywhere.
    pub(super) endpoint: Option<Arc<str>>,
    pub(super) attempts: u32,
}

/// The status in the log and the metrics of a call whose caller went away before its answer began; nobody is sent it. nginx
/// has made it known.
const CALLER_GONE: u16 = 499;

/// A call that has begun. One that is dropped before it has ended leaves its line all the same: it may have had its effect.
pub(super) struct AccessLogEntry {
    at: Instant,
    id: HeaderValue,
    trace: Option<HeaderValue>,
    method: Method,
    uri: Uri,
    /// What is known of it; what calls nothing has none, and leaves no line.
    pub(super) record: Option<CallRecord>,
}

impl AccessLogEntry {
    /// Gives the request an id if it has none.
    pub(super) fn of<B>(request: &mut Request<B>) -> Self {
        let id = request_id(request.headers());
        request.headers_mut().insert(&REQUEST_ID, id.clone());
        Self {
            at: Instant::now(),
            id,
            trace: request.headers().get("traceparent").cloned(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            record: None,
        }
    }

    /// Its answer begins.
    pub(super) fn end<B>(mut self, response: &mut Response<B>) {
        response.headers_mut().insert(&REQUEST_ID, self.id.clone());
        let problem = response.extensions().get::<problem::Kind>().map(|kind| kind.as_str());
        self.write(response.status().as_u16(), problem);
    }

    /// Its one line.
    fn write(&mut self, status: u16, problem: Option<&str>) {
        let Some(record) = self.record.take() else { return };
        let took = self.at.elapsed();
        if let Some((calls, operation)) = &record.found {
            calls.observe(operation, status, took);
        }
        access_log::write(&access_log::Call {
            method: self.method.as_str(),
            path: self.uri.path(),
            status,
            caller: record.by.as_ref().map_or("", |caller| &caller.name),
            endpoint: record.endpoint.as_deref().unwrap_or_default(),
            attempts: record.attempts,
            problem,
            request_id: self.id.to_str().unwrap_or_default(),
            traceparent: self.trace.as_ref().and_then(|trace| trace.to_str().ok()),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
    }
}

impl Drop for AccessLogEntry {
    fn drop(&mut self) {
        self.write(CALLER_GONE, Some("caller-gone"));
    }
}

/// The caller's own, where it can be one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let own = headers
        .get(&REQUEST_ID)
        .filter(|id| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    own.cloned().unwrap_or_else(|| {
        let mut id = [0; 32];
        for (digit, random) in id.iter_mut().zip(rand::random::<[u8; 32]>()) {
            *digit = b"0123456789abcdef"[usize::from(random % 16)];
        }
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_kept_where_it_is_one() {
        let given = |id: &[u8]| {
            let id = HeaderValue::from_bytes(id).expect("a value");
            request_id(&HeaderMap::from_iter([(REQUEST_ID.clone(), id)]))
        };
        assert_eq!(given(b"order-7/retry"), "order-7/retry");
        for bad in [&b""[..], b"two words", "\u{e9}".as_bytes(), &[b'a'; 129]] {
            assert_eq!(given(bad).len(), 32, "{bad:?}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
