//! One run of a declared query: its bound parameters, its stream of rows and its errors.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, Stream, future::BoxFuture};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::ServerSettings;
use crate::{
    api::{
        Reason,
        v1alpha1::database::{Query, QueryLimits},
    },
    backends::Fault,
    domain::parameters::{Mismatch, Parameter, bind},
    telemetry::metrics::Observed,
};

/// Rows are sent in batches of about this many bytes.
const BATCH_BYTES: usize = 32 * 1024;

/// Batches buffered for a slow reader; with more, reading from the server pauses (backpressure).
const MAX_BATCHES: usize = 4;

/// A server that enforces the timeout itself leaves the connection usable: it gets this much longer before the client cancels.
pub(super) const SERVER_TIMEOUT_GRACE: Duration = Duration::from_millis(250);

/// A declared query with its bound parameters. Its timeout starts once it has a connection; waiting for one is bounded by
/// `pool.acquireTimeout`.
#[derive(Clone, Debug)]
pub struct BoundQuery {
    pub(super) query: Arc<Query>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) timeout: Duration,
    pub(super) max_rows: u32,
}

impl BoundQuery {
    /// Binds `values`; `limits` apply where the query sets none.
    ///
    /// # Errors
    /// A value that does not match the declared type, or the wrong number of values.
    pub fn new(query: &Arc<Query>, limits: &QueryLimits, values: &[Box<RawValue>]) -> Result<Self, Mismatch> {
        Ok(Self {
            parameters: bind(&query.params, values)?,
            timeout: query.timeout.as_ref().unwrap_or(&limits.timeout).get(),
            max_rows: query.max_rows.unwrap_or(limits.max_rows),
            query: Arc::clone(query),
        })
    }
}

/// An item of a [`RowStream`]: batches of rows, then one end. Nothing follows an error.
#[derive(Clone, Debug)]
pub enum Item {
    /// Rows, one JSON value per line: from SQL an object with the columns as fields, from MongoDB a document, from Redis any value.
    Rows(String),
    /// The statement has completed, and its changes are committed.
    End {
        /// There were more rows than the query may return. Changes are complete all the same.
        truncated: bool,
        /// Rows (documents) changed by a statement that returns none, where the server counts them.
        affected: Option<u64>,
    },
}

/// Why a query failed, as its caller is told. The texts are the server's and may repeat parameters, so they must not be logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryFault {
    /// A value of the declared type that the server rejects: out of range, too long, not a date.
    #[error("value rejected by the server: {0}")]
    Value(String),
    /// A constraint, or an error raised by a trigger or function.
    #[error("constraint violated: {0}")]
    Constraint(String),
    /// A deadlock, a lock or a write conflict; it can be retried.
    #[error("conflict with a concurrent statement, try again: {0}")]
    Conflict(String),
    /// A write in a query declared as `readOnly`, or on a read-only server.
    #[error("read-only: {0}")]
    ReadOnly(String),
    /// It exceeded its timeout, and was cancelled on the server.
    #[error("query timed out and was cancelled")]
    TimedOut,
    /// The statement cannot run as declared.
    #[error("invalid statement: {0}")]
    Invalid(String),
    /// The account lacks a permission.
    #[error("permission denied for the Database's account: {0}")]
    Denied(String),
    /// The connection or the server failed; whether the statement ran is unknown.
    #[error(transparent)]
    Server(#[from] Fault),
}

