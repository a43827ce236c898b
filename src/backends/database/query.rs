//! One run of a declared query: what goes in, and what comes out while it runs.

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

/// Rows travel in batches of about so many bytes.
const BATCH: usize = 32 * 1024;

/// Batches that wait for a slow reader; beyond them, the server waits as well.
const BATCHES: usize = 4;

/// Where the server ends a statement by itself, the connection stays sound: it gets this much time before we end it.
pub(super) const GRACE: Duration = Duration::from_millis(250);

/// A declared query with the values for one run. Its time begins when it has a connection; waiting for one has a bound of its
/// own, `pool.acquireTimeout`.
#[derive(Clone, Debug)]
pub struct Run {
    pub(super) query: Arc<Query>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) timeout: Duration,
    pub(super) max_rows: u32,
}

impl Run {
    /// The query with these values; where it sets no bounds of its own, `limits` are its bounds.
    ///
    /// # Errors
    /// A value that is not what the query declares.
    pub fn new(query: &Arc<Query>, limits: &QueryLimits, values: &[Box<RawValue>]) -> Result<Self, Mismatch> {
        Ok(Self {
            parameters: bind(&query.params, values)?,
            timeout: query.timeout.as_ref().unwrap_or(&limits.timeout).get(),
            max_rows: query.max_rows.unwrap_or(limits.max_rows),
            query: Arc::clone(query),
        })
    }
}

/// What a run gives: rows, and then one end. After an error nothing comes.
#[derive(Clone, Debug)]
pub enum Item {
    /// Rows, each as JSON on a line of its own: from SQL an object with the columns as fields, from MongoDB a document, from
    /// Redis any value.
    Rows(String),
    /// The statement is over, and what it changed is there to stay.
    End {
        /// There were more rows than the query may return. What a statement changes, it has changed wholly.
        truncated: bool,
        /// Rows (documents) that a statement without rows has changed, where the server counts them.
        affected: Option<u64>,
    },
}

/// Why a run failed, as far as its caller can be told. The texts are the server's: they may repeat what the caller gave, so
/// they are for the caller and not for a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryFault {
    /// A value that the type allows, and the server does not: out of range, too long, not a date.
    #[error("the server refuses a value ({0})")]
    Value(String),
    /// A constraint, or a trigger or function that speaks for one.
    #[error("a constraint is violated ({0})")]
    Constraint(String),
    /// Another one's work is in the way: a deadlock, a lock, a write conflict. It can be tried again.
    #[error("the statement is in conflict with another one, try again ({0})")]
    Conflict(String),
    /// A write in a query that is declared as `readOnly`, or on a server that takes none.
    #[error("only reading is allowed here ({0})")]
    ReadOnly(String),
    /// It took longer than it may, and was ended on the server.
    #[error("the query took longer than its time-out, and was ended")]
    TimedOut,
    /// The statement cannot run as it is declared.
    #[error("the statement is not valid ({0})")]
    Invalid(String),
    /// The account may not do this.
    #[error("the account of the Database may not do this ({0})")]
    Denied(String),
    /// The connection, or the server as a whole; nothing is known of the statement.
    #[error(transparent)]
    Server(#[from] Fault),
}

impl QueryFault {
    /// A word for each kind, as metrics have it.
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

    /// The same as a check reports it: there nothing was run, so that it is the statement's fault or the server's.
    pub(super) fn of_check(self) -> Fault {
        match self {
            Self::Server(fault) => fault,
            Self::Denied(detail) => Fault::new(Reason::PermissionDenied, detail),
            Self::TimedOut => Fault::new(Reason::Timeout, "the server gave up preparing the statement"),
            Self::Conflict(detail) => Fault::new(Reason::Unavailable, detail),
            Self::Value(detail)
            | Self::Constraint(detail)
            | Self::ReadOnly(detail)
            | Self::Invalid(detail) => Fault::new(Reason::QueryInvalid, detail),
        }
    }

    /// Takes the secrets out of the text.
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

/// Whether each of so many parameters has a place in a template, and no others have one.
///
/// # Errors
/// What does not fit.
pub(super) fn every_parameter_has_a_place(places: &[usize], declared: usize) -> Result<(), String> {
    let has = places.iter().map(|index| index + 1).max().unwrap_or(0);
    if has != declared {
        return Err(format!("the statement has {has} parameters, and params declares {declared}"));
    }
    match (0..declared).find(|index| !places.contains(index)) {
        Some(index) => Err(format!("${} has no place in the statement", index + 1)),
        None => Ok(()),
    }
}

/// How an engine's work ended well.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) affected: Option<u64>,
    /// The server is still busy with what nobody wants any more: the connection cannot be used again.
    pub(super) busy: bool,
}

