//! Runs commands made from templates.

use std::sync::Arc;

use bson::{Bson, Document, doc};
use futures::StreamExt;
use mongodb::error::{Error, ErrorKind};

use super::{Mongodb, template::Template, value::relaxed};
use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::{
        Fault,
        database::{
            deadline::Deadline,
            pool::pool_exhausted,
            query::{
                BoundQuery, Completion, Demand, QueryFault, ResultSink, RowSink, RunError,
                SERVER_TIMEOUT_GRACE, check_placeholders,
            },
        },
    },
};

/// Documents per batch of a cursor.
const MAX_BATCH: u32 = 1000;

/// Documents taken at once, if available.
const ROW_CHUNK: usize = 64;

/// Commands that return a cursor.
const CURSORS: [&str; 4] = ["find", "aggregate", "listCollections", "listIndexes"];

/// Commands that return the number of changed documents.
const WRITES: [&str; 3] = ["insert", "update", "delete"];

/// Fields of a response that are not part of the result.
const ENVELOPE: [&str; 3] = ["ok", "$clusterTime", "operationTime"];

/// Checks the command without a server.
pub(super) fn prepare(query: &Query) -> Result<Template, QueryFault> {
    let template = Template::parse(&query.statement).map_err(QueryFault::Invalid)?;
    check_placeholders(&template.placeholders(), query.params.len()).map_err(QueryFault::Invalid)?;
    if query.read_only && !template.is_read_only() {
        let text = format!("{} is not known to be read-only, or it has a stage that writes", template.name());
        return Err(QueryFault::Invalid(text));
    }
    if query.params.is_empty() {
        template.fill(&[]).map_err(QueryFault::Invalid)?;
    }
    Ok(template)
}

impl Mongodb {
    pub(super) async fn serve(self: Arc<Self>, query: BoundQuery, mut sink: ResultSink) {
        let permit = tokio::select! {
            permit = self.permits.acquire(self.settings.pool.acquire_timeout) => permit,
            () = sink.rows.cancelled() => return,
        };
        let Some(_permit) = permit else { return sink.finish(Err(pool_exhausted().into())) };
        let cancelled = sink.rows.cancelled();
        // Dropping the future closes its connection or cursor, which cancels the command on the server.
        let result = tokio::select! {
            result = async {
                let completion = self.execute(&query, &mut sink.rows).await?;
                sink.rows.flush().await?;
                Ok(completion)
            } => result,
            () = cancelled => Err(RunError::Cancelled),
            () = tokio::time::sleep(query.timeout + SERVER_TIMEOUT_GRACE) => Err(RunError::TimedOut),
        };
        match result {
            Ok(completion) => sink.finish(Ok(completion)),
            Err(RunError::Fault(fault)) => sink.finish(Err(fault.redacted(&self.settings))),
            Err(RunError::NotSent(fault)) => sink.finish(Err(self.settings.redact(fault).into())),
            Err(RunError::TimedOut) => sink.finish(Err(QueryFault::TimedOut)),
            Err(RunError::Cancelled) => {}
        }
    }

    async fn execute(&self, query: &BoundQuery, rows: &mut RowSink) -> Result<Completion, RunError> {
        let template = prepare(&query.query)?;
        let mut command = template.fill(&query.parameters).map_err(QueryFault::Value)?;
        // Zero would disable the timeout.
        let timeout = i32::try_from(query.timeout.as_millis()).unwrap_or(i32::MAX).max(1);
        command.insert("maxTimeMS", timeout);
        if CURSORS.contains(&template.name()) {
            return self.read(&template, command, query, rows).await;
        }
        let mut response = match self.database().run_command(command).await {
            Ok(response) => response,
            Err(error) => return Err(self.query_fault(&error).await.into()),
        };
        if WRITES.contains(&template.name()) {
            return write_result(&response).map_err(RunError::from);
        }
        for name in ENVELOPE {
            response.remove(name);
        }
        let values = match response.remove("values") {
            Some(Bson::Array(values)) if template.name() == "distinct" => values,
            _ => vec![Bson::Document(response)],
        };
        for value in values {
            if rows.send(&relaxed(value)).await? == Demand::Enough {
                break;
            }
        }
        Ok(Completion::default())
    }

