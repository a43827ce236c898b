//! One attempt: a request, and what comes back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT},
};
use http_body_util::BodyExt;

use super::{
    clock::wall,
    settings::{EndpointSettings, PayloadKind},
    signing::Signer,
};
use crate::{
    api::Reason,
    backends::{
        Fault,
        http::{self as client, AnswerBody, Body, Client, Connections, Egress, Failure, Repeatable, Stage},
        transport::Tls,
    },
    domain::delivery::{
        event::Event,
        outcome::Outcome,
        payload::Payload,
        scheduler::{Ended, EndpointConfig},
    },
};

/// What receivers see of us, unless the user says otherwise.
const AGENT: HeaderValue = HeaderValue::from_static("Auth-Service-Webhook/1.0");

/// A body is read so far, so that its connection can be used again, ...
const MOST_OF_BODY: usize = 16 << 10;
/// ... and so long after the head: the delivery is over by then.
const BODY_TIME: Duration = Duration::from_millis(500);
/// So much of it is kept, if the attempt has failed.
const KEPT_OF_BODY: usize = 4 << 10;

/// A request that a connection has not carried because it was ending is sent so many times in all.
const SENDS: u32 = 3;

/// An endpoint that is ready to be called.
pub(super) struct Endpoint {
    pub(super) settings: EndpointSettings,
    client: Client,
    signer: Signer,
    headers: HeaderMap,
}

/// How an attempt went.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) ended: Ended,
    pub(super) status: Option<u16>,
    pub(super) detail: String,
    pub(super) body: Vec<u8>,
}

