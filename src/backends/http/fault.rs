//! From errors of the HTTP client to faults.

use std::{error::Error, io};

use super::Fault;
use crate::{api::Reason, backends::find_cause};

/// The fault behind an error of `hyper`, or of the connector inside of it.
pub(super) fn of(error: &(dyn Error + 'static)) -> Fault {
    let http = || causes(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>());
    // First: an error of the caller's own body is not the server's.
    if http().any(|error| error.is_user() && !has_no_dispatcher(error)) {
        return Fault::new(Reason::CallerAborted, "the caller aborted the request");
    }
    if http().any(|error| error.is_parse() || talks_first(error)) || causes(error).any(is_malformed) {
        return Fault::new(Reason::ProtocolError, "the server's response is not valid HTTP");
    }
    if let Some(fault) = causes(error).find_map(|cause| cause.downcast_ref::<Fault>()) {
        return fault.clone();
    }
    if http().any(hyper::Error::is_timeout) {
        return Fault::new(Reason::Timeout, "the connection stopped responding to keep-alive pings");
    }
    find_cause(error).unwrap_or_else(|| {
        Fault::new(Reason::Unavailable, "the server closed the connection before the response was complete")
    })
}

/// Whether the server has told that it did not process the request, or was never sent it (RFC 9113, sections 6.8 and 8.7).
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    let refused = |error: &h2::Error| {
        let leaves = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (leaves || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    };
    causes(error).filter_map(|cause| cause.downcast_ref::<h2::Error>()).any(refused)
        || has_no_dispatcher(error)
}

/// Whether the connection ended before the response was complete: closed, with or without TLS's close_notify, or reset.
pub(super) fn is_closed(error: &hyper::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let broken = |error: &io::Error| matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof);
    error.is_incomplete_message() || causes(error).filter_map(|cause| cause.downcast_ref()).any(broken)
}

/// Whether the connection ended while the request was still queued, for which `hyper` has a text only.
fn has_no_dispatcher(error: &hyper::Error) -> bool {
    error.to_string() == "dispatch task is gone"
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

/// Whether the server has sent something before any request, for which `hyper` has a text only.
fn talks_first(error: &hyper::Error) -> bool {
    error.to_string() == "received unexpected message from connection"
}

/// Whether the framing of a body is invalid; TLS reports its own faults by the same kind of error.
fn is_malformed(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
            && error.get_ref().is_none_or(|inner| inner.downcast_ref::<rustls::Error>().is_none())
    })
}
