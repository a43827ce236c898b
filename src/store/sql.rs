//! Statements in a transaction, whichever engine runs them. The same text serves both: `$1` is a parameter, and where their words
//! differ, [`Dialects`] has each engine's.

mod rows;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sqlx::{
    AssertSqlSafe, Decode, Postgres, Row as _, SqlSafeStr, Sqlite, Type, postgres::PgRow, sqlite::SqliteRow,
};

use super::target::Pool;

pub(super) use rows::Column;

/// A statement in the words of each engine.
pub(super) struct Dialects {
    pub(super) sqlite: &'static str,
    pub(super) postgresql: &'static str,
}

/// Begins a transaction that writes. PostgreSQL would otherwise go on waiting for a lock when we have long given up, would keep those of a
/// process that hangs, and may be set up to report a commit before it is durable; SQLite lets only those wait for a lock who ask for it before they read.
///
/// The settings are the transaction's, so that nothing depends on the session, which a pooler may give to somebody else.
const AS_WRITER: Dialects = Dialects {
    sqlite: "pragma synchronous = full; begin immediate",
    postgresql: "begin; set local statement_timeout = '8s'; set local idle_in_transaction_session_timeout = '8s'; \
                 set local synchronous_commit = on",
};

/// The same without waiting for the disk. What a crash of the machine undoes is unknown to nobody there: a server may crash alone, and those
/// who have told it something would take that for done.
const AS_LATER: Dialects =
    Dialects { sqlite: "pragma synchronous = normal; begin immediate", postgresql: AS_WRITER.postgresql };

const AS_READER: Dialects =
    Dialects { sqlite: "begin", postgresql: "begin; set local statement_timeout = '8s'" };

/// Milliseconds after 1970, by the clock that all users of the store share.
const NOW: Dialects = Dialects {
    sqlite: "select cast(unixepoch('subsec') * 1000 as integer)",
    postgresql: "select cast(extract(epoch from clock_timestamp()) * 1000 as bigint)",
};

/// Binds the parameters to a query of either driver.
macro_rules! bind {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match value {
                Value::Int(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            };
        }
        query
    }};
}

/// What a transaction is for.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Read,
    /// On the disk once it is committed.
    Write,
    /// In a file on the disk with the next [`Self::Write`], whose log is the same: a crash of the machine may undo it.
    WriteLater,
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Int(Option<i64>),
    Text(Option<&'a str>),
    Bytes(Option<&'a [u8]>),
}

impl Value<'_> {
    /// Bytes that it takes on its way to a server, about.
    fn size(&self) -> usize {
        let own = match self {
            Self::Int(_) => 8,
            Self::Text(text) => text.map_or(0, str::len),
            Self::Bytes(bytes) => bytes.map_or(0, <[u8]>::len),
        };
        own + 8
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Some(value))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(Some(value))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(value: Option<&'a str>) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(Some(value))
    }
}

/// A row of a result.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgresql(PgRow),
}

impl Row {
    /// The value of this column, counted from 0.
    pub(super) fn get<T>(&self, column: usize) -> sqlx::Result<T>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgresql(row) => row.try_get(column),
        }
    }
}

/// A transaction: rolled back unless it is committed.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgresql(sqlx::Transaction<'static, Postgres>),
}

impl Transaction {
    pub(super) async fn begin(pool: &Pool, access: Access) -> sqlx::Result<Self> {
        let statement = match access {
            Access::Read => AS_READER,
            Access::Write => AS_WRITER,
            Access::WriteLater => AS_LATER,
        };
        Ok(match pool {
            Pool::Sqlite(pool) => Self::Sqlite(pool.begin_with(statement.sqlite).await?),
            Pool::Postgresql(pool) => Self::Postgresql(pool.begin_with(statement.postgresql).await?),
        })
    }

