//! How a declared statement is sent to the server: a read-only one with a row limit, and such that every type is returned without loss.
//! Types that are not decoded here, such as arrays and user-defined types, the server converts to JSON.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio_postgres::{Client, Statement, types::Type};

use super::{
    error::query_fault,
    row::{Column, ColumnType},
};
use crate::{
    api::v1alpha1::database::{ParamType, Query},
    backends::database::{
        query::{QueryFault, wrong_count},
        sql,
    },
};

/// More than a Database may declare; beyond it the cache is cleared.
const MAX_CACHED: usize = 256;

/// The name of the statement's result; a column of the same name would take precedence.
const RESULT: &str = "authlink_result";

/// How a statement is run.
pub(super) struct Plan {
    /// The SQL sent to the server.
    pub(super) sql: String,
    /// The columns of its rows; empty if it returns none.
    pub(super) columns: Vec<Column>,
    pub(super) types: Vec<Type>,
}

/// The plans made so far: a statement is described once, not on every connection.
#[derive(Default)]
pub(super) struct Plans(Mutex<HashMap<Key, Arc<Plan>>>);

type Key = (String, Vec<ParamType>, Option<u32>);

fn key(query: &Query, max_rows: u32) -> Key {
    (query.statement.clone(), query.params.clone(), limit(query, max_rows))
}

/// The row limit. A statement that writes has none: it would call a function for its first rows only.
fn limit(query: &Query, max_rows: u32) -> Option<u32> {
    query.read_only.then_some(max_rows)
}

impl Plans {
    /// The cached plan for this query and row limit.
    pub(super) fn cached(&self, query: &Query, max_rows: u32) -> Option<Arc<Plan>> {
        self.0.lock().get(&key(query, max_rows)).cloned()
    }

    /// Creates and caches the plan for this query and row limit.
    pub(super) async fn create(
        &self,
        client: &Client,
        direct: bool,
        query: &Query,
        max_rows: u32,
    ) -> Result<Arc<Plan>, QueryFault> {
        let plan = Arc::new(plan(client, direct, query, max_rows).await?);
        let mut plans = self.0.lock();
        if plans.len() >= MAX_CACHED {
            plans.clear();
        }
        plans.insert(key(query, max_rows), Arc::clone(&plan));
        Ok(plan)
    }

    /// Removes a plan whose tables may have changed.
    pub(super) fn remove(&self, plan: &Arc<Plan>) {
        self.0.lock().retain(|_, cached| !Arc::ptr_eq(cached, plan));
    }
}

async fn plan(client: &Client, direct: bool, query: &Query, max_rows: u32) -> Result<Plan, QueryFault> {
    let types: Vec<_> = query.params.iter().copied().map(type_of).collect();
    let described = describe(client, direct, &query.statement, &types).await?;
    check_count(described.params().len(), types.len())?;
    let found: Vec<_> = described
        .columns()
        .iter()
        .map(|column| (column.name(), ColumnType::of(column.type_()).is_none()))
        .collect();
    let sql = if found.is_empty() {
        query.statement.clone()
    } else {
        wrap(&query.statement, &found, limit(query, max_rows))?
    };
    let columns = found.into_iter().map(|(name, as_json)| Column::new(name, as_json)).collect();
    Ok(Plan { sql, columns, types })
}

/// Checks a query by preparing everything that running it prepares.
pub(super) async fn check(client: &Client, direct: bool, query: &Query) -> Result<(), QueryFault> {
    let plan = plan(client, direct, query, 1).await?;
    check_statement(&plan, query)?;
    // The server accepts types for parameters that the statement does not use.
    let mut used = plan.types.len();
    while used > 0 {
        match describe(client, direct, &query.statement, &plan.types[..used - 1]).await {
            Ok(described) if described.params().len() < used => used -= 1,
            _ => break,
        }
    }
    check_count(used, plan.types.len())?;
    if !plan.columns.is_empty() {
        describe(client, direct, &plan.sql, &plan.types).await.map_err(|fault| match fault {
            QueryFault::Invalid(text) => QueryFault::Invalid(format!(
                "a statement that returns rows is run as \"with ... as (statement) select ...\", and this one cannot be ({text}); \
                 it must be one select, values, table, insert, update or delete without a semicolon, and a with before it must \
                 not change data"
            )),
            fault => fault,
        })?;
    }
    Ok(())
}

