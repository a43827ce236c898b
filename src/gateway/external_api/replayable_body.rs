//! A request's body on its way to the API.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::{Mutex, MutexGuard};

use crate::{
    api::Reason,
    backends::{
        Fault,
        http::{self as client, Failure},
    },
};

/// A request's body that is streamed, and can be sent again as long as nobody has begun to read it.
pub(super) struct ReplayableBody(Option<Arc<Upload>>);

struct Upload {
    body: Mutex<Option<Incoming>>,
    /// What the caller was doing when it was last looked at: one of these.
    caller: AtomicU8,
}

const SENDING: u8 = 0;
const SLOW: u8 = 1;
const BROKEN: u8 = 2;

impl Upload {
    fn body(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.body.lock()
    }
}

impl ReplayableBody {
    pub(super) fn new(body: Incoming) -> Self {
        Self(
            (!body.is_end_stream())
                .then(|| Arc::new(Upload { body: Mutex::new(Some(body)), caller: AtomicU8::new(SENDING) })),
        )
    }

    pub(super) fn share(&self) -> client::Body {
        match &self.0 {
            None => client::Body::empty(),
            Some(upload) => client::Body::streamed(Shared { upload: Arc::clone(upload), taken: None }),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|upload| upload.body().is_some())
    }

    /// A failure that the caller has brought about by what it sent, or did not send, says so: over HTTP/2 the client only
    /// tells that the exchange ended. The API had no part in it.
    pub(super) fn blame(&self, failure: Failure) -> Failure {
        let caller = self.0.as_ref().map_or(SENDING, |upload| upload.caller.load(Relaxed));
        let detail = match caller {
            BROKEN => "the request was broken off by its sender",
            SLOW if failure.fault.reason == Reason::Timeout => {
                "the body of the request did not arrive in time"
            }
            _ => return failure,
        };
        Failure { fault: Fault::new(Reason::CallerAborted, detail), ..failure }
    }
}

/// One attempt's share in a body: the first that reads it has it.
struct Shared {
    upload: Arc<Upload>,
    taken: Option<Incoming>,
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.taken.is_none() {
            let taken = self.upload.body().take();
            self.taken = taken;
        }
        let Some(body) = &mut self.taken else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        let caller = match &polled {
            Poll::Pending => SLOW,
            Poll::Ready(Some(Err(_))) => BROKEN,
            Poll::Ready(_) => SENDING,
        };
        self.upload.caller.store(caller, Relaxed);
        polled.map_err(Into::into)
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(body) = &self.taken {
            return body.size_hint();
        }
        self.upload.body().as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
