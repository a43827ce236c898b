//! How many users of a source there are.

use super::Users;
use crate::store::Error;

/// How many of a source there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownCounts {
    /// Identities that may be used.
    pub active: u64,
    /// Identities that may not, or are gone.
    pub disabled: u64,
    /// Of the active ones those that the source did not have in the last complete look.
    pub missing: u64,
    /// Groups.
    pub groups: u64,
}

const USERS: &str = "select cast(count(case when i.state = 'active' then 1 end) as bigint), \
                     cast(count(case when i.state = 'disabled' then 1 end) as bigint), \
                     cast(count(case when i.state = 'active' and i.missing_since is not null then 1 end) as bigint) \
                     from authlink_identities i join authlink_sources s on s.id = i.source where s.uid = $1";
const GROUPS: &str =
    "select count(*) from authlink_groups g join authlink_sources s on s.id = g.source where s.uid = $1";

impl Users<'_> {
    /// How many of a source there are, by its uid.
    ///
    /// # Errors
    /// What kept them from being counted.
    pub async fn known(self, uid: &str) -> Result<KnownCounts, Error> {
        reading!(self, "read", |transaction| {
            let rows = transaction.fetch(USERS, &[uid.into()]).await?;
            let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            let number = |column| row.get::<i64>(column).map(|it| u64::try_from(it).unwrap_or_default());
            let (active, disabled, missing) = (number(0)?, number(1)?, number(2)?);
            let groups = super::number(transaction, GROUPS, &[uid.into()]).await?;
            Ok(KnownCounts { active, disabled, missing, groups })
        })
    }
}
