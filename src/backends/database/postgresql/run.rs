//! A query in a transaction of its own.

use std::{
    error::Error as StdError,
    io::Write,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::{BufMut, BytesMut};
use futures::{
    StreamExt,
    future::{join, join3},
};
use tokio_postgres::{
    Client, Statement,
    types::{Format, IsNull, ToSql, Type, to_sql_checked},
};

use super::{
    Session,
    error::{begin_fault, fault, query_fault},
    plan::{Plan, Plans, check_statement},
    row::json,
};
use crate::{
    api::Reason,
    backends::{
        Fault,
        database::query::{BoundQuery, Completion, QueryFault, RowSink, RunError},
    },
    domain::parameters::{Parameter, Value},
};

/// Prepared statements kept per session; with more, all are prepared again.
const MAX_PREPARED: usize = 128;

/// Rows taken at once, if available.
const ROW_CHUNK: usize = 64;

impl Session {
    pub(super) async fn run(
        &mut self,
        plans: &Plans,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> Result<Completion, RunError> {
        loop {
            // Boxed, as everything rare is: otherwise the future of each query would be larger.
            let (plan, cached) = if let Some(plan) = plans.cached(&query.query, query.max_rows) {
                (plan, true)
            } else {
                let created = Box::pin(plans.create(&self.client, self.direct, &query.query, query.max_rows));
                (created.await.map_err(not_sent)?, false)
            };
            check_statement(&plan, &query.query)?;
            let result = self.attempt(&plan, query, rows).await;
            // Tables may have changed since the plan was made.
            let retry = match &result {
                // A rejected statement has changed nothing.
                Err(RunError::Fault(QueryFault::Invalid(_))) => true,
                // A column has a new type.
                Err(RunError::Fault(QueryFault::Server(fault))) if fault.reason == Reason::ProtocolError => {
                    query.query.read_only
                }
                _ => return result,
            };
            plans.remove(&plan);
            self.statements.retain(|(of, _)| !Arc::ptr_eq(of, &plan));
            if !retry || !cached || !rows.restart(query) {
                return result;
            }
        }
    }

    async fn attempt(
        &mut self,
        plan: &Arc<Plan>,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> Result<Completion, RunError> {
        let statement = match self.prepared(plan) {
            None if self.direct => Some(Box::pin(self.prepare(plan)).await.map_err(not_sent)?),
            prepared => prepared,
        };
        if query.query.read_only && self.direct && self.default_read_only.load(Relaxed) {
            self.run_read_only(plan, statement, query, rows).await
        } else {
            Box::pin(self.run_in_transaction(plan, statement, query, rows)).await
        }
    }

    /// The prepared statement of this session, if there is one.
    fn prepared(&self, plan: &Arc<Plan>) -> Option<Statement> {
        let (_, statement) = self.statements.iter().find(|(of, _)| Arc::ptr_eq(of, plan))?;
        Some(statement.clone())
    }

    async fn prepare(&mut self, plan: &Arc<Plan>) -> Result<Statement, QueryFault> {
        if self.statements.len() >= MAX_PREPARED {
            self.statements.clear();
        }
        let prepared = self.client.prepare_typed(&plan.sql, &plan.types).await;
        let statement = prepared.map_err(|error| query_fault(&error))?;
        let mut columns = plan.columns.iter().zip(statement.columns());
        if columns.any(|(column, given)| column.decoder(given.type_()).is_none()) {
            return Err(QueryFault::Invalid("the type of a column has changed".to_owned()));
        }
        self.statements.push((Arc::clone(plan), statement.clone()));
        Ok(statement)
    }

    /// Runs the statement in an implicit transaction, which is read-only in a direct session.
    async fn run_read_only(
        &mut self,
        plan: &Plan,
        statement: Option<Statement>,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> Result<Completion, RunError> {
        let timeout = timeout_of(query);
        if self.statement_timeout == Some(timeout) {
            let affected = execute(&self.client, plan, statement, query, rows).await?;
            return Ok(Completion { affected, server_busy: false });
        }
        // Pipelined: each future sends its request when it is first polled, in this order.
        let set_timeout = format!("set statement_timeout = {timeout}");
        let set = self.client.batch_execute(&set_timeout);
        let (set, affected) = Box::pin(join(set, execute(&self.client, plan, statement, query, rows))).await;
        set.map_err(|error| query_fault(&error))?;
        self.statement_timeout = Some(timeout);
        Ok(Completion { affected: affected?, server_busy: false })
    }

    /// Runs the statement in a transaction of its own. All requests are pipelined; if one fails, the server rejects those after it.
    async fn run_in_transaction(
        &mut self,
        plan: &Plan,
        statement: Option<Statement>,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> Result<Completion, RunError> {
        let mode = if query.query.read_only {
            " read only"
        } else if self.direct && !self.server_read_only.load(Relaxed) {
            // Against the session's own default.
            " read write"
        } else {
            ""
        };
        let zone = if self.direct { "" } else { "; set local timezone = 'UTC'" };
        let begin = format!("begin{mode}; set local statement_timeout = {}{zone}", timeout_of(query));
        let execute = execute(&self.client, plan, statement, query, rows);
        // Commit ends the transaction, or rolls it back if it has failed.
        let (begun, affected, committed) =
            join3(self.client.batch_execute(&begin), execute, self.client.batch_execute("commit")).await;
        begun.map_err(|error| begin_fault(&error))?;
        let affected = affected?;
        committed.map_err(|error| query_fault(&error))?;
        Ok(Completion { affected, server_busy: false })
    }

    /// Resets the timeout that the last query has set.
    pub(super) async fn reset_statement_timeout(&mut self) -> Result<(), Fault> {
        if self.statement_timeout.take().is_some() {
            self.client.batch_execute("reset statement_timeout").await.map_err(|error| fault(&error))?;
        }
        Ok(())
    }
}

/// In milliseconds; zero would disable the timeout.
fn timeout_of(query: &BoundQuery) -> i32 {
    i32::try_from(query.timeout.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// Runs the statement; gives the number of changed rows if it returns none.
async fn execute(
    client: &Client,
    plan: &Plan,
    statement: Option<Statement>,
    query: &BoundQuery,
    rows: &mut RowSink,
) -> Result<Option<u64>, RunError> {
    let parameters = query.parameters.iter().map(Encoded);
    let response = match statement {
        Some(statement) => client.query_raw(&statement, parameters).await,
        None => client.query_typed_raw(&plan.sql, parameters.zip(plan.types.iter().cloned())).await,
    };
    let response = pin!(response.map_err(|error| query_fault(&error))?);
    let mut chunks = response.ready_chunks(ROW_CHUNK);
    while let Some(chunk) = chunks.next().await {
        for row in chunk {
            let row = row.map_err(|error| query_fault(&error))?;
            if !plan.columns.is_empty() {
                rows.write(|out| json(&plan.columns, &row, out)).await?;
            }
        }
        rows.flush().await?;
    }
    Ok(chunks.get_ref().rows_affected().filter(|_| plan.columns.is_empty()))
}

/// The statement was not sent yet: if the connection failed, it can be retried on another one.
fn not_sent(fault: QueryFault) -> RunError {
    match fault {
        QueryFault::Server(fault) => RunError::NotSent(fault),
        fault => fault.into(),
    }
}

/// A parameter in the server's text format; bytes in binary.
#[derive(Debug)]
struct Encoded<'a>(&'a Parameter);

impl ToSql for Encoded<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let Some(value) = self.0.value() else { return Ok(IsNull::Yes) };
        match value {
            Value::Text(text) => out.put_slice(text.as_bytes()),
            Value::Integer(integer) => write!(out.writer(), "{integer}")?,
            Value::Number(number) => out.put_slice(number.to_plain_string().as_bytes()),
            Value::Boolean(boolean) => write!(out.writer(), "{boolean}")?,
            Value::Timestamp(timestamp) => write!(out.writer(), "{timestamp}")?,
            Value::Uuid(uuid) => write!(out.writer(), "{uuid}")?,
            Value::Json(json) => out.put_slice(json.get().as_bytes()),
            Value::Bytes(bytes) => out.put_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self.0.value() {
            Some(Value::Bytes(_)) => Format::Binary,
            _ => Format::Text,
        }
    }

    to_sql_checked!();
}
