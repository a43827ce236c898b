//! Searches: short ones as a whole, long ones page by page.

use bytes::Bytes;

use super::{
    connection::{Connection, Item},
    controls::{self, Control},
    fault,
    message::{Answer, Outcome, Scope, Search},
};
use crate::{
    api::Reason,
    backends::Fault,
    domain::sync::{
        entry::{Attribute, Entry},
        filter::Filter,
    },
};

/// A server that has no end is one that we end.
const MOST_PAGES: u32 = 20_000;
const MOST_EMPTY_PAGES: u32 = 100;
const MOST_RANGES: u32 = 10_000;

/// The answer to a short search.
#[derive(Debug, Default)]
pub struct Found {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where more is, as URLs.
    pub references: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Found {
    /// The entries of a search that has succeeded.
    ///
    /// # Errors
    /// What its result means.
    pub fn entries(self) -> Result<Vec<Entry>, Fault> {
        fault::of_search(&self.outcome).map_or(Ok(self.entries), Err)
    }
}

/// noSuchObject (RFC 4511, appendix A).
const NO_SUCH_OBJECT: u32 = 32;

impl Connection {
    /// Searches for what is small: more than `most` entries are a fault.
    ///
    /// # Errors
    /// What kept the server from answering; a result other than success is an answer.
    pub async fn find(&mut self, search: &Search, most: usize) -> Result<Found, Fault> {
        let id = self.search(search, &[]).await?;
        let mut found = Found::default();
        loop {
            match self.next(id, search).await?.answer {
                Answer::Entry(_) if found.entries.len() >= most => {
                    return Err(Fault::new(
                        Reason::ProtocolError,
                        "the server sends more than it was asked for",
                    ));
                }
                Answer::Entry(entry) => found.entries.push(entry),
                Answer::Reference(urls) => found.references.extend(urls),
                Answer::Done(outcome) => {
                    found.outcome = outcome;
                    return Ok(found);
                }
                _ => {}
            }
        }
    }

    /// Reads one entry; nothing where there is none, or none that may be seen.
    ///
    /// # Errors
    /// What kept the server from answering.
    pub async fn read(&mut self, dn: &str, attributes: &[&str]) -> Result<Option<Entry>, Fault> {
        let search = Search {
            base: dn.to_owned(),
            scope: Scope::Base,
            filter: Filter::Present("objectClass".to_owned()),
            attributes: attributes.iter().map(|name| (*name).to_owned()).collect(),
            size_limit: 1,
        };
        let found = self.find(&search, 1).await?;
        if found.outcome.code == NO_SUCH_OBJECT {
            return Ok(None);
        }
        Ok(found.entries()?.into_iter().next())
    }

    /// Reads the values of an attribute that the server has given in part ([MS-ADTS] 3.1.1.3.1.3.3): Active Directory never gives
    /// more than 1,500 at once.
    ///
    /// # Errors
    /// What kept the rest from being read: what is there is not all.
    pub async fn complete(&mut self, entry: &mut Entry, attribute: &str) -> Result<(), Fault> {
        let Some(dn) = entry.dn().map(str::to_owned) else {
            return Err(Fault::new(Reason::ProtocolError, "the name of an entry is not UTF-8"));
        };
        for _ in 0..MOST_RANGES {
            let Some(next) = next_range(entry, attribute) else { return Ok(()) };
            let name = format!("{attribute};range={next}-*");
            let read = self.read(&dn, &[&name]).await?;
            let parts = read.into_iter().flat_map(|read| read.attributes);
            let more = parts.filter(|part| part.base().eq_ignore_ascii_case(attribute.as_bytes()));
            // The answer begins where the question did, or somebody has changed the group in between.
            let more: Vec<_> =
                more.filter(|part| part.range().is_some_and(|(first, _)| first == next)).collect();
            if more.is_empty() {
                return Err(Fault::new(
                    Reason::ProtocolError,
                    format!("{attribute} of an entry ends in the middle"),
                ));
            }
            entry.attributes.extend(more);
        }
        Err(Fault::new(Reason::ProtocolError, format!("{attribute} of an entry has no end")))
    }
}

/// Where the next range begins; nothing where the last one is there, or the server gives no ranges.
fn next_range(entry: &Entry, attribute: &str) -> Option<u32> {
    let ours = |part: &&Attribute| part.base().eq_ignore_ascii_case(attribute.as_bytes());
    let ranges: Vec<_> = entry.attributes.iter().filter(ours).filter_map(Attribute::range).collect();
    if ranges.iter().any(|(_, last)| last.is_none()) {
        return None;
    }
    ranges.into_iter().filter_map(|(_, last)| last).max().map(|last| last.saturating_add(1))
}

/// A listing, page by page. It is whole only when it has ended without a fault.
pub struct Pages {
    search: Search,
    size: u32,
    allow_unpaged: bool,
    deleted: bool,
    /// The request whose answers are still to come.
    pending: Option<i32>,
    cookie: Bytes,
    page: u32,
    empty: u32,
    /// Whether entries of the page have been given already.
    begun: bool,
    end: Option<Result<(), Fault>>,
}

/// A part of a listing: at most a page.
#[derive(Debug, Default)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where more is, as URLs.
    pub references: Vec<String>,
}

