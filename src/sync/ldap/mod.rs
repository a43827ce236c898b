//! A directory as a source: its users and groups by LDAP.

mod changes;
mod cursor;
mod part;

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Sender;

use super::source::{Batch, Coverage, Ending, ReadError, Source, Start};
use crate::{
    api::Reason,
    backends::{
        Fault,
        directory::{Connection, Directory, Layout, Pages, RootDse, Search},
    },
    domain::sync::{
        mapping::COMPUTED,
        method::{Method, choose},
        preset::Preset,
    },
    store::users::{Subject, Table},
};
use cursor::{Cursor, Place};
use part::{Mapping, Part};

/// A directory as a source.
pub struct LdapSource {
    directory: Arc<Directory>,
    settings: Layout,
}

/// What one reading of a directory uses.
pub(super) struct Reading<'a> {
    directory: &'a Directory,
    settings: &'a Layout,
    connection: Connection,
    /// For questions while a listing is under way on the other one.
    second: Option<Connection>,
    root: RootDse,
    batches: Sender<Batch>,
    references: u64,
}

impl LdapSource {
    /// A directory, read like this.
    #[must_use]
    pub fn new(directory: Arc<Directory>, settings: Layout) -> Self {
        Self { directory, settings }
    }

    /// A digest of all that decides what is read: with another one a cursor is good for nothing, and missing users say little.
    #[must_use]
    pub fn config(&self) -> String {
        let Layout { users, groups, .. } = &self.settings;
        let servers: Vec<_> = self.directory.settings().servers.iter().map(ToString::to_string).collect();
        let text = format!(
            "{servers:?} {:?} {:?} {} {:?} {:?}",
            users.base,
            users.scope,
            users.filter,
            users.mapping,
            groups.as_ref().map(|groups| (
                &groups.base,
                groups.scope,
                groups.filter.to_string(),
                &groups.mapping
            ))
        );
        let digest = Sha256::digest(text);
        format!("{:032x}", u128::from_be_bytes(std::array::from_fn(|at| digest[at])))
    }

    fn parts(&self) -> Vec<Part> {
        let users = &self.settings.users;
        let mut parts = vec![Part {
            table: Table::Users,
            search: Search {
                base: users.base.clone(),
                scope: users.scope,
                filter: users.filter.clone(),
                attributes: users.mapping.attributes(),
                size_limit: 0,
            },
            mapping: Mapping::Users(users.mapping.clone()),
            computed: users.filter.mentions(COMPUTED) || users.mapping.is_computed(),
        }];
        parts.extend(self.settings.groups.as_ref().map(|groups| Part {
            table: Table::Groups,
            search: Search {
                base: groups.base.clone(),
                scope: groups.scope,
                filter: groups.filter.clone(),
                attributes: groups.mapping.attributes(),
                size_limit: 0,
            },
            mapping: Mapping::Groups(groups.mapping.clone()),
            computed: groups.filter.mentions(COMPUTED),
        }));
        parts
    }

    async fn begin(&self, batches: Sender<Batch>) -> Result<Reading<'_>, Fault> {
        let mut connection = self.directory.connect().await?;
        let root = RootDse::read(&mut connection).await?;
        let settings = &self.settings;
        Ok(Reading {
            directory: &self.directory,
            settings,
            connection,
            second: None,
            root,
            batches,
            references: 0,
        })
    }

    async fn read_all(&self, start: Start, batches: Sender<Batch>) -> Result<Ending, ReadError> {
        let mut reading = self.begin(batches).await?;
        let server = reading.connection.server();
        let read = reading.read(&self.parts(), start, self.server_name(server)).await;
        if let Err(ReadError::Fault(fault)) = &read
            && matches!(fault.reason, Reason::Timeout | Reason::Unavailable)
        {
            // The next run begins at another server, if there is one; this one's place in the listing is its own.
            self.directory.is_down(server);
        }
        reading.connection.close().await;
        if let Some(second) = reading.second.take() {
            second.close().await;
        }
        read
    }

    fn server_name(&self, server: usize) -> String {
        self.directory.settings().servers.get(server).map(ToString::to_string).unwrap_or_default()
    }
}

impl Source for LdapSource {
    fn read(&self, start: Start, batches: Sender<Batch>) -> BoxFuture<'_, Result<Ending, ReadError>> {
        self.read_all(start, batches).boxed()
    }

    fn find<'a>(&'a self, table: Table, subjects: &'a [Subject]) -> BoxFuture<'a, Result<Batch, Fault>> {
        async move {
            let (batches, _) = tokio::sync::mpsc::channel(1);
            let mut reading = self.begin(batches).await?;
            let parts = self.parts();
            let part = parts.iter().find(|part| part.table == table);
            let part =
                part.ok_or_else(|| Fault::new(Reason::InvalidSpec, "the directory is not asked for groups"))?;
            let ids: Vec<_> = subjects.iter().map(|subject| subject.external_id.clone()).collect();
            let found = reading.look_up(part, &ids).await?;
            reading.connection.close().await;
            Ok(found)
        }
        .boxed()
    }

    fn has_flags(&self) -> bool {
        self.settings.users.mapping.preset.required_flag().is_some()
    }
}

