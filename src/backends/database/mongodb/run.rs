//! Commands from templates.

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
            pool::is_full,
            query::{Asked, Done, GRACE, QueryFault, Rows, Run, Stop, Wanted, every_parameter_has_a_place},
        },
    },
};

/// Documents that are fetched at once.
const BATCH: u32 = 1000;

/// Of them, those that are taken at once, if they are there.
const READY: usize = 64;

/// Commands that answer with a cursor.
const CURSORS: [&str; 4] = ["find", "aggregate", "listCollections", "listIndexes"];

/// Commands that answer with how many documents they have changed.
const WRITES: [&str; 3] = ["insert", "update", "delete"];

/// Of the answer, what is about the answer.
const ENVELOPE: [&str; 3] = ["ok", "$clusterTime", "operationTime"];

/// A command that may be run, as far as can be told without a server.
pub(super) fn prepare(query: &Query) -> Result<Template, QueryFault> {
    let template = Template::parse(&query.statement).map_err(QueryFault::Invalid)?;
    every_parameter_has_a_place(&template.places(), query.params.len()).map_err(QueryFault::Invalid)?;
    if query.read_only && !template.reads() {
        let text = format!(
            "{} is no command that is known to read only, or it has a stage that writes",
            template.name()
        );
        return Err(QueryFault::Invalid(text));
    }
    if query.params.is_empty() {
        template.fill(&[]).map_err(QueryFault::Invalid)?;
    }
    Ok(template)
}

impl Mongodb {
    pub(super) async fn serve(self: Arc<Self>, run: Run, mut asked: Asked) {
        let place = tokio::select! {
            place = self.places.place_within(self.settings.pool.acquire_timeout) => place,
            () = asked.rows.abandoned() => return,
        };
        let Some(_place) = place else { return asked.end(Err(is_full().into())) };
        let abandoned = asked.rows.abandoned();
        // What is dropped in the middle takes its connection or its cursor with it, which ends it on the server.
        let ended = tokio::select! {
            done = async {
                let done = self.execute(&run, &mut asked.rows).await?;
                asked.rows.flush().await?;
                Ok(done)
            } => done,
            () = abandoned => Err(Stop::Abandoned),
            () = tokio::time::sleep(run.timeout + GRACE) => Err(Stop::Late),
        };
        match ended {
            Ok(done) => asked.end(Ok(done)),
            Err(Stop::Fault(fault)) => asked.end(Err(fault.redacted(&self.settings))),
            Err(Stop::Unsent(fault)) => asked.end(Err(self.settings.redact(fault).into())),
            Err(Stop::Late) => asked.end(Err(QueryFault::TimedOut)),
            Err(Stop::Abandoned) => {}
        }
    }

    async fn execute(&self, run: &Run, rows: &mut Rows) -> Result<Done, Stop> {
        let template = prepare(&run.query)?;
        let mut command = template.fill(&run.parameters).map_err(QueryFault::Value)?;
        // Zero would be no time-out at all.
        let timeout = i32::try_from(run.timeout.as_millis()).unwrap_or(i32::MAX).max(1);
        command.insert("maxTimeMS", timeout);
        if CURSORS.contains(&template.name()) {
            return self.read(&template, command, run, rows).await;
        }
        let mut answer = match self.database().run_command(command).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.refusal(&error).await.into()),
        };
        if WRITES.contains(&template.name()) {
            return written(&answer).map_err(Stop::from);
        }
        for name in ENVELOPE {
            answer.remove(name);
        }
        let values = match answer.remove("values") {
            Some(Bson::Array(values)) if template.name() == "distinct" => values,
            _ => vec![Bson::Document(answer)],
        };
        for value in values {
            if rows.send(&relaxed(value)).await? == Wanted::Enough {
                break;
            }
        }
        Ok(Done::default())
    }

    async fn read(
        &self,
        template: &Template,
        mut command: Document,
        run: &Run,
        rows: &mut Rows,
    ) -> Result<Done, Stop> {
        let batch = run.max_rows.saturating_add(1).min(BATCH);
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
            Err(error) => return Err(self.refusal(&error).await.into()),
        };
        let mut ready = cursor.ready_chunks(READY);
        while let Some(some) = ready.next().await {
            for document in some {
                let document = match document {
                    Ok(document) => document,
                    Err(error) => return Err(self.refusal(&error).await.into()),
                };
                // A cursor that is dropped is closed on the server.
                if rows.send(&relaxed(Bson::Document(document))).await? == Wanted::Enough {
                    return Ok(Done::default());
                }
            }
            rows.flush().await?;
        }
        Ok(Done::default())
    }

    /// What the server says to a command.
    async fn refusal(&self, error: &Error) -> QueryFault {
        let refused = match &*error.kind {
            ErrorKind::Command(command) => refused(command.code, &command.message),
            _ => None,
        };
        match refused {
            Some(refused) => refused,
            None => self.explain(error).await.into(),
        }
    }
}

/// A write is answered well even if it failed.
fn written(answer: &Document) -> Result<Done, QueryFault> {
    let errors = answer.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document());
    let errors = errors.or_else(|| answer.get_document("writeConcernError").ok());
    if let Some(error) = errors {
        let message = error.get_str("errmsg").unwrap_or_default();
        let code = error.get_i32("code").unwrap_or_default();
        return Err(refused(code, message).unwrap_or_else(|| Fault::new(Reason::Unavailable, message).into()));
    }
    let affected = match answer.get("n") {
        Some(Bson::Int32(count)) => u64::try_from(*count).ok(),
        Some(Bson::Int64(count)) => u64::try_from(*count).ok(),
        _ => None,
    };
    Ok(Done { affected, busy: false })
}

/// By error code (MongoDB's `error_codes.yml`).
fn refused(code: i32, message: &str) -> Option<QueryFault> {
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