impl QueryFault {
    /// The metrics' label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Value(_) => "value",
            Self::Constraint(_) => "constraint",
            Self::Conflict(_) => "conflict",
            Self::ReadOnly(_) => "read_only",
            Self::TimedOut => "timeout",
            Self::Invalid(_) => "invalid",
            Self::Denied(_) => "denied",
            Self::Server(_) => "server",
        }
    }

    /// The fault of a check, which runs nothing: either the statement is wrong or the server failed.
    pub(super) fn into_check_fault(self) -> Fault {
        match self {
            Self::Server(fault) => fault,
            Self::Denied(detail) => Fault::new(Reason::PermissionDenied, detail),
            Self::TimedOut => Fault::new(Reason::Timeout, "preparing the statement timed out"),
            Self::Conflict(detail) => Fault::new(Reason::Unavailable, detail),
            Self::Value(detail)
            | Self::Constraint(detail)
            | Self::ReadOnly(detail)
            | Self::Invalid(detail) => Fault::new(Reason::QueryInvalid, detail),
        }
    }

    /// Redacts secrets in the text.
    pub(super) fn redacted(self, settings: &ServerSettings) -> Self {
        let redact = |text| settings.redact(Fault::new(Reason::Unavailable, text)).detail;
        match self {
            Self::Value(text) => Self::Value(redact(text)),
            Self::Constraint(text) => Self::Constraint(redact(text)),
            Self::Conflict(text) => Self::Conflict(redact(text)),
            Self::ReadOnly(text) => Self::ReadOnly(redact(text)),
            Self::Invalid(text) => Self::Invalid(redact(text)),
            Self::Denied(text) => Self::Denied(redact(text)),
            Self::Server(fault) => Self::Server(settings.redact(fault)),
            Self::TimedOut => Self::TimedOut,
        }
    }
}

/// Checks that the placeholders of a template (indices from 0) are exactly the declared parameters.
///
/// # Errors
/// What does not match.
pub(super) fn check_placeholders(placeholders: &[usize], declared: usize) -> Result<(), String> {
    let found = placeholders.iter().map(|index| index + 1).max().unwrap_or(0);
    if found != declared {
        return Err(wrong_count(found, declared));
    }
    match (0..declared).find(|index| !placeholders.contains(index)) {
        Some(index) => Err(format!("params declares ${}, but the statement does not use it", index + 1)),
        None => Ok(()),
    }
}

/// The message for a statement whose placeholders do not match the declaration.
pub(super) fn wrong_count(placeholders: usize, declared: usize) -> String {
    format!("the statement has {placeholders} placeholders, but params declares {declared}")
}

/// A query that succeeded.
#[derive(Debug, Default)]
pub(super) struct Completion {
    pub(super) affected: Option<u64>,
    /// The server still sends rows that nobody reads: the connection cannot be reused.
    pub(super) server_busy: bool,
}

/// A query that failed or was given up.
#[derive(Debug)]
pub(super) enum RunError {
    /// The connection failed before the statement was sent: it can be retried on another one.
    NotSent(Fault),
    /// The statement failed.
    Fault(QueryFault),
    /// The caller disconnected.
    Cancelled,
    /// It exceeded its timeout.
    TimedOut,
}

impl<F: Into<QueryFault>> From<F> for RunError {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

/// Whether the sink takes more rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    More,
    /// The row limit is reached.
    Enough,
}

/// Where an engine writes its rows.
pub(super) struct RowSink {
    sender: mpsc::Sender<String>,
    batch: String,
    remaining: u32,
    truncated: bool,
    sent: bool,
}

impl RowSink {
    /// Writes a row, given as JSON on one line, unless the row limit is reached. Rows are buffered until a batch is full.
    pub(super) async fn send(&mut self, row: &str) -> Result<Demand, RunError> {
        self.write(|batch| {
            batch.push_str(row);
            Ok(())
        })
        .await
    }

    /// The same for a row that `row` appends to the batch.
    pub(super) async fn write(
        &mut self,
        row: impl FnOnce(&mut String) -> Result<(), Fault>,
    ) -> Result<Demand, RunError> {
        let Some(remaining) = self.remaining.checked_sub(1) else {
            self.truncated = true;
            return Ok(Demand::Enough);
        };
        self.remaining = remaining;
        row(&mut self.batch)?;
        self.batch.push('\n');
        if self.batch.len() >= BATCH_BYTES {
            self.flush().await?;
        }
        Ok(Demand::More)
    }

