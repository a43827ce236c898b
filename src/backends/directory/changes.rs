//! What has changed, by the protocols that servers have for it.

use bytes::Bytes;

use super::{
    connection::Connection,
    controls::{self, Change, Control},
    fault,
    message::{Answer, Outcome, Search},
};
use crate::{api::Reason, backends::Fault, domain::sync::entry::Entry};

/// How many changes are given at once.
const PART: usize = 1000;

/// The cookie is of another time, or means nothing to the server: everything is to be read anew.
const REFRESH_REQUIRED: u32 = 4096;
const UNWILLING: u32 = 53;

/// A refresh by content synchronization (RFC 4533).
pub struct Refresh {
    search: Search,
    id: i32,
    cookie: Option<Bytes>,
    with_cookie: bool,
    /// What is told after the last part.
    end: Option<Refreshed>,
}

/// A part of a refresh.
#[derive(Debug, Default)]
pub struct Changes {
    /// What was added or changed, by the id in the control; some servers send it with all of its attributes but its id.
    pub changed: Vec<(Bytes, Entry)>,
    /// Ids of what is there, and as it was.
    pub present: Vec<Bytes>,
    /// Ids of what is gone, or does not match any more.
    pub gone: Vec<Bytes>,
}

impl Changes {
    fn len(&self) -> usize {
        self.changed.len() + self.present.len() + self.gone.len()
    }
}

/// How a refresh goes on.
#[derive(Debug)]
pub enum Refreshed {
    /// With this, and more.
    Part(Changes),
    /// It has ended.
    End {
        /// For the next time.
        cookie: Option<Bytes>,
        /// Whether what is gone was told. Otherwise it is what was not mentioned, with servers that mention all that is there.
        tells_gone: bool,
    },
    /// The cookie means nothing any more.
    FullNeeded(String),
}

impl Refresh {
    /// Begins with what has changed since the cookie, or with everything.
    ///
    /// # Errors
    /// What kept the request from being sent.
    pub async fn begin(
        connection: &mut Connection,
        search: Search,
        cookie: Option<&[u8]>,
    ) -> Result<Self, Fault> {
        let id = connection.search(&search, &[Control::sync(cookie)]).await?;
        Ok(Self { search, id, cookie: None, with_cookie: cookie.is_some(), end: None })
    }

    /// The next part.
    ///
    /// # Errors
    /// Why it is not whole.
    pub async fn next(&mut self, connection: &mut Connection) -> Result<Refreshed, Fault> {
        if let Some(end) = self.end.take() {
            return Ok(end);
        }
        let mut part = Changes::default();
        loop {
            let item = connection.next(self.id, &self.search).await?;
            match item.answer {
                Answer::Entry(entry) => match controls::sync_state(&item.controls)? {
                    Some((Change::Changed, id)) => part.changed.push((id, entry)),
                    Some((Change::Present, id)) => part.present.push(id),
                    Some((Change::Deleted, id)) => part.gone.push(id),
                    None => return Err(Fault::new(Reason::ProtocolError, "the server does not synchronize")),
                },
                Answer::Intermediate { name, value: Some(value) }
                    if name.as_deref() == Some(controls::SYNC_INFO) =>
                {
                    let info = controls::sync_info(value)?;
                    self.cookie = info.cookie.or(self.cookie.take());
                    if info.gone { part.gone.extend(info.ids) } else { part.present.extend(info.ids) }
                }
                Answer::Done(outcome) => {
                    let end = self.end(&outcome, &item.controls)?;
                    if part.len() == 0 || matches!(end, Refreshed::FullNeeded(_)) {
                        return Ok(end);
                    }
                    self.end = Some(end);
                    return Ok(Refreshed::Part(part));
                }
                _ => {}
            }
            if part.len() >= PART {
                return Ok(Refreshed::Part(part));
            }
        }
    }

    fn end(&mut self, outcome: &Outcome, controls: &[controls::ResponseControl]) -> Result<Refreshed, Fault> {
        if outcome.code == REFRESH_REQUIRED || self.with_cookie && outcome.code == UNWILLING {
            return Ok(Refreshed::FullNeeded(fault::says(outcome)));
        }
        if let Some(fault) = fault::of_search(outcome) {
            return Err(fault);
        }
        let (cookie, tells_gone) = controls::sync_done(controls)?
            .ok_or_else(|| Fault::new(Reason::ProtocolError, "the server does not synchronize"))?;
        Ok(Refreshed::End { cookie: cookie.or(self.cookie.take()), tells_gone })
    }
}

/// What DirSync tells of one entry: nothing but that it changed, since it sends parts of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Its `objectGUID`.
    pub id: Bytes,
    /// Whether it was deleted.
    pub deleted: bool,
}

impl Connection {
    /// A part of what has changed since the cookie ([MS-ADTS] 3.1.1.3.4.1.3), the cookie for the next time, and whether there is more to
    /// read now. The base of the search must be that of a naming context. An empty cookie stands for the beginning.
    ///
    /// # Errors
    /// Why it cannot be read; `PermissionDenied` where the account has no right to it.
    pub async fn dirsync(
        &mut self,
        search: &Search,
        cookie: &[u8],
    ) -> Result<(Vec<Touched>, Bytes, bool), Fault> {
        let id = self.search(search, &[Control::dirsync(cookie)]).await?;
        let mut touched = Vec::new();
        loop {
            let item = self.next(id, search).await?;
            match item.answer {
                Answer::Entry(entry) => {
                    touched.extend(entry.values("objectGUID").first().map(|id| Touched {
                        id: id.clone(),
                        deleted:
                            entry.text("isDeleted").is_some_and(|text| text.eq_ignore_ascii_case("TRUE")),
                    }));
                }
                Answer::Done(outcome) => {
                    if let Some(fault) = fault::of_search(&outcome) {
                        return Err(fault);
                    }
                    let control = controls::dirsync(&item.controls)?;
                    let (cookie, more) = control.ok_or_else(|| {
                        Fault::new(Reason::ProtocolError, "the server does not know DirSync")
                    })?;
                    return Ok((touched, cookie, more));
                }
                _ => {}
            }
        }
    }
}
