//! Groups and their members.

use std::collections::{HashMap, HashSet};

use super::{Candidate, Run, Users, losses::tell_groups, runs};
use crate::{
    domain::sync::{counts::Counts, dn, guard::Class, key::Key, plan::Op, record::GroupRecord},
    store::{
        Error,
        sql::{Column, Transaction},
    },
};

/// What has become of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupsMerged {
    /// In numbers.
    pub counts: Counts,
    /// What has been done, or would be.
    pub steps: Vec<(Op, String, String)>,
    /// Whether somebody may have got or lost a role by it.
    pub touched: bool,
}

struct KnownGroup {
    same: bool,
    same_members: bool,
    missing: bool,
}

const KNOWN: [&str; 2] = [
    "with new (external_id, hash, members_hash) as (",
    ") select new.external_id, cast(case when g.hash = new.hash then 1 else 0 end as bigint), \
     cast(case when g.members_hash = new.members_hash then 1 else 0 end as bigint), g.missing_since from new \
     join authlink_groups g on g.source = $1 and g.external_id = new.external_id",
];
const WRITE: [&str; 2] = [
    "insert into authlink_groups (source, external_id, name, dn, dn_key, relative_id, hash, members_hash, version, \
     missing_since, missing_runs) ",
    " on conflict (source, external_id) do update set name = excluded.name, dn = excluded.dn, dn_key = excluded.dn_key, \
     relative_id = excluded.relative_id, hash = excluded.hash, \
     members_hash = coalesce(excluded.members_hash, authlink_groups.members_hash), \
     version = authlink_groups.version + excluded.version, missing_since = null, missing_runs = 0",
];
const MEMBERS: &str = "select member, lost from authlink_members where source = $1 and group_id = $2";
const ADD: [&str; 2] = [
    "with new (group_id, member) as (",
    ") insert into authlink_members (source, group_id, member, lost) select $1, group_id, member, 0 from new where true \
     on conflict (source, group_id, member) do update set lost = 0",
];
const LOSE: [&str; 2] = [
    "with new (group_id, member) as (",
    ") update authlink_members set lost = 1 where source = $1 and (group_id, member) in (select group_id, member from new)",
];
const LOST: &str = "select m.group_id, m.member from authlink_members m left join authlink_groups g on g.source = m.source \
                    and g.external_id = m.group_id where m.source = $1 and (m.lost = 1 or g.missing_since is not null) \
                    and (m.group_id > $2 or m.group_id = $2 and m.member > $3) order by m.group_id, m.member limit $4";
const DELETE_LOST: &str = "delete from authlink_members where source = $1 and lost = 1 returning group_id";
const BUMP: [&str; 2] = [
    "with new (id) as (",
    ") update authlink_groups set version = version + 1 where source = $1 and external_id in (select id from new) \
     returning external_id, name",
];
const UNRESOLVED: &str = "select count(*) from authlink_members m where m.source = $1 and m.lost = 0 \
    and not exists (select 1 from authlink_identities i where i.source = m.source and i.dn_key = m.member) \
    and not exists (select 1 from authlink_identities i where i.source = m.source and i.username_key = m.member) \
    and not exists (select 1 from authlink_groups g where g.source = m.source and g.dn_key = m.member)";
const DUE: &str = "select external_id, name from authlink_groups where source = $1 and missing_since <= $2 \
                   and missing_runs >= $3 order by external_id limit 1000";
const DELETE_MEMBERS: [&str; 2] = [
    "with new (id) as (",
    ") delete from authlink_members where source = $1 and group_id in (select id from new) returning group_id",
];
const DELETE: [&str; 2] = [
    "with new (id) as (",
    ") delete from authlink_groups where source = $1 and external_id in (select id from new)",
];

