//! What sources say of users, a batch at a time: read what is known, decide, write what is new.

mod write;

use std::collections::{HashMap, HashSet};

use super::{Run, Users, runs};
use crate::{
    domain::sync::{
        counts::Counts,
        decide::{Known, State, Verdict, decide},
        dn,
        key::Key,
        linking::{Link, Match, link},
        plan::Op,
        record::{Rejected, Unusable, UserRecord},
        strikes::Strike,
    },
    store::{
        Error,
        sql::{Column, Transaction},
    },
};

/// A record as it comes.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// What the source says.
    pub record: UserRecord,
    /// Its digest.
    hash: [u8; 32],
    /// Whether its id was seen before in this run.
    pub again: bool,
}

impl Incoming {
    /// With its digest.
    #[must_use]
    pub fn new(record: UserRecord) -> Self {
        Self { hash: record.hash(), record, again: false }
    }
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts of their own")]
pub struct MergeOptions<'a> {
    /// Nothing is written.
    pub dry: bool,
    /// Users whose entry or user name somebody has who is known by another id are held, and not written.
    pub hold: bool,
    /// They get the new id, and stay who they are.
    pub rekey: bool,
    /// Most of it is expected to be as it is known, so that it is worth looking before anything is locked.
    pub quiet: bool,
    /// Where a run can be resumed: how far it is then, and what it has seen.
    pub mark: Option<(&'a str, &'a [Key])>,
}

/// What has become of a batch.
#[derive(Clone, Debug, Default)]
pub struct Merge {
    /// In numbers.
    pub counts: Counts,
    /// Users who are held: the record by its number, and the id by which somebody of that name is known.
    pub held: Vec<(usize, String)>,
    /// What has been done, or would be.
    pub steps: Vec<(Op, String, String)>,
    /// Entries that cannot be used after all.
    pub rejected: Vec<Rejected>,
}

const KNOWN: [&str; 2] = [
    "with new (external_id, hash, enabled) as (",
    ") select new.external_id, i.user_id, i.hash, i.enabled, i.state, i.missing_since, i.missing_runs, i.dn_key, i.username, \
     i.email, i.name from new left join authlink_identities i on i.source = $1 and i.external_id = new.external_id \
     where i.user_id is null or i.hash is null or i.hash <> new.hash or i.missing_since is not null \
     or i.enabled <> coalesce(new.enabled, i.enabled)",
];
const NAMESAKES: [&str; 2] = [
    "with new (external_id, dn_key, username_key) as (",
    ") select new.external_id, i.external_id from new join authlink_identities i on i.source = $1 and i.dn_key = new.dn_key \
     and i.state = 'active' union select new.external_id, i.external_id from new \
     join authlink_identities i on i.source = $1 and i.username_key = new.username_key and i.state = 'active'",
];
const REKEY: [&str; 2] = [
    "with new (old_id, new_id) as (",
    ") update authlink_identities set external_id = (select new_id from new where old_id = external_id), hash = null \
     where source = $1 and external_id in (select old_id from new)",
];
const LINKS: [&str; 2] = [
    "with new (external_id, link_key) as (",
    ") select new.external_id, i.user_id, cast(max(case when i.source = $1 or exists (select 1 from authlink_identities o \
     where o.user_id = i.user_id and o.source = $1) then 1 else 0 end) as bigint) from new \
     join authlink_identities i on i.link_key = new.link_key and i.state <> 'purged' group by new.external_id, i.user_id",
];

impl Users<'_> {
    /// Takes a batch of records, each id at most once; nothing where the run has ended.
    ///
    /// # Errors
    /// What kept the batch from being written: none of it is.
    pub async fn merge(
        self,
        run: &Run,
        batch: &[Incoming],
        options: MergeOptions<'_>,
    ) -> Result<Option<Merge>, Error> {
        // A batch in which nothing is new is read, and nothing is locked or written for it.
        if options.dry || options.quiet && options.mark.is_none() {
            let known = reading!(self, "sync", |transaction| { known(transaction, run, batch).await })?;
            if options.dry || known.is_empty() {
                let plan = reading!(self, "sync", |transaction| {
                    plan(transaction, run, batch, options, known).await
                })?;
                return Ok(Some(plan.merge));
            }
        }
        in_run!(self, run, |transaction| {
            let known = known(transaction, run, batch).await?;
            let plan = plan(transaction, run, batch, options, known).await?;
            let mut merge = write::write(transaction, run, batch, plan).await?;
            if let Some((token, seen)) = options.mark {
                runs::mark(transaction, run, token, seen).await?;
            }
            merge.counts.seen = batch.len() as u64;
            Ok(merge)
        })
    }
}

