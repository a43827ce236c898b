//! The JSON format (version 1.0.2), of one event and of batches.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, value::RawValue};

use super::{Attributes, Data, Event, Form, InvalidEvent, LARGEST_BATCH, attributes, form_of, is_json};

/// Reads one event (section 3).
///
/// # Errors
/// The first field that is wrong.
pub fn from_structured(body: &Bytes, now: Timestamp) -> Result<Event, InvalidEvent> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body)
        .map_err(|error| InvalidEvent::of("body", format!("is no event: {error}")))?;
    event_of(&fields, body, now)
}

/// Reads a batch (section 4): all of it or nothing.
///
/// # Errors
/// The first field that is wrong, by its place in the batch.
pub fn from_batch(body: &Bytes, now: Timestamp) -> Result<Vec<Event>, InvalidEvent> {
    let batch: Vec<BTreeMap<String, &RawValue>> = serde_json::from_slice(body)
        .map_err(|error| InvalidEvent::of("body", format!("is no list of events: {error}")))?;
    if batch.len() > LARGEST_BATCH {
        return Err(InvalidEvent::of(
            "body",
            format!("has more than {LARGEST_BATCH} events: send several batches"),
        ));
    }
    let events = batch.iter().enumerate().map(|(index, fields)| {
        event_of(fields, body, now)
            .map_err(|InvalidEvent { field, why }| InvalidEvent { field: format!("[{index}].{field}"), why })
    });
    events.collect()
}

fn event_of(
    fields: &BTreeMap<String, &RawValue>,
    body: &Bytes,
    now: Timestamp,
) -> Result<Event, InvalidEvent> {
    let mut attributes = Attributes::default();
    let mut content_type = None;
    let (mut plain, mut encoded) = (None, None);
    for (name, raw) in fields {
        match name.as_str() {
            "data" => plain = Some(*raw),
            "data_base64" => encoded = Some(*raw),
            _ => match serde_json::from_str(raw.get()) {
                // As if it were not there (section 2.2).
                Ok(Value::Null) => {}
                Ok(Value::String(text)) if name == "datacontenttype" => content_type = Some(text),
                Ok(_) if name == "datacontenttype" => return Err(InvalidEvent::of(name, "is no text")),
                Ok(value) => attributes.add(name, name, value)?,
                Err(_) => return Err(InvalidEvent::of(name, "is no value that can be kept")),
            },
        }
    }
    let data = match (plain, encoded) {
        (Some(_), Some(_)) => {
            return Err(InvalidEvent::of("data_base64", "is there besides data: send one of the two"));
        }
        (None, Some(raw)) => {
            let text: Option<String> = serde_json::from_str(raw.get()).ok();
            let bytes = text.and_then(|text| STANDARD.decode(text).ok());
            let bytes = bytes.ok_or_else(|| InvalidEvent::of("data_base64", "is no text in base64"))?;
            let form = match form_of(content_type.as_deref(), &bytes) {
                // It came as bytes, and is passed on as bytes.
                Form::Json | Form::Text => Form::Binary,
                form => form,
            };
            Data { form, content_type, bytes: bytes.into() }
        }
        (Some(raw), None) => plain_data(raw, content_type, body),
        (None, None) => Data { content_type, ..Data::default() },
    };
    attributes.event("", data, now)
}

fn plain_data(raw: &RawValue, content_type: Option<String>, body: &Bytes) -> Data {
    // Of a media type that is not JSON, a text stands for itself (section 3.1.1).
    if content_type.as_deref().is_some_and(|it| !is_json(it))
        && let Ok(text) = serde_json::from_str::<String>(raw.get())
    {
        let form = if text.is_empty() { Form::None } else { Form::Text };
        return Data { form, content_type, bytes: text.into() };
    }
    Data { form: Form::Json, content_type, bytes: body.slice_ref(raw.get().as_bytes()) }
}

