//! Events as producers hand them in.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{event_type::is_event_type, retry::scatter};

/// The largest event, in bytes of the request that brings it.
pub const LARGEST: usize = 256 * 1024;

/// The longest id, source and subject, in bytes.
const LONGEST_ATTRIBUTE: usize = 1024;

/// An event. Its data is sent as it came, to the last byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Ours: `evt_` and a number that is used once. It is `webhook-id`, the same in each attempt.
    pub id: String,
    /// What the producer calls it; of several events of one source that have the same, all are the first one.
    pub producer_id: Option<String>,
    /// Where it comes from.
    pub source: String,
    /// What has happened.
    pub event_type: String,
    /// To whom; see the ordering of deliveries.
    pub subject: Option<String>,
    /// When it happened.
    pub time: Timestamp,
    /// The data.
    pub data: Data,
    /// Attributes of CloudEvents that mean nothing here and are passed on.
    pub extensions: Vec<(String, serde_json::Value)>,
}

/// The data of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// What the bytes are.
    pub form: Form,
    /// Their media type, where the producer has named one.
    pub content_type: Option<String>,
    /// As they came.
    pub bytes: Bytes,
}

/// What the bytes of an event's data are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// There are none.
    #[default]
    None,
    /// A JSON text.
    Json,
    /// Some other text, in UTF-8.
    Text,
    /// Anything.
    Binary,
}

impl Form {
    /// Its number in the store.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::None => 0,
            Self::Json => 1,
            Self::Text => 2,
            Self::Binary => 3,
        }
    }

    /// The form of this number.
    #[must_use]
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Json),
            2 => Some(Self::Text),
            3 => Some(Self::Binary),
            _ => None,
        }
    }
}

/// Why an event is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct InvalidEvent {
    /// The field or the header.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

impl InvalidEvent {
    /// Of this field.
    pub fn of(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }
}

/// An id for an event: UUID version 7 (RFC 9562, section 5.7), so that later ones sort behind earlier ones, without dots, which
/// Standard Webhooks puts between what it signs.
#[must_use]
pub fn event_id(unix_millis: u64, random: u128) -> String {
    let time = u128::from(unix_millis & 0xffff_ffff_ffff) << 80;
    let (upper, lower) = ((random >> 64) & 0xfff, random & 0x3fff_ffff_ffff_ffff);
    format!("evt_{:032x}", time | 0x7 << 76 | upper << 64 | 0b10 << 62 | lower)
}

/// The plain form of an event.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    #[serde(rename = "type")]
    event_type: String,
    id: Option<String>,
    source: Option<String>,
    subject: Option<String>,
    timestamp: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// Data that is there, if it is no more than `null`.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(data: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(data).map(Some)
}

/// Reads `{"type": .., "data": .., "timestamp"?, "id"?, "source"?, "subject"?}`. What the producer does not say is `source` and `now`.
///
/// # Errors
/// The first field that is wrong.
pub fn from_plain(body: &Bytes, source: &str, now: Timestamp) -> Result<Event, InvalidEvent> {
    let plain: Plain<'_> = serde_json::from_slice(body)
        .map_err(|error| InvalidEvent::of("body", format!("is no event: {error}")))?;
    let data = plain.data.map(|data| Data {
        form: Form::Json,
        content_type: None,
        bytes: body.slice_ref(data.get().as_bytes()),
    });
    Event {
        id: String::new(),
        producer_id: plain.id,
        source: plain.source.unwrap_or_else(|| source.to_owned()),
        event_type: plain.event_type,
        subject: plain.subject,
        time: time_of("timestamp", plain.timestamp.as_deref(), now)?,
        data: data.unwrap_or_default(),
        extensions: Vec::new(),
    }
    .checked()
}

pub(super) fn time_of(field: &str, text: Option<&str>, now: Timestamp) -> Result<Timestamp, InvalidEvent> {
    let wrong = |_| InvalidEvent::of(field, "is no time: write it like 2026-08-01T12:00:00Z (RFC 3339)");
    text.map_or(Ok(now), |text| text.parse().map_err(wrong))
}

impl Event {
    /// The event, if all of it can be kept and sent.
    ///
    /// # Errors
    /// The first field that cannot.
    pub fn checked(self) -> Result<Self, InvalidEvent> {
        if !is_event_type(&self.event_type) {
            let why = "is no type: write letters, digits, -, _, : and /, with dots between parts, at most 256 in all";
            return Err(InvalidEvent::of("type", why));
        }
        let texts = [
            ("id", self.producer_id.as_deref()),
            ("source", Some(self.source.as_str())),
            ("subject", self.subject.as_deref()),
        ];
        for (field, text) in texts {
            let Some(text) = text else { continue };
            if text.is_empty() {
                return Err(InvalidEvent::of(field, "is empty: leave it out, or write something"));
            }
            if text.len() > LONGEST_ATTRIBUTE {
                return Err(InvalidEvent::of(
                    field,
                    format!("is longer than {LONGEST_ATTRIBUTE} bytes: shorten it"),
                ));
            }
            if text.chars().any(char::is_control) {
                return Err(InvalidEvent::of(field, "has control characters: remove them"));
            }
        }
        Ok(self)
    }

