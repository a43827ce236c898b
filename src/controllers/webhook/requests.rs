//! What users ask for by annotations, each change of a value once.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use super::DeliveryReader;
use crate::{
    api::{
        Reason,
        v1alpha1::{
            Webhook,
            webhook::{ENABLE_ANNOTATION, HandledRequests, REPLAY_ANNOTATION},
        },
    },
    backends::Fault,
    controllers::Error,
    store,
};

/// Does what the annotations ask for since the last reconcile. Gives what the status says of them from now on.
///
/// # Errors
/// `InvalidSpec` for a value that cannot be read, and what the store says: it is tried again.
pub(super) async fn handle(
    deliveries: &DeliveryReader,
    webhook: &Webhook,
) -> Result<Option<HandledRequests>, Error> {
    let handled = webhook.status.as_ref().and_then(|status| status.requests.clone()).unwrap_or_default();
    let asked = HandledRequests {
        enable: webhook.annotations().get(ENABLE_ANNOTATION).cloned(),
        replay_since: webhook.annotations().get(REPLAY_ANNOTATION).cloned(),
    };
    if asked.enable.is_some() && asked.enable != handled.enable {
        deliveries.enable(webhook).await.map_err(|error| failed(&error))?;
    }
    if let Some(since) = &asked.replay_since
        && asked.replay_since != handled.replay_since
    {
        deliveries.replay(webhook, since_epoch(since)?).await.map_err(|error| failed(&error))?;
    }
    Ok((asked != HandledRequests::default()).then_some(asked))
}

fn since_epoch(text: &str) -> Result<Duration, Error> {
    let time = text.parse::<Timestamp>().map_err(|_| Error::InvalidSpec {
        field: format!("the annotation {REPLAY_ANNOTATION}"),
        problem: "is no time such as 2026-01-31T12:00:00Z".to_owned(),
    })?;
    Ok(Duration::from_millis(u64::try_from(time.as_millisecond()).unwrap_or_default()))
}

fn failed(error: &store::Error) -> Error {
    Error::Cleanup(Fault::new(Reason::StoreUnavailable, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_by_rfc_3339() {
        assert_eq!(since_epoch("1970-01-01T00:00:01Z").unwrap(), Duration::from_secs(1));
        assert_eq!(since_epoch("1970-01-01T01:00:00+01:00").unwrap(), Duration::ZERO);
        let error = since_epoch("yesterday").unwrap_err().to_string();
        assert!(error.contains(REPLAY_ANNOTATION), "{error}");
    }
}