    pub(super) async fn commit(self) -> sqlx::Result<()> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgresql(transaction) => transaction.commit().await,
        }
    }

    /// What fits this engine.
    pub(super) fn choose<T>(&self, sqlite: T, postgresql: T) -> T {
        match self {
            Self::Sqlite(_) => sqlite,
            Self::Postgresql(_) => postgresql,
        }
    }

    /// The store's clock, in milliseconds after 1970.
    pub(super) async fn now(&mut self) -> sqlx::Result<i64> {
        let rows = self.fetch(self.choose(NOW.sqlite, NOW.postgresql), &[]).await?;
        rows.first().ok_or(sqlx::Error::RowNotFound)?.get(0)
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&mut self, statements: &str) -> sqlx::Result<()> {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements));
        match self {
            Self::Sqlite(transaction) => statements.execute(&mut **transaction).await.map(drop),
            Self::Postgresql(transaction) => statements.execute(&mut **transaction).await.map(drop),
        }
    }

    /// Runs a statement, and gives how many rows it changed.
    pub(super) async fn execute(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> sqlx::Result<u64> {
        let values = values.iter().copied();
        match self {
            Self::Sqlite(transaction) => {
                let query = bind!(sqlx::query(statement), values);
                Ok(query.execute(&mut **transaction).await?.rows_affected())
            }
            Self::Postgresql(transaction) => {
                let query = bind!(sqlx::query(statement), values);
                Ok(query.execute(&mut **transaction).await?.rows_affected())
            }
        }
    }

    /// Runs a statement, and gives its rows.
    pub(super) async fn fetch(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> sqlx::Result<Vec<Row>> {
        self.query(statement, values.iter().copied()).await
    }

    /// Runs a statement with a list of rows in it, `(..), (..)`, between `before` and `after`; as often as many rows ask for. The lists
    /// have one of a few lengths, so that each statement is prepared once, and to a server fit into [`PACKET`].
    pub(super) async fn fetch_many<const N: usize>(
        &mut self,
        before: &'static str,
        rows: &[[Value<'_>; N]],
        after: &'static str,
    ) -> sqlx::Result<Vec<Row>> {
        let mut found = Vec::new();
        let mut left = rows;
        let most = self.choose(usize::MAX, PACKET);
        while let Some(length) = longest(left, most) {
            let (now, later) = left.split_at(length);
            let statement = AssertSqlSafe(with_rows(before, N, length, after, self.choose(false, true)));
            found.extend(self.query(statement, now.iter().flatten().copied()).await?);
            left = later;
        }
        Ok(found)
    }

    async fn query(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Iterator<Item = Value<'_>>,
    ) -> sqlx::Result<Vec<Row>> {
        match self {
            Self::Sqlite(transaction) => {
                let rows = bind!(sqlx::query(statement), values).fetch_all(&mut **transaction).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgresql(transaction) => {
                let rows = bind!(sqlx::query(statement), values).fetch_all(&mut **transaction).await?;
                Ok(rows.into_iter().map(Row::Postgresql).collect())
            }
        }
    }
}

/// How many rows one statement has: few lengths, for each is prepared once, and few statements for any number of rows, for each is a way to
/// the database and back. The longest one stays below the 32766 parameters of SQLite.
const LENGTHS: [usize; 8] = [256, 64, 32, 16, 8, 4, 2, 1];

/// Bytes of parameters that are sent at once, so that with all that is around them they are one record of TLS. What is sent in several parts
/// waits 40 ms for the server to acknowledge the first, since `sqlx` 0.9.0 does not turn off Nagle's algorithm (sqlx issue 4335).
const PACKET: usize = 12 << 10;

/// How many of these rows the next statement has: one at least, if there are any.
fn longest<const N: usize>(rows: &[[Value<'_>; N]], most: usize) -> Option<usize> {
    let mut bytes = 0;
    let fitting = rows.iter().take(LENGTHS[0]).take_while(|row| {
        bytes += row.iter().map(Value::size).sum::<usize>();
        bytes <= most
    });
    let fitting = fitting.count().max(1);
    LENGTHS.into_iter().find(|length| *length <= fitting.min(rows.len()))
}

/// The statement with a list of so many rows of so many parameters each. They have numbers where they must: to SQLite a number is a name,
/// and `sqlx` looks for the name of each among all of them.
fn with_rows(
    before: &'static str,
    width: usize,
    rows: usize,
    after: &'static str,
    numbered: bool,
) -> Arc<str> {
    type Key = (&'static str, &'static str, usize, bool);
    static STATEMENTS: Mutex<Option<HashMap<Key, Arc<str>>>> = Mutex::new(None);
    let mut statements = STATEMENTS.lock();
    let key = (before, after, rows, numbered);
    let statement = statements.get_or_insert_default().entry(key).or_insert_with(|| {
        let parameter = |number| if numbered { format!("${number}") } else { "?".to_owned() };
        let row = |row: usize| {
            let parameters: Vec<_> = (1..=width).map(|column| parameter(row * width + column)).collect();
            format!("({})", parameters.join(", "))
        };
        let rows: Vec<_> = (0..rows).map(row).collect();
        format!("{before}{}{after}", rows.join(", ")).into()
    });
    Arc::clone(statement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_as_many_rows_as_fit_and_one_at_least() {
        let text = "x".repeat(1000);
        let rows = |count: usize| vec![[Value::from(text.as_str())]; count];
        assert_eq!(longest(&rows(0), 4096), None);
        assert_eq!(longest(&rows(3), 4096), Some(2));
        assert_eq!(longest(&rows(100), 4096), Some(4));
        assert_eq!(longest(&rows(100), 12 << 10), Some(8));
        assert_eq!(longest(&rows(100), usize::MAX), Some(64));
        assert_eq!(longest(&rows(1000), usize::MAX), Some(256));
        assert_eq!(longest(&rows(2), 10), Some(1), "one that is too large goes alone");
    }
}
