//! What is known of endpoints, how much is pending for them, and of which somebody else has to know.

use std::time::Duration;

use super::{Deliveries, EndpointUpdate, HELD, complete::number, count, millis, time};
use crate::{
    domain::delivery::{
        disable::{DisableReason, Failing},
        health::{Snapshot, Totals},
        outcome::Outcome,
    },
    store::{
        Error,
        sql::{Access, Row, Value},
    },
};

/// What is known of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointState {
    /// What its answers have led to.
    pub snapshot: Snapshot,
    /// Deliveries that were not made because it was disabled.
    pub skipped: u64,
    /// Deliveries that were pending when this was written.
    pub pending: u64,
}

/// How much is pending for an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCount {
    /// Of the object.
    pub endpoint: String,
    /// Deliveries.
    pub pending: u64,
    /// When the first of them is due; none where all are held.
    pub due: Option<Duration>,
}

/// Somebody has put deliveries of an endpoint into the store, or has changed what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wakeup {
    /// Of the object.
    pub endpoint: String,
    /// So many deliveries.
    pub pending: u64,
    /// Whether it is enabled from now on.
    pub enable: bool,
}

/// In place of a number of deliveries.
const ENABLED: i64 = -1;

const COLUMNS: &str = "select uid, open_until, rounds, failing_since, failures, noticed, disabled, disabled_at, \
                       delivered, failed, dead, success_at, success_took, failure_at, failure, skipped, pending \
                       from authlink_endpoints where uid in (";
pub(super) const UPSERT: &str = "insert into authlink_endpoints (uid, open_until, rounds, failing_since, failures, noticed, disabled, \
     disabled_at, delivered, failed, dead, success_at, success_took, failure_at, failure, pending) values ";
pub(super) const AS_NEWEST: &str = " on conflict (uid) do update set open_until = excluded.open_until, rounds = excluded.rounds, \
     failing_since = excluded.failing_since, failures = excluded.failures, noticed = excluded.noticed, \
     disabled = excluded.disabled, disabled_at = excluded.disabled_at, delivered = excluded.delivered, \
     failed = excluded.failed, dead = excluded.dead, success_at = excluded.success_at, \
     success_took = excluded.success_took, failure_at = excluded.failure_at, failure = excluded.failure, \
     pending = excluded.pending";
const PENDING: &str = "select endpoint, count(*), min(due) from authlink_deliveries group by endpoint";
const PENDING_OF: &str = "select count(*) from authlink_deliveries where endpoint = $1";
const WAKEUPS: &str = "delete from authlink_wakeups where shard in (";
const WOKEN: &str = ") returning endpoint, pending";
const HELD_OF: &str =
    "select endpoint, count(*) from authlink_deliveries where due = 9223372036854775807 and endpoint in (";
const DEAD_OF: &str = "select endpoint, count(*) from authlink_finished where state = 2 and endpoint in (";
const BY_ENDPOINT: &str = ") group by endpoint";
const DISABLED: &str = "select uid from authlink_endpoints where disabled is not null";
const ENABLE: &str = "update authlink_endpoints set open_until = null, rounds = 0, failing_since = null, failures = 0, \
                      noticed = 0, disabled = null, disabled_at = null where uid = $1";

/// A row of an endpoint, with the texts that it names.
pub(super) struct EndpointRow<'a> {
    update: &'a EndpointUpdate,
    failing: Option<Failing>,
}

pub(super) fn row(update: &EndpointUpdate) -> EndpointRow<'_> {
    EndpointRow { update, failing: update.snapshot.failing }
}

impl EndpointRow<'_> {
    pub(super) fn values(&self) -> [Value<'_>; 16] {
        let EndpointUpdate { uid, snapshot, pending, .. } = self.update;
        let Totals { delivered, failed, dead, last_success, last_failure } = &snapshot.totals;
        let moment = |time: Option<Duration>| Value::Int(time.map(millis));
        [
            (&**uid).into(),
            moment(snapshot.open_until),
            i64::from(snapshot.rounds).into(),
            moment(self.failing.map(|failing| failing.since)),
            i64::from(self.failing.map_or(0, |failing| failing.failures)).into(),
            i64::from(self.failing.map_or(0, |failing| failing.noticed)).into(),
            snapshot.disabled.map(|(reason, _)| reason.as_str()).into(),
            moment(snapshot.disabled.map(|(_, at)| at)),
            number(*delivered),
            number(*failed),
            number(*dead),
            moment(last_success.map(|(at, _)| at)),
            moment(last_success.map(|(_, took)| took)),
            moment(last_failure.map(|(at, _)| at)),
            last_failure.map(|(_, outcome)| outcome.as_str()).into(),
            number(*pending),
        ]
    }
}

