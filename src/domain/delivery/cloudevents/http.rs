//! The binary mode of the HTTP binding (version 1.0.2, section 3.1).

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use serde_json::{Value, value::RawValue};

use super::{Attributes, Data, Event, Form, InvalidEvent, attributes, form_of};

const PREFIX: &str = "ce-";

/// What section 3.1.3.2 has encoded, besides all that is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Reads an event of which the attributes are headers, given in lower case, and the body is the data. None where no header begins with
/// `ce-`: it is no CloudEvent then.
///
/// # Errors
/// The first header that is wrong.
pub fn from_binary<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &Bytes,
    now: Timestamp,
) -> Result<Option<Event>, InvalidEvent> {
    let (mut attributes, mut content_type, mut any) = (Attributes::default(), None, false);
    for (name, value) in headers {
        if name == "content-type" {
            content_type = Some(String::from_utf8_lossy(value).trim().to_owned());
        }
        let Some(attribute) = name.strip_prefix(PREFIX) else { continue };
        any = true;
        if attribute == "datacontenttype" {
            return Err(InvalidEvent::of(name, "must not be there: the header Content-Type says it"));
        }
        let text = decoded(value)
            .ok_or_else(|| InvalidEvent::of(name, "is not UTF-8, once it is percent-decoded"))?;
        attributes.add(attribute, name, Value::String(text))?;
    }
    if !any {
        return Ok(None);
    }
    let form = form_of(content_type.as_deref(), body);
    if form == Form::Json && serde_json::from_slice::<&RawValue>(body).is_err() {
        return Err(InvalidEvent::of("body", "is not JSON, which the header Content-Type says it is"));
    }
    attributes.event(PREFIX, Data { form, content_type, bytes: body.clone() }, now).map(Some)
}

/// A quoted string is taken out of its quotes, and what comes of that is percent-decoded once.
fn decoded(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    let unquoted = quoted.map(|quoted| {
        let mut escaped = false;
        let keep = |byte: &&u8| {
            escaped = **byte == b'\\' && !escaped;
            !escaped
        };
        quoted.iter().filter(keep).copied().collect::<Vec<_>>()
    });
    let value = unquoted.as_deref().unwrap_or(value);
    percent_decode(value).decode_utf8().ok().map(Cow::into_owned)
}

/// The headers of an event, and its body.
#[must_use]
pub fn to_binary(event: &Event) -> (Vec<(String, String)>, Bytes) {
    let header = |(name, value): (&str, Value)| {
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        (format!("{PREFIX}{name}"), utf8_percent_encode(&text, ENCODED).to_string())
    };
    (attributes(event).map(header).collect(), event.data.bytes.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: [(&str, &[u8]); 4] =
        [("ce-specversion", b"1.0"), ("ce-id", b"1"), ("ce-source", b"/s"), ("ce-type", b"a.b")];

    fn read(more: &[(&'static str, &'static [u8])], body: &'static [u8]) -> Result<Event, InvalidEvent> {
        let headers = REQUIRED.iter().chain(more).copied();
        from_binary(headers, &Bytes::from_static(body), Timestamp::UNIX_EPOCH).map(Option::unwrap)
    }

    #[test]
    fn a_value_is_taken_out_of_its_quotes_and_decoded_once() {
        let rows: [(&[u8], &str); 8] = [
            (b"a%20b", "a b"),
            (b"a b", "a b"),
            (b"100%25", "100%"),
            (b"%2525", "%25"),
            (b"%C3%BC", "\u{fc}"),
            (b"%c3%bc", "\u{fc}"),
            (b"\"quoted\"", "quoted"),
            (br#""a \"b\" \\ c""#, r#"a "b" \ c"#),
        ];
        for (value, subject) in rows {
            let headers = REQUIRED.iter().copied().chain([("ce-subject", value)]);
            let event = from_binary(headers, &Bytes::new(), Timestamp::UNIX_EPOCH).unwrap().unwrap();
            assert_eq!(event.subject.as_deref(), Some(subject), "{}", String::from_utf8_lossy(value));
            let (headers, _) = to_binary(&event);
            let again = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            let again = from_binary(again, &Bytes::new(), Timestamp::UNIX_EPOCH).unwrap().unwrap();
            assert_eq!(again, event, "the other way round");
            assert!(headers.iter().all(|(_, value)| value.bytes().all(|byte| (b'!'..=b'~').contains(&byte))));
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_header() {
        assert_eq!(read(&[("ce-subject", b"%FF")], b"").unwrap_err().field, "ce-subject");
        assert_eq!(read(&[("ce-subject", b"%C0%A0")], b"").unwrap_err().field, "ce-subject");
        assert_eq!(read(&[("ce-trace_id", b"1")], b"").unwrap_err().field, "ce-trace_id");
        assert_eq!(read(&[("ce-datacontenttype", b"a/b")], b"").unwrap_err().field, "ce-datacontenttype");
        assert_eq!(read(&[("ce-time", b"now")], b"").unwrap_err().field, "ce-time");
        assert_eq!(read(&[("content-type", b"application/json")], b"{").unwrap_err().field, "body");
        for (missing, _) in REQUIRED {
            let headers = REQUIRED.into_iter().filter(|(name, _)| *name != missing);
            let refused = from_binary(headers, &Bytes::new(), Timestamp::UNIX_EPOCH).unwrap_err();
            assert_eq!(refused.field, missing);
        }
    }

    #[test]
    fn the_body_is_what_the_content_type_says() {
        let rows: [(&[u8], &[u8], Form); 6] = [
            (b"application/json; charset=utf-8", b"{\"a\": 1}", Form::Json),
            (b"application/x+json", b"1", Form::Json),
            (b"text/plain", b"hello", Form::Text),
            (b"text/plain", b"\xff", Form::Binary),
            (b"image/png", b"\x89PNG", Form::Binary),
            (b"image/png", b"", Form::None),
        ];
        for (content_type, body, form) in rows {
            let headers = REQUIRED.iter().copied().chain([("content-type", content_type)]);
            let event = from_binary(headers, &Bytes::copy_from_slice(body), Timestamp::UNIX_EPOCH);
            let data = event.unwrap().unwrap().data;
            assert_eq!((data.form, &data.bytes[..]), (form, body));
        }
        let none = from_binary([("content-type", &b"text/plain"[..])], &Bytes::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(none, Ok(None), "no CloudEvent");
    }
}
