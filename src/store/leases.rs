//! Leases: what only one process at a time may do. A lease runs out by the store's clock, which all processes share; its epoch fences
//! whoever has lost it and does not know that yet.

use std::time::{Duration, Instant};

use super::{Error, Store, sql::Access};

/// A lease, held by whoever has asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// How many times it has changed hands: what is written under an earlier epoch is refused.
    pub epoch: i64,
    /// It may have ended then, and not sooner: its holder must have renewed it, or stop.
    pub valid_until: Instant,
}

/// Free, its own already, or run out. One that would last for longer than anybody may ask for was taken before the clock was set back.
const ACQUIRE: &str = "insert into authlink_leases (name, owner, epoch, expires) values ($1, $2, 1, $3) \
                       on conflict (name) do update set owner = excluded.owner, epoch = authlink_leases.epoch + 1, \
                       expires = excluded.expires where authlink_leases.owner = excluded.owner \
                       or authlink_leases.expires <= $4 or authlink_leases.expires > excluded.expires \
                       returning epoch";
const RENEW: &str = "update authlink_leases set expires = $4 where name = $1 and owner = $2 and epoch = $3";
const RELEASE: &str =
    "update authlink_leases set owner = '', expires = 0 where name = $1 and owner = $2 and epoch = $3";
const HOLDERS: &str =
    "select name, owner from authlink_leases where expires > $1 and owner <> '' order by name";

/// Leases, in the store.
#[derive(Clone, Copy)]
pub struct Leases<'a>(&'a Store);

impl Store {
    /// Leases.
    #[must_use]
    pub fn leases(&self) -> Leases<'_> {
        Leases(self)
    }
}

impl Leases<'_> {
    /// Takes those of these leases that are free or have run out, and those that `owner` has already, each in a new epoch: whatever
    /// was begun under an earlier one is fenced. Everybody asks for a lease of the same name for the same time.
    ///
    /// `owner` must not be empty, and must be the name of one process at a time.
    ///
    /// # Errors
    /// What kept them from being taken.
    pub async fn acquire(self, owner: &str, names: &[&str], time: Duration) -> Result<Vec<Lease>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Write).await?;
            let (valid_until, now) = (Instant::now() + time, transaction.now().await?);
            let expires = now + millis(time);
            let mut taken = Vec::new();
            for name in sorted(names) {
                let values = [name.into(), owner.into(), expires.into(), now.into()];
                if let Some(row) = transaction.fetch(ACQUIRE, &values).await?.first() {
                    taken.push(Lease { name: name.to_owned(), epoch: row.get(0)?, valid_until });
                }
            }
            transaction.commit().await?;
            Ok(taken)
        };
        self.0.operate("acquire", work).await
    }

    /// Renews these leases; gives those that are still held. One that has run out is, if nobody has taken it.
    ///
    /// # Errors
    /// What kept them from being renewed: they hold as long as they did.
    pub async fn renew(self, owner: &str, leases: &[Lease], time: Duration) -> Result<Vec<Lease>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Write).await?;
            let (valid_until, now) = (Instant::now() + time, transaction.now().await?);
            let mut held = Vec::new();
            let mut leases = leases.to_vec();
            // In one order, as whoever else locks several of them does.
            leases.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            for lease in leases {
                let expires = now + millis(time);
                let values = [(&lease.name).into(), owner.into(), lease.epoch.into(), expires.into()];
                if transaction.execute(RENEW, &values).await? > 0 {
                    held.push(Lease { valid_until, ..lease });
                }
            }
            transaction.commit().await?;
            Ok(held)
        };
        self.0.operate("renew", work).await
    }

    /// Gives these leases back, so that others need not wait until they run out.
    ///
    /// # Errors
    /// What kept them from being given back.
    pub async fn release(self, owner: &str, leases: &[Lease]) -> Result<(), Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Write).await?;
            for lease in leases {
                let values = [(&lease.name).into(), owner.into(), lease.epoch.into()];
                transaction.execute(RELEASE, &values).await?;
            }
            transaction.commit().await
        };
        self.0.operate("release", work).await
    }

    /// Every lease that is held, by name, and its owner.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn holders(self) -> Result<Vec<(String, String)>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let now = transaction.now().await?;
            let rows = transaction.fetch(HOLDERS, &[now.into()]).await?;
            let holders = rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect();
            transaction.commit().await?;
            holders
        };
        self.0.operate("read", work).await
    }
}

/// In one order, as whoever else locks several of them does.
fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