fn state_of(row: &Row) -> sqlx::Result<(String, EndpointState)> {
    let moment = |column| row.get::<Option<i64>>(column).map(|millis| millis.map(time));
    let small = |column| row.get::<i64>(column).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let word = |column| row.get::<Option<String>>(column);
    let failing = match moment(3)? {
        Some(since) => {
            let noticed = u8::try_from(small(5)?).unwrap_or(100);
            Some(Failing { since, failures: small(4)?, noticed })
        }
        None => None,
    };
    let disabled = word(6)?.and_then(|word| DisableReason::named(&word));
    let totals = Totals {
        delivered: count(row.get(8)?),
        failed: count(row.get(9)?),
        dead: count(row.get(10)?),
        last_success: moment(11)?.zip(moment(12)?),
        last_failure: moment(13)?.zip(word(14)?.and_then(|word| Outcome::named(&word))),
    };
    let snapshot = Snapshot {
        open_until: moment(1)?,
        rounds: small(2)?,
        failing,
        disabled: disabled.zip(moment(7)?),
        totals,
    };
    let state = EndpointState { snapshot, skipped: count(row.get(15)?), pending: count(row.get(16)?) };
    Ok((row.get(0)?, state))
}

impl Deliveries<'_> {
    /// What is known of those of these endpoints of which anything is.
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn endpoints(self, uids: &[&str]) -> Result<Vec<(String, EndpointState)>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let uids: Vec<[Value<'_>; 1]> = uids.iter().map(|uid| [(*uid).into()]).collect();
            let rows = transaction.fetch_many(COLUMNS, &uids, ")").await?;
            let states = rows.iter().map(state_of).collect();
            transaction.commit().await?;
            states
        };
        self.0.operate("read", work).await
    }

    /// How much is pending, of every endpoint that has anything.
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn pending(self) -> Result<Vec<PendingCount>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let rows = transaction.fetch(PENDING, &[]).await?;
            let counts = rows.iter().map(|row| {
                let due = Some(row.get::<i64>(2)?).filter(|due| *due != HELD).map(time);
                Ok(PendingCount { endpoint: row.get(0)?, pending: count(row.get(1)?), due })
            });
            let counts = counts.collect();
            transaction.commit().await?;
            counts
        };
        self.0.operate("read", work).await
    }

    /// How much is pending for an endpoint.
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn pending_of(self, endpoint: &str) -> Result<u64, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let rows = transaction.fetch(PENDING_OF, &[endpoint.into()]).await?;
            let pending = rows.first().map(|row| row.get(0)).transpose()?.unwrap_or_default();
            transaction.commit().await?;
            Ok(count(pending))
        };
        self.0.operate("read", work).await
    }

    /// How many deliveries are held, of those of these endpoints that have any.
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn held_counts(self, uids: &[&str]) -> Result<Vec<(String, u64)>, Error> {
        self.counts_of(HELD_OF, uids).await
    }

    /// How many dead letters there are, of those of these endpoints that have any: given up, and not delivered by a replay since.
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn dead_counts(self, uids: &[&str]) -> Result<Vec<(String, u64)>, Error> {
        self.counts_of(DEAD_OF, uids).await
    }

    async fn counts_of(self, select: &'static str, uids: &[&str]) -> Result<Vec<(String, u64)>, Error> {
        let uids: Vec<[Value<'_>; 1]> = uids.iter().map(|uid| [(*uid).into()]).collect();
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let rows = transaction.fetch_many(select, &uids, BY_ENDPOINT).await?;
            let counts = rows.iter().map(|row| Ok((row.get(0)?, count(row.get(1)?)))).collect();
            transaction.commit().await?;
            counts
        };
        self.0.operate("read", work).await
    }

    /// Every endpoint that is disabled.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn disabled(self) -> Result<Vec<String>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let rows = transaction.fetch(DISABLED, &[]).await?;
            let uids = rows.iter().map(|row| row.get(0)).collect();
            transaction.commit().await?;
            uids
        };
        self.0.operate("read", work).await
    }

    /// Takes what others have to say to the holder of these leases.
    ///
    /// # Errors
    /// What kept it from being taken: it is there still.
    pub async fn wakeups(self, leases: &[&str]) -> Result<Vec<Wakeup>, Error> {
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            let leases: Vec<[Value<'_>; 1]> = leases.iter().map(|lease| [(*lease).into()]).collect();
            let rows = transaction.fetch_many(WAKEUPS, &leases, WOKEN).await?;
            let wakeups = rows.iter().map(|row| {
                let pending = row.get(1)?;
                Ok(Wakeup { endpoint: row.get(0)?, pending: count(pending), enable: pending == ENABLED })
            });
            let wakeups = wakeups.collect();
            transaction.commit().await?;
            wakeups
        };
        self.0.operate("read", work).await
    }

    /// Enables an endpoint, and tells the holder of its lease. What has failed before is forgotten.
    ///
    /// # Errors
    /// What kept it from being enabled.
    pub async fn enable(self, endpoint: &str, lease: &str) -> Result<(), Error> {
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            transaction.execute(ENABLE, &[endpoint.into()]).await?;
            transaction.wake(lease, endpoint, ENABLED).await?;
            transaction.commit().await
        };
        self.0.operate("enable", work).await
    }
}
