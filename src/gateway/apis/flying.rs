//! An answer's body on its way to the caller.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::{task::AbortHandle, time::sleep_until};

use super::attempts::Flight;
use crate::{
    api::Reason,
    backends::{Fault, http::AnswerBody},
};

/// An API that is late is found out by its body itself; this much later it can only be the caller.
const GRACE: Duration = Duration::from_millis(250);

/// An answer's body, and the call that is under way until it has been read to the end, is not wanted any more, or is late.
/// A caller that does not read is not asked for more, so that it takes a task to see that.
pub(in crate::gateway) struct Flying(Held);

enum Held {
    /// Most answers are over with the first frame.
    Alone(Option<Call>),
    Watched(Watched),
}

struct Call {
    body: AnswerBody,
    flight: Flight,
}

/// A call that its watch lets go of at the deadline.
struct Watched {
    call: Arc<Mutex<Option<Call>>>,
    watch: AbortHandle,
}

impl Flying {
    pub(super) fn new(body: AnswerBody, flight: Flight) -> Self {
        Self(Held::Alone(Some(Call { body, flight })))
    }

    fn of<T>(&self, ask: impl FnOnce(&AnswerBody) -> T) -> Option<T> {
        match &self.0 {
            Held::Alone(call) => call.as_ref().map(|call| ask(&call.body)),
            Held::Watched(watched) => watched.call().as_ref().map(|call| ask(&call.body)),
        }
    }
}

impl Call {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.flight.broke();
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
                call.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
        });
        Self { call, watch: watch.abort_handle() }
    }

    fn call(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl HttpBody for Flying {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.0 {
            Held::Alone(held) => {
                let Some(call) = held else { return Poll::Ready(None) };
                let polled = call.poll_frame(cx);
                let more = matches!(polled, Poll::Ready(Some(Ok(_)))) && !call.body.is_end_stream();
                if let Some(call) = held.take_if(|_| more) {
                    self.0 = Held::Watched(Watched::over(call));
                }
                polled
            }
            Held::Watched(watched) => {
                let late = || Fault::new(Reason::Timeout, "the answer was not read in time");
                let mut call = watched.call();
                call.as_mut().map_or_else(|| Poll::Ready(Some(Err(late()))), |call| call.poll_frame(cx))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.of(HttpBody::is_end_stream).unwrap_or_default()
    }

    fn size_hint(&self) -> SizeHint {
        self.of(HttpBody::size_hint).unwrap_or_default()
    }
}