    /// Of what its producer says of it but the time, which many set anew when they send it again.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let form = self.data.form.number().to_be_bytes();
        let extensions = serde_json::to_vec(&self.extensions).unwrap_or_default();
        let texts = [Some(&self.event_type), self.subject.as_ref(), self.data.content_type.as_ref()];
        let parts = texts.map(|text| text.map(String::as_bytes));
        for part in parts.into_iter().chain([Some(&form[..]), Some(&extensions), Some(&self.data.bytes)]) {
            // With its length before it, so that no two events are the same text.
            hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
            hash.update(part.unwrap_or_default());
        }
        hash.finalize().into()
    }

    /// What is random about it: the same in each process.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.id.bytes().fold(0, |seed, byte| scatter(seed ^ u64::from(byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Result<Event, InvalidEvent> {
        from_plain(&Bytes::copy_from_slice(text.as_bytes()), "me", "2026-08-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn an_id_is_a_uuid_of_version_7_that_sorts_by_time_and_has_no_dot() {
        let id = event_id(0x0198_0000_0000, u128::MAX);
        assert_eq!(id, "evt_0198000000007fffbfffffffffffffff");
        assert!(event_id(1, u128::MAX) < event_id(2, 0));
        assert_eq!(event_id(0, 0), "evt_00000000000070008000000000000000");
    }

    #[test]
    fn data_keeps_every_byte_and_what_is_not_said_has_a_default() {
        for data in [r#"{"b":1, "a":2}"#, "1e400", r#"{"a":1,"a":2}"#, r#""text""#, "null", "[ ]"] {
            let event = plain(&format!(r#"{{"type":"user.created", "data": {data} }}"#)).unwrap();
            assert_eq!((event.data.form, &event.data.bytes[..]), (Form::Json, data.as_bytes()));
            assert_eq!((event.source.as_str(), event.producer_id), ("me", None));
        }
        assert_eq!(plain(r#"{"type":"ping"}"#).unwrap().data.form, Form::None);
        let event = plain(
            r#"{"type":"a","id":"1.2 3","subject":"u1","source":"/x","timestamp":"2026-08-01T02:00:00+02:00"}"#,
        );
        let event = event.unwrap();
        assert_eq!((event.producer_id.as_deref(), event.subject.as_deref()), (Some("1.2 3"), Some("u1")));
        assert_eq!((event.source.as_str(), event.time.to_string().as_str()), ("/x", "2026-08-01T00:00:00Z"));
    }

    #[test]
    fn what_is_sent_again_has_the_same_digest_and_anything_else_another() {
        let of = |text: &str| plain(text).unwrap().digest();
        let first = of(r#"{"type":"a","data":1,"timestamp":"2026-08-01T00:00:00Z"}"#);
        assert_eq!(first, of(r#"{"data":1,"type":"a"}"#));
        let others = [
            r#"{"type":"a","data":2}"#,
            r#"{"type":"b","data":1}"#,
            r#"{"type":"a","data":1,"subject":"s"}"#,
        ];
        assert!(others.iter().all(|other| of(other) != first));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let rows = [
            ("", "body"),
            ("[]", "body"),
            ("{}", "body"),
            (r#"{"type":"a","payload":1}"#, "body"),
            (r#"{"type":"a","data":}"#, "body"),
            (r#"{"type":"a b"}"#, "type"),
            (r#"{"type":"a\u0000"}"#, "type"),
            (r#"{"type":"a","id":"a\nb"}"#, "id"),
            (r#"{"type":"a","id":""}"#, "id"),
            (r#"{"type":"a","subject":"\u0007"}"#, "subject"),
            (r#"{"type":"a","timestamp":"yesterday"}"#, "timestamp"),
        ];
        for (text, field) in rows {
            assert_eq!(plain(text).unwrap_err().field, field, "{text}");
        }
        assert_eq!(plain(&format!(r#"{{"type":"a","id":"{}"}}"#, "x".repeat(5000))).unwrap_err().field, "id");
        let not_utf8 = Bytes::from_static(b"{\"type\":\"a\",\"data\":\"\xff\"}");
        assert_eq!(from_plain(&not_utf8, "me", Timestamp::UNIX_EPOCH).unwrap_err().field, "body");
    }
}
