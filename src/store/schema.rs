//! The tables, the same for every engine, and how they come to be: whichever process comes first makes them, in one
//! transaction, while others wait.

use std::time::Duration;

use sqlx::Row;

use super::{Error, target::Pool, usage::AS_WRITER};

/// In the order in which they are applied: the version of a schema is how many of them it has.
const MIGRATIONS: &[&str] =
    &[include_str!("migrations/0001_usage.sql"), include_str!("migrations/0002_saturated.sql")];

/// Only one process at a time makes tables: a lock that ends with the transaction. The number is that of nobody else.
const LOCK: &str = "select pg_advisory_xact_lock(7021791284)";

const VERSIONS: &str = "create table if not exists authlink_schema (version bigint not null primary key)";
const VERSION: &str = "select coalesce(max(version), 0) from authlink_schema";
const APPLIED: &str = "insert into authlink_schema (version) values ($1)";

/// Applies what is missing.
pub(super) async fn prepare(pool: &Pool) -> Result<(), Error> {
    match pool {
        Pool::Postgresql(pool) => {
            let mut transaction = pool.begin_with(AS_WRITER.postgresql).await?;
            sqlx::raw_sql(LOCK).execute(&mut *transaction).await?;
            sqlx::raw_sql(VERSIONS).execute(&mut *transaction).await?;
            let found: i64 = sqlx::query(VERSION).fetch_one(&mut *transaction).await?.try_get(0)?;
            for (version, statements) in missing(found)? {
                sqlx::raw_sql(statements).execute(&mut *transaction).await?;
                sqlx::query(APPLIED).bind(version).execute(&mut *transaction).await?;
            }
            Ok(transaction.commit().await?)
        }
        Pool::Sqlite(pool) => {
            // Nobody can wait for the lock that this needs, so it is asked for again.
            while let Err(error) = sqlx::raw_sql("pragma journal_mode = wal").execute(pool).await {
                if !is_locked(&error) {
                    return Err(error.into());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let mut transaction = pool.begin_with(AS_WRITER.sqlite).await?;
            sqlx::raw_sql(VERSIONS).execute(&mut *transaction).await?;
            let found: i64 = sqlx::query(VERSION).fetch_one(&mut *transaction).await?.try_get(0)?;
            for (version, statements) in missing(found)? {
                sqlx::raw_sql(statements).execute(&mut *transaction).await?;
                sqlx::query(APPLIED).bind(version).execute(&mut *transaction).await?;
            }
            Ok(transaction.commit().await?)
        }
    }
}

/// SQLITE_BUSY and SQLITE_LOCKED, whatever their extension.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| [5, 6].contains(&(code & 0xff)))
}

fn missing(found: i64) -> Result<impl Iterator<Item = (i64, &'static str)>, Error> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(Error::Newer { found, known });
    }
    Ok((1..).zip(MIGRATIONS.iter().copied()).filter(move |(version, _)| *version > found))
}