impl Pages {
    /// With pages of so many entries. `allow_unpaged` takes the word of a server that does not page that this is everybody.
    #[must_use]
    pub fn new(search: Search, size: u32, allow_unpaged: bool) -> Self {
        Self {
            search,
            size,
            allow_unpaged,
            deleted: false,
            pending: None,
            cookie: Bytes::new(),
            page: 1,
            empty: 0,
            begun: false,
            end: None,
        }
    }

    /// With deleted entries, of a server that shows them.
    #[must_use]
    pub fn with_deleted(self) -> Self {
        Self { deleted: true, ..self }
    }

    /// The next part, and nothing after the last one. The page after it is asked for already, so that the server works while we do.
    ///
    /// # Errors
    /// Why the listing ends before it is whole. What was read of its last page has been given before.
    pub async fn next(&mut self, connection: &mut Connection) -> Result<Option<Page>, Fault> {
        let mut part = Page::default();
        while self.end.is_none() {
            match self.receive(connection, &mut part).await {
                Ok(false) => {}
                Ok(true) => return Ok(Some(part)),
                Err(fault) => self.end = Some(Err(self.in_page(&fault))),
            }
        }
        if !part.entries.is_empty() || !part.references.is_empty() {
            return Ok(Some(part));
        }
        self.end.take().unwrap_or(Ok(())).map(|()| None)
    }

    /// Receives one answer; whether the part is to be given now.
    async fn receive(&mut self, connection: &mut Connection, part: &mut Page) -> Result<bool, Fault> {
        let id = match self.pending {
            Some(id) => id,
            None => self.ask(connection).await?,
        };
        match connection.next(id, &self.search).await? {
            Item { answer: Answer::Entry(entry), .. } => {
                part.entries.push(entry);
                let full = part.entries.len() >= self.size as usize;
                self.begun |= full;
                // A server that does not page sends everybody at once.
                Ok(full && self.allow_unpaged)
            }
            Item { answer: Answer::Reference(urls), .. } => {
                part.references.extend(urls);
                Ok(false)
            }
            Item { answer: Answer::Done(outcome), controls } => {
                self.pending = None;
                if let Some(fault) = fault::of_search(&outcome) {
                    return Err(fault);
                }
                let Some(cookie) = controls::page(&controls)? else {
                    if self.allow_unpaged && self.page == 1 {
                        self.end = Some(Ok(()));
                        return Ok(false);
                    }
                    let detail = "the server gives no pages, so that nobody knows whether this is everybody";
                    return Err(Fault::new(Reason::PagingUnsupported, detail));
                };
                if cookie.is_empty() {
                    self.end = Some(Ok(()));
                    return Ok(false);
                }
                self.cookie = cookie;
                self.empty = if part.entries.is_empty() && !self.begun { self.empty + 1 } else { 0 };
                self.page += 1;
                self.begun = false;
                if self.page > MOST_PAGES || self.empty > MOST_EMPTY_PAGES {
                    return Err(Fault::new(Reason::ProtocolError, "the pages have no end"));
                }
                self.ask(connection).await?;
                Ok(!part.entries.is_empty())
            }
            _ => Ok(false),
        }
    }

    async fn ask(&mut self, connection: &mut Connection) -> Result<i32, Fault> {
        let mut controls = vec![Control::paged(self.size, &self.cookie)];
        controls.extend(self.deleted.then(Control::show_deleted));
        let id = connection.search(&self.search, &controls).await?;
        self.pending = Some(id);
        Ok(id)
    }

    fn in_page(&self, fault: &Fault) -> Fault {
        Fault::new(fault.reason, format!("in page {}: {}", self.page, fault.detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sync::entry::tests::entry;

    #[test]
    #[expect(clippy::type_complexity, reason = "the columns of a table")]
    fn ranges_go_on_where_the_last_one_ended() {
        let rows: [(&[(&str, &[&str])], Option<u32>); 5] = [
            (&[("member", &["a"])], None),
            (&[("member", &[]), ("member;range=0-1499", &["a"])], Some(1500)),
            (&[("MEMBER;range=0-1499", &["a"]), ("member;range=1500-2999", &["b"])], Some(3000)),
            (&[("member;range=0-1499", &["a"]), ("member;range=1500-*", &["b"])], None),
            (&[("memberOf;range=0-1499", &["a"])], None),
        ];
        for (attributes, next) in rows {
            assert_eq!(next_range(&entry("cn=g", attributes), "member"), next);
        }
    }
}
