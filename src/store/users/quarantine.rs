//! Entries that cannot be used.

use super::{Run, Users};
use crate::{
    domain::sync::record::Rejected,
    store::{Error, sql::Column},
};

const WRITE: [&str; 2] = [
    "with new (subject, reason) as (",
    ") insert into authlink_quarantine (source, subject, reason, run, first_seen) select $1, subject, reason, $2, $3 from new \
     where true on conflict (source, subject) do update set reason = excluded.reason, run = excluded.run",
];
const SWEEP: &str = "delete from authlink_quarantine where source = $1 and run <> $2";
const READ: &str = "select q.subject, q.reason from authlink_quarantine q join authlink_sources s on s.id = q.source \
                    where s.uid = $1 order by q.subject limit $2";

impl Users<'_> {
    /// Keeps these apart, each id or name once; nothing where the run has ended.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn quarantine(self, run: &Run, rejected: &[Rejected]) -> Result<Option<()>, Error> {
        let mut subjects: Vec<_> = rejected.iter().map(|it| (subject(it), it.reason.as_str())).collect();
        subjects.sort_unstable();
        subjects.dedup_by(|one, other| one.0 == other.0);
        in_run!(self, run, |transaction| {
            let fixed = [run.source.into(), (&run.id).into(), run.now().into()];
            let columns = [
                Column::texts(&subjects, |(subject, _)| subject),
                Column::texts(&subjects, |(_, reason)| reason),
            ];
            transaction.fetch_rows(WRITE[0], &fixed, &columns, WRITE[1]).await.map(drop)
        })
    }

    /// Lets those go that a complete run has not found unusable again; nothing where the run has ended.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn sweep(self, run: &Run) -> Result<Option<()>, Error> {
        in_run!(self, run, |transaction| {
            transaction.execute(SWEEP, &[run.source.into(), (&run.id).into()]).await.map(drop)
        })
    }

    /// Who is kept apart, by id or by the name of the entry, and why.
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn quarantined(self, uid: &str, most: i64) -> Result<Vec<(String, String)>, Error> {
        reading!(self, "read", |transaction| {
            let rows = transaction.fetch(READ, &[uid.into(), most.into()]).await?;
            rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
        })
    }
}

fn subject(rejected: &Rejected) -> String {
    match &rejected.external_id {
        Some(id) => id.clone(),
        // Nothing of a name that is not text is left to tell it by.
        None => rejected.dn.chars().filter(|char| *char != '\0').take(255).collect(),
    }
}
