//! Events in each of the forms that producers send.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use jiff::Timestamp;

use super::super::problem::{Problem, ProblemKind};
use crate::domain::delivery::{
    cloudevents,
    event::{Event, InvalidEvent, LARGEST, from_plain},
};

/// The largest batch, in bytes; none of its events may be larger than one that is sent alone.
const LARGEST_BATCH: usize = 4 << 20;

/// What a test sends if the caller sends nothing.
pub(super) const EXAMPLE: &str = r#"{"type": "authlink.test", "data": {"message": "a test of authlink"}}"#;

/// The form of a request, by its `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"type", "data", ..}`, or a CloudEvent of which the attributes are headers.
    Single,
    /// A CloudEvent as JSON.
    Structured,
    /// A list of CloudEvents as JSON.
    Batch,
}

impl Form {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/cloudevents+json" => Self::Structured,
            "application/cloudevents-batch+json" => Self::Batch,
            _ => Self::Single,
        }
    }

    /// The largest body, in bytes.
    pub(super) fn most(self) -> usize {
        match self {
            Self::Single | Self::Structured => LARGEST,
            Self::Batch => LARGEST_BATCH,
        }
    }

    /// The events of a request. Where the producer names no source, it is `source`.
    pub(super) fn parse(
        self,
        headers: &HeaderMap,
        body: &Bytes,
        source: &str,
        now: Timestamp,
    ) -> Result<Vec<Event>, Problem> {
        let events = match self {
            Self::Single => {
                let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                match cloudevents::from_binary(headers, body, now) {
                    Ok(Some(event)) => Ok(vec![event]),
                    Ok(None) => from_plain(body, source, now).map(|event| vec![event]),
                    Err(error) => Err(error),
                }
            }
            Self::Structured => cloudevents::from_structured(body, now).map(|event| vec![event]),
            Self::Batch => cloudevents::from_batch(body, now).and_then(|events| {
                match events.iter().position(|event| event.data.bytes.len() > LARGEST) {
                    Some(index) => Err(InvalidEvent::of(
                        format!("[{index}].data"),
                        format!("must have at most {LARGEST} bytes"),
                    )),
                    None => Ok(events),
                }
            }),
        };
        events.map_err(|error| Problem::new(ProblemKind::BadRequest, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &'static str, body: &'static str) -> Result<Vec<Event>, Problem> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
        let form = Form::of(&headers);
        form.parse(&headers, &Bytes::from_static(body.as_bytes()), "/namespaces/shop", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_content_type_says_which_form_a_request_has() {
        let plain = parse("application/json", r#"{"type": "user.created", "data": 1}"#).unwrap();
        assert_eq!((plain[0].source.as_str(), plain[0].producer_id.as_deref()), ("/namespaces/shop", None));
        let event = r#"{"specversion": "1.0", "id": "7", "source": "/a", "type": "user.created"}"#;
        let structured = parse("Application/CloudEvents+JSON; charset=utf-8", event).unwrap();
        assert_eq!((structured[0].source.as_str(), structured[0].producer_id.as_deref()), ("/a", Some("7")));
        assert_eq!(parse("application/cloudevents-batch+json", "[]").unwrap(), []);
        let wrong = parse("application/cloudevents+json", r#"{"id": "7"}"#).unwrap_err();
        assert_eq!(wrong.kind, ProblemKind::BadRequest);
    }

    #[test]
    fn without_a_body_a_test_sends_an_event_that_is_valid() {
        assert_eq!(parse("", EXAMPLE).unwrap()[0].event_type, "authlink.test");
    }
}
