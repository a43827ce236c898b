//! The access log: one line per call, in the same format as the other log lines. It bypasses the formatters of
//! `tracing`, which take a quarter of the CPU time of a call.

use std::{cell::RefCell, fmt::Write, sync::OnceLock};

use super::writer::{Format, LogWriter};
use jiff::Timestamp;
use serde::Serialize;

/// The target in a log filter.
const TARGET: &str = "authlink::access";

static LOG: OnceLock<(Format, LogWriter)> = OnceLock::new();

/// A completed call.
#[derive(Serialize)]
pub struct Call<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path without the query, which can contain secrets.
    pub path: &'a str,
    /// The response status.
    pub status: u16,
    /// The ServiceAccount; empty if the caller is not authenticated.
    pub caller: &'a str,
    /// The last endpoint; empty if the call was not sent.
    pub endpoint: &'a str,
    /// The number of attempts.
    pub attempts: u32,
    /// The problem type of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<&'a str>,
    /// Why a login was refused, which the caller is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial: Option<&'a str>,
    /// `X-Request-ID`.
    pub request_id: &'a str,
    /// `traceparent` (W3C Trace Context).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<&'a str>,
    /// The time until the response headers, in milliseconds.
    pub duration_ms: u64,
}

/// The fields of a JSON line, in the order of `tracing`.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: &'a str,
    level: &'a str,
    message: &'a str,
    #[serde(flatten)]
    call: &'a Call<'a>,
    target: &'a str,
}

/// Sets the writer. The first call wins, as with the subscriber of `tracing`.
pub(super) fn init(format: Format, writer: LogWriter) {
    let _ = LOG.set((format, writer));
}

/// Writes a line, if the log filter enables it.
pub fn write(call: &Call<'_>) {
    let Some((format, writer)) = LOG.get() else { return };
    if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
        return;
    }
    writer.push(line(*format, call, Timestamp::now()).as_bytes());
}

fn line(format: Format, call: &Call<'_>, now: Timestamp) -> String {
    let timestamp = rfc3339(now);
    match format {
        Format::Json => {
            let line = Line { timestamp: &timestamp, level: "INFO", message: "call", call, target: TARGET };
            // Strings and numbers can always be serialized.
            serde_json::to_string(&line).unwrap_or_default() + "\n"
        }
        Format::Text => call.text(&timestamp),
    }
}

thread_local! {
    /// The current second and its text: formatting it once per second is cheaper than for every call.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// Formats a timestamp by RFC 3339, with microseconds.
fn rfc3339(now: Timestamp) -> String {
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_second() {
            (*second, *text) = (now.as_second(), format!("{now:.0}"));
        }
        format!("{}.{:06}Z", text.trim_end_matches('Z'), now.subsec_microsecond())
    })
}

impl Call<'_> {
    fn text(&self, timestamp: &str) -> String {
        let mut line = String::with_capacity(512);
        line.extend([timestamp, "  INFO ", TARGET, ": call method=", self.method]);
        let fields = [
            ("path", Some(self.path)),
            ("caller", Some(self.caller)),
            ("endpoint", Some(self.endpoint)),
            ("problem", self.problem),
            ("denial", self.denial),
            ("traceparent", self.traceparent),
            ("request_id", Some(self.request_id)),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                line.extend([" ", name, "="]);
                quote(&mut line, value);
            }
        }
        let Self { status, attempts, duration_ms, .. } = self;
        // Writing to a string does not fail.
        let _ = writeln!(line, " status={status} attempts={attempts} duration_ms={duration_ms}");
        line
    }
}

/// The same as `Debug`, with a fast path for texts that need no escaping.
fn quote(line: &mut String, text: &str) {
    let plain = |byte: &u8| (b' '..0x7F).contains(byte) && ![b'"', b'\\'].contains(byte);
    if text.as_bytes().iter().all(plain) {
        line.extend(["\"", text, "\""]);
    } else {
        let _ = write!(line, "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_formatted_with_microseconds() {
        for text in ["2026-11-23T09:30:00Z", "2026-11-23T09:30:00.9999999Z", "2026-11-23T09:30:01.000001Z"] {
            let now: Timestamp = text.parse().expect("a time");
            assert_eq!(rfc3339(now), format!("{now:.6}"));
        }
    }

    #[test]
    fn a_call_is_one_line() {
        let call = Call {
            method: "GET",
            path: "/v1/apis/shop/billing/a\"b\n",
            status: 200,
            caller: "system:serviceaccount:shop:checkout",
            endpoint: "https://billing.example.com",
            attempts: 1,
            problem: None,
            denial: None,
            request_id: "r-1",
            traceparent: None,
            duration_ms: 7,
        };
        let now: Timestamp = "2026-11-23T09:30:00Z".parse().expect("a time");
        let json: serde_json::Value = serde_json::from_str(&line(Format::Json, &call, now)).expect("JSON");
        assert_eq!(json["timestamp"], "2026-11-23T09:30:00.000000Z");
        assert_eq!((json["target"].as_str(), json["path"].as_str()), (Some(TARGET), Some(call.path)));
        assert!(json.get("problem").is_none());
        assert_eq!(
            line(Format::Text, &call, now),
            "2026-11-23T09:30:00.000000Z  INFO authlink::access: call method=GET \
             path=\"/v1/apis/shop/billing/a\\\"b\\n\" caller=\"system:serviceaccount:shop:checkout\" \
             endpoint=\"https://billing.example.com\" request_id=\"r-1\" status=200 attempts=1 duration_ms=7\n"
        );
    }
}