    /// Sends buffered rows; to be called before waiting for the server.
    pub(super) async fn flush(&mut self) -> Result<(), RunError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.sent = true;
        self.sender.send(std::mem::take(&mut self.batch)).await.map_err(|_| RunError::Cancelled)
    }

    /// Discards buffered rows for a retry; false if the caller has received some already.
    pub(super) fn restart(&mut self, query: &BoundQuery) -> bool {
        if self.sent {
            return false;
        }
        self.batch.clear();
        (self.remaining, self.truncated) = (query.max_rows, false);
        true
    }

    /// Completes when the caller disconnects.
    pub(super) fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        let sender = self.sender.clone();
        async move { sender.closed().await }
    }
}

/// JSON from a server on one line: line breaks are insignificant, since JSON strings escape them. None for invalid JSON.
pub(super) fn single_line_json(json: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<IgnoredAny>(json).ok()?;
    let line_break = |byte: u8| byte == b'\n' || byte == b'\r';
    Some(if json.bytes().any(line_break) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    })
}

/// A string as a JSON literal.
pub(super) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The sending side of a [`RowStream`]; dropped without [`Self::finish`], the query counts as cancelled.
pub(super) struct ResultSink {
    pub(super) rows: RowSink,
    result: oneshot::Sender<Result<Item, QueryFault>>,
    observed: Observed,
}

impl ResultSink {
    /// Sends the end of the result.
    pub(super) fn finish(self, result: Result<Completion, QueryFault>) {
        let Self { rows, result: sender, observed } = self;
        observed.finish(result.as_ref().map_or_else(QueryFault::as_str, |_| "success"));
        let item =
            result.map(|completion| Item::End { truncated: rows.truncated, affected: completion.affected });
        // The caller may have disconnected.
        let _ = sender.send(item);
    }
}

/// The rows of a query as they arrive, then its end. Polling the stream drives the query, until it is detached; dropping the stream
/// cancels the query, on the server as well.
#[must_use = "the query runs while its stream is polled"]
pub struct RowStream {
    rows: mpsc::Receiver<String>,
    result: Option<oneshot::Receiver<Result<Item, QueryFault>>>,
    /// None once it has completed or runs in a task of its own.
    work: Option<BoxFuture<'static, ()>>,
}

impl RowStream {
    /// The stream of the query that `work` runs.
    pub(super) fn of<W>(max_rows: u32, observed: Observed, work: impl FnOnce(ResultSink) -> W) -> Self
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let (sender, rows) = mpsc::channel(MAX_BATCHES);
        let (result, received) = oneshot::channel();
        let sink =
            RowSink { sender, batch: String::new(), remaining: max_rows, truncated: false, sent: false };
        let work = work(ResultSink { rows: sink, result, observed }).boxed();
        Self { rows, result: Some(received), work: Some(work) }
    }

    /// Spawns the query as a task, so that a slow reader does not hold its connection beyond the timeout. A short query is cheaper
    /// without.
    pub fn detach(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.work.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

impl Drop for RowStream {
    fn drop(&mut self) {
        // Without a reader, the query is cancelled on the server.
        self.rows.close();
        self.detach();
    }
}

impl Stream for RowStream {
    type Item = Result<Item, QueryFault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let rows = loop {
            match (self.rows.poll_recv(cx), &mut self.work) {
                (Poll::Ready(rows), _) => break rows,
                (Poll::Pending, None) => return Poll::Pending,
                (Poll::Pending, Some(work)) => {
                    if work.poll_unpin(cx).is_ready() {
                        self.work = None;
                    } else if let Poll::Ready(rows) = self.rows.poll_recv(cx) {
                        break rows;
                    } else {
                        return Poll::Pending;
                    }
                }
            }
        };
        if let Some(rows) = rows {
            return Poll::Ready(Some(Ok(Item::Rows(rows))));
        }
        let Some(result) = &mut self.result else { return Poll::Ready(None) };
        let received = ready!(result.poll_unpin(cx));
        self.result = None;
        let cancelled = || Fault::new(Reason::Unavailable, "the query was cancelled");
        Poll::Ready(Some(received.unwrap_or_else(|_| Err(cancelled().into()))))
    }
}