/// How an engine's work ended badly.
#[derive(Debug)]
pub(super) enum Stop {
    /// The connection failed before the statement was sent: another one can run it.
    Unsent(Fault),
    /// The statement failed.
    Fault(QueryFault),
    /// The caller went away.
    Abandoned,
    /// Its time is over.
    Late,
}

impl<F: Into<QueryFault>> From<F> for Stop {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

/// Whether more rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    More,
    Enough,
}

/// Where an engine puts its rows.
pub(super) struct Rows {
    sender: mpsc::Sender<String>,
    batch: String,
    left: u32,
    truncated: bool,
    sent: bool,
}

impl Rows {
    /// Takes a row, given as JSON on one line, unless there were as many as there may be. It may wait for more of them.
    pub(super) async fn send(&mut self, row: &str) -> Result<Wanted, Stop> {
        self.write(|batch| {
            batch.push_str(row);
            Ok(())
        })
        .await
    }

    /// The same for a row that is written to the end of those before it.
    pub(super) async fn write(
        &mut self,
        row: impl FnOnce(&mut String) -> Result<(), Fault>,
    ) -> Result<Wanted, Stop> {
        let Some(left) = self.left.checked_sub(1) else {
            self.truncated = true;
            return Ok(Wanted::Enough);
        };
        self.left = left;
        row(&mut self.batch)?;
        self.batch.push('\n');
        if self.batch.len() >= BATCH {
            self.flush().await?;
        }
        Ok(Wanted::More)
    }

    /// Sends what was taken: to be called before waiting for the server.
    pub(super) async fn flush(&mut self) -> Result<(), Stop> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.sent = true;
        self.sender.send(std::mem::take(&mut self.batch)).await.map_err(|_| Stop::Abandoned)
    }

    /// Whether the caller has none yet. Then those that were taken are forgotten.
    pub(super) fn start_over(&mut self, run: &Run) -> bool {
        if self.sent {
            return false;
        }
        self.batch.clear();
        (self.left, self.truncated) = (run.max_rows, false);
        true
    }

    /// Completes when the caller goes away.
    pub(super) fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        let sender = self.sender.clone();
        async move { sender.closed().await }
    }
}

/// JSON from a server, fit for a row: without line breaks, which are never inside of strings. None for what is no JSON.
pub(super) fn embedded(json: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<IgnoredAny>(json).ok()?;
    let breaks = |byte: u8| byte == b'\n' || byte == b'\r';
    Some(if json.bytes().any(breaks) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    })
}

/// A string as JSON has it.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The engine's end of an [`Answer`]. One that is dropped without an end was abandoned.
pub(super) struct Asked {
    pub(super) rows: Rows,
    end: oneshot::Sender<Result<Item, QueryFault>>,
    observed: Observed,
}

impl Asked {
    /// The last word to the caller.
    pub(super) fn end(self, end: Result<Done, QueryFault>) {
        let Self { rows, end: sender, observed } = self;
        observed.finish(end.as_ref().map_or_else(QueryFault::as_str, |_| "success"));
        let item = end.map(|done| Item::End { truncated: rows.truncated, affected: done.affected });
        // Whoever went away needs no answer.
        let _ = sender.send(item);
    }
}

/// The rows of a run as they come, and its end. The work is done by whoever waits for them, until it is detached; dropping this
/// ends it, on the server as well.
#[must_use = "the query runs while its answer is read"]
pub struct Answer {
    rows: mpsc::Receiver<String>,
    end: Option<oneshot::Receiver<Result<Item, QueryFault>>>,
    /// None when it is over, or goes on in a task of its own.
    work: Option<BoxFuture<'static, ()>>,
}

impl Answer {
    /// The answer of the work that an engine does.
    pub(super) fn of<W>(max_rows: u32, observed: Observed, work: impl FnOnce(Asked) -> W) -> Self
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let (sender, rows) = mpsc::channel(BATCHES);
        let (end, ended) = oneshot::channel();
        let out = Rows { sender, batch: String::new(), left: max_rows, truncated: false, sent: false };
        let work = work(Asked { rows: out, end, observed }).boxed();
        Self { rows, end: Some(ended), work: Some(work) }
    }

    /// Lets the work go on whether or not somebody reads, as long as its time-out allows. What is over at once is cheaper
    /// without; what comes bit by bit would otherwise hold its connection for as long as a slow reader likes.
    pub fn detach(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.work.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Nobody reads any more: it ends the statement on the server.
        self.rows.close();
        self.detach();
    }
}

impl Stream for Answer {
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
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let ended = ready!(end.poll_unpin(cx));
        self.end = None;
        let broken = || Fault::new(Reason::Unavailable, "the query was broken off");
        Poll::Ready(Some(ended.unwrap_or_else(|_| Err(broken().into()))))
    }
}
