//! Commands from templates.

use std::sync::Arc;

use redis::Value;

use super::{
    Connection, Redis, answer,
    error::{closed, refusal},
    template::Template,
};
use crate::{
    api::v1alpha1::database::Query,
    backends::database::query::{Done, QueryFault, Rows, Run, Stop, Wanted, every_parameter_has_a_place},
};

/// Commands of more queries than a Database may declare; beyond them all are looked at anew.
const KEPT: usize = 256;

/// A command that the server knows.
pub(super) struct Prepared {
    template: Template,
    /// The server says that it changes nothing.
    reads: bool,
}

impl Redis {
    /// The command, as far as it can be checked without running it.
    pub(super) async fn prepare(
        &self,
        connection: &mut Connection,
        query: &Query,
    ) -> Result<Arc<Prepared>, QueryFault> {
        let prepared = self.look_once(connection, &query.statement).await?;
        let places = prepared.template.places();
        every_parameter_has_a_place(&places, query.params.len()).map_err(QueryFault::Invalid)?;
        if query.read_only && !prepared.reads {
            let name = prepared.template.name().unwrap_or_default();
            let text = format!("the server does not call {name} a command that only reads");
            return Err(QueryFault::Invalid(text));
        }
        Ok(prepared)
    }

    async fn look_once(
        &self,
        connection: &mut Connection,
        statement: &str,
    ) -> Result<Arc<Prepared>, QueryFault> {
        let all = || self.prepared.lock();
        let known = all().get(statement).cloned();
        if let Some(prepared) = known {
            return Ok(prepared);
        }
        let template = Template::parse(statement).map_err(QueryFault::Invalid)?;
        let reads = look(connection, &template).await?;
        let prepared = Arc::new(Prepared { template, reads });
        let mut all = all();
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(statement.to_owned(), Arc::clone(&prepared));
        Ok(prepared)
    }

    pub(super) async fn execute(
        &self,
        connection: &mut Connection,
        run: &Run,
        rows: &mut Rows,
    ) -> Result<Done, Stop> {
        if connection.carrier.is_finished() {
            return Err(Stop::Unsent(closed()));
        }
        let prepared = match self.prepare(connection, &run.query).await {
            // Nothing was run yet: if it was the connection that failed, another one will do.
            Err(QueryFault::Server(fault)) => return Err(Stop::Unsent(fault)),
            prepared => prepared?,
        };
        let command = prepared.template.fill(&run.parameters).map_err(QueryFault::Value)?;
        let answer: Value =
            command.query_async(&mut connection.commands).await.map_err(|error| refusal(&error))?;
        for value in answer::rows(answer) {
            if rows.send(&answer::json(&value)).await? == Wanted::Enough {
                break;
            }
        }
        Ok(Done::default())
    }
}

/// Asks the server for the command: whether it only reads. A container of subcommands says that of each.
async fn look(connection: &mut Connection, template: &Template) -> Result<bool, QueryFault> {
    let name = template.name().unwrap_or_default();
    let mut ask = redis::cmd("COMMAND");
    ask.arg("INFO").arg(&name);
    let answer: Value = ask.query_async(&mut connection.commands).await.map_err(|error| refusal(&error))?;
    let Value::Array(entries) = answer else { return Ok(false) };
    let Some(Value::Array(command)) = entries.first() else {
        return Err(QueryFault::Invalid(format!("the server has no command {name}")));
    };
    let mut command = command.as_slice();
    // The tenth part, from Redis 7 on.
    if let Some(Value::Array(subcommands)) = command.get(9).filter(|part| **part != Value::Array(Vec::new()))
    {
        let Some(subcommand) = template.subcommand() else {
            return Err(QueryFault::Invalid(format!(
                "{name} needs the name of a subcommand, which is no parameter"
            )));
        };
        let full = format!("{name}|{subcommand}");
        let mut named = subcommands.iter().filter_map(|entry| match entry {
            Value::Array(parts) => Some(parts.as_slice()),
            _ => None,
        });
        let Some(found) = named.find(|parts| parts.first().and_then(text) == Some(full.as_bytes())) else {
            return Err(QueryFault::Invalid(format!("the server has no command {name} {subcommand}")));
        };
        command = found;
    }
    // Below zero it is a minimum.
    let fits = match command.get(1) {
        Some(Value::Int(arity)) => {
            let given = i64::try_from(template.len()).unwrap_or(i64::MAX);
            given == *arity || (*arity < 0 && given >= -arity)
        }
        _ => true,
    };
    if !fits {
        return Err(QueryFault::Invalid(format!("{name} takes another number of arguments")));
    }
    let flags = match command.get(2) {
        Some(Value::Array(flags) | Value::Set(flags)) => flags.as_slice(),
        _ => &[],
    };
    Ok(flags.iter().any(|flag| text(flag) == Some(b"readonly")))
}

fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}
