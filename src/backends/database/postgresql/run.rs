//! A query in a transaction of its own.

use std::{error::Error as StdError, io::Write, pin::pin, sync::Arc};

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
    Connection,
    error::{closed, fault, refusal},
    plan::{Plan, Plans, suits},
    row::json,
};
use crate::{
    backends::{
        Fault,
        database::query::{Done, QueryFault, Rows, Run, Stop},
    },
    domain::parameters::{Parameter, Value},
};

/// Statements that a session keeps; beyond them it prepares anew.
const PREPARED: usize = 128;

/// Rows that are taken at once, if they are there.
const READY: usize = 64;

impl Connection {
    pub(super) async fn run(&mut self, plans: &Plans, run: &Run, rows: &mut Rows) -> Result<Done, Stop> {
        if self.client.is_closed() {
            return Err(Stop::Unsent(closed()));
        }
        loop {
            let planned = plans.of(&self.client, self.direct, &run.query, run.max_rows).await;
            let (plan, known) = planned.map_err(unsent)?;
            suits(&plan, &run.query)?;
            let statement =
                if self.direct { Some(self.prepared(&plan).await.map_err(unsent)?) } else { None };
            let ended = self.execute(&plan, statement, run, rows).await;
            if !matches!(ended, Err(Stop::Fault(QueryFault::Invalid(_)))) {
                return ended;
            }
            plans.forget(&plan);
            self.statements.retain(|(of, _)| !Arc::ptr_eq(of, &plan));
            // What it names may have changed since it was looked at. What is refused has changed nothing.
            if !known || !rows.start_over(run) {
                return ended;
            }
        }
    }

    /// The statement in this session, prepared by its first run.
    async fn prepared(&mut self, plan: &Arc<Plan>) -> Result<Statement, QueryFault> {
        if let Some((_, statement)) = self.statements.iter().find(|(of, _)| Arc::ptr_eq(of, plan)) {
            return Ok(statement.clone());
        }
        if self.statements.len() >= PREPARED {
            self.statements.clear();
        }
        let prepared = self.client.prepare_typed(&plan.sql, &plan.types).await;
        let statement = prepared.map_err(|error| refusal(&error))?;
        self.statements.push((Arc::clone(plan), statement.clone()));
        Ok(statement)
    }

    /// Puts the statement into a transaction of its own. All that this takes is sent at once: each future sends as it is asked
    /// for the first time, in their order. If one fails, the server refuses those after it.
    async fn execute(
        &mut self,
        plan: &Plan,
        statement: Option<Statement>,
        run: &Run,
        rows: &mut Rows,
    ) -> Result<Done, Stop> {
        // Zero would be no time-out at all.
        let timeout = i32::try_from(run.timeout.as_millis()).unwrap_or(i32::MAX).max(1);
        let work = work(&self.client, plan, statement, run, rows);
        let affected = if run.query.read_only && self.direct {
            // A statement on its own is a transaction, and in our own session one that only reads.
            let set = async {
                if self.timeout == Some(timeout) {
                    return Ok(());
                }
                self.client.batch_execute(&format!("set statement_timeout = {timeout}")).await
            };
            let (set, worked) = join(set, work).await;
            set.map_err(|error| refusal(&error))?;
            self.timeout = Some(timeout);
            worked?
        } else {
            let mode = if run.query.read_only { "only" } else { "write" };
            let zone = if self.direct { "" } else { "; set local timezone = 'UTC'" };
            let begin = format!("begin read {mode}; set local statement_timeout = {timeout}{zone}");
            // The transaction is over with this, whatever happened before.
            let (begun, worked, ended) =
                join3(self.client.batch_execute(&begin), work, self.client.batch_execute("commit")).await;
            begun.map_err(|error| refusal(&error))?;
            let affected = worked?;
            ended.map_err(|error| refusal(&error))?;
            affected
        };
        Ok(Done { affected, busy: false })
    }

    /// Takes back the time-out of the last query, which is none for what is asked next.
    pub(super) async fn unlimited(&mut self) -> Result<(), Fault> {
        if self.timeout.take().is_some() {
            self.client.batch_execute("reset statement_timeout").await.map_err(|error| fault(&error))?;
        }
        Ok(())
    }
}

/// Runs the statement, and says how many rows it has changed if it gives none.
async fn work(
    client: &Client,
    plan: &Plan,
    statement: Option<Statement>,
    run: &Run,
    rows: &mut Rows,
) -> Result<Option<u64>, Stop> {
    let parameters = run.parameters.iter().map(Encoded);
    let answer = match statement {
        Some(statement) => client.query_raw(&statement, parameters).await,
        None => client.query_typed_raw(&plan.sql, parameters.zip(plan.types.iter().cloned())).await,
    };
    let answer = pin!(answer.map_err(|error| refusal(&error))?);
    let mut ready = answer.ready_chunks(READY);
    while let Some(some) = ready.next().await {
        for row in some {
            let row = row.map_err(|error| refusal(&error))?;
            if !plan.columns.is_empty() {
                rows.send(json(&plan.columns, &row)?).await?;
            }
        }
        rows.flush().await?;
    }
    Ok(ready.get_ref().rows_affected().filter(|_| plan.columns.is_empty()))
}

/// Nothing was run yet: if it was the connection that failed, another one will do.
fn unsent(fault: QueryFault) -> Stop {
    match fault {
        QueryFault::Server(fault) => Stop::Unsent(fault),
        fault => fault.into(),
    }
}

/// A parameter in the server's own text form, which it reads by the declared type; bytes as they are.
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