/// An event as one JSON text.
#[must_use]
pub fn to_structured(event: &Event) -> Vec<u8> {
    let mut text = Vec::with_capacity(event.data.bytes.len() + 512);
    text.push(b'{');
    for (name, value) in attributes(event) {
        member(&mut text, name, value.to_string().as_bytes());
    }
    if let Some(content_type) = &event.data.content_type {
        member(&mut text, "datacontenttype", Value::String(content_type.clone()).to_string().as_bytes());
    }
    match event.data.form {
        Form::None => {}
        Form::Binary => member(&mut text, "data_base64", &embedded(&event.data)),
        Form::Json | Form::Text => member(&mut text, "data", &embedded(&event.data)),
    }
    text.push(b'}');
    text
}

fn member(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    if text.len() > 1 {
        text.push(b',');
    }
    text.extend_from_slice(Value::String(name.to_owned()).to_string().as_bytes());
    text.push(b':');
    text.extend_from_slice(value);
}

/// Data as a part of a JSON text: JSON as it came, a text as a string, anything else as a string in base64.
pub(in crate::domain::delivery) fn embedded(data: &Data) -> Bytes {
    let string = |text: &str| Bytes::from(Value::String(text.to_owned()).to_string());
    match data.form {
        Form::None => Bytes::from_static(b"null"),
        Form::Json => data.bytes.clone(),
        Form::Text => string(&String::from_utf8_lossy(&data.bytes)),
        Form::Binary => string(&STANDARD.encode(&data.bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> Result<Event, InvalidEvent> {
        let text = format!(r#"{{"specversion":"1.0","id":"a.1 b","source":"/s","type":"a.b"{more}}}"#);
        from_structured(&text.into(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn data_comes_and_leaves_as_what_it_is() {
        let rows: [(&str, Form, &[u8]); 7] = [
            (r#","data":{"b":1, "a":1e400}"#, Form::Json, br#"{"b":1, "a":1e400}"#),
            (r#","datacontenttype":"application/json","data":"text""#, Form::Json, br#""text""#),
            (r#","datacontenttype":"text/plain","data":"a \"b\"""#, Form::Text, br#"a "b""#),
            (r#","datacontenttype":"text/plain","data":{"a":1}"#, Form::Json, br#"{"a":1}"#),
            (r#","datacontenttype":"image/png","data_base64":"iVBORw==""#, Form::Binary, b"\x89PNG"),
            (r#","datacontenttype":"application/json","data_base64":"e30=""#, Form::Binary, b"{}"),
            ("", Form::None, b""),
        ];
        for (more, form, bytes) in rows {
            let event = read(more).unwrap();
            assert_eq!((event.data.form, &event.data.bytes[..]), (form, bytes), "{more}");
            let again = from_structured(&to_structured(&event).into(), Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(again, event, "{more}");
        }
    }

    #[test]
    fn extensions_keep_their_types_and_null_is_nothing() {
        let event = read(r#","n":5,"b":true,"s":"x","subject":null,"time":"2026-08-01T00:00:00Z""#).unwrap();
        let extensions = [("b", true.into()), ("n", 5.into()), ("s", "x".into())];
        assert_eq!(event.extensions, extensions.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!((event.subject, event.producer_id.as_deref()), (None, Some("a.1 b")));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let rows = [
            (r#","data":1,"data_base64":"e30=""#, "data_base64"),
            (r#","data_base64":"!""#, "data_base64"),
            (r#","Trace":"x""#, "Trace"),
            (r#","trace":{}"#, "trace"),
            (r#","subject":5"#, "subject"),
            (r#","time":"x""#, "time"),
            (r#","datacontenttype":5"#, "datacontenttype"),
        ];
        for (more, field) in rows {
            assert_eq!(read(more).unwrap_err().field, field, "{more}");
        }
        let old = from_structured(&r#"{"specversion":"0.3"}"#.into(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(old.field, "specversion");
    }

    #[test]
    fn a_batch_is_read_as_a_whole_or_not_at_all() {
        let one = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a"}"#;
        let batch =
            |events: &[&str]| from_batch(&format!("[{}]", events.join(",")).into(), Timestamp::UNIX_EPOCH);
        assert_eq!(batch(&[]).unwrap().len(), 0);
        assert_eq!(batch(&[one; 500]).unwrap().len(), 500);
        assert_eq!(batch(&[one; 501]).unwrap_err().field, "body");
        assert_eq!(batch(&[one, r#"{"specversion":"1.0"}"#]).unwrap_err().field, "[1].id");
    }
}
