//! The access log: one line for each call, among the other lines of the log. They bypass `tracing`, whose formatting costs a
//! quarter of what a gateway does for a call.

use std::{cell::RefCell, fmt::Write, sync::OnceLock};

use jiff::Timestamp;
use serde::Serialize;

use super::lines::{Format, Lines};

/// Its target, as filters of `--log-level` name it.
const TARGET: &str = "authlink::access";

static LOG: OnceLock<(Format, Lines)> = OnceLock::new();

/// A call that has ended.
#[derive(Serialize)]
pub struct Call<'a> {
    /// Of the request.
    pub method: &'a str,
    /// Without the query, which may hold anything.
    pub path: &'a str,
    /// Of the response.
    pub status: u16,
    /// A ServiceAccount; empty where none was admitted.
    pub caller: &'a str,
    /// The last one that was called; empty where none was.
    pub endpoint: &'a str,
    /// How many times an endpoint was called.
    pub attempts: u32,
    /// The type of the problem document that was the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<&'a str>,
    /// `X-Request-ID`.
    pub request_id: &'a str,
    /// W3C trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<&'a str>,
    /// Until the response began, in milliseconds.
    pub duration_ms: u64,
}

/// A line as `tracing` would write it.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: &'a str,
    level: &'a str,
    message: &'a str,
    #[serde(flatten)]
    call: &'a Call<'a>,
    target: &'a str,
}

/// Lines go to `lines` from now on.
pub(super) fn init(format: Format, lines: Lines) {
    // The first one stays, as with all logging.
    let _ = LOG.set((format, lines));
}

/// Writes a line, unless `--log-level` filters it out.
pub fn write(call: &Call<'_>) {
    let Some((format, lines)) = LOG.get() else { return };
    if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
        return;
    }
    lines.push(line(*format, call, Timestamp::now()).as_bytes());
}

fn line(format: Format, call: &Call<'_>, now: Timestamp) -> String {
    let timestamp = rfc3339(now);
    match format {
        Format::Json => {
            let whole = Line { timestamp: &timestamp, level: "INFO", message: "call", call, target: TARGET };
            // It does not fail: all of it is text and numbers.
            serde_json::to_string(&whole).unwrap_or_default() + "\n"
        }
        Format::Text => call.text(&timestamp),
    }
}

thread_local! {
    /// The last second as text: many calls have it in common.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// To the microsecond.
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
        let words = [
            ("path", Some(self.path)),
            ("caller", Some(self.caller)),
            ("endpoint", Some(self.endpoint)),
            ("problem", self.problem),
            ("traceparent", self.traceparent),
            ("request_id", Some(self.request_id)),
        ];
        for (name, value) in words {
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

/// As `Debug` writes it, which looks at each character; most texts have none to look at.
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
    fn a_time_is_written_as_it_is() {
        for text in ["2026-11-23T09:30:00Z", "2026-11-23T09:30:00.9999999Z", "2026-11-23T09:30:01.000001Z"] {
            let now: Timestamp = text.parse().expect("a time");
            assert_eq!(rfc3339(now), format!("{now:.6}"));
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_the_call_was() {
        let call = Call {
            method: "GET",
            path: "/v1/apis/shop/billing/a\"b\n",
            status: 200,
            caller: "system:serviceaccount:shop:checkout",
            endpoint: "https://billing.example.com",
            attempts: 1,
            problem: None,
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
