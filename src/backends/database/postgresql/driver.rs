//! What carries a connection's bytes, in the task of whoever waits for an answer: a task of its own would have to be woken
//! for each request and each answer.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, Waker},
};

use futures::{StreamExt, stream::BoxStream};
use tokio_postgres::{AsyncMessage, Error};

/// Carries while it is asked to; nothing is left when the connection has ended.
pub(super) struct Carrier(Option<BoxStream<'static, Result<AsyncMessage, Error>>>);

impl Carrier {
    /// By what the driver says of the connection.
    pub(super) fn new(connection: BoxStream<'static, Result<AsyncMessage, Error>>) -> Self {
        Self(Some(connection))
    }

    /// Carries for as long as the work takes.
    pub(super) async fn with<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // It asks for something, that is sent, and perhaps the answer is there already.
            if let done @ Poll::Ready(_) = work.as_mut().poll(cx) {
                return done;
            }
            self.carry(cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Whether the connection still is one, as far as the server has said.
    pub(super) fn is_open(&mut self) -> bool {
        self.carry(&mut Context::from_waker(Waker::noop()));
        self.0.is_some()
    }

    /// Carries what is left, until the connection has ended.
    pub(super) async fn finish(mut self) {
        poll_fn(|cx| {
            self.carry(cx);
            if self.0.is_none() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn carry(&mut self, cx: &mut Context<'_>) {
        while let Some(connection) = &mut self.0 {
            match connection.poll_next_unpin(cx) {
                // Notices are left unread: they may repeat values.
                Poll::Ready(Some(Ok(_))) => {}
                // Who waits for an answer learns by this that there will be none.
                Poll::Ready(_) => self.0 = None,
                Poll::Pending => return,
            }
        }
    }
}
