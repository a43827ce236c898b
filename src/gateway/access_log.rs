//! One line in the log for each call, without payload; its request id, and its metrics.

use std::{borrow::Cow, sync::Arc, time::Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use parking_lot::Mutex;

use super::problem::ProblemKind;
use crate::{
    cluster::review::Caller,
    telemetry::{access_log, metrics::Calls},
};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The status in the log and the metrics of a call whose caller went away before the response began; nobody receives it. nginx
/// made it known.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What is known of a call, filled in while it runs.
#[derive(Clone, Default)]
pub(super) struct CallRecord(Arc<Mutex<Fields>>);

#[derive(Default)]
struct Fields {
    /// It belongs to a family of routes: all else leaves no line.
    begun: bool,
    /// The caller has the permission.
    caller: Option<Arc<Caller>>,
    /// The object exists: its metrics, and the operation in them. Callers cannot make new series.
    counted: Option<(Arc<Calls>, Cow<'static, str>)>,
    /// The endpoint that was called last.
    endpoint: Option<Arc<str>>,
    /// How many times an endpoint was called.
    attempts: u32,
    /// Why a login was refused.
    denial: Option<&'static str>,
}

impl CallRecord {
    /// From now on the call leaves a line.
    pub(super) fn begin(&self) {
        self.0.lock().begun = true;
    }

    pub(super) fn admitted(&self, caller: Arc<Caller>) {
        self.0.lock().caller = Some(caller);
    }

    pub(super) fn counted(&self, calls: Arc<Calls>, operation: Cow<'static, str>) {
        self.0.lock().counted = Some((calls, operation));
    }

    /// A login is refused for this reason, which the caller is not told.
    pub(super) fn denied(&self, denial: &'static str) {
        self.0.lock().denial = Some(denial);
    }

    /// An endpoint is called, for the first time or once more.
    pub(super) fn attempt(&self, endpoint: &Arc<str>, number: u32) {
        let mut fields = self.0.lock();
        fields.endpoint = Some(Arc::clone(endpoint));
        fields.attempts = number;
    }
}

/// A request on its way to its line in the log. One that is dropped before it ends leaves it all the same: the call may have
/// had its effect.
pub(super) struct AccessLogEntry {
    started: Instant,
    id: HeaderValue,
    trace: Option<HeaderValue>,
    method: Method,
    uri: Uri,
    record: CallRecord,
}

impl AccessLogEntry {
    /// Gives the request an id if it has none.
    pub(super) fn new<B>(request: &mut Request<B>) -> Self {
        let id = request_id(request.headers());
        request.headers_mut().insert(&REQUEST_ID, id.clone());
        Self {
            started: Instant::now(),
            id,
            trace: request.headers().get("traceparent").cloned(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            record: CallRecord::default(),
        }
    }

    /// For whatever handles the request.
    pub(super) fn record(&self) -> CallRecord {
        self.record.clone()
    }

    /// The response begins.
    pub(super) fn end<B>(self, response: &mut Response<B>) {
        response.headers_mut().insert(&REQUEST_ID, self.id.clone());
        let problem = response.extensions().get::<ProblemKind>().map(|kind| kind.as_str());
        self.write(response.status().as_u16(), problem);
    }

    /// Its one line.
    fn write(&self, status: u16, problem: Option<&str>) {
        let fields = std::mem::take(&mut *self.record.0.lock());
        if !fields.begun {
            return;
        }
        let took = self.started.elapsed();
        if let Some((calls, operation)) = &fields.counted {
            calls.observe(operation, status, took);
        }
        access_log::write(&access_log::Call {
            method: self.method.as_str(),
            path: self.uri.path(),
            status,
            caller: fields.caller.as_ref().map_or("", |caller| &caller.name),
            endpoint: fields.endpoint.as_deref().unwrap_or_default(),
            attempts: fields.attempts,
            problem,
            denial: fields.denial,
            request_id: self.id.to_str().unwrap_or_default(),
            traceparent: self.trace.as_ref().and_then(|trace| trace.to_str().ok()),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
    }
}

impl Drop for AccessLogEntry {
    fn drop(&mut self) {
        self.write(CLIENT_CLOSED_REQUEST, Some("caller-gone"));
    }
}

/// The caller's own where it is valid, else a new one.
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
    fn a_request_id_is_kept_where_it_is_valid() {
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
