//! A connection of HTTP/1.1, which serves one request after the other. Its bytes are carried by whoever waits for the answer,
//! and then for the answer's body: a task of its own would have to be woken at each step.

use std::{
    pin::Pin,
    task::{Context, Waker},
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{Body, connect::Stream};

type Connection = http1::Connection<TokioIo<Stream>, Body>;

pub(super) struct Http1Connection {
    sender: http1::SendRequest<Body>,
    /// None when the connection has ended.
    connection: Option<Box<Connection>>,
    /// Since when it is there.
    pub(super) made: Instant,
    /// Since when nobody has used it.
    pub(super) unused: Instant,
}

impl Http1Connection {
    /// Over a stream that nobody has sent anything on.
    ///
    /// # Errors
    /// None that are known of: nothing is exchanged yet.
    pub(super) async fn over(stream: Stream) -> hyper::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let now = Instant::now();
        Ok(Self { sender, connection: Some(Box::new(connection)), made: now, unused: now })
    }

    /// Sends a request, and gives the answer once its head has arrived.
    ///
    /// # Errors
    /// What kept it from coming; with the request, if nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        std::future::poll_fn(|cx| {
            carry(connection, cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Carries what there is to carry.
    pub(super) fn carry(&mut self, cx: &mut Context<'_>) {
        carry(&mut self.connection, cx);
    }

    /// Whether it can take a request, as far as the server has said.
    pub(super) fn is_ready(&mut self) -> bool {
        self.carry(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}

fn carry(connection: &mut Option<Box<Connection>>, cx: &mut Context<'_>) {
    let Some(carried) = connection else { return };
    // Why it ended, whoever waits for an answer learns from that.
    if Pin::new(carried.as_mut()).poll(cx).is_ready() {
        *connection = None;
    }
}
