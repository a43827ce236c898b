//! Runs commands made from templates.

use std::sync::Arc;

use redis::Value;

use super::{
    Connection, Redis, answer,
    error::{closed, query_fault},
    template::Template,
};
use crate::{
    api::v1alpha1::database::Query,
    backends::database::query::{
        BoundQuery, Completion, Demand, QueryFault, RowSink, RunError, check_placeholders,
    },
};

/// More than a Database may declare; beyond it the cache is cleared.
const MAX_CACHED: usize = 256;

/// A command that the server has.
pub(super) struct Prepared {
    template: Template,
    /// The server flags it as readonly.
    read_only: bool,
}

impl Redis {
    /// Checks the command without running it.
    pub(super) async fn prepare(
        &self,
        connection: &mut Connection,
        query: &Query,
    ) -> Result<Arc<Prepared>, QueryFault> {
        let prepared = self.cached(connection, &query.statement).await?;
        let placeholders = prepared.template.placeholders();
        check_placeholders(&placeholders, query.params.len()).map_err(QueryFault::Invalid)?;
        if query.read_only && !prepared.read_only {
            let name = prepared.template.name().unwrap_or_default();
            let text = format!("the server does not flag {name} as a readonly command");
            return Err(QueryFault::Invalid(text));
        }
        Ok(prepared)
    }

    async fn cached(
        &self,
        connection: &mut Connection,
        statement: &str,
    ) -> Result<Arc<Prepared>, QueryFault> {
        let cached = self.prepared.lock().get(statement).cloned();
        if let Some(prepared) = cached {
            return Ok(prepared);
        }
        let template = Template::parse(statement).map_err(QueryFault::Invalid)?;
        let read_only = command_info(connection, &template).await?;
        let prepared = Arc::new(Prepared { template, read_only });
        let mut cache = self.prepared.lock();
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(statement.to_owned(), Arc::clone(&prepared));
        Ok(prepared)
    }

    pub(super) async fn execute(
        &self,
        connection: &mut Connection,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> Result<Completion, RunError> {
        if connection.driver.is_finished() {
            return Err(RunError::NotSent(closed()));
        }
        let prepared = match self.prepare(connection, &query.query).await {
            // The command was not sent yet: if the connection failed, it can be retried on another one.
            Err(QueryFault::Server(fault)) => return Err(RunError::NotSent(fault)),
            prepared => prepared?,
        };
        let command = prepared.template.fill(&query.parameters).map_err(QueryFault::Value)?;
        let response: Value =
            command.query_async(&mut connection.commands).await.map_err(|error| query_fault(&error))?;
        for value in answer::rows(response) {
            if rows.send(&answer::json(&value)).await? == Demand::Enough {
                break;
            }
        }
        Ok(Completion::default())
    }
}

/// Asks the server about the command: whether it is readonly. A container command has this flag for each subcommand.
async fn command_info(connection: &mut Connection, template: &Template) -> Result<bool, QueryFault> {
    let name = template.name().unwrap_or_default();
    let mut info = redis::cmd("COMMAND");
    info.arg("INFO").arg(&name);
    let response: Value =
        info.query_async(&mut connection.commands).await.map_err(|error| query_fault(&error))?;
    let Value::Array(entries) = response else { return Ok(false) };
    let Some(Value::Array(command)) = entries.first() else {
        return Err(QueryFault::Invalid(format!("the server has no command {name}")));
    };
    let mut command = command.as_slice();
    // The tenth element, since Redis 7.
    if let Some(Value::Array(subcommands)) = command.get(9).filter(|part| **part != Value::Array(Vec::new()))
    {
        let Some(subcommand) = template.subcommand() else {
            return Err(QueryFault::Invalid(format!(
                "{name} needs a subcommand, which cannot be a parameter"
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
    // Negative: a minimum.
    let arity_matches = match command.get(1) {
        Some(Value::Int(arity)) => {
            let given = i64::try_from(template.len()).unwrap_or(i64::MAX);
            given == *arity || (*arity < 0 && given >= -arity)
        }
        _ => true,
    };
    if !arity_matches {
        return Err(QueryFault::Invalid(format!("wrong number of arguments for {name}")));
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