    async fn read(
        &self,
        template: &Template,
        mut command: Document,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> Result<Completion, RunError> {
        let batch = query.max_rows.saturating_add(1).min(MAX_BATCH);
        if template.name() == "find" {
            command.entry("batchSize".to_owned()).or_insert_with(|| Bson::Int64(batch.into()));
        } else {
            let cursor = command.entry("cursor".to_owned()).or_insert_with(|| Bson::Document(doc! {}));
            if let Some(cursor) = cursor.as_document_mut() {
                cursor.entry("batchSize".to_owned()).or_insert_with(|| Bson::Int64(batch.into()));
            }
        }
        let database = self.database();
        let cursor = match database.run_cursor_command(command).batch_size(batch).await {
            Ok(cursor) => cursor,
            Err(error) => return Err(self.query_fault(&error).await.into()),
        };
        let mut chunks = cursor.ready_chunks(ROW_CHUNK);
        while let Some(chunk) = chunks.next().await {
            for document in chunk {
                let document = match document {
                    Ok(document) => document,
                    Err(error) => return Err(self.query_fault(&error).await.into()),
                };
                // Dropping the cursor closes it on the server.
                if rows.send(&relaxed(Bson::Document(document))).await? == Demand::Enough {
                    return Ok(Completion::default());
                }
            }
            rows.flush().await?;
        }
        Ok(Completion::default())
    }

    /// The error of a command.
    async fn query_fault(&self, error: &Error) -> QueryFault {
        let fault = match &*error.kind {
            ErrorKind::Command(command) => statement_fault(command.code, &command.message),
            _ => None,
        };
        if let Some(fault) = fault {
            return fault;
        }
        // Of what a probe would have left.
        self.diagnose(error, Deadline::within(self.settings.timeout * 2 / 5)).await.into()
    }
}

/// A failed write is reported in a successful response.
fn write_result(response: &Document) -> Result<Completion, QueryFault> {
    let errors = response.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document());
    let errors = errors.or_else(|| response.get_document("writeConcernError").ok());
    if let Some(error) = errors {
        let message = error.get_str("errmsg").unwrap_or_default();
        let code = error.get_i32("code").unwrap_or_default();
        return Err(
            statement_fault(code, message).unwrap_or_else(|| Fault::new(Reason::Unavailable, message).into())
        );
    }
    let affected = match response.get("n") {
        Some(Bson::Int32(count)) => u64::try_from(*count).ok(),
        Some(Bson::Int64(count)) => u64::try_from(*count).ok(),
        _ => None,
    };
    Ok(Completion { affected, server_busy: false })
}

/// By error code (MongoDB's `error_codes.yml`).
fn statement_fault(code: i32, message: &str) -> Option<QueryFault> {
    let text = message.to_owned();
    Some(match code {
        // BadValue, TypeMismatch, Overflow, InvalidLength, BSONObjectTooLarge, ConversionFailure
        2 | 14 | 15 | 16 | 10334 | 241 => QueryFault::Value(text),
        // DuplicateKey, DocumentValidationFailure
        121 | 11000 | 11001 => QueryFault::Constraint(text),
        // LockTimeout, LockBusy, WriteConflict, NoSuchTransaction, SnapshotUnavailable
        24 | 46 | 112 | 246 | 251 => QueryFault::Conflict(text),
        // NotWritablePrimary, and a member that is none
        10107 | 13435 => QueryFault::ReadOnly(text),
        // MaxTimeMSExpired, ExceededTimeLimit, Interrupted, ClientDisconnect
        50 | 262 | 11601 | 279 => QueryFault::TimedOut,
        // Unauthorized
        13 => QueryFault::Denied(text),
        // AuthenticationFailed, HostUnreachable, HostNotFound, a network and a shutdown of several kinds
        6 | 7 | 18 | 89 | 91 | 189 | 9001 | 11600 | 11602 | 13436 => return None,
        _ => QueryFault::Invalid(text),
    })
}
