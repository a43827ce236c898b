//! Hands the events of user syncs and logins to the delivery engine. They wait in the store, where they were written together with the
//! change that they tell of, so that none is lost or made up; one that is handed over twice is one event, by its id.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::super::CallDeps;
use super::endpoints::Endpoints;
use crate::{
    delivery::AcceptError,
    domain::delivery::event::{Data, Event, Form},
    store::OutboxEvent,
};

/// How often the store is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Events of one question.
const BATCH: i64 = 500;

/// Hands events over until `stop` is cancelled.
pub(super) async fn relay(endpoints: &Endpoints, deps: &CallDeps, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        // Before that an event could miss a Webhook.
        while endpoints.is_loaded() && !stop.is_cancelled() {
            match hand_over(endpoints, deps).await {
                Ok(true) => {}
                // What does not work is tried again; the store tells of its own failures.
                Ok(false) | Err(_) => break,
            }
        }
    }
}

/// Hands some over; whether there may be more.
async fn hand_over(endpoints: &Endpoints, deps: &CallDeps) -> Result<bool, AcceptError> {
    let waiting = deps.store.outbox().first(BATCH).await?;
    // In a namespace without a Webhook nobody wants them.
    for events in waiting.chunk_by(|one, other| one.namespace == other.namespace) {
        let namespace = &events[0].namespace;
        if endpoints.has_any(namespace) {
            deps.engine.accept(namespace, events.iter().map(event).collect()).await?;
        }
        deps.store.outbox().remove(events).await?;
    }
    Ok(!waiting.is_empty())
}

fn event(event: &OutboxEvent) -> Event {
    let OutboxEvent { id, namespace, name, kind, subject, at, data } = event;
    Event {
        id: String::new(),
        producer_id: Some(id.clone()),
        source: format!("/namespaces/{namespace}/ldapdirectories/{name}"),
        event_type: kind.clone(),
        subject: Some(subject.clone()),
        time: Timestamp::from_millisecond(*at).unwrap_or_default(),
        data: Data {
            form: Form::Json,
            content_type: Some("application/json".to_owned()),
            bytes: Bytes::from(data.clone()),
        },
        extensions: Vec::new(),
    }
}
