//! One call: which endpoint gets it, and what happens when that one fails.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::http::{Request, Response, header, request::Parts, uri::PathAndQuery};
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    client::ApiClient, headers, in_flight::InFlightGuard, replayable_body::ReplayableBody,
    response_body::ResponseBody,
};
use crate::{
    api::Reason,
    backends::http::{AnswerBody, Failure, Stage},
    domain::{
        breaker::Permit,
        choice::{Candidate, Preference, choose},
        retry::{self, Attempt, On},
    },
    gateway::{
        call_guard::CallGuard,
        problem::{Problem, ProblemKind},
    },
};

/// How many times a request is sent again because a connection ended before the server processed it.
const MAX_UNPROCESSED: u32 = 3;

/// Sends the request until there is a response for the caller, or no more time, retry budget or request body.
pub(super) async fn send(
    api: &Arc<ApiClient>,
    request: Request<Incoming>,
    target: PathAndQuery,
    own_path: &str,
    guard: &mut CallGuard,
) -> Result<Response<ResponseBody>, Problem> {
    let (head, body) = request.into_parts();
    let body = ReplayableBody::new(body);
    let deadline = Instant::now() + api.timeout;
    api.budget.lock().request(api.now());
    let mut number = 1;
    let mut unprocessed = 0;
    let mut tried = Vec::new();
    loop {
        let mut in_flight = api.choose(&tried)?;
        let endpoint = &api.endpoints[in_flight.index()];
        tried.push(in_flight.index());
        guard.attempt(&endpoint.name, number);
        let mut outgoing = Request::new(body.share());
        *outgoing.method_mut() = head.method.clone();
        *outgoing.uri_mut() = target.clone().into();
        *outgoing.headers_mut() = headers::outbound(&head.headers);
        let until = Instant::now() + api.attempt_timeout(number, &head, deadline);
        let answer = endpoint.service.call(outgoing, until).await;
        let answer = answer.map_err(|failure| body.blame(failure));
        if answer.as_ref().is_err_and(|failure| failure.stage == Stage::Unprocessed)
            && unprocessed < MAX_UNPROCESSED
            && body.is_whole()
        {
            // Neither an attempt nor a failure: the server has not processed it.
            unprocessed += 1;
            tried.pop();
            continue;
        }
        let failure = in_flight.judge(&answer).filter(|_| body.is_whole());
        let retry_after = failure
            .and_then(|failure| api.retry_after(number, &head, failure, answer.as_ref().ok(), deadline));
        match (retry_after, answer) {
            (Some(wait), _) => {
                drop(in_flight);
                tokio::time::sleep(wait).await;
                number += 1;
            }
            (None, Ok(answer)) => return Ok(deliver(answer, in_flight, own_path)),
            (None, Err(failure)) => return Err(problem(&endpoint.name, &failure)),
        }
    }
}

/// The response as the caller gets it; `own_path` is the path of the API at the gateway.
pub(super) fn deliver(
    mut answer: Response<AnswerBody>,
    in_flight: InFlightGuard,
    own_path: &str,
) -> Response<ResponseBody> {
    headers::inbound(answer.headers_mut(), in_flight.endpoint().service.base(), own_path);
    answer.map(|body| ResponseBody::new(body, in_flight))
}

pub(super) fn problem(endpoint: &str, failure: &Failure) -> Problem {
    let Failure { stage, fault } = failure;
    let kind = match fault.reason {
        Reason::Timeout => ProblemKind::UpstreamTimeout,
        Reason::CallerAborted => ProblemKind::BadRequest,
        _ => ProblemKind::Upstream,
    };
    let what = match stage {
        Stage::Credential => "obtaining the credential failed",
        Stage::Connect => "connecting failed",
        Stage::Exchange | Stage::Unprocessed => "the call failed",
    };
    Problem::new(kind, format!("{endpoint}: {what}: {}: {}", fault.reason, fault.detail))
}

impl ApiClient {
    /// An endpoint whose circuit permits the call. One that has failed this call is chosen only when there is no other.
    ///
    /// # Errors
    /// `CircuitOpen` with the time after which to retry, `NotReady`.
    pub(super) fn choose(self: &Arc<Self>, tried: &[usize]) -> Result<InFlightGuard, Problem> {
        let now = self.now();
        let open = |wait| {
            let detail = format!("the circuit of every endpoint of the ExternalApi {} is open", self.name);
            Problem::new(ProblemKind::CircuitOpen, detail).after(wait)
        };
        if self.endpoints.len() == 1 {
            return self.permit(0, now).map(|permit| InFlightGuard::start(self, 0, permit)).map_err(open);
        }
        let mut refused = Vec::new();
        let mut soonest = Duration::MAX;
        // Where no endpoint is ready the probes may be wrong: panic mode, as proxies call it, tries all.
        let panic = !self.endpoints.iter().any(|endpoint| endpoint.ready.load(Relaxed));
        let prefer = Preference { zone: self.zone.as_deref(), panic };
        loop {
            let among: Vec<_> = (0..self.endpoints.len()).filter(|index| !refused.contains(index)).collect();
            let candidates: Vec<_> =
                among.iter().map(|index| self.candidate(*index, tried.contains(index), now)).collect();
            let Some(chosen) = choose(&candidates, prefer, rand::random()) else { break };
            let index = among[chosen];
            match self.permit(index, now) {
                Ok(permit) => return Ok(InFlightGuard::start(self, index, permit)),
                Err(wait) => {
                    soonest = soonest.min(wait);
                    refused.push(index);
                }
            }
        }
        if refused.is_empty() {
            return Err(Problem::new(
                ProblemKind::NotReady,
                format!("the ExternalApi {} has no endpoint", self.name),
            ));
        }
        Err(open(soonest))
    }

    fn candidate(&self, index: usize, tried: bool, now: Duration) -> Candidate<'_> {
        let endpoint = &self.endpoints[index];
        Candidate {
            ready: endpoint.ready.load(Relaxed),
            zone: endpoint.zone.as_deref(),
            weight: endpoint.weight,
            measured: endpoint.load().value(now),
            reported: None,
            tried,
        }
    }

    fn permit(&self, index: usize, now: Duration) -> Result<Option<Permit>, Duration> {
        let Some(breaker) = &self.endpoints[index].breaker else { return Ok(None) };
        let permit = breaker.lock().allow(now)?;
        self.circuit_changed(index, permit.transition);
        Ok(Some(permit))
    }

    /// How long this attempt may take.
    fn attempt_timeout(&self, number: u32, head: &Parts, deadline: Instant) -> Duration {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(retry) = &self.retry else { return left };
        retry.share(number, head.method.as_str(), has_key(head), left)
    }

    /// The wait before the next attempt; none where there is none.
    fn retry_after(
        &self,
        number: u32,
        head: &Parts,
        failure: On,
        answer: Option<&Response<AnswerBody>>,
        deadline: Instant,
    ) -> Option<Duration> {
        let retry = self.retry.as_ref()?;
        let asked = answer.filter(|_| self.respect_retry_after).and_then(|answer| {
            let value = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
            retry::retry_after(value, Timestamp::now())
        });
        let failed = Attempt {
            number,
            method: head.method.as_str(),
            idempotency_key: has_key(head),
            failure,
            retry_after: asked,
            left: deadline.saturating_duration_since(Instant::now()),
        };
        let mut budget = self.budget.lock();
        retry.again(&failed, &mut budget, rand::random(), self.now())
    }
}

fn has_key(head: &Parts) -> bool {
    head.headers.contains_key("idempotency-key")
}
