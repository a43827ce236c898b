//! What became of deliveries.

use std::time::Duration;

use super::{
    AttemptRecord, Deliveries, FencingToken, FinalState, Origin, accept::sort_by_text, attempts, counted,
    endpoints, millis,
};
use crate::{
    domain::delivery::{health::Snapshot, scheduler::Uid},
    store::{
        Error,
        sql::{Access, Transaction, Value},
    },
};

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Its number.
    pub id: i64,
    /// Its endpoint.
    pub endpoint: Uid,
    /// Its event.
    pub event_id: String,
    /// When the event was accepted.
    pub accepted: Duration,
    /// How many times it was asked for again.
    pub replay: u32,
    /// The lease under which it was sent.
    pub token: FencingToken,
    /// What became of it.
    pub ending: Ending,
    /// The attempt, if one was made.
    pub attempt: Option<AttemptRecord>,
}

impl Completion {
    fn is_delivered(&self) -> bool {
        matches!(self.ending, Ending::Finished { state: FinalState::Delivered, .. })
    }
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is finished.
    Finished {
        /// How.
        state: FinalState,
        /// Attempts that were spent.
        attempts: u32,
        /// Where it goes instead, and the lease of that endpoint.
        dead_letter: Option<(Uid, String)>,
    },
    /// It is tried again.
    Retry {
        /// Attempts that are spent.
        attempts: u32,
        /// When.
        due: Duration,
        /// How long it was until then.
        wait: Duration,
    },
}

/// What is known of an endpoint by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUpdate {
    /// Of the object.
    pub uid: Uid,
    /// The lease under which it is sent to.
    pub token: FencingToken,
    /// What is known.
    pub snapshot: Snapshot,
    /// Deliveries that are pending.
    pub pending: u64,
}

const DELETE: &str = "delete from authlink_deliveries where id in (";
const RETRY: &str = "update authlink_deliveries set attempts = v.column2, due = v.column3, wait = v.column4 \
                     from (values ";
const BY_ID: &str = ") as v where authlink_deliveries.id = v.column1";
const FINISHED: &str =
    "insert into authlink_finished (event_id, endpoint, state, replay, attempts, accepted, at) values ";
const AS_LATEST: &str = " on conflict (event_id, endpoint) do update set state = excluded.state, \
                         replay = excluded.replay, attempts = excluded.attempts, at = excluded.at";
const DEAD_LETTERS: &str = "insert into authlink_deliveries (event_id, endpoint, replay, origin, subject, attempts, \
                            accepted, created, due, wait) values ";
const UNLESS_PENDING: &str = " on conflict (event_id, endpoint) do nothing";

impl Deliveries<'_> {
    /// Writes what became of deliveries, and what is known of endpoints by now, in one transaction. Only what was sent under a lease that
    /// `owner` still holds is written; gives for each completion whether it was.
    ///
    /// A write that failed may be done again, whatever came of it.
    ///
    /// # Errors
    /// What kept all of it from being written.
    pub async fn complete(
        self,
        owner: &str,
        completions: &[Completion],
        endpoints: &[EndpointUpdate],
        now: Duration,
    ) -> Result<Vec<bool>, Error> {
        let work = async {
            // What was delivered and is forgotten in a crash of the machine is delivered once more, so nobody has to wait for the disk.
            // States are written once a second: no more than the results of that time are forgotten.
            let all_delivered = endpoints.is_empty() && completions.iter().all(Completion::is_delivered);
            let access = if all_delivered { Access::WriteLater } else { Access::Write };
            let mut transaction = self.0.begin_delivery(access).await?;
            let tokens = completions.iter().map(|completion| &completion.token);
            let tokens = tokens.chain(endpoints.iter().map(|update| &update.token));
            let held = transaction.held_leases(owner, tokens.map(|token| &*token.lease)).await?;
            let valid: Vec<_> =
                completions.iter().map(|completion| held.contains(&completion.token)).collect();
            let ours: Vec<_> =
                completions.iter().zip(&valid).filter(|(_, valid)| **valid).map(|(ours, _)| ours).collect();
            transaction.write_endings(&ours, now).await?;
            let records: Vec<_> = ours
                .iter()
                .filter_map(|completion| completion.attempt.as_ref())
                .map(AttemptRecord::values)
                .collect();
            transaction.fetch_many(attempts::INSERT, &records, "").await?;
            let updates = endpoints.iter().filter(|update| held.contains(&update.token));
            let texts: Vec<_> = updates.map(endpoints::row).collect();
            let mut rows: Vec<_> = texts.iter().map(endpoints::EndpointRow::values).collect();
            sort_by_text(&mut rows);
            transaction.fetch_many(endpoints::UPSERT, &rows, endpoints::AS_NEWEST).await?;
            transaction.commit().await?;
            Ok(valid)
        };
        self.0.operate("complete", work).await
    }
}

impl Transaction {
    async fn write_endings(&mut self, completions: &[&Completion], now: Duration) -> sqlx::Result<()> {
        let now = millis(now);
        let mut gone = Vec::new();
        let mut finished: Vec<[Value<'_>; 7]> = Vec::new();
        let mut retries: Vec<[Value<'_>; 4]> = Vec::new();
        let mut dead_letters: Vec<[Value<'_>; 10]> = Vec::new();
        let mut wakeups = Vec::new();
        for completion in completions {
            let event = Value::from(&completion.event_id);
            match &completion.ending {
                Ending::Finished { state, attempts, dead_letter } => {
                    gone.push(completion.id);
                    let (replay, attempts) = (i64::from(completion.replay), i64::from(*attempts));
                    let accepted = millis(completion.accepted);
                    let ended = [state.number(), replay, attempts, accepted, now].map(Value::from);
                    let [state, replay, attempts, accepted, at] = ended;
                    finished.push([
                        event,
                        (&*completion.endpoint).into(),
                        state,
                        replay,
                        attempts,
                        accepted,
                        at,
                    ]);
                    if let Some((uid, lease)) = dead_letter {
                        let origin = Origin::DeadLetter.number();
                        let numbers =
                            [0, origin, 0, millis(completion.accepted), now, now, 0].map(Value::from);
                        let [replay, origin, attempts, accepted, created, due, wait] = numbers;
                        let (uid, subject) = ((&**uid).into(), None::<&str>.into());
                        dead_letters.push([
                            event, uid, replay, origin, subject, attempts, accepted, created, due, wait,
                        ]);
                        wakeups.push((lease, dead_letter));
                    }
                }
                Ending::Retry { attempts, due, wait } => {
                    let numbers = [completion.id, i64::from(*attempts), millis(*due), millis(*wait)];
                    retries.push(numbers.map(Value::from));
                }
            }
        }
        self.delete_ids(DELETE, &gone).await?;
        self.fetch_many(RETRY, &retries, BY_ID).await?;
        self.fetch_many(FINISHED, &finished, AS_LATEST).await?;
        self.fetch_many(DEAD_LETTERS, &dead_letters, UNLESS_PENDING).await?;
        for (lease, letter) in wakeups {
            let endpoint = letter.as_ref().map(|(uid, _)| &**uid).unwrap_or_default();
            self.wake(lease, endpoint, 1).await?;
        }
        Ok(())
    }
}

/// The count as it is stored, for rows of endpoints.
pub(super) fn number(count: u64) -> Value<'static> {
    counted(count).into()
}
