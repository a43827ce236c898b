//! One call: which endpoint gets it, and what happens when that fails.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::http::{Request, Response, header, request::Parts, uri::PathAndQuery};
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{client::ApiClient, headers, replayable_body::ReplayableBody, response_body::ResponseBody};
use crate::{
    api::Reason,
    backends::http::{AnswerBody, Failure, Stage},
    domain::{
        breaker::{Permit, State},
        choice::{Candidate, Preference, choose},
        retry::{self, Attempt, On},
    },
    gateway::{
        access_log::CallRecord,
        problem::{Kind, Problem},
    },
};

/// So many times a request is sent again because a connection ended before the server took it.
const UNPROCESSED: u32 = 3;

/// Sends the request until an answer is worth giving to the caller, or there is no more time, budget or body.
pub(super) async fn send(
    api: &Arc<ApiClient>,
    request: Request<Incoming>,
    target: PathAndQuery,
    record: &mut CallRecord,
) -> Result<Response<ResponseBody>, Problem> {
    let (head, body) = request.into_parts();
    let body = ReplayableBody::new(body);
    let deadline = Instant::now() + api.timeout;
    api.budget.lock().request(api.now());
    let mut number = 1;
    let mut unprocessed = 0;
    let mut tried = Vec::new();
    loop {
        let mut in_flight_guard = api.choose(&tried)?;
        tried.push(in_flight_guard.index);
        record.endpoint = Some(Arc::clone(&api.endpoints[in_flight_guard.index].name));
        record.attempts = number;
        let mut outgoing = Request::new(body.share());
        *outgoing.method_mut() = head.method.clone();
        *outgoing.uri_mut() = target.clone().into();
        *outgoing.headers_mut() = headers::outbound(&head.headers);
        let until = Instant::now() + api.share(number, &head, deadline);
        let answer = api.endpoints[in_flight_guard.index].service.call(outgoing, until).await;
        let answer = answer.map_err(|failure| body.blame(failure));
        if answer.as_ref().is_err_and(|failure| failure.stage == Stage::Unprocessed)
            && unprocessed < UNPROCESSED
            && body.is_whole()
        {
            // Neither an attempt nor a failure: the server has not had it.
            unprocessed += 1;
            tried.pop();
            continue;
        }
        let failure = in_flight_guard.judge(&answer).filter(|_| body.is_whole());
        let again =
            failure.and_then(|failure| api.again(number, &head, failure, answer.as_ref().ok(), deadline));
        match (again, answer) {
            (Some(wait), _) => {
                drop(in_flight_guard);
                tokio::time::sleep(wait).await;
                number += 1;
            }
            (None, Ok(answer)) => return Ok(deliver(answer, in_flight_guard, deadline)),
            (None, Err(failure)) => {
                return Err(problem(&api.endpoints[in_flight_guard.index].name, &failure));
            }
        }
    }
}

fn deliver(
    mut answer: Response<AnswerBody>,
    in_flight_guard: InFlightGuard,
    deadline: Instant,
) -> Response<ResponseBody> {
    headers::inbound(answer.headers_mut());
    answer.body_mut().until(deadline);
    answer.map(|body| ResponseBody::new(body, in_flight_guard))
}

fn problem(endpoint: &str, failure: &Failure) -> Problem {
    let Failure { stage, fault } = failure;
    let kind = match fault.reason {
        Reason::Timeout => Kind::UpstreamTimeout,
        Reason::CallerAborted => Kind::BadRequest,
        _ => Kind::Upstream,
    };
    let what = match stage {
        Stage::Credential => "the credential could not be had",
        Stage::Connect => "the connection failed",
        Stage::Exchange | Stage::Unprocessed => "the call failed",
    };
    Problem::new(kind, format!("{endpoint}: {what}: {}: {}", fault.reason, fault.detail))
}

impl ApiClient {
    /// An endpoint, with leave to call it. One that has failed this call is only taken when there is no other.
    ///
    /// # Errors
    /// `CircuitOpen` with the time after which to ask again, `NotReady`.
    fn choose(self: &Arc<Self>, tried: &[usize]) -> Result<InFlightGuard, Problem> {
        let now = self.now();
        let open = |wait| {
            let detail = format!("the circuit of every endpoint of the ExternalApi {} is open", self.name);
            Problem::new(Kind::CircuitOpen, detail).after(wait)
        };
        if self.endpoints.len() == 1 {
            return self.permit(0, now).map(|permit| InFlightGuard::start(self, 0, permit)).map_err(open);
        }
        let mut refused = Vec::new();
        let mut soonest = Duration::MAX;
        // Where no probe passes it may be the probes that are wrong: the call itself will tell.
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
                Kind::NotReady,
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
        self.tell(index, permit.transition);
        Ok(Some(permit))
    }

    fn tell(&self, index: usize, turned: Option<State>) {
        if let Some(state) = turned {
            let endpoint = &*self.endpoints[index].name;
            tracing::info!(api = self.name, endpoint, circuit = state.as_str(), "a circuit turned");
            self.counters.turned();
        }
    }

    /// How long this attempt may take.
    fn share(&self, number: u32, head: &Parts, deadline: Instant) -> Duration {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(retry) = &self.retry else { return left };
        retry.share(number, head.method.as_str(), has_key(head), left)
    }

    /// The wait before another attempt; none when there is to be none.
    fn again(
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

/// A call that is under way: counted until its answer has been read to the end, or is not wanted any more.
pub(super) struct InFlightGuard {
    api: Arc<ApiClient>,
    index: usize,
    permit: Option<Permit>,
    started: Instant,
    seen: Option<Seen>,
}

/// What a call tells of its endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It works; the head of its answer took so long.
    Well(Duration),
    /// It works, and wants fewer calls.
    Busy,
    Failed,
}

impl InFlightGuard {
    fn start(api: &Arc<ApiClient>, index: usize, permit: Option<Permit>) -> Self {
        api.in_flight.fetch_add(1, Relaxed);
        api.endpoints[index].load().start();
        Self { api: Arc::clone(api), index, permit, started: Instant::now(), seen: None }
    }

    /// Takes note of the outcome, and says what a retry would be for.
    fn judge(&mut self, answer: &Result<Response<AnswerBody>, Failure>) -> Option<On> {
        let failure = match answer {
            Ok(answer) => On::status(answer.status().as_u16()),
            // The endpoint had no part in it.
            Err(Failure { stage: Stage::Credential, .. }) => return None,
            Err(failure) if failure.fault.reason == Reason::CallerAborted => return None,
            Err(failure) => Some(class(failure)),
        };
        self.seen = Some(match failure {
            None => Seen::Well(self.started.elapsed()),
            Some(On::TooManyRequests) => Seen::Busy,
            Some(_) => Seen::Failed,
        });
        failure
    }

    /// The answer ended before its end.
    pub(super) fn broke(&mut self) {
        self.seen = Some(Seen::Failed);
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
        match self.seen {
            Some(Seen::Well(latency)) => endpoint.load().end(latency, now),
            Some(Seen::Busy | Seen::Failed) => endpoint.load().fail(self.api.timeout, now),
            None => endpoint.load().cancel(),
        }
        let (Some(permit), Some(breaker)) = (self.permit.take(), &endpoint.breaker) else { return };
        let mut breaker = breaker.lock();
        let Some(seen) = self.seen else { return breaker.cancel(permit) };
        let turned = breaker.record(permit, seen != Seen::Failed, now);
        drop(breaker);
        self.api.tell(self.index, turned);
    }
}
