//! CloudEvents 1.0: the JSON format (structured mode and batches) and the HTTP binding's binary mode, in and out.

mod http;
mod json;

pub use http::{from_binary, to_binary};
pub(super) use json::embedded;
pub use json::{from_batch, from_structured, to_structured};

use jiff::Timestamp;
use serde_json::Value;

use super::event::{Data, Event, Form, InvalidEvent, time_of};

/// The largest batch.
pub const LARGEST_BATCH: usize = 500;

const SPEC_VERSION: &str = "1.0";

/// The attributes of an event, on their way to it.
#[derive(Default)]
struct Attributes {
    spec_version: Option<String>,
    id: Option<String>,
    source: Option<String>,
    event_type: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    extensions: Vec<(String, Value)>,
}

impl Attributes {
    /// Takes one. `field` is what its sender calls it.
    fn add(&mut self, name: &str, field: &str, value: Value) -> Result<(), InvalidEvent> {
        let place = match name {
            "specversion" => &mut self.spec_version,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.event_type,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            _ => {
                let named =
                    !name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
                if !named {
                    let why = "is no attribute of CloudEvents: names are lower-case letters and digits";
                    return Err(InvalidEvent::of(field, why));
                }
                if matches!(value, Value::Array(_) | Value::Object(_)) {
                    return Err(InvalidEvent::of(
                        field,
                        "is no text, number, true or false: move it into data",
                    ));
                }
                self.extensions.push((name.to_owned(), value));
                return Ok(());
            }
        };
        let Value::String(text) = value else { return Err(InvalidEvent::of(field, "is no text")) };
        *place = Some(text);
        Ok(())
    }

    /// The event. `prefix` is what its sender writes before the names of attributes.
    fn event(self, prefix: &str, data: Data, now: Timestamp) -> Result<Event, InvalidEvent> {
        let missing = |name: &str| InvalidEvent::of(format!("{prefix}{name}"), "is missing");
        let version = self.spec_version.ok_or_else(|| missing("specversion"))?;
        if version != SPEC_VERSION {
            return Err(InvalidEvent::of(format!("{prefix}specversion"), "is not 1.0"));
        }
        let event = Event {
            id: String::new(),
            producer_id: Some(self.id.ok_or_else(|| missing("id"))?),
            source: self.source.ok_or_else(|| missing("source"))?,
            event_type: self.event_type.ok_or_else(|| missing("type"))?,
            subject: self.subject,
            time: time_of(&format!("{prefix}time"), self.time.as_deref(), now)?,
            data,
            extensions: self.extensions,
        };
        event
            .checked()
            .map_err(|InvalidEvent { field, why }| InvalidEvent { field: format!("{prefix}{field}"), why })
    }
}

/// The attributes of an event but its data's content type, as they leave.
fn attributes(event: &Event) -> impl Iterator<Item = (&str, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    let known = [
        ("specversion", Some(text(SPEC_VERSION))),
        ("id", Some(text(event.producer_id.as_deref().unwrap_or(&event.id)))),
        ("source", Some(text(&event.source))),
        ("type", Some(text(&event.event_type))),
        ("subject", event.subject.as_deref().map(text)),
        ("time", Some(text(&event.time.to_string()))),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.chain(event.extensions.iter().map(|(name, value)| (name.as_str(), value.clone())))
}

/// Whether this media type is JSON (RFC 6839, section 3.1), whatever its parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.split_once('/').map_or("", |(_, subtype)| subtype);
    subtype == "json" || subtype.ends_with("+json")
}

/// What bytes of this media type are.
fn form_of(content_type: Option<&str>, bytes: &[u8]) -> Form {
    let text = content_type.is_some_and(|it| it.trim_start().to_ascii_lowercase().starts_with("text/"));
    match content_type {
        _ if bytes.is_empty() => Form::None,
        Some(content_type) if is_json(content_type) => Form::Json,
        _ if text && std::str::from_utf8(bytes).is_ok() => Form::Text,
        _ => Form::Binary,
    }
}