impl Reading<'_> {
    async fn read(&mut self, parts: &[Part], start: Start, server: String) -> Result<Ending, ReadError> {
        let before = match start {
            Start::Full { .. } => None,
            Start::Since(text) => Some(Cursor::parse(&text).ok_or_else(unknown_cursor)?),
        };
        if before.as_ref().is_some_and(|before| before.server != server) {
            return Err(ReadError::FullNeeded("another server of the directory answers".to_owned()));
        }
        let mut ending = Ending {
            users: Coverage::Everything,
            groups: None,
            cursor: None,
            references: 0,
            method: ("", String::new()),
        };
        let mut cursor = Some(Cursor { server, places: Vec::new() });
        for part in parts {
            let place = before.as_ref().map(|before| before.places.get(ending_index(part)).cloned());
            let (coverage, next, method) = match place {
                None => self.everything(part).await?,
                Some(Some(place)) => self.since(part, place).await?,
                Some(None) => return Err(unknown_cursor()),
            };
            let coverage = self.without_references(coverage);
            cursor = cursor.zip(next).map(|(mut cursor, next)| {
                cursor.places.push(next);
                cursor
            });
            match part.table {
                Table::Users => (ending.users, ending.method) = (coverage, method),
                Table::Groups => ending.groups = Some(coverage),
            }
        }
        ending.references = self.references;
        ending.cursor = cursor.map(|cursor| cursor.to_text());
        Ok(ending)
    }

    /// Where the server refers to others, what was read is a part.
    fn without_references(&self, coverage: Coverage) -> Coverage {
        if self.references == 0 || self.settings.ignore_references || matches!(coverage, Coverage::Partial(_))
        {
            return coverage;
        }
        let detail = "the server refers to another one for a part of what was asked for";
        Coverage::Partial(Fault::new(Reason::ReferralReturned, detail))
    }

    /// Reads everything, and where to go on from.
    async fn everything(
        &mut self,
        part: &Part,
    ) -> Result<(Coverage, Option<Place>, (&'static str, String)), ReadError> {
        let mut offers = self.root.offers;
        let (mut method, mut why) = choose(&offers, part.mapping.id(), part.computed);
        if method == Method::DirSync {
            match self.dirsync_start(part).await {
                Ok(place) => {
                    let coverage = self.list(part, None).await?;
                    return Ok((coverage, Some(place), (method.as_str(), String::new())));
                }
                Err(fault) => {
                    tracing::debug!(%fault, "DirSync cannot be used");
                    offers.dirsync_refused = true;
                    (method, why) = choose(&offers, part.mapping.id(), part.computed);
                }
            }
        }
        let method_of = (method.as_str(), why.to_owned());
        let (coverage, place) = match method {
            Method::Syncrepl => self.synchronize(part, None).await?,
            Method::Usn => {
                let place = self.usn_start().await?;
                (self.list(part, None).await?, place)
            }
            Method::ModifyTimestamp => {
                let mut latest = None;
                let coverage = self.list(part, Some(&mut latest)).await?;
                // Of an empty directory there is no time by its clock.
                (coverage, latest.map(|after| Place::Modified { after }))
            }
            Method::Full | Method::DirSync => (self.list(part, None).await?, Some(Place::Full)),
        };
        Ok((coverage, place, method_of))
    }

    /// Lists a part page by page.
    async fn list(
        &mut self,
        part: &Part,
        latest: Option<&mut Option<String>>,
    ) -> Result<Coverage, ReadError> {
        self.pages(part, part.search.clone(), latest).await.map(|listed| match listed {
            None => Coverage::Everything,
            Some(fault) => Coverage::Partial(fault),
        })
    }

    /// Gives what a search finds page by page; a fault where it is not all. `latest` becomes the latest time of a change.
    async fn pages(
        &mut self,
        part: &Part,
        mut search: Search,
        mut latest: Option<&mut Option<String>>,
    ) -> Result<Option<Fault>, ReadError> {
        if latest.is_some() {
            search.attributes.push("modifyTimestamp".to_owned());
        }
        let mut pages = Pages::new(search, self.settings.page_size, self.settings.allow_unpaged);
        loop {
            match pages.next(&mut self.connection).await {
                Ok(Some(page)) => {
                    self.references += page.references.len() as u64;
                    if let Some(latest) = latest.as_deref_mut() {
                        cursor::note_latest(latest, &page.entries);
                    }
                    let entries = page.entries.into_iter().map(|entry| (None, entry)).collect();
                    self.give(part, entries).await?;
                }
                Ok(None) => return Ok(None),
                Err(fault) if matches!(fault.reason, Reason::Timeout | Reason::Unavailable) => {
                    return Err(fault.into());
                }
                Err(fault) => return Ok(Some(fault)),
            }
        }
    }
}

fn ending_index(part: &Part) -> usize {
    match part.table {
        Table::Users => 0,
        Table::Groups => 1,
    }
}

fn unknown_cursor() -> ReadError {
    ReadError::FullNeeded("the cursor is that of another version or of another spec".to_owned())
}

/// The time at which flags of accounts are looked at.
fn now() -> Timestamp {
    Timestamp::now()
}

/// Whether a preset is one of the servers that send all attributes of an entry when it has changed, but not those that they work out.
fn sends_everything(preset: Preset) -> bool {
    matches!(preset, Preset::Ds389 | Preset::FreeIpa)
}