/// Takes a batch outside of any run.
pub(super) async fn take(transaction: &mut Transaction, run: &Run, batch: &[Incoming]) -> sqlx::Result<()> {
    let known = known(transaction, run, batch).await?;
    let plan = plan(transaction, run, batch, MergeOptions::default(), known).await?;
    write::write(transaction, run, batch, plan).await.map(drop)
}

/// What is to be written of a batch.
struct Plan {
    merge: Merge,
    writes: Vec<Write>,
}

/// One identity to be written.
struct Write {
    /// The record by its number.
    index: usize,
    known: Option<Known>,
    verdict: Verdict,
    link: Link,
}

/// What is known of those records of the batch that are not as they are known to be, by id.
async fn known(
    transaction: &mut Transaction,
    run: &Run,
    batch: &[Incoming],
) -> sqlx::Result<HashMap<String, Option<Known>>> {
    let columns = [
        Column::texts(batch, |incoming| &incoming.record.external_id),
        Column::bytes(batch, |incoming| incoming.hash.as_slice()),
        Column::Ints(batch.iter().map(|incoming| incoming.record.enabled.map(i64::from)).collect()),
    ];
    let mut found = HashMap::new();
    for row in transaction.fetch_rows(KNOWN[0], &[run.source.into()], &columns, KNOWN[1]).await? {
        let id: String = row.get(0)?;
        let user: Option<String> = row.get(1)?;
        let Some(user) = user else {
            found.insert(id, None);
            continue;
        };
        let since: Option<i64> = row.get(5)?;
        let runs: i64 = row.get(6)?;
        let dn: Option<Vec<u8>> = row.get(7)?;
        let known = Known {
            user,
            hash: row.get::<Option<Vec<u8>>>(2)?.unwrap_or_default(),
            enabled: row.get::<i64>(3)? != 0,
            state: State::parse(&row.get::<String>(4)?).unwrap_or(State::Disabled),
            missing: since.map(|since| Strike { since, runs: u32::try_from(runs).unwrap_or(u32::MAX) }),
            dn: dn.and_then(|dn| Key::from_bytes(&dn)).unwrap_or_else(|| dn::key("")),
            username: row.get(8)?,
            email: row.get(9)?,
            name: row.get(10)?,
        };
        found.insert(id, Some(known));
    }
    Ok(found)
}