impl Users<'_> {
    /// Takes a batch of groups, each id at most once. Members whom a group does not name any more are marked, and not taken out of it
    /// yet. Nothing where the run has ended.
    ///
    /// # Errors
    /// What kept the batch from being written: none of it is.
    pub async fn merge_groups(
        self,
        run: &Run,
        groups: &[GroupRecord],
        dry: bool,
    ) -> Result<Option<GroupsMerged>, Error> {
        if dry {
            return reading!(self, "sync", |transaction| { merge(transaction, run, groups, true).await })
                .map(Some);
        }
        in_run!(self, run, |transaction| { merge(transaction, run, groups, false).await })
    }

    /// Takes lost members out of their groups; how many. Nothing where the run has ended.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn drop_lost_members(self, run: &Run) -> Result<Option<u64>, Error> {
        in_run!(self, run, |transaction| {
            let rows = transaction.fetch(DELETE_LOST, &[run.source.into()]).await?;
            let ids: sqlx::Result<HashSet<String>> = rows.iter().map(|row| row.get(0)).collect();
            let ids: Vec<_> = ids?.into_iter().collect();
            let columns = [Column::texts(&ids, String::as_str)];
            let groups = transaction.fetch_rows(BUMP[0], &[run.source.into()], &columns, BUMP[1]).await?;
            let groups: sqlx::Result<Vec<_>> =
                groups.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect();
            tell_groups(transaction, run, "group.updated", &groups?).await?;
            runs::lost(transaction, run, Class::Memberships, rows.len() as u64).await?;
            Ok(rows.len() as u64)
        })
    }

    /// Deletes a batch of groups that have been missing since then or longer in so many looks; how many, and how many memberships
    /// with them. Nothing where the run has ended.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn delete_groups(self, run: &Run, since: i64, looks: i64) -> Result<Option<(u64, u64)>, Error> {
        let values = [run.source.into(), since.into(), looks.into()];
        let groups: Vec<(String, String)> = reading!(self, "sync", |transaction| {
            let rows = transaction.fetch(DUE, &values).await?;
            rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
        })?;
        if groups.is_empty() {
            return Ok(Some((0, 0)));
        }
        in_run!(self, run, |transaction| {
            let columns = [Column::texts(&groups, |(id, _)| id)];
            let source = [run.source.into()];
            let members =
                transaction.fetch_rows(DELETE_MEMBERS[0], &source, &columns, DELETE_MEMBERS[1]).await?;
            transaction.fetch_rows(DELETE[0], &source, &columns, DELETE[1]).await?;
            tell_groups(transaction, run, "group.deleted", &groups).await?;
            runs::lost(transaction, run, Class::Memberships, members.len() as u64).await?;
            Ok((groups.len() as u64, members.len() as u64))
        })
    }

    /// How many members of groups are nobody that is known.
    ///
    /// # Errors
    /// What kept it from being counted.
    pub async fn unresolved(self, run: &Run) -> Result<u64, Error> {
        reading!(self, "sync", |transaction| {
            super::number(transaction, UNRESOLVED, &[run.source.into()]).await
        })
    }
}

/// Memberships that would be lost, in order, after this one.
pub(super) async fn lost(
    transaction: &mut Transaction,
    run: &Run,
    after: Option<&Candidate>,
    most: i64,
) -> sqlx::Result<Vec<Candidate>> {
    let (group, member) = after.map_or(("", Vec::new()), |it| (it.subject.as_str(), bytes(&it.detail)));
    let values = [run.source.into(), group.into(), member.as_slice().into(), most.into()];
    let mut found = Vec::new();
    for row in transaction.fetch(LOST, &values).await? {
        let member: Vec<u8> = row.get(1)?;
        let detail = uuid::Uuid::from_slice(&member).map(|it| it.simple().to_string()).unwrap_or_default();
        found.push(Candidate { op: Op::LoseMembership, subject: row.get(0)?, detail });
    }
    Ok(found)
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    uuid::Uuid::try_parse(hexadecimal).map(|it| it.as_bytes().to_vec()).unwrap_or_default()
}

