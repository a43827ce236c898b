//! How a declared statement is put to the server: so that one that only reads stops after as many rows as are wanted, and so that
//! every type that it has comes out without loss. What is not known here, such as arrays and types of its own, it makes JSON of
//! itself.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio_postgres::{Client, Statement, types::Type};

use super::{
    error::refusal,
    row::{Column, Form},
};
use crate::{
    api::v1alpha1::database::{ParamType, Query},
    backends::database::{query::QueryFault, sql},
};

/// Plans of more statements than a Database may declare; beyond them all are made anew.
const KEPT: usize = 256;

/// The statement's result under a name that no column will have, since a column would take precedence.
const RESULT: &str = "authlink_result";

/// How a statement is run.
pub(super) struct Plan {
    /// What the server gets.
    pub(super) sql: String,
    /// The columns of its rows; none if it gives no rows.
    pub(super) columns: Vec<Column>,
    pub(super) types: Vec<Type>,
}

/// The plans made so far: a statement is looked at once, not on every connection.
#[derive(Default)]
pub(super) struct Plans(Mutex<HashMap<Key, Arc<Plan>>>);

type Key = (String, Vec<ParamType>, Option<u32>);

fn key(query: &Query, max_rows: u32) -> Key {
    (query.statement.clone(), query.params.clone(), limit(query, max_rows))
}

/// After how many rows it may be ended. What writes is never ended: it would call a function for its first rows only.
fn limit(query: &Query, max_rows: u32) -> Option<u32> {
    query.read_only.then_some(max_rows)
}

impl Plans {
    /// The plan for this query with so many rows, if it was made before.
    pub(super) fn known(&self, query: &Query, max_rows: u32) -> Option<Arc<Plan>> {
        self.0.lock().get(&key(query, max_rows)).cloned()
    }

    /// A plan for this query with so many rows.
    pub(super) async fn make(
        &self,
        client: &Client,
        direct: bool,
        query: &Query,
        max_rows: u32,
    ) -> Result<Arc<Plan>, QueryFault> {
        let plan = Arc::new(plan(client, direct, query, max_rows).await?);
        let mut plans = self.0.lock();
        if plans.len() >= KEPT {
            plans.clear();
        }
        plans.insert(key(query, max_rows), Arc::clone(&plan));
        Ok(plan)
    }

    /// What a statement names has changed, perhaps.
    pub(super) fn forget(&self, plan: &Arc<Plan>) {
        self.0.lock().retain(|_, known| !Arc::ptr_eq(known, plan));
    }
}

async fn plan(client: &Client, direct: bool, query: &Query, max_rows: u32) -> Result<Plan, QueryFault> {
    let types: Vec<_> = query.params.iter().copied().map(type_of).collect();
    let described = describe(client, direct, &query.statement, &types).await?;
    count(described.params().len(), types.len())?;
    let found: Vec<_> = described
        .columns()
        .iter()
        .map(|column| (column.name(), Form::of(column.type_()).is_none()))
        .collect();
    let sql = if found.is_empty() {
        query.statement.clone()
    } else {
        wrap(&query.statement, &found, limit(query, max_rows))?
    };
    let columns = found.into_iter().map(|(name, made)| Column::new(name, made)).collect();
    Ok(Plan { sql, columns, types })
}

/// Checks a query by preparing all that a run of it prepares.
pub(super) async fn check(client: &Client, direct: bool, query: &Query) -> Result<(), QueryFault> {
    let plan = plan(client, direct, query, 1).await?;
    suits(&plan, query)?;
    // The server takes types of parameters that the statement does not have for granted.
    let mut used = plan.types.len();
    while used > 0 {
        match describe(client, direct, &query.statement, &plan.types[..used - 1]).await {
            Ok(described) if described.params().len() < used => used -= 1,
            _ => break,
        }
    }
    count(used, plan.types.len())?;
    if !plan.columns.is_empty() {
        describe(client, direct, &plan.sql, &plan.types).await.map_err(|fault| match fault {
            QueryFault::Invalid(text) => QueryFault::Invalid(format!(
                "a statement that gives rows is run as \"with ... as (statement) select ...\", and this one cannot be ({text}); \
                 it must be one select, values, table, insert, update or delete without a semicolon, and a with before it must \
                 not change data"
            )),
            fault => fault,
        })?;
    }
    Ok(())
}

/// Whether a query may be run by this plan.
pub(super) fn suits(plan: &Plan, query: &Query) -> Result<(), QueryFault> {
    sql::suits(&query.statement)?;
    if query.read_only && plan.columns.is_empty() {
        // Else a procedure could end the transaction, and with it the promise.
        return Err(QueryFault::Invalid("a readOnly statement must give rows".to_owned()));
    }
    Ok(())
}

fn count(has: usize, declared: usize) -> Result<(), QueryFault> {
    if has == declared {
        return Ok(());
    }
    Err(QueryFault::Invalid(format!("the statement has {has} parameters, and params declares {declared}")))
}

/// Parameters and columns of a statement. It is prepared under a name, which a session that is not ours must not keep.
async fn describe(client: &Client, direct: bool, sql: &str, types: &[Type]) -> Result<Statement, QueryFault> {
    if direct {
        return client.prepare_typed(sql, types).await.map_err(|error| refusal(&error));
    }
    client.batch_execute("begin").await.map_err(|error| refusal(&error))?;
    let described = client.prepare_typed(sql, types).await;
    client.batch_execute("rollback").await.map_err(|error| refusal(&error))?;
    described.map_err(|error| refusal(&error))
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

/// The statement with columns by name, of some of which the server makes JSON, and maybe with a limit: one row more than wanted
/// shows that there are more. The condition is always true and costs nothing, but the server refuses it when the statement has
/// another number of columns by now.
fn wrap(statement: &str, columns: &[(&str, bool)], limit: Option<u32>) -> Result<String, QueryFault> {
    for (index, (name, _)) in columns.iter().enumerate() {
        if columns[..index].iter().any(|(before, _)| before == name) {
            let text = format!("two columns are called {name}: give them different names with \"as\"");
            return Err(QueryFault::Invalid(text));
        }
    }
    let named = |name: &str| format!("{RESULT}.\"{}\"", name.replace('"', "\"\""));
    let names = columns.iter().map(|(name, _)| named(name)).collect::<Vec<_>>().join(", ");
    let fields = columns.iter().map(|(name, made)| match named(name) {
        name if *made => format!("to_json({name})::text"),
        name => name,
    });
    let fields = fields.collect::<Vec<_>>().join(", ");
    let body = statement.trim_end_matches(|last: char| last.is_whitespace() || last == ';');
    let limit = limit.map_or(String::new(), |rows| format!(" limit {}", u64::from(rows) + 1));
    // On lines of its own, in case it ends with a comment.
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
        assert!(text.contains("called a"), "{text}");
    }
}
