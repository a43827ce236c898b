//! An answer's body on its way to the caller.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use tokio::{task::AbortHandle, time::sleep_until};

use super::attempts::InFlightGuard;
use crate::{
    api::Reason,
    backends::{Fault, http::AnswerBody},
};

/// An API that is late is found out by its body itself; this much later it can only be the caller.
const GRACE: Duration = Duration::from_millis(250);

/// An answer's body, and the call that is under way until it has been read to the end, is not wanted any more, or is late.
/// A caller that does not read is not asked for more, so that it takes a task to see that.
pub(in crate::gateway) struct ResponseBody(Held);

enum Held {
    /// Most answers are over with the first frame.
    Alone(Call),
    Watched(Watched),
    /// All of it was given out: whether the caller takes what it was given is not the API's affair.
    Over,
}

struct Call {
    body: AnswerBody,
    in_flight_guard: InFlightGuard,
}

/// A call that its watch lets go of at the deadline.
struct Watched {
    call: Arc<Mutex<Option<Call>>>,
    watch: AbortHandle,
}

impl ResponseBody {
    pub(super) fn new(body: AnswerBody, in_flight_guard: InFlightGuard) -> Self {
        Self(Held::Alone(Call { body, in_flight_guard }))
    }

    fn of<T>(&self, ask: impl FnOnce(&AnswerBody) -> T) -> Option<T> {
        match &self.0 {
            Held::Alone(call) => Some(ask(&call.body)),
            Held::Watched(watched) => watched.call().as_ref().map(|call| ask(&call.body)),
            Held::Over => None,
        }
    }

    /// After a frame, of which there are more or not.
    fn go_on(&mut self, more: bool) {
        self.0 = match mem::replace(&mut self.0, Held::Over) {
            Held::Alone(call) if more => Held::Watched(Watched::over(call)),
            watched if more => watched,
            _ => Held::Over,
        };
    }
}

impl Call {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.in_flight_guard.broke();
        }
        polled
    }
}

impl Watched {
    fn over(call: Call) -> Self {
        let late = call.body.deadline() + GRACE;
        let call = Arc::new(Mutex::new(Some(call)));
        let watched = Arc::downgrade(&call);
        let watch = tokio::spawn(async move {
            sleep_until(late).await;
            if let Some(call) = watched.upgrade() {
                call.lock().take();
            }
        });
        Self { call, watch: watch.abort_handle() }
    }

    fn call(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = match &mut self.0 {
            Held::Alone(call) => call.poll_frame(cx),
            Held::Watched(watched) => {
                let late = || Fault::new(Reason::Timeout, "the answer was not read in time");
                let mut call = watched.call();
                call.as_mut().map_or_else(|| Poll::Ready(Some(Err(late()))), |call| call.poll_frame(cx))
            }
            Held::Over => return Poll::Ready(None),
        };
        if let Poll::Ready(frame) = &polled {
            let more = matches!(frame, Some(Ok(_))) && !self.is_end_stream();
            self.go_on(more);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Held::Over => true,
            // One that was let go of is not: it ends with a fault.
            _ => self.of(HttpBody::is_end_stream).unwrap_or_default(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.of(HttpBody::size_hint).unwrap_or_default()
    }
}
