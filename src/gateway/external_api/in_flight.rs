//! A call in flight of one endpoint: what it tells of the endpoint, to its load and its circuit.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::http::Response;
use tokio::time::Instant;

use super::client::{ApiClient, Endpoint};
use crate::{
    api::Reason,
    backends::http::{AnswerBody, Failure, Stage},
    domain::{breaker::Permit, retry::On},
};

/// A call in flight: counted until its response has been read to the end, or the caller went away.
pub(super) struct InFlightGuard {
    api: Arc<ApiClient>,
    index: usize,
    permit: Option<Permit>,
    started: Instant,
    outcome: Option<Outcome>,
}

/// What a call tells of its endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It works; the time until the head of its response.
    Succeeded(Duration),
    /// It works, and asks for fewer calls.
    Busy,
    Failed,
}

impl InFlightGuard {
    pub(super) fn start(api: &Arc<ApiClient>, index: usize, permit: Option<Permit>) -> Self {
        api.in_flight.fetch_add(1, Relaxed);
        api.endpoints[index].load().start();
        Self { api: Arc::clone(api), index, permit, started: Instant::now(), outcome: None }
    }

    /// The endpoint that is called.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.api.endpoints[self.index]
    }

    /// When the head of its response must have arrived.
    pub(super) fn deadline(&self) -> Instant {
        self.started + self.api.timeout
    }

    /// How long nothing may be transferred of its response.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.api.idle_timeout
    }

    /// Notes the outcome, and gives the reason for which it may be retried.
    pub(super) fn judge(&mut self, answer: &Result<Response<AnswerBody>, Failure>) -> Option<On> {
        let failure = match answer {
            Ok(answer) => On::status(answer.status().as_u16()),
            // Not the endpoint's fault.
            Err(Failure { stage: Stage::Credential, .. }) => return None,
            Err(failure) if failure.fault.reason == Reason::CallerAborted => return None,
            Err(failure) => Some(class(failure)),
        };
        self.outcome = Some(match failure {
            None => Outcome::Succeeded(self.started.elapsed()),
            Some(On::TooManyRequests) => Outcome::Busy,
            Some(_) => Outcome::Failed,
        });
        failure
    }

    /// Reports the outcome to the circuit, which need not wait for the end of the response.
    pub(super) fn settle(&mut self) {
        let (endpoint, now) = (&self.api.endpoints[self.index], self.api.now());
        let (Some(permit), Some(breaker)) = (self.permit.take(), &endpoint.breaker) else { return };
        let mut breaker = breaker.lock();
        let Some(outcome) = self.outcome else { return breaker.cancel(permit) };
        let changed = breaker.record(permit, outcome != Outcome::Failed, now);
        drop(breaker);
        self.api.circuit_changed(self.index, changed);
    }

    /// The API ended the body of the response early.
    pub(super) fn body_failed(&mut self) {
        self.outcome = Some(Outcome::Failed);
    }
}

fn class(failure: &Failure) -> On {
    match (failure.stage, failure.fault.reason) {
        (Stage::Credential | Stage::Connect, _) => On::ConnectFailure,
        (_, Reason::Timeout) => On::Timeout,
        _ => On::Reset,
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.api.in_flight.fetch_sub(1, Relaxed);
        let (endpoint, now) = (&self.api.endpoints[self.index], self.api.now());
        match self.outcome {
            Some(Outcome::Succeeded(latency)) => endpoint.load().end(latency, now),
            Some(Outcome::Busy | Outcome::Failed) => endpoint.load().fail(self.api.timeout, now),
            None => endpoint.load().cancel(),
        }
        self.settle();
    }
}