impl Endpoint {
    /// Makes it ready.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub(super) fn new(settings: EndpointSettings, egress: Egress, usual: &Tls) -> Result<Self, Fault> {
        let is_usual = settings.tls.ca.is_none() && settings.tls.client.is_none() && settings.tls.enabled();
        let tls = if is_usual { usual.clone() } else { client::tls(&settings.tls)? };
        let client =
            Client::new(&settings.url, egress, &tls, settings.server_name.as_deref(), Connections::Pooled);
        let mut headers = HeaderMap::with_capacity(settings.headers.len() + 8);
        headers.insert(USER_AGENT, AGENT);
        headers.extend(settings.headers.iter().cloned());
        let signer = Signer::new(&settings.signing);
        Ok(Self { settings, client, signer, headers })
    }

    /// What the scheduler needs to know.
    pub(super) fn config(&self) -> EndpointConfig {
        EndpointConfig { suspended: self.is_suspended(), ..self.settings.config.clone() }
    }

    /// Whether nothing is sent for now.
    pub(super) fn is_suspended(&self) -> bool {
        self.settings.config.suspended || self.settings.unusable.is_some()
    }

    pub(super) fn host(&self) -> &str {
        self.settings.url.host().unwrap_or_default()
    }

    /// Sends an event once.
    pub(super) async fn send(&self, event: &Event) -> Report {
        let started = Instant::now();
        let mut report = match self.payload(event) {
            Ok(payload) => self.exchange(event, payload, started + self.settings.timeout).await,
            Err(why) => Report::of(Outcome::SecretUnavailable, format!("payload.template: {why}")),
        };
        report.ended.took = started.elapsed();
        report
    }

    fn payload(&self, event: &Event) -> Result<Payload, String> {
        match &self.settings.payload {
            PayloadKind::Form(form) => Ok(Payload::of(event, *form)),
            PayloadKind::Template(template) => template(event),
        }
    }

    async fn exchange(&self, event: &Event, payload: Payload, deadline: Instant) -> Report {
        let deadline = deadline.into();
        let mut sends = 1;
        let answer = loop {
            match self.client.send(self.request(event, &payload), deadline).await {
                Err(Failure { stage: Stage::Unprocessed, .. }) if sends < SENDS => sends += 1,
                answer => break answer,
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return self.failed(&failure),
        };
        let (head, body) = answer.into_parts();
        let asked = head.headers.get_all(RETRY_AFTER).iter().filter_map(|value| value.to_str().ok());
        let asked_wait = self.settings.config.retry.asked_wait(asked, wall());
        let outcome = Outcome::of_status(head.status.as_u16(), asked_wait.is_some());
        let body = beginning(body, deadline.min(tokio::time::Instant::now() + BODY_TIME)).await;
        let detail = match outcome {
            Outcome::Delivered => String::new(),
            Outcome::Redirected => redirected(head.status, head.headers.get(LOCATION)),
            _ => format!("the receiver answered {}", head.status),
        };
        let kept = if outcome == Outcome::Delivered { Vec::new() } else { body };
        let ended = Ended { outcome, asked_wait, took: Duration::ZERO };
        Report { ended, status: Some(head.status.as_u16()), detail, body: kept }
    }

    fn request(&self, event: &Event, payload: &Payload) -> Request<Body> {
        let mut headers = self.headers.clone();
        if let Some(content_type) =
            payload.content_type.as_deref().and_then(|it| HeaderValue::from_str(it).ok())
        {
            headers.insert(CONTENT_TYPE, content_type);
        }
        for (name, value) in &payload.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        self.signer.sign(&mut headers, event, &payload.body, wall());
        let mut request = Request::new(Body::whole(Bytes::clone(&payload.body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.settings.url.clone();
        *request.headers_mut() = headers;
        request.extensions_mut().insert(Repeatable);
        request
    }

    fn failed(&self, failure: &Failure) -> Report {
        let reason = failure.fault.reason;
        let outcome = match (failure.stage, reason) {
            (_, Reason::DnsFailed) => Outcome::DnsFailed,
            (_, Reason::AddressDenied) => Outcome::AddressDenied,
            (_, Reason::TlsFailed | Reason::CertificateExpired) => Outcome::TlsFailed,
            (Stage::Connect, _) => Outcome::ConnectFailed,
            (_, Reason::Timeout) => Outcome::Timeout,
            (_, Reason::ProtocolError) => Outcome::ProtocolError,
            _ => Outcome::ConnectionLost,
        };
        let detail = &failure.fault.detail;
        let seconds = self.settings.timeout.as_secs_f32();
        let detail = match outcome {
            Outcome::Timeout => format!(
                "no answer within {seconds}s: the receiver may have handled the event, raise delivery.timeout if it needs longer"
            ),
            Outcome::ConnectionLost => format!("{detail}: the receiver may have handled the event"),
            _ => detail.clone(),
        };
        Report::of(outcome, detail)
    }
}

impl Report {
    pub(super) fn of(outcome: Outcome, detail: String) -> Self {
        let ended = Ended { outcome, asked_wait: None, took: Duration::ZERO };
        Self { ended, status: None, detail, body: Vec::new() }
    }
}

/// Where it leads to is told, without what may be a secret in it.
fn redirected(status: StatusCode, location: Option<&HeaderValue>) -> String {
    let target = location.and_then(|value| value.to_str().ok()?.parse::<http::Uri>().ok());
    let host = target.as_ref().and_then(http::Uri::host).unwrap_or("a path of its own");
    format!(
        "the receiver answered {status} to {host}: redirects are not followed, set the url to where it leads"
    )
}

/// The beginning of a body. It is read so that the connection can be used again; whatever goes wrong with it is of no interest.
async fn beginning(mut body: AnswerBody, until: tokio::time::Instant) -> Vec<u8> {
    let (mut kept, mut read) = (Vec::new(), 0);
    while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(until, body.frame()).await {
        let Ok(data) = frame.into_data() else { continue };
        read += data.len();
        let room = KEPT_OF_BODY - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if read > MOST_OF_BODY {
            break;
        }
    }
    kept
}

/// An endpoint, shared by those who call it.
pub(super) type SharedEndpoint = Arc<Endpoint>;
