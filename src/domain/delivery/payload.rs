//! What is sent of an event.

use bytes::Bytes;
use serde_json::Value;

use super::{
    cloudevents::{embedded, to_binary, to_structured},
    event::Event,
};

/// The form in which an event is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadForm {
    /// `{"type": .., "timestamp": .., "data": ..}`, as Standard Webhooks recommends, with `id` where the producer gave one.
    #[default]
    Standard,
    /// CloudEvents, as one JSON text.
    Structured,
    /// CloudEvents, with the data as the body and the rest as headers.
    Binary,
}

/// A request's content. It is the same for the same event and form, whenever it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The header `Content-Type`; none where the producer named no media type.
    pub content_type: Option<String>,
    /// Headers of CloudEvents.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Payload {
    /// That of the event in this form.
    #[must_use]
    pub fn of(event: &Event, form: PayloadForm) -> Self {
        match form {
            PayloadForm::Standard => Self::json("application/json", standard(event)),
            PayloadForm::Structured => {
                Self::json("application/cloudevents+json; charset=utf-8", to_structured(event))
            }
            PayloadForm::Binary => {
                let (headers, body) = to_binary(event);
                let json = || "application/json".to_owned();
                let content_type = event.data.content_type.clone();
                // JSON without a name came in the plain form.
                let content_type = content_type.or_else(|| (!body.is_empty()).then(json));
                Self { content_type, headers, body }
            }
        }
    }

    /// A JSON text.
    #[must_use]
    pub fn json(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self { content_type: Some(content_type.to_owned()), headers: Vec::new(), body: body.into() }
    }
}

fn standard(event: &Event) -> Vec<u8> {
    let data = embedded(&event.data);
    let mut text = Vec::with_capacity(data.len() + 128);
    let member = |text: &mut Vec<u8>, name: &str, value: &str| {
        text.push(if text.is_empty() { b'{' } else { b',' });
        text.extend_from_slice(format!("\"{name}\":{}", Value::from(value)).as_bytes());
    };
    if let Some(id) = &event.producer_id {
        member(&mut text, "id", id);
    }
    member(&mut text, "type", &event.event_type);
    member(&mut text, "timestamp", &event.time.to_string());
    text.extend_from_slice(b",\"data\":");
    text.extend_from_slice(&data);
    text.push(b'}');
    text
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::delivery::event::{Data, Form, from_plain};

    fn event(data: &str) -> Event {
        let text =
            format!(r#"{{"type":"user.created","id":"7","timestamp":"2026-08-01T00:00:00Z","data":{data}}}"#);
        Event { id: "evt_1".to_owned(), ..from_plain(&text.into(), "me", Timestamp::UNIX_EPOCH).unwrap() }
    }

    #[test]
    fn the_standard_form_has_type_time_and_the_data_byte_for_byte() {
        let payload = Payload::of(&event(r#"{"b":1, "a":2,"a":1e400}"#), PayloadForm::Standard);
        let body = r#"{"id":"7","type":"user.created","timestamp":"2026-08-01T00:00:00Z","data":{"b":1, "a":2,"a":1e400}}"#;
        assert_eq!(payload, Payload::json("application/json", body));
        let bytes = Data { form: Form::Binary, content_type: None, bytes: Bytes::from_static(b"\x89PNG") };
        let event = Event { data: bytes, producer_id: None, ..event("1") };
        let body = r#"{"type":"user.created","timestamp":"2026-08-01T00:00:00Z","data":"iVBORw=="}"#;
        assert_eq!(Payload::of(&event, PayloadForm::Standard).body, body);
    }

    #[test]
    fn cloudevents_have_an_id_whether_the_producer_gave_one_or_not() {
        let without = Event { producer_id: None, ..event("1") };
        let binary = Payload::of(&without, PayloadForm::Binary);
        assert!(binary.headers.contains(&("ce-id".to_owned(), "evt_1".to_owned())), "{binary:?}");
        assert_eq!((binary.content_type.as_deref(), &binary.body[..]), (Some("application/json"), &b"1"[..]));
        let structured: Value =
            serde_json::from_slice(&Payload::of(&event("1"), PayloadForm::Structured).body).unwrap();
        assert_eq!(
            (&structured["id"], &structured["data"], &structured["source"]),
            (&"7".into(), &1.into(), &"me".into())
        );
    }
}
