//! A query in a transaction of its own.

use futures::StreamExt;
use sqlx::{
    Arguments, AssertSqlSafe, Either, Executor, Row, SqlSafeStr, Statement,
    mysql::{MySqlArguments, MySqlConnection},
    types::BigDecimal,
};

use super::{
    Connection, Session,
    error::{fault, refusal},
    row::Columns,
};
use crate::{
    api::v1alpha1::database::{ParamType, Query},
    backends::database::{
        query::{Done, QueryFault, Rows, Run, Stop, Wanted},
        sql,
    },
    domain::parameters::{Parameter, Value},
};

/// What a statement in a read-only transaction may begin with. A procedure could end the transaction, and with it the promise;
/// so could what stands in a comment that the server runs.
const READS: [&str; 8] = ["select", "with", "values", "table", "show", "describe", "desc", "explain"];

/// Rows that are taken at once, if they are there.
const READY: usize = 64;

/// Checks a query by preparing it.
pub(super) async fn check(link: &mut MySqlConnection, query: &Query) -> Result<(), QueryFault> {
    suits(query)?;
    let statement = AssertSqlSafe(query.statement.clone()).into_sql_str();
    let prepared = link.prepare(statement).await.map_err(|error| refusal(&error))?;
    Columns::of(prepared.columns())?;
    match (prepared.parameters(), query.params.len()) {
        (Some(Either::Right(has)), declared) if has != declared => {
            let text = format!("the statement has {has} parameters, and params declares {declared}");
            Err(QueryFault::Invalid(text))
        }
        _ => Ok(()),
    }
}

fn suits(query: &Query) -> Result<(), QueryFault> {
    sql::suits(&query.statement)?;
    let start = query.statement.trim_start_matches(|first: char| first.is_whitespace() || first == '(');
    let word = start.split(|char: char| !char.is_alphanumeric() && char != '_').next().unwrap_or_default();
    if !query.read_only || READS.iter().any(|known| word.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let text =
        format!("a readOnly statement must begin with one of {}, also before any comment", READS.join(", "));
    Err(QueryFault::Invalid(text))
}

pub(super) async fn run(connection: &mut Connection, run: &Run, rows: &mut Rows) -> Result<Done, Stop> {
    suits(&run.query)?;
    // A statement on its own is a transaction, and in a session that only reads one that only reads. A select that has no
    // limit gets one.
    let session = if run.query.read_only {
        Session::Reads { limit: u64::from(run.max_rows) + 1 }
    } else {
        Session::Writes
    };
    let mut before = Vec::new();
    if connection.session != session {
        before.push(match session {
            Session::Reads { limit } => {
                format!("set session transaction read only; set sql_select_limit = {limit}")
            }
            _ => "set session transaction read write; set sql_select_limit = default".to_owned(),
        });
    }
    if session == Session::Writes {
        before.push("start transaction".to_owned());
    }
    if !before.is_empty() {
        connection.session = Session::Unknown;
        match execute(&mut connection.link, before.join("; ")).await {
            // Nothing was run yet: if it was the connection that failed, another one will do.
            Err(QueryFault::Server(fault)) => return Err(Stop::Unsent(fault)),
            begun => begun?,
        }
        connection.session = session;
    }
    let ended = work(&mut connection.link, run, rows).await;
    if session == Session::Writes {
        match &ended {
            Ok(_) => execute(&mut connection.link, "commit".to_owned()).await?,
            Err(Stop::Fault(fault)) if !matches!(fault, QueryFault::Server(_)) => {
                execute(&mut connection.link, "rollback".to_owned()).await?;
            }
            Err(_) => {}
        }
    }
    ended
}

async fn execute(link: &mut MySqlConnection, statements: String) -> Result<(), QueryFault> {
    let statements = sqlx::raw_sql(AssertSqlSafe(statements).into_sql_str());
    link.execute(statements).await.map(drop).map_err(|error| refusal(&error))
}

async fn work(link: &mut MySqlConnection, run: &Run, rows: &mut Rows) -> Result<Done, Stop> {
    let statement = AssertSqlSafe(run.query.statement.clone()).into_sql_str();
    let arguments = arguments(&run.parameters).map_err(|error| fault(&error))?;
    let mut ready = link.fetch_many(sqlx::query_with(statement, arguments)).ready_chunks(READY);
    let (mut columns, mut affected, mut unfit, mut enough) = (None, None, None, false);
    while let Some(some) = ready.next().await {
        for part in some {
            let row = match part.map_err(|error| refusal(&error))? {
                Either::Left(result) => {
                    // A procedure gives several results.
                    affected = columns.take().is_none().then(|| result.rows_affected());
                    continue;
                }
                Either::Right(row) => row,
            };
            if enough && run.query.read_only {
                return Ok(Done { affected: None, busy: true });
            }
            // What writes is read to its end, since ending it would undo it.
            if enough || unfit.is_some() {
                continue;
            }
            let columns = match &columns {
                Some(columns) => columns,
                None => match Columns::of(row.columns()) {
                    Ok(found) => columns.insert(found),
                    Err(fault) => {
                        unfit = Some(fault);
                        continue;
                    }
                },
            };
            enough = rows.send(&columns.json(&row)?).await? == Wanted::Enough;
        }
        rows.flush().await?;
    }
    match unfit {
        Some(fault) => Err(fault.into()),
        None => Ok(Done { affected: affected.filter(|_| !run.query.read_only), busy: false }),
    }
}

/// The values in the types that the server has for them: a text compared with a decimal would be compared as a float. Times
/// are texts, because there the server knows better what they are compared with; the session is in UTC.
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
