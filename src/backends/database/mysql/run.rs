//! A query in a transaction of its own.

use futures::StreamExt;
use sqlx::{
    Arguments, AssertSqlSafe, Either, Executor, Row, SqlSafeStr, Statement,
    mysql::{MySqlArguments, MySqlConnection},
    types::BigDecimal,
};

use super::{
    Connection, Session,
    error::{fault, query_fault},
    row::Columns,
};
use crate::{
    api::v1alpha1::database::{ParamType, Query},
    backends::database::{
        query::{BoundQuery, Completion, Demand, QueryFault, RowSink, RunError, wrong_count},
        sql,
    },
    domain::parameters::{Parameter, Value},
};

/// The first words allowed in a `readOnly` statement. A procedure, or an executable comment, could end the read-only transaction.
const READ_ONLY_STATEMENTS: [&str; 8] =
    ["select", "with", "values", "table", "show", "describe", "desc", "explain"];

/// Rows taken at once, if available.
const ROW_CHUNK: usize = 64;

/// Checks a query by preparing it.
pub(super) async fn check(connection: &mut MySqlConnection, query: &Query) -> Result<(), QueryFault> {
    check_statement(query)?;
    let statement = AssertSqlSafe(query.statement.clone()).into_sql_str();
    let prepared = connection.prepare(statement).await.map_err(|error| query_fault(&error))?;
    Columns::of(prepared.columns())?;
    match (prepared.parameters(), query.params.len()) {
        (Some(Either::Right(found)), declared) if found != declared => {
            Err(QueryFault::Invalid(wrong_count(found, declared)))
        }
        _ => Ok(()),
    }
}

fn check_statement(query: &Query) -> Result<(), QueryFault> {
    sql::check_statement(&query.statement)?;
    let start = query.statement.trim_start_matches(|first: char| first.is_whitespace() || first == '(');
    let word = start.split(|char: char| !char.is_alphanumeric() && char != '_').next().unwrap_or_default();
    if !query.read_only || READ_ONLY_STATEMENTS.iter().any(|known| word.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let text = format!(
        "a readOnly statement must begin with one of {}, before any comment",
        READ_ONLY_STATEMENTS.join(", ")
    );
    Err(QueryFault::Invalid(text))
}

pub(super) async fn run(
    connection: &mut Connection,
    query: &BoundQuery,
    rows: &mut RowSink,
    server_read_only: bool,
) -> Result<Completion, RunError> {
    check_statement(&query.query)?;
    // A read-only statement runs in an implicit transaction, which the session makes read-only; a select without a limit gets one.
    let session = if query.query.read_only {
        Session::ReadOnly { limit: Some(u64::from(query.max_rows) + 1) }
    } else if server_read_only {
        // What an earlier query has set is taken back, and the server's own default is not.
        Session::ReadOnly { limit: None }
    } else {
        Session::ReadWrite
    };
    let mut setup = Vec::new();
    if connection.session != session {
        let (mode, limit) = match session {
            Session::ReadOnly { limit } => ("only", limit),
            _ => ("write", None),
        };
        let limit = limit.map_or("default".to_owned(), |limit| limit.to_string());
        setup.push(format!("set session transaction read {mode}; set sql_select_limit = {limit}"));
    }
    if !query.query.read_only {
        setup.push("start transaction".to_owned());
    }
    if !setup.is_empty() {
        connection.session = Session::Unknown;
        match execute(&mut connection.inner, setup.join("; ")).await {
            // The statement was not sent yet: if the connection failed, it can be retried on another one.
            Err(QueryFault::Server(fault)) => return Err(RunError::NotSent(fault)),
            done => done?,
        }
        connection.session = session;
    }
    let result = fetch(&mut connection.inner, query, rows).await;
    if !query.query.read_only {
        match &result {
            Ok(_) => execute(&mut connection.inner, "commit".to_owned()).await?,
            Err(RunError::Fault(fault)) if !matches!(fault, QueryFault::Server(_)) => {
                execute(&mut connection.inner, "rollback".to_owned()).await?;
            }
            Err(_) => {}
        }
    }
    result
}

async fn execute(connection: &mut MySqlConnection, statements: String) -> Result<(), QueryFault> {
    let statements = sqlx::raw_sql(AssertSqlSafe(statements).into_sql_str());
    connection.execute(statements).await.map(drop).map_err(|error| query_fault(&error))
}

async fn fetch(
    connection: &mut MySqlConnection,
    query: &BoundQuery,
    rows: &mut RowSink,
) -> Result<Completion, RunError> {
    let statement = AssertSqlSafe(query.query.statement.clone()).into_sql_str();
    let arguments = arguments(&query.parameters).map_err(|error| fault(&error))?;
    let mut chunks = connection.fetch_many(sqlx::query_with(statement, arguments)).ready_chunks(ROW_CHUNK);
    let (mut columns, mut affected, mut invalid, mut enough) = (None, None, None, false);
    while let Some(chunk) = chunks.next().await {
        for part in chunk {
            let row = match part.map_err(|error| query_fault(&error))? {
                Either::Left(result) => {
                    // A procedure returns several results.
                    affected = columns.take().is_none().then(|| result.rows_affected());
                    continue;
                }
                Either::Right(row) => row,
            };
            if enough && query.query.read_only {
                return Ok(Completion { affected: None, server_busy: true });
            }
            // A statement that writes is read to its end: cancelling it would roll it back.
            if enough || invalid.is_some() {
                continue;
            }
            let columns = match &columns {
                Some(columns) => columns,
                None => match Columns::of(row.columns()) {
                    Ok(found) => columns.insert(found),
                    Err(fault) => {
                        invalid = Some(fault);
                        continue;
                    }
                },
            };
            enough = rows.send(&columns.json(&row)?).await? == Demand::Enough;
        }
        rows.flush().await?;
    }
    match invalid {
        Some(fault) => Err(fault.into()),
        None => Ok(Completion { affected: affected.filter(|_| !query.query.read_only), server_busy: false }),
    }
}

/// The values in the server's types: a text compared with a decimal would be compared as a float. Timestamps are texts, which the server
/// converts to the type that they are compared with; the session is in UTC.
fn arguments(parameters: &[Parameter]) -> Result<MySqlArguments, sqlx::Error> {
    let mut arguments = MySqlArguments::default();
    for parameter in parameters {
        let added = match parameter.value() {
            Some(Value::Text(text)) => arguments.add(text),
            Some(Value::Integer(integer)) => arguments.add(integer),
            Some(Value::Number(number)) => arguments.add(number),
            Some(Value::Boolean(boolean)) => arguments.add(boolean),
            Some(Value::Timestamp(timestamp)) => {
                arguments.add(timestamp.strftime("%Y-%m-%d %H:%M:%S%.f").to_string())
            }
            Some(Value::Uuid(uuid)) => arguments.add(uuid.to_string()),
            Some(Value::Json(json)) => arguments.add(json.get()),
            Some(Value::Bytes(bytes)) => arguments.add(bytes.as_slice()),
            None => match parameter.kind() {
                ParamType::Integer => arguments.add(None::<i64>),
                ParamType::Number => arguments.add(None::<BigDecimal>),
                ParamType::Boolean => arguments.add(None::<bool>),
                ParamType::Bytes => arguments.add(None::<Vec<u8>>),
                _ => arguments.add(None::<String>),
            },
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