async fn merge(
    transaction: &mut Transaction,
    run: &Run,
    groups: &[GroupRecord],
    dry: bool,
) -> sqlx::Result<GroupsMerged> {
    let hashes: Vec<_> = groups.iter().map(|group| (group.hash(), group.members_hash())).collect();
    let columns = [
        Column::texts(groups, |group| &group.external_id),
        Column::bytes(&hashes, |(hash, _)| hash.as_slice()),
        Column::bytes(&hashes, |(_, members)| members.as_slice()),
    ];
    let mut known = HashMap::new();
    for row in transaction.fetch_rows(KNOWN[0], &[run.source.into()], &columns, KNOWN[1]).await? {
        let (same, same_members) = (row.get::<i64>(1)? == 1, row.get::<i64>(2)? == 1);
        let missing = row.get::<Option<i64>>(3)?.is_some();
        known.insert(row.get::<String>(0)?, KnownGroup { same, same_members, missing });
    }
    let mut merged = GroupsMerged::default();
    merged.counts.groups = groups.len() as u64;
    let (mut writes, mut created, mut updated) = (Vec::new(), Vec::new(), Vec::new());
    for (group, (hash, members_hash)) in groups.iter().zip(&hashes) {
        let before = known.get(&group.external_id);
        let mut members = MembersChanged::default();
        if before.is_none_or(|before| !before.same_members) {
            members = merge_members(transaction, run, group, before.is_none(), dry).await?;
        }
        merged.counts.memberships_added += members.added;
        // Otherwise they are counted when they are taken away.
        merged.counts.memberships_lost += if dry { members.lost } else { 0 };
        let told = match before {
            None => Some(("group.created", Op::CreateGroup)),
            Some(before) if !before.same || members.added > 0 => Some(("group.updated", Op::UpdateGroup)),
            Some(_) => None,
        };
        let is_new_to_us = before.is_some_and(|before| before.missing || !before.same_members);
        if told.is_some() || is_new_to_us {
            // Members of a group that was not read to its end are looked at again the next time.
            let members_hash = group.complete.then_some(members_hash.as_slice());
            writes.push((group, hash, members_hash, i64::from(told.is_some())));
            merged.touched = true;
        }
        if let Some((kind, op)) = told {
            merged.counts.groups_changed += 1;
            merged.steps.push((op, group.external_id.clone(), String::new()));
            let list = if kind == "group.created" { &mut created } else { &mut updated };
            list.push((group.external_id.clone(), group.name.clone()));
        }
    }
    if dry {
        return Ok(merged);
    }
    let dns: Vec<_> = writes.iter().map(|(group, ..)| dn::key(&group.dn)).collect();
    let columns = [
        Column::ints(&writes, |_| run.source),
        Column::texts(&writes, |(group, ..)| &group.external_id),
        Column::texts(&writes, |(group, ..)| &group.name),
        Column::texts(&writes, |(group, ..)| &group.dn),
        Column::bytes(&dns, |key| key.as_bytes().as_slice()),
        Column::optional(&writes, |(group, ..)| group.relative_id.as_deref()),
        Column::bytes(&writes, |(_, hash, ..)| hash.as_slice()),
        Column::Bytes(writes.iter().map(|(_, _, members, _)| *members).collect()),
        Column::ints(&writes, |(.., version)| *version),
        Column::Ints(writes.iter().map(|_| None).collect()),
        Column::ints(&writes, |_| 0),
    ];
    transaction.fetch_rows(WRITE[0], &[], &columns, WRITE[1]).await?;
    tell_groups(transaction, run, "group.created", &created).await?;
    tell_groups(transaction, run, "group.updated", &updated).await?;
    Ok(merged)
}

#[derive(Default)]
struct MembersChanged {
    added: u64,
    lost: u64,
}

async fn merge_members(
    transaction: &mut Transaction,
    run: &Run,
    group: &GroupRecord,
    new: bool,
    dry: bool,
) -> sqlx::Result<MembersChanged> {
    let mut before: HashMap<Key, bool> = HashMap::new();
    if !new {
        for row in transaction.fetch(MEMBERS, &[run.source.into(), (&group.external_id).into()]).await? {
            if let Some(key) = Key::from_bytes(&row.get::<Vec<u8>>(0)?) {
                before.insert(key, row.get::<i64>(1)? != 0);
            }
        }
    }
    // Who was lost and is there again has never been away.
    let (mut added, mut write) = (0, Vec::new());
    for member in &group.members {
        match before.remove(member) {
            Some(false) => {}
            found => {
                added += u64::from(found.is_none());
                write.push(*member);
            }
        }
    }
    let lost: Vec<_> =
        before.into_iter().filter(|(_, lost)| !lost && group.complete).map(|(key, _)| key).collect();
    if !dry {
        for (keys, statement) in [(&write, ADD), (&lost, LOSE)] {
            let columns = [
                Column::texts(keys, |_| &group.external_id),
                Column::bytes(keys, |key| key.as_bytes().as_slice()),
            ];
            transaction.fetch_rows(statement[0], &[run.source.into()], &columns, statement[1]).await?;
        }
    }
    Ok(MembersChanged { added, lost: lost.len() as u64 })
}