/// Decides on a batch; with `rekey`, ids have been changed after it.
async fn plan(
    transaction: &mut Transaction,
    run: &Run,
    batch: &[Incoming],
    options: MergeOptions<'_>,
    mut known: HashMap<String, Option<Known>>,
) -> sqlx::Result<Plan> {
    let mut plan = Plan { merge: Merge::default(), writes: Vec::new() };
    plan.merge.counts.seen = batch.len() as u64;
    let mut namesakes = HashMap::new();
    if options.hold || options.rekey {
        namesakes = find_namesakes(transaction, run, batch, &known).await?;
    }
    if options.rekey && !namesakes.is_empty() {
        plan.merge.counts.rekeyed = namesakes.len() as u64;
        let pairs: Vec<_> = namesakes.drain().collect();
        let step = |(new, old): &(String, String)| (Op::Rekey, old.clone(), new.clone());
        plan.merge.steps.extend(pairs.iter().map(step));
        let columns = [Column::texts(&pairs, |(_, old)| old), Column::texts(&pairs, |(new, _)| new)];
        transaction.fetch_rows(REKEY[0], &[run.source.into()], &columns, REKEY[1]).await?;
        known = self::known(transaction, run, batch).await?;
    }
    let mut links = find_links(transaction, run, batch, &known).await?;
    let mut taken = HashSet::new();
    for (index, Incoming { record, hash, again }) in batch.iter().enumerate() {
        let Some(known) = known.remove(&record.external_id) else {
            plan.merge.counts.unchanged += 1;
            continue;
        };
        let verdict = decide(record, hash, known.as_ref(), *again);
        match verdict {
            Verdict::Unchanged => plan.merge.counts.unchanged += 1,
            Verdict::Duplicate => {
                plan.merge.counts.failed += 1;
                let external_id = Some(record.external_id.clone());
                let rejected = Rejected { external_id, dn: record.dn.clone(), reason: Unusable::DuplicateId };
                plan.merge.rejected.push(rejected);
            }
            Verdict::Create { .. } => {
                if let Some(old) = namesakes.remove(&record.external_id) {
                    plan.merge.held.push((index, old));
                    continue;
                }
                let matches = links.remove(&record.external_id).unwrap_or_default();
                let link = match link(&matches) {
                    // Two of one batch cannot both be the one.
                    Link::To(user) if !taken.insert(user.clone()) => Link::Conflict,
                    link => link,
                };
                plan.merge.counts.created += 1;
                plan.merge.counts.linked += u64::from(matches!(link, Link::To(_)));
                plan.merge.counts.conflicts += u64::from(link == Link::Conflict);
                plan.merge.steps.push((Op::Create, record.external_id.clone(), String::new()));
                plan.writes.push(Write { index, known, verdict, link });
            }
            Verdict::Update(update) => {
                let counts = &mut plan.merge.counts;
                let step = if update.reactivated {
                    counts.reactivated += 1;
                    Some(Op::Reactivate)
                } else if update.changed {
                    counts.updated += 1;
                    Some(Op::Update)
                } else {
                    counts.unchanged += 1;
                    None
                };
                plan.merge.steps.extend(step.map(|op| (op, record.external_id.clone(), String::new())));
                plan.writes.push(Write { index, known, verdict, link: Link::Own });
            }
        }
    }
    Ok(plan)
}

/// Of new users those whose entry's name or user name one who is known by another id has, with that id.
async fn find_namesakes(
    transaction: &mut Transaction,
    run: &Run,
    batch: &[Incoming],
    known: &HashMap<String, Option<Known>>,
) -> sqlx::Result<HashMap<String, String>> {
    let new: Vec<_> = batch
        .iter()
        .map(|incoming| &incoming.record)
        .filter(|record| matches!(known.get(&record.external_id), Some(None)))
        .map(|record| {
            let username = Key::username(record.username(None).unwrap_or_default());
            (record.external_id.as_str(), dn::key(&record.dn), username)
        })
        .collect();
    let columns = [
        Column::texts(&new, |(id, ..)| id),
        Column::bytes(&new, |(_, dn, _)| dn.as_bytes().as_slice()),
        Column::bytes(&new, |(.., username)| username.as_bytes().as_slice()),
    ];
    let mut found: HashMap<String, String> = HashMap::new();
    let mut claimed = HashSet::new();
    for row in transaction.fetch_rows(NAMESAKES[0], &[run.source.into()], &columns, NAMESAKES[1]).await? {
        let (new, old): (String, String) = (row.get(0)?, row.get(1)?);
        // Who has the names of two is neither; and each is one only.
        if !found.contains_key(&new) && claimed.insert(old.clone()) {
            found.insert(new, old);
        }
    }
    Ok(found)
}

/// Users of other sources who may be the same people, by the ids of new users.
async fn find_links(
    transaction: &mut Transaction,
    run: &Run,
    batch: &[Incoming],
    known: &HashMap<String, Option<Known>>,
) -> sqlx::Result<HashMap<String, Vec<Match>>> {
    let new: Vec<_> = batch
        .iter()
        .map(|incoming| &incoming.record)
        .filter(|record| matches!(known.get(&record.external_id), Some(None)))
        .filter_map(|record| Some((record.external_id.as_str(), record.link_key.as_deref()?)))
        .collect();
    let columns = [Column::texts(&new, |(id, _)| id), Column::texts(&new, |(_, key)| key)];
    let mut found: HashMap<String, Vec<Match>> = HashMap::new();
    for row in transaction.fetch_rows(LINKS[0], &[run.source.into()], &columns, LINKS[1]).await? {
        let same_source = row.get::<i64>(2)? != 0;
        found.entry(row.get(0)?).or_default().push(Match { user: row.get(1)?, same_source });
    }
    Ok(found)
}