/// Whether the query may run by this plan.
pub(super) fn check_statement(plan: &Plan, query: &Query) -> Result<(), QueryFault> {
    sql::check_statement(&query.statement)?;
    if query.read_only && plan.columns.is_empty() {
        // Otherwise a procedure could end the read-only transaction.
        return Err(QueryFault::Invalid("a readOnly statement must return rows".to_owned()));
    }
    Ok(())
}

fn check_count(found: usize, declared: usize) -> Result<(), QueryFault> {
    if found == declared { Ok(()) } else { Err(QueryFault::Invalid(wrong_count(found, declared))) }
}

/// Parameters and columns of a statement. Preparing it names it, so behind a pooler it happens in a transaction that is rolled back.
async fn describe(client: &Client, direct: bool, sql: &str, types: &[Type]) -> Result<Statement, QueryFault> {
    if direct {
        return client.prepare_typed(sql, types).await.map_err(|error| query_fault(&error));
    }
    client.batch_execute("begin").await.map_err(|error| query_fault(&error))?;
    let described = client.prepare_typed(sql, types).await;
    client.batch_execute("rollback").await.map_err(|error| query_fault(&error))?;
    described.map_err(|error| query_fault(&error))
}

fn type_of(parameter: ParamType) -> Type {
    match parameter {
        ParamType::Text => Type::TEXT,
        ParamType::Integer => Type::INT8,
        ParamType::Number => Type::NUMERIC,
        ParamType::Boolean => Type::BOOL,
        ParamType::Timestamp => Type::TIMESTAMPTZ,
        ParamType::Uuid => Type::UUID,
        ParamType::Json => Type::JSONB,
        ParamType::Bytes => Type::BYTEA,
    }
}

/// Wraps the statement to select its columns by name, some converted to JSON, with an optional limit: one row more than wanted shows
/// that the result is truncated. The condition is always true and costs nothing, but makes the server reject the statement when its
/// number of columns has changed.
fn wrap(statement: &str, columns: &[(&str, bool)], limit: Option<u32>) -> Result<String, QueryFault> {
    for (index, (name, _)) in columns.iter().enumerate() {
        if columns[..index].iter().any(|(before, _)| before == name) {
            let text = format!("two columns are named {name}: rename one with \"as\"");
            return Err(QueryFault::Invalid(text));
        }
    }
    let named = |name: &str| format!("{RESULT}.\"{}\"", name.replace('"', "\"\""));
    let names = columns.iter().map(|(name, _)| named(name)).collect::<Vec<_>>().join(", ");
    let fields = columns.iter().map(|(name, as_json)| match named(name) {
        name if *as_json => format!("to_json({name})::text"),
        name => name,
    });
    let fields = fields.collect::<Vec<_>>().join(", ");
    let body = statement.trim_end_matches(|last: char| last.is_whitespace() || last == ';');
    let limit = limit.map_or(String::new(), |rows| format!(" limit {}", u64::from(rows) + 1));
    // On its own lines, in case it ends with a comment.
    Ok(format!(
        "with {RESULT} as (\n{body}\n) select {fields} from {RESULT} \
         where true or exists (select {RESULT}.* union all select {names}){limit}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_wrapped_whatever_it_ends_with() {
        for end in ["", ";", " ;\n", " -- the end"] {
            let columns = [("a", false), ("na\"me", true)];
            let sql = wrap(&format!("select 1 as a{end}"), &columns, Some(u32::MAX)).unwrap();
            assert!(sql.starts_with("with authlink_result as (\nselect 1 as a"), "{sql}");
            let tail = "\n) select authlink_result.\"a\", to_json(authlink_result.\"na\"\"me\")::text \
                        from authlink_result where true or exists (select authlink_result.* \
                        union all select authlink_result.\"a\", authlink_result.\"na\"\"me\") limit 4294967296";
            assert!(sql.ends_with(tail), "{sql}");
            assert!(!sql.contains(';'), "{sql}");
        }
    }

    #[test]
    fn columns_of_one_name_are_refused() {
        let columns = [("a", true), ("b", true), ("a", false)];
        let Err(QueryFault::Invalid(text)) = wrap("", &columns, None) else { panic!("not refused") };
        assert!(text.contains("named a"), "{text}");
    }
}
