//! Roles: who has which by which source.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Candidate, Run, Users, people, runs};
use crate::{
    domain::sync::{closure::Nesting, counts::Counts, guard::Class, plan::Op, roles::RoleMapping},
    store::{
        Error,
        sql::{Column, Transaction},
    },
};

/// Who is to have which role: by being a member of one of its groups, or by having one for the primary one.
macro_rules! wanted {
    ($statement:literal) => {
        concat!(
            "with wanted (user_id, role) as (",
            "select i.user_id, r.role from authlink_role_groups r join authlink_members m on m.source = r.source ",
            "and m.group_id = r.group_id and m.lost = 0 join authlink_identities i on i.source = m.source and i.dn_key = m.member ",
            "where r.source = $1 union ",
            "select i.user_id, r.role from authlink_role_groups r join authlink_members m on m.source = r.source ",
            "and m.group_id = r.group_id and m.lost = 0 join authlink_identities i on i.source = m.source and i.username_key = m.member ",
            "where r.source = $1 union ",
            "select i.user_id, r.role from authlink_role_groups r join authlink_groups g on g.source = r.source ",
            "and g.external_id = r.group_id join authlink_identities i on i.source = g.source ",
            "and i.primary_group = g.relative_id where r.source = $1 and g.relative_id is not null",
            ") ",
            $statement
        )
    };
}

const GROUPS: &str = "select external_id, name, dn from authlink_groups where source = $1 and external_id > $2 \
                      order by external_id limit 1000";
const NESTING: &str = "select m.group_id, g.external_id from authlink_members m join authlink_groups g \
                       on g.source = m.source and g.dn_key = m.member where m.source = $1 and m.lost = 0";
const BEFORE: &str = "select role, group_id from authlink_role_groups where source = $1";
const CLEAR: &str = "delete from authlink_role_groups where source = $1";
const SET: [&str; 2] = [
    "with new (role, group_id) as (",
    ") insert into authlink_role_groups (source, role, group_id) select $1, role, group_id from new where true",
];
const ADD: &str = wanted!(
    "insert into authlink_roles (user_id, role, source) select w.user_id, w.role, $1 from wanted w \
     where not exists (select 1 from authlink_roles r where r.user_id = w.user_id and r.role = w.role and r.source = $1) \
     limit 5000 returning user_id"
);
const COUNT_LOST: &str = wanted!(
    "select count(*) from authlink_roles r left join wanted w on w.user_id = r.user_id and w.role = r.role \
     where r.source = $1 and w.user_id is null"
);
const LOST: &str = wanted!(
    "select r.user_id, r.role from authlink_roles r left join wanted w on w.user_id = r.user_id and w.role = r.role \
     where r.source = $1 and w.user_id is null and (r.user_id > $2 or r.user_id = $2 and r.role > $3) \
     order by r.user_id, r.role limit $4"
);
const REMOVE: &str = wanted!(
    "delete from authlink_roles where source = $1 and not exists (select 1 from wanted w \
     where w.user_id = authlink_roles.user_id and w.role = authlink_roles.role) returning user_id"
);

/// What the closure of groups in groups has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleGroups {
    /// Groups that are in themselves.
    pub cycles: u64,
    /// Roles whose groups are nested deeper than is followed.
    pub too_deep: u64,
}

