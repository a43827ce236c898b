//! Who is missing.

use std::collections::HashMap;

use super::{Run, Users};
use crate::{
    domain::sync::key::Key,
    store::{Error, sql::Column},
};

/// What is looked for at its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its id.
    pub external_id: String,
    /// The name of its entry.
    pub dn: String,
}

/// How it is known that something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// By a complete look: that counts each time.
    ByLook,
    /// By a cursor, which tells it once, whether it says so once or twice.
    ByCursor,
}

const SCAN: &str = "select external_id from authlink_identities where source = $1 and external_id > $2 and state <> 'purged' \
                    order by external_id limit $3";
const SCAN_GROUPS: &str = "select external_id from authlink_groups where source = $1 and external_id > $2 \
                           order by external_id limit $3";
const STRIKE: [&str; 2] = [
    "with new (id) as (",
    ") update authlink_identities set missing_since = coalesce(missing_since, $2), \
     missing_runs = case when missing_runs = 0 then 1 else missing_runs + $3 end \
     where source = $1 and state <> 'purged' and external_id in (select id from new) returning external_id",
];
const STRIKE_GROUPS: [&str; 2] = [
    "with new (id) as (",
    ") update authlink_groups set missing_since = coalesce(missing_since, $2), \
     missing_runs = case when missing_runs = 0 then 1 else missing_runs + $3 end \
     where source = $1 and external_id in (select id from new) returning external_id",
];
const BY_DN: [&str; 2] = [
    "with new (dn_key) as (",
    ") select i.dn_key, i.external_id from new join authlink_identities i on i.source = $1 and i.dn_key = new.dn_key \
     where i.state <> 'purged'",
];
const LOOK: &str = "select external_id, dn from authlink_identities where source = $1 and missing_since <= $2 \
                    and missing_runs < 2 and state = 'active' and external_id > $3 order by external_id limit $4";
const LOOK_GROUPS: &str = "select external_id, dn from authlink_groups where source = $1 and missing_since <= $2 \
                           and missing_runs < 2 and external_id > $3 order by external_id limit $4";

/// Users or groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Users.
    Users,
    /// Groups.
    Groups,
}

impl Users<'_> {
    /// The ids that the source is known to have, in order, after this one.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn scan(self, run: &Run, table: Table, after: &str, most: i64) -> Result<Vec<String>, Error> {
        let statement = if table == Table::Users { SCAN } else { SCAN_GROUPS };
        reading!(self, "sync", |transaction| {
            let rows = transaction.fetch(statement, &[run.source.into(), after.into(), most.into()]).await?;
            rows.iter().map(|row| row.get(0)).collect()
        })
    }

    /// Notes that these are missing; how many of them are known, and nothing where the run has ended.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn strike(
        self,
        run: &Run,
        table: Table,
        ids: &[String],
        told: Told,
    ) -> Result<Option<u64>, Error> {
        let statement = if table == Table::Users { STRIKE } else { STRIKE_GROUPS };
        in_run!(self, run, |transaction| {
            let fixed = [run.source.into(), run.now().into(), i64::from(told == Told::ByLook).into()];
            let columns = [Column::texts(ids, String::as_str)];
            let rows = transaction.fetch_rows(statement[0], &fixed, &columns, statement[1]).await?;
            Ok(rows.len() as u64)
        })
    }

    /// Who is known by these names of entries.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn by_dn(self, run: &Run, keys: &[Key]) -> Result<HashMap<Key, Vec<String>>, Error> {
        reading!(self, "sync", |transaction| {
            let columns = [Column::bytes(keys, |key| key.as_bytes().as_slice())];
            let mut found: HashMap<_, Vec<_>> = HashMap::new();
            for row in transaction.fetch_rows(BY_DN[0], &[run.source.into()], &columns, BY_DN[1]).await? {
                if let Some(key) = Key::from_bytes(&row.get::<Vec<u8>>(0)?) {
                    found.entry(key).or_default().push(row.get(1)?);
                }
            }
            Ok(found)
        })
    }

    /// Who has been missing since then or longer, and was looked for only once; in order, after this id.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn to_look_for(
        self,
        run: &Run,
        table: Table,
        since: i64,
        after: &str,
        most: i64,
    ) -> Result<Vec<Subject>, Error> {
        let statement = if table == Table::Users { LOOK } else { LOOK_GROUPS };
        reading!(self, "sync", |transaction| {
            let values = [run.source.into(), since.into(), after.into(), most.into()];
            let rows = transaction.fetch(statement, &values).await?;
            rows.iter()
                .map(|row| {
                    let dn = row.get::<Option<String>>(1)?.unwrap_or_default();
                    Ok(Subject { external_id: row.get(0)?, dn })
                })
                .collect()
        })
    }
}
