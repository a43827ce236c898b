//! The filter of a webhook, and the template of its payload: CEL over one event.

use std::sync::Arc;

use cel::Value;

use crate::domain::{
    cel::{Failure, Invalid, Json, Program, Variable, render, type_of},
    delivery::{
        event::{Event, Form},
        payload::Payload,
    },
};

/// What expressions can use.
const EVENT: Variable =
    Variable { name: "event", fields: &["id", "type", "source", "subject", "time", "data", "extensions"] };

/// The largest body that a template may make, in bytes.
const LARGEST: usize = 1 << 20;

/// An event as expressions see it. It serves the expressions of every webhook.
#[derive(Clone, Debug)]
pub struct EventView(Result<Json, Failure>);

impl EventView {
    /// Of this event. Data that is JSON is what it says, a text is a text, and anything else is null.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let data = match event.data.form {
            Form::Json => Json::parse(&event.data.bytes).map_err(|_| Failure::Data),
            Form::Text => std::str::from_utf8(&event.data.bytes).map(Json::text).map_err(|_| Failure::Data),
            Form::None | Form::Binary => Ok(Json::null()),
        };
        let text = |text: Option<&str>| text.map_or_else(Json::null, Json::text);
        let extensions = event.extensions.iter();
        let extensions = extensions.map(|(name, value)| (name.as_str(), Json::from_value(value.clone())));
        Self(data.map(|data| {
            Json::object([
                // The producer's own, where it has given one.
                ("id", Json::text(event.producer_id.as_deref().unwrap_or(&event.id))),
                ("type", Json::text(&event.event_type)),
                ("source", Json::text(&event.source)),
                ("subject", text(event.subject.as_deref())),
                ("time", Json::text(&event.time.to_string())),
                ("data", data),
                ("extensions", Json::object(extensions)),
            ])
        }))
    }

    fn run(&self, program: &Program) -> Result<Value, Failure> {
        program.run(EVENT, self.0.as_ref().map_err(Clone::clone)?)
    }
}

/// Which events are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Arc<Program>);

impl Filter {
    /// Compiles it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(source: &str) -> Result<Self, Invalid> {
        Program::compile(source, &[EVENT]).map(|program| Self(Arc::new(program)))
    }

    /// Whether the event is one of them.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub fn matches(&self, event: &EventView) -> Result<bool, Failure> {
        match event.run(&self.0)? {
            Value::Bool(matches) => Ok(matches),
            other => Err(Failure::Result { found: type_of(&other), wanted: "a boolean" }),
        }
    }
}

/// What is sent of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Arc<Program>);

impl Template {
    /// Compiles it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(source: &str) -> Result<Self, Invalid> {
        Program::compile(source, &[EVENT]).map(|program| Self(Arc::new(program)))
    }

    /// The request's content: the same bytes for the same event, whenever it is made.
    ///
    /// # Errors
    /// Why there is none.
    pub fn payload(&self, event: &EventView) -> Result<Payload, Failure> {
        let value = event.run(&self.0)?;
        let body = render(&value).map_err(|found| Failure::Result { found, wanted: "JSON" })?;
        if body.len() > LARGEST {
            return Err(Failure::Cost);
        }
        Ok(Payload::json("application/json", body))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::domain::delivery::event::{Data, from_plain};

    fn event(text: &'static str) -> Event {
        let event = from_plain(&Bytes::from_static(text.as_bytes()), "shop", Timestamp::UNIX_EPOCH).unwrap();
        Event { id: "evt_1".to_owned(), ..event }
    }

    fn matches(filter: &str, event: &Event) -> Result<bool, Failure> {
        Filter::compile(filter).unwrap().matches(&EventView::of(event))
    }

    #[test]
    fn a_filter_sees_all_of_an_event() {
        let event =
            event(r#"{"type":"user.created","id":"7","subject":"u1","data":{"tenant":"acme","n":3}}"#);
        for filter in [
            "event.data.tenant == 'acme' && event.data.n == 3.0",
            "event.id == '7' && event.type == 'user.created' && event.source == 'shop' && event.subject == 'u1'",
            "event.time < '1970-01-01T00:00:01Z' && size(event.extensions) == 0",
            "!has(event.data.deleted)",
        ] {
            assert_eq!(matches(filter, &event), Ok(true), "{filter}");
        }
        assert_eq!(matches("event.data.tenant == 'other'", &event), Ok(false));
    }

    #[test]
    fn an_event_without_data_or_with_other_data_has_none_that_matches() {
        let none = event(r#"{"type":"ping"}"#);
        assert_eq!(
            matches("event.data == null && event.subject == null && event.id == 'evt_1'", &none),
            Ok(true)
        );
        assert_eq!(matches("has(event.data.tenant)", &none), Ok(false));
        let data = Data { form: Form::Binary, content_type: None, bytes: Bytes::from_static(b"\xff") };
        assert_eq!(matches("event.data == null", &Event { data, ..none.clone() }), Ok(true));
        let data = Data { form: Form::Text, content_type: None, bytes: Bytes::from_static(b"hello") };
        assert_eq!(matches("event.data == 'hello'", &Event { data, ..none }), Ok(true));
        let huge = event(r#"{"type":"a","data":1e400}"#);
        assert_eq!(matches("true", &huge), Err(Failure::Data));
    }

    #[test]
    fn a_filter_that_gives_something_else_fails_and_says_what() {
        let event = event(r#"{"type":"a","data":{"n":1}}"#);
        let failed = matches("event.data", &event).unwrap_err();
        assert_eq!(failed.to_string(), "the result is an object, not a boolean");
        assert_eq!(matches("event.data.m == 1", &event), Err(Failure::Missing));
        assert!(Filter::compile("event.dat.n == 1").is_err());
    }

    #[test]
    fn a_template_gives_the_same_bytes_each_time() {
        let event = event(r#"{"type":"user.created","data":{"name":"Zoë \"Z\"","tags":["a","b"],"n":3}}"#);
        let source = r#"{"text": event.type + ": " + event.data.name, "b": [1, 2.5, null, true], "a": event.data.tags.map(t, {"tag": t}), "n": event.data.n}"#;
        let body =
            r#"{"a":[{"tag":"a"},{"tag":"b"}],"b":[1,2.5,null,true],"n":3,"text":"user.created: Zoë \"Z\""}"#;
        for _ in 0..20 {
            let template = Template::compile(source).unwrap();
            assert_eq!(template.payload(&EventView::of(&event)), Ok(Payload::json("application/json", body)));
        }
    }

    #[test]
    fn a_template_that_gives_no_json_or_too_much_of_it_fails() {
        let text = format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(200_000));
        let event = from_plain(&Bytes::from(text), "shop", Timestamp::UNIX_EPOCH).unwrap();
        let payload = |source: &str| Template::compile(source).unwrap().payload(&EventView::of(&event));
        assert_eq!(
            payload("[event.data, event.data, event.data, event.data, event.data, event.data]"),
            Err(Failure::Cost)
        );
        assert_eq!(
            payload("{'a': 1.0 / 0.0}"),
            Err(Failure::Result { found: "not a finite number", wanted: "JSON" })
        );
        assert_eq!(payload("event.data.name"), Ok(Payload::json("application/json", "false")));
    }
}
