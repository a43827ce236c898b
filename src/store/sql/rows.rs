//! Statements with many rows in them: an array for each column with PostgreSQL, a list of values with SQLite.

use std::{collections::HashMap, ops::Range, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use sqlx::AssertSqlSafe;

use super::{LENGTHS, Row, Transaction, Value};

/// A column of the rows.
pub(in crate::store) enum Column<'a> {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<&'a str>>),
    Bytes(Vec<Option<&'a [u8]>>),
}

impl<'a> Column<'a> {
    /// The value of this in each of the rows.
    pub(in crate::store) fn texts<T>(rows: &'a [T], of: impl Fn(&'a T) -> &'a str) -> Self {
        Self::Texts(rows.iter().map(|row| Some(of(row))).collect())
    }

    /// The same, where it may be missing.
    pub(in crate::store) fn optional<T>(rows: &'a [T], of: impl Fn(&'a T) -> Option<&'a str>) -> Self {
        Self::Texts(rows.iter().map(of).collect())
    }

    pub(in crate::store) fn ints<T>(rows: &'a [T], of: impl Fn(&'a T) -> i64) -> Self {
        Self::Ints(rows.iter().map(|row| Some(of(row))).collect())
    }

    pub(in crate::store) fn bytes<T>(rows: &'a [T], of: impl Fn(&'a T) -> &'a [u8]) -> Self {
        Self::Bytes(rows.iter().map(|row| Some(of(row))).collect())
    }

    fn len(&self) -> usize {
        match self {
            Self::Ints(values) => values.len(),
            Self::Texts(values) => values.len(),
            Self::Bytes(values) => values.len(),
        }
    }

    fn get(&self, row: usize) -> Value<'a> {
        match self {
            Self::Ints(values) => Value::Int(values.get(row).copied().flatten()),
            Self::Texts(values) => Value::Text(values.get(row).copied().flatten()),
            Self::Bytes(values) => Value::Bytes(values.get(row).copied().flatten()),
        }
    }

    const fn array(&self) -> &'static str {
        match self {
            Self::Ints(_) => "bigint[]",
            Self::Texts(_) => "text[]",
            Self::Bytes(_) => "bytea[]",
        }
    }
}

/// PostgreSQL's own limit for one message is far above this many rows.
const MOST_ROWS: usize = 10_000;

impl Transaction {
    /// Runs a statement with rows in it between `before` and `after`, in the place of a `select`. `fixed` are `$1` and so on; no row,
    /// no statement.
    ///
    /// Boxed: rustc cannot prove that a future is `Send` which borrows values of several lifetimes, where it is part of a task
    /// (rust-lang/rust#102211).
    pub(in crate::store) fn fetch_rows<'a>(
        &'a mut self,
        before: &'static str,
        fixed: &'a [Value<'a>],
        columns: &'a [Column<'a>],
        after: &'static str,
    ) -> BoxFuture<'a, sqlx::Result<Vec<Row>>> {
        self.fetch_parts(before, fixed, columns, after).boxed()
    }

    async fn fetch_parts<'a>(
        &'a mut self,
        before: &'static str,
        fixed: &'a [Value<'a>],
        columns: &'a [Column<'a>],
        after: &'static str,
    ) -> sqlx::Result<Vec<Row>> {
        let rows = columns.first().map_or(0, Column::len);
        let (mut found, mut start) = (Vec::new(), 0);
        while start < rows {
            let left = rows - start;
            let length = match self {
                Self::Postgresql(_) => left.min(MOST_ROWS),
                Self::Sqlite(_) => LENGTHS.into_iter().find(|length| *length <= left).unwrap_or(1),
            };
            let part = match self {
                Self::Postgresql(transaction) => {
                    let mut query = sqlx::query(AssertSqlSafe(arrays(before, fixed.len(), columns, after)));
                    for value in fixed {
                        query = match value {
                            Value::Int(value) => query.bind(value),
                            Value::Text(value) => query.bind(value),
                            Value::Bytes(value) => query.bind(value),
                        };
                    }
                    for column in columns {
                        query = match column {
                            Column::Ints(values) => query.bind(&values[start..start + length]),
                            Column::Texts(values) => query.bind(&values[start..start + length]),
                            Column::Bytes(values) => query.bind(&values[start..start + length]),
                        };
                    }
                    let rows = query.fetch_all(&mut **transaction).await?;
                    rows.into_iter().map(Row::Postgresql).collect::<Vec<_>>()
                }
                Self::Sqlite(_) => {
                    let statement = AssertSqlSafe(values(before, fixed.len(), columns.len(), length, after));
                    let values = parameters(fixed, columns, start..start + length);
                    self.query(statement, values.into_iter()).await?
                }
            };
            found.extend(part);
            start += length;
        }
        Ok(found)
    }
}

/// The parameters of a list of values, in order.
fn parameters<'a>(fixed: &[Value<'a>], columns: &[Column<'a>], rows: Range<usize>) -> Vec<Value<'a>> {
    let rows = rows.flat_map(|row| columns.iter().map(move |column| column.get(row)));
    fixed.iter().copied().chain(rows).collect()
}

type Key = (&'static str, &'static str, usize);
static STATEMENTS: Mutex<Option<HashMap<Key, Arc<str>>>> = Mutex::new(None);

fn remembered(key: Key, make: impl FnOnce() -> String) -> Arc<str> {
    let mut statements = STATEMENTS.lock();
    Arc::clone(statements.get_or_insert_default().entry(key).or_insert_with(|| make().into()))
}

fn arrays(before: &'static str, fixed: usize, columns: &[Column<'_>], after: &'static str) -> Arc<str> {
    remembered((before, after, 0), || {
        let array =
            |(index, column): (usize, &Column<'_>)| format!("${}::{}", fixed + index + 1, column.array());
        let arrays: Vec<_> = columns.iter().enumerate().map(array).collect();
        format!("{before}select * from unnest({}){after}", arrays.join(", "))
    })
}

fn values(before: &'static str, fixed: usize, width: usize, rows: usize, after: &'static str) -> Arc<str> {
    remembered((before, after, rows), || {
        let row = |row: usize| {
            let parameters = (1..=width).map(|column| format!("${}", fixed + row * width + column));
            format!("({})", parameters.collect::<Vec<_>>().join(", "))
        };
        format!("{before}values {}{after}", (0..rows).map(row).collect::<Vec<_>>().join(", "))
    })
}
