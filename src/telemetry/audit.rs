//! The audit log: one line for each call, among the other lines of the log. Its lines do not take the way of `tracing`, whose
//! formatting costs a quarter of what a gateway does for a call.

use std::{
    fmt::{self, Display},
    io::Write,
    sync::OnceLock,
};

use jiff::Timestamp;
use serde::Serialize;
use tracing_appender::non_blocking::NonBlocking;

use super::log::Format;

/// What a filter of levels calls it.
const TARGET: &str = "authlink::audit";

static LOG: OnceLock<(Format, NonBlocking)> = OnceLock::new();

/// A call that was answered.
#[derive(Serialize)]
pub struct Call<'a> {
    /// Of the request.
    pub method: &'a str,
    /// Without the query, which may hold anything.
    pub path: &'a str,
    /// Of the answer.
    pub status: u16,
    /// A ServiceAccount; empty where nobody was let in.
    pub caller: &'a str,
    /// The one that was called last; empty where none was.
    pub endpoint: &'a str,
    /// How many times an endpoint was called.
    pub attempts: u32,
    /// What kind of problem the answer tells of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<&'a str>,
    /// `X-Request-ID`.
    pub request_id: &'a str,
    /// W3C trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<&'a str>,
    /// Until the answer began, in milliseconds.
    pub duration_ms: u64,
}

/// A line as `tracing` would write it.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    message: &'a str,
    #[serde(flatten)]
    call: &'a Call<'a>,
    target: &'a str,
}

/// Lines go to `writer` from now on.
pub(super) fn init(format: Format, writer: NonBlocking) {
    // The first one stays, as with all logging.
    let _ = LOG.set((format, writer));
}

/// Writes a line, where the filter of levels lets it through.
pub fn write(call: &Call<'_>) {
    let Some((format, writer)) = LOG.get() else { return };
    if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
        return;
    }
    // Fails only where the log's own thread has ended.
    let _ = writer.clone().write_all(&line(*format, call, Timestamp::now()));
}

fn line(format: Format, call: &Call<'_>, now: Timestamp) -> Vec<u8> {
    let timestamp = format!("{now:.6}");
    let mut line = Vec::with_capacity(512);
    // Neither fails: all of it is text, and the line grows as it must.
    let _ = match format {
        Format::Json => {
            let whole = Line { timestamp, level: "INFO", message: "call", call, target: TARGET };
            serde_json::to_writer(&mut line, &whole).map_err(std::io::Error::from)
        }
        Format::Text => write!(line, "{timestamp}  INFO {TARGET}: call {call}"),
    };
    line.push(b'\n');
    line
}

impl Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, status, caller, endpoint, attempts, request_id, duration_ms, .. } = self;
        write!(f, "method={method} path={path:?} status={status} caller={caller:?} endpoint={endpoint:?}")?;
        write!(f, " attempts={attempts}")?;
        for (name, value) in [("problem", self.problem), ("traceparent", self.traceparent)] {
            if let Some(value) = value {
                write!(f, " {name}={value:?}")?;
            }
        }
        write!(f, " request_id={request_id:?} duration_ms={duration_ms}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let json: serde_json::Value = serde_json::from_slice(&line(Format::Json, &call, now)).expect("JSON");
        assert_eq!(json["timestamp"], "2026-11-23T09:30:00.000000Z");
        assert_eq!((json["target"].as_str(), json["path"].as_str()), (Some(TARGET), Some(call.path)));
        assert!(json.get("problem").is_none());
        let text = String::from_utf8(line(Format::Text, &call, now)).expect("text");
        assert_eq!(
            text,
            "2026-11-23T09:30:00.000000Z  INFO authlink::audit: call method=GET \
             path=\"/v1/apis/shop/billing/a\\\"b\\n\" status=200 caller=\"system:serviceaccount:shop:checkout\" \
             endpoint=\"https://billing.example.com\" attempts=1 request_id=\"r-1\" duration_ms=7\n"
        );
    }
}
