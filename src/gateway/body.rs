//! The body of a response of the gateway.

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::Response,
};
use hyper::body::{Frame, SizeHint};

use super::external_api;

/// The body of a response, whoever made it.
pub(super) struct GatewayBody {
    source: Source,
    /// Why it ended early, held back once: the server sends what it has only while it waits for more, and the caller is to have
    /// the head and everything that came until then.
    error: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Counts the calls in flight of the connection.
    call: Option<Arc<AtomicU64>>,
}

enum Source {
    /// Passed on from an API.
    Api(external_api::ResponseBody),
    /// Made here.
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

impl GatewayBody {
    pub(super) fn api(response: Response<external_api::ResponseBody>) -> Response<Self> {
        response.map(|body| Self { source: Source::Api(body), error: None, call: None })
    }

    pub(super) fn own(response: Response<Body>) -> Response<Self> {
        response.map(|body| Self { source: Source::Own(body), error: None, call: None })
    }

    /// Holds this until the whole response was handed to the server.
    pub(super) fn hold(&mut self, call: Arc<AtomicU64>) {
        self.call = Some(call);
    }
}

impl HttpBody for GatewayBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { source, error, call } = self.get_mut();
        if let Some(error) = error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match source {
            Source::Api(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Source::Own(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        };
        if let Poll::Ready(Some(Err(failed))) = frame {
            *error = Some(failed);
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
