//! What has changed in a directory, by each of the methods.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::{
    Place, Reading,
    cursor::ask_since,
    part::{Part, control_id},
    sends_everything,
};
use crate::{
    api::Reason,
    backends::{
        Fault,
        directory::{Pages, Refresh, Refreshed, Scope, Search},
    },
    domain::sync::{
        filter::{Comparison, Filter},
        method::{Make, choose},
    },
    sync::source::{Batch, Coverage, ReadError, give},
};

type Read = (Coverage, Option<Place>, (&'static str, String));

impl Reading<'_> {
    /// Reads what has changed since a place.
    pub(super) async fn since(&mut self, part: &Part, place: Place) -> Result<Read, ReadError> {
        let (coverage, next, method) = match place {
            Place::Syncrepl { cookie } => {
                let cookie = BASE64.decode(cookie).map_err(|_| super::unknown_cursor())?;
                let (coverage, next) = self.synchronize(part, Some(&cookie)).await?;
                (coverage, next, "Syncrepl")
            }
            Place::DirSync { cookie, invocation } => {
                self.same_database(&invocation).await?;
                (Coverage::Changes, Some(self.dirsync(part, cookie, invocation).await?), "DirSync")
            }
            Place::Usn { after, invocation } => {
                self.same_database(&invocation).await?;
                let next = self.usn_start().await?;
                if matches!(next, Some(Place::Usn { after: highest, .. }) if highest < after) {
                    return Err(ReadError::FullNeeded(
                        "the server's numbers of changes have gone back".to_owned(),
                    ));
                }
                let since = Filter::Compare(
                    Comparison::AtLeast,
                    "uSNChanged".to_owned(),
                    (after + 1).to_string().into(),
                );
                let coverage = self.changed(part, &since, None).await?;
                self.deleted(part, &since).await?;
                (coverage, next, "UsnChanged")
            }
            Place::Modified { after } => {
                let since = ask_since(&after).ok_or_else(super::unknown_cursor)?;
                let since = Filter::Compare(Comparison::AtLeast, "modifyTimestamp".to_owned(), since.into());
                let mut latest = Some(after);
                let coverage = self.changed(part, &since, Some(&mut latest)).await?;
                (coverage, latest.map(|after| Place::Modified { after }), "ModifyTimestamp")
            }
            Place::Full => {
                let (coverage, place, method) = self.everything(part).await?;
                return Ok((coverage, place, method));
            }
        };
        let (best, why) = choose(&self.root.offers, part.mapping.id(), part.computed);
        let why = if best.as_str() == method {
            why
        } else {
            "the server refuses to this account what would be better"
        };
        Ok((coverage, next, (method, why.to_owned())))
    }

    /// Numbers of changes mean something only in the database that has given them.
    async fn same_database(&mut self, invocation: &str) -> Result<(), ReadError> {
        let now = self.root.invocation(&mut self.connection).await?.unwrap_or_default();
        if now == invocation {
            return Ok(());
        }
        Err(ReadError::FullNeeded(
            "another copy of the directory's database answers, or one that was restored".to_owned(),
        ))
    }

    /// Gives what was changed and matches, and tells of what was changed and does not match any more.
    async fn changed(
        &mut self,
        part: &Part,
        since: &Filter,
        latest: Option<&mut Option<String>>,
    ) -> Result<Coverage, ReadError> {
        let search = Search { filter: part.search.filter.clone().and(since.clone()), ..part.search.clone() };
        if let Some(fault) = self.pages(part, search, latest).await? {
            return Ok(Coverage::Partial(fault));
        }
        let left = since.clone().and(Filter::Not(Box::new(part.search.filter.clone())));
        let search = part.search_for(left, &[part.mapping.id()]);
        self.gone(part, Pages::new(search, self.settings.page_size, self.settings.allow_unpaged)).await
    }

    /// Tells that what a search finds is gone.
    async fn gone(&mut self, part: &Part, mut pages: Pages) -> Result<Coverage, ReadError> {
        loop {
            match pages.next(&mut self.connection).await {
                Ok(Some(page)) => {
                    let ids = part.ids(&page.entries);
                    give(&self.batches, Batch::Gone(part.table, ids)).await?;
                }
                Ok(None) => return Ok(Coverage::Changes),
                Err(fault) => return Ok(Coverage::Partial(fault)),
            }
        }
    }

    /// Tells of what was deleted, where the account may see that; who may not learns it by the next full run.
    async fn deleted(&mut self, part: &Part, since: &Filter) -> Result<(), ReadError> {
        let Some(context) = self.root.context_of(&part.search.base).map(str::to_owned) else { return Ok(()) };
        let filter = Filter::equal("isDeleted", "TRUE").and(since.clone());
        let search =
            Search { base: context, scope: Scope::Sub, ..part.search_for(filter, &[part.mapping.id()]) };
        let pages = Pages::new(search, self.settings.page_size, true).with_deleted();
        self.gone(part, pages).await.map(drop)
    }

    /// The last number of a change that the server has given.
    pub(super) async fn usn_start(&mut self) -> Result<Option<Place>, ReadError> {
        let invocation = self.root.invocation(&mut self.connection).await?.unwrap_or_default();
        Ok(self.root.highest_usn.map(|after| Place::Usn { after, invocation }))
    }

    /// Content synchronization, from a cookie or from the beginning.
    pub(super) async fn synchronize(
        &mut self,
        part: &Part,
        cookie: Option<&[u8]>,
    ) -> Result<(Coverage, Option<Place>), ReadError> {
        // OpenLDAP's cookie is a state of the database, whatever was asked for: so that everything can be read page by page, which
        // its limits allow more of.
        if cookie.is_none() && self.root.offers.make != Make::Ds389 {
            let base = Search {
                scope: Scope::Base,
                ..part.search_for(Filter::Present("objectClass".to_owned()), &[])
            };
            let mut refresh = Refresh::begin(&mut self.connection, base, None).await?;
            loop {
                if let Refreshed::End { cookie, .. } = refresh.next(&mut self.connection).await? {
                    return Ok((self.list(part, None).await?, cookie.map(|cookie| place(&cookie))));
                }
            }
        }
        let mut refresh = Refresh::begin(&mut self.connection, part.search.clone(), cookie).await?;
        let (mut mentions, mut again) = (false, Vec::new());
        loop {
            match refresh.next(&mut self.connection).await? {
                Refreshed::Part(changes) => {
                    mentions |= !changes.present.is_empty();
                    let ids = |ids: &[bytes::Bytes]| {
                        ids.iter().filter_map(|id| control_id(part, id)).collect::<Vec<_>>()
                    };
                    give(&self.batches, Batch::Present(part.table, ids(&changes.present))).await?;
                    give(&self.batches, Batch::Gone(part.table, ids(&changes.gone))).await?;
                    let changed =
                        changes.changed.into_iter().map(|(id, entry)| (control_id(part, &id), entry));
                    if cookie.is_some() && sends_everything(part.mapping.preset()) {
                        again.extend(changed.filter_map(|(id, _)| id));
                    } else {
                        self.give(part, changed.collect()).await?;
                    }
                }
                Refreshed::FullNeeded(why) => return Err(ReadError::FullNeeded(why)),
                Refreshed::End { cookie: next, tells_gone } => {
                    // What such a server sends of a changed entry is not what was asked for, so it is asked for again.
                    self.give_again(part, again).await?;
                    // A server that mentions nobody has nothing to tell: 389-ds says by that that nothing has changed.
                    let coverage = match cookie {
                        None => Coverage::Everything,
                        Some(_) if !tells_gone && mentions => Coverage::Everything,
                        Some(_) => Coverage::Changes,
                    };
                    return Ok((coverage, next.map(|cookie| place(&cookie))));
                }
            }
        }
    }

    /// Where DirSync begins: everything until now is passed over.
    pub(super) async fn dirsync_start(&mut self, part: &Part) -> Result<Place, Fault> {
        let invocation = self.root.invocation(&mut self.connection).await?.unwrap_or_default();
        // No entry has this id, and the cookie is the same.
        let mut search = self.dirsync_search(part)?;
        search.filter = Filter::equal("objectGUID", [0_u8; 16].to_vec());
        let mut cookie = Vec::new();
        loop {
            let (_, next, more) = self.connection.dirsync(&search, &cookie).await?;
            cookie = next.to_vec();
            if !more {
                return Ok(Place::DirSync { cookie: BASE64.encode(&cookie), invocation });
            }
        }
    }

    async fn dirsync(&mut self, part: &Part, cookie: String, invocation: String) -> Result<Place, ReadError> {
        let search = self.dirsync_search(part)?;
        let mut cookie = BASE64.decode(cookie).map_err(|_| super::unknown_cursor())?;
        loop {
            let read = self.connection.dirsync(&search, &cookie).await;
            let (touched, next, more) = read.map_err(|fault| match fault.reason {
                Reason::Unavailable | Reason::ProtocolError => ReadError::FullNeeded(fault.detail),
                _ => ReadError::Fault(fault),
            })?;
            cookie = next.to_vec();
            let id = |id: &bytes::Bytes| part.mapping.syntax().read(id).ok();
            let (gone, there): (Vec<_>, Vec<_>) = touched.into_iter().partition(|it| it.deleted);
            let gone: Vec<_> = gone.iter().filter_map(|it| id(&it.id)).collect();
            give(&self.batches, Batch::Gone(part.table, gone)).await?;
            // It sends parts of entries, whatever the filter: they are read again by their ids.
            self.give_again(part, there.iter().filter_map(|it| id(&it.id)).collect()).await?;
            if !more {
                return Ok(Place::DirSync { cookie: BASE64.encode(&cookie), invocation });
            }
        }
    }

    fn dirsync_search(&self, part: &Part) -> Result<Search, Fault> {
        let base = self.root.context_of(&part.search.base).map(str::to_owned);
        let base = base.ok_or_else(|| {
            Fault::new(Reason::SearchBaseMissing, "the search base is in no naming context")
        })?;
        // A filter for users would hide that one was deleted.
        let filter = Filter::Present("objectClass".to_owned());
        let mut attributes = part.search.attributes.clone();
        // A move to another place changes no attribute but this one.
        attributes.extend(["isDeleted", "name"].map(str::to_owned));
        if !attributes.iter().any(|name| name.eq_ignore_ascii_case("objectGUID")) {
            attributes.push("objectGUID".to_owned());
        }
        Ok(Search { base, scope: Scope::Sub, filter, attributes, size_limit: 0 })
    }
}

fn place(cookie: &[u8]) -> Place {
    Place::Syncrepl { cookie: BASE64.encode(cookie) }
}
