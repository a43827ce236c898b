//! Users or groups of a directory: what to ask for, and what the entries become.

use bytes::Bytes;

use super::{Reading, now};
use crate::{
    backends::{
        Fault,
        directory::{Found, Search},
    },
    domain::sync::{
        entry::{Attribute, Entry},
        filter::Filter,
        ids::IdSyntax,
        mapping::{GroupMapping, Mapped, UserMapping},
        preset::Preset,
    },
    store::users::{Incoming, Table},
    sync::source::{Batch, ReadError, UserBatch, give},
};

/// Ids that are asked for at once.
const TOGETHER: usize = 100;

/// Users or groups.
pub(super) struct Part {
    pub(super) table: Table,
    pub(super) search: Search,
    pub(super) mapping: Mapping,
    /// Whether something is asked for that changes without a trace on the entry.
    pub(super) computed: bool,
}

pub(super) enum Mapping {
    Users(UserMapping),
    Groups(GroupMapping),
}

impl Mapping {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Users(mapping) => &mapping.id,
            Self::Groups(mapping) => &mapping.id,
        }
    }

    pub(super) fn preset(&self) -> Preset {
        match self {
            Self::Users(mapping) => mapping.preset,
            Self::Groups(mapping) => mapping.preset,
        }
    }

    pub(super) fn syntax(&self) -> IdSyntax {
        IdSyntax::of(self.id())
    }
}

impl Part {
    /// The same search with more to it, for these attributes.
    pub(super) fn search_for(&self, filter: Filter, attributes: &[&str]) -> Search {
        let attributes = attributes.iter().map(|name| (*name).to_owned()).collect();
        Search { filter, attributes, ..self.search.clone() }
    }

    /// The ids of entries.
    pub(super) fn ids(&self, entries: &[Entry]) -> Vec<String> {
        let id = |entry: &Entry| match entry.values(self.mapping.id()) {
            [value] => self.mapping.syntax().read(value).ok(),
            _ => None,
        };
        entries.iter().filter_map(id).collect()
    }
}

impl Reading<'_> {
    /// Gives entries, with the ids that the server has told apart from their attributes.
    pub(super) async fn give(
        &mut self,
        part: &Part,
        entries: Vec<(Option<String>, Entry)>,
    ) -> Result<(), ReadError> {
        let batch = self.batch(part, entries).await;
        give(&self.batches, batch).await
    }

    async fn batch(&mut self, part: &Part, entries: Vec<(Option<String>, Entry)>) -> Batch {
        match &part.mapping {
            Mapping::Users(mapping) => {
                let (mut batch, now) = (UserBatch::default(), now());
                for (id, entry) in entries {
                    match mapping.user(&entry, id, now) {
                        Ok(Mapped::User(user)) => batch.records.push(Incoming::new(*user)),
                        Ok(Mapped::NoPerson) => batch.skipped += 1,
                        Err(rejected) => batch.rejected.push(rejected),
                    }
                }
                Batch::Users(batch)
            }
            Mapping::Groups(mapping) => {
                let (mut records, mut rejected) = (Vec::new(), Vec::new());
                for (id, mut entry) in entries {
                    let complete = self.complete(&mut entry, &mapping.members).await;
                    match mapping.group(&entry, id, complete) {
                        Ok(group) => records.push(group),
                        Err(it) => rejected.push(it),
                    }
                }
                Batch::Groups { records, rejected }
            }
        }
    }

    /// Reads the rest of a group; whether it is whole then.
    async fn complete(&mut self, entry: &mut Entry, members: &str) -> bool {
        if entry.attributes.iter().all(|attribute| Attribute::range(attribute).is_none()) {
            return true;
        }
        let read = async {
            if self.second.is_none() {
                self.second = Some(self.directory.connect().await?);
            }
            match &mut self.second {
                Some(second) => second.complete(entry, members).await,
                None => Ok(()),
            }
        };
        let read: Result<(), Fault> = read.await;
        if let Err(fault) = &read {
            tracing::warn!(%fault, "a group cannot be read to its end");
            // What is left of its answer would be taken for that to the next question.
            self.second = None;
        }
        read.is_ok()
    }

    /// Reads these by their ids: those that match the search still.
    pub(super) async fn look_up(&mut self, part: &Part, ids: &[String]) -> Result<Batch, Fault> {
        let mut entries = Vec::new();
        for some in ids.chunks(TOGETHER) {
            let syntax = part.mapping.syntax();
            let one = |id: &String| Filter::equal(part.mapping.id(), syntax.value(id));
            let filter = part.search.filter.clone().and(Filter::Or(some.iter().map(one).collect()));
            let search = Search { filter, ..part.search.clone() };
            let found: Found = self.connection.find(&search, TOGETHER * 2).await?;
            entries.extend(found.entries()?.into_iter().map(|entry| (None, entry)));
        }
        Ok(self.batch(part, entries).await)
    }

    /// Gives those of these that match the search still, and tells that the others are gone.
    pub(super) async fn give_again(&mut self, part: &Part, ids: Vec<String>) -> Result<(), ReadError> {
        for some in ids.chunks(TOGETHER * 10) {
            let batch = self.look_up(part, some).await?;
            let there: Vec<&str> = match &batch {
                Batch::Users(users) => {
                    let rejected = users.rejected.iter().filter_map(|it| it.external_id.as_deref());
                    users.records.iter().map(|it| it.record.external_id.as_str()).chain(rejected).collect()
                }
                Batch::Groups { records, rejected } => {
                    let rejected = rejected.iter().filter_map(|it| it.external_id.as_deref());
                    records.iter().map(|it| it.external_id.as_str()).chain(rejected).collect()
                }
                Batch::Present(..) | Batch::Gone(..) => Vec::new(),
            };
            let gone: Vec<_> = some.iter().filter(|id| !there.contains(&id.as_str())).cloned().collect();
            give(&self.batches, batch).await?;
            give(&self.batches, Batch::Gone(part.table, gone)).await?;
        }
        Ok(())
    }
}

/// The id that a control names, in its one form.
pub(super) fn control_id(part: &Part, id: &Bytes) -> Option<String> {
    part.mapping.syntax().synchronized(id)
}