impl Users<'_> {
    /// Works out which groups lead to which role. Nothing where the run has ended.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn map_roles(self, run: &Run, mappings: &[RoleMapping]) -> Result<Option<RoleGroups>, Error> {
        in_run!(self, run, |transaction| {
            let mut numbers: HashMap<String, usize> = HashMap::new();
            let mut ids: Vec<String> = Vec::new();
            let mut number = |id: String| {
                *numbers.entry(id.clone()).or_insert_with(|| {
                    ids.push(id);
                    ids.len() - 1
                })
            };
            let mut pairs = Vec::new();
            for row in transaction.fetch(NESTING, &[run.source.into()]).await? {
                pairs.push((number(row.get(0)?), number(row.get(1)?)));
            }
            let mut starts: BTreeMap<(String, bool), BTreeSet<usize>> = BTreeMap::new();
            let mut after = String::new();
            loop {
                let rows = transaction.fetch(GROUPS, &[run.source.into(), (&after).into()]).await?;
                let Some(last) = rows.last() else { break };
                after = last.get(0)?;
                for row in &rows {
                    let (id, name, dn): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                    for mapping in mappings.iter().filter(|mapping| mapping.group.matches(&name, &dn)) {
                        let group = number(id.clone());
                        starts.entry((mapping.role.clone(), mapping.nested)).or_default().insert(group);
                    }
                }
            }
            let nesting = Nesting::new(pairs);
            let mut found = RoleGroups { cycles: nesting.cycles() as u64, too_deep: 0 };
            let mut wanted = BTreeSet::new();
            for ((role, nested), groups) in starts {
                for group in groups {
                    let reach = if nested { nesting.reach(group) } else { Nesting::default().reach(group) };
                    found.too_deep += u64::from(reach.too_deep);
                    wanted.extend(reach.groups.into_iter().map(|group| (role.clone(), ids[group].clone())));
                }
            }
            let before = transaction.fetch(BEFORE, &[run.source.into()]).await?;
            let before: sqlx::Result<BTreeSet<(String, String)>> =
                before.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect();
            if before? != wanted {
                transaction.execute(CLEAR, &[run.source.into()]).await?;
                let wanted: Vec<_> = wanted.into_iter().collect();
                let columns =
                    [Column::texts(&wanted, |(role, _)| role), Column::texts(&wanted, |(_, group)| group)];
                transaction.fetch_rows(SET[0], &[run.source.into()], &columns, SET[1]).await?;
            }
            Ok(found)
        })
    }

    /// Gives roles to a batch of those who are to have them; how many. Nothing where the run has ended.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn add_roles(self, run: &Run) -> Result<Option<u64>, Error> {
        in_run!(self, run, |transaction| { change(transaction, run, ADD).await })
    }

    /// Takes roles away from those who are not to have them any more; what was done. Nothing where the run has ended.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn drop_roles(self, run: &Run) -> Result<Option<Counts>, Error> {
        in_run!(self, run, |transaction| {
            let lost = change(transaction, run, REMOVE).await?;
            runs::lost(transaction, run, Class::Roles, lost).await?;
            Ok(Counts { roles_lost: lost, ..Counts::default() })
        })
    }
}

async fn change(transaction: &mut Transaction, run: &Run, statement: &'static str) -> sqlx::Result<u64> {
    let rows = transaction.fetch(statement, &[run.source.into()]).await?;
    let users: sqlx::Result<BTreeSet<String>> = rows.iter().map(|row| row.get(0)).collect();
    let users: Vec<_> = users?.into_iter().collect();
    people::touch(transaction, run, &users).await?;
    Ok(rows.len() as u64)
}

pub(super) async fn count_lost(transaction: &mut Transaction, run: &Run) -> sqlx::Result<u64> {
    super::number(transaction, COUNT_LOST, &[run.source.into()]).await
}

/// Roles that would be lost, in order, after this one.
pub(super) async fn lost(
    transaction: &mut Transaction,
    run: &Run,
    after: Option<&Candidate>,
    most: i64,
) -> sqlx::Result<Vec<Candidate>> {
    let (user, role) = after.map_or(("", ""), |it| (it.subject.as_str(), it.detail.as_str()));
    let rows = transaction.fetch(LOST, &[run.source.into(), user.into(), role.into(), most.into()]).await?;
    rows.iter()
        .map(|row| Ok(Candidate { op: Op::LoseRole, subject: row.get(0)?, detail: row.get(1)? }))
        .collect()
}
