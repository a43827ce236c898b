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
    error::{fault, refusal, unbegun},
    plan::{Plan, Plans, suits},
    row::json,
};
use crate::{
    api::Reason,
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

impl Session {
    pub(super) async fn run(&mut self, plans: &Plans, run: &Run, rows: &mut Rows) -> Result<Done, Stop> {
        loop {
            // What is rare is on the heap: each query would carry the room for it about.
            let (plan, known) = if let Some(plan) = plans.known(&run.query, run.max_rows) {
                (plan, true)
            } else {
                let made = Box::pin(plans.make(&self.client, self.direct, &run.query, run.max_rows));
                (made.await.map_err(unsent)?, false)
            };
            suits(&plan, &run.query)?;
            let ended = self.attempt(&plan, run, rows).await;
            // What it names may have changed since it was looked at.
            let again = match &ended {
                // What is refused has changed nothing.
                Err(Stop::Fault(QueryFault::Invalid(_))) => true,
                // A type that is new.
                Err(Stop::Fault(QueryFault::Server(fault))) if fault.reason == Reason::ProtocolError => {
                    run.query.read_only
                }
                _ => return ended,
            };
            plans.forget(&plan);
            self.statements.retain(|(of, _)| !Arc::ptr_eq(of, &plan));
            if !again || !known || !rows.start_over(run) {
                return ended;
            }
        }
    }

    async fn attempt(&mut self, plan: &Arc<Plan>, run: &Run, rows: &mut Rows) -> Result<Done, Stop> {
        let statement = match self.prepared(plan) {
            None if self.direct => Some(Box::pin(self.prepare(plan)).await.map_err(unsent)?),
            prepared => prepared,
        };
        if run.query.read_only && self.direct && self.reads.load(Relaxed) {
            self.read(plan, statement, run, rows).await
        } else {
            Box::pin(self.transact(plan, statement, run, rows)).await
        }
    }

    /// The statement in this session, if a run has prepared it.
    fn prepared(&self, plan: &Arc<Plan>) -> Option<Statement> {
        let (_, statement) = self.statements.iter().find(|(of, _)| Arc::ptr_eq(of, plan))?;
        Some(statement.clone())
    }

    async fn prepare(&mut self, plan: &Arc<Plan>) -> Result<Statement, QueryFault> {
        if self.statements.len() >= PREPARED {
            self.statements.clear();
        }
        let prepared = self.client.prepare_typed(&plan.sql, &plan.types).await;
        let statement = prepared.map_err(|error| refusal(&error))?;
        let mut columns = plan.columns.iter().zip(statement.columns());
        if columns.any(|(column, given)| column.form(given.type_()).is_none()) {
            return Err(QueryFault::Invalid("the type of a column has changed".to_owned()));
        }
        self.statements.push((Arc::clone(plan), statement.clone()));
        Ok(statement)
    }

    /// Runs the statement on its own, which is a transaction, and in our own session one that only reads.
    async fn read(
        &mut self,
        plan: &Plan,
        statement: Option<Statement>,
        run: &Run,
        rows: &mut Rows,
    ) -> Result<Done, Stop> {
        let timeout = timeout_of(run);
        if self.timeout == Some(timeout) {
            let affected = work(&self.client, plan, statement, run, rows).await?;
            return Ok(Done { affected, busy: false });
        }
        // Both are sent at once: each future sends as it is asked for the first time, in their order.
        let statement_timeout = format!("set statement_timeout = {timeout}");
        let set = self.client.batch_execute(&statement_timeout);
        let (set, worked) = Box::pin(join(set, work(&self.client, plan, statement, run, rows))).await;
        set.map_err(|error| refusal(&error))?;
        self.timeout = Some(timeout);
        Ok(Done { affected: worked?, busy: false })
    }

    /// Puts the statement into a transaction of its own. All that this takes is sent at once. If one part fails, the server
    /// refuses those after it.
    async fn transact(
        &mut self,
        plan: &Plan,
        statement: Option<Statement>,
        run: &Run,
        rows: &mut Rows,
    ) -> Result<Done, Stop> {
        let mode = if run.query.read_only { "only" } else { "write" };
        let zone = if self.direct { "" } else { "; set local timezone = 'UTC'" };
        let begin = format!("begin read {mode}; set local statement_timeout = {}{zone}", timeout_of(run));
        let work = work(&self.client, plan, statement, run, rows);
        // The transaction is over with this, whatever happened before.
        let (begun, worked, ended) =
            join3(self.client.batch_execute(&begin), work, self.client.batch_execute("commit")).await;
        begun.map_err(|error| unbegun(&error))?;
        let affected = worked?;
        ended.map_err(|error| refusal(&error))?;
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

/// In milliseconds; zero would be no time-out at all.
fn timeout_of(run: &Run) -> i32 {
    i32::try_from(run.timeout.as_millis()).unwrap_or(i32::MAX).max(1)
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
                rows.write(|out| json(&plan.columns, &row, out)).await?;
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
