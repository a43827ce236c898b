//! Where to go on reading a directory.

use serde::{Deserialize, Serialize};

use crate::domain::sync::{entry::Entry, times};

/// Where to go on, at one server: what it calls a place means nothing to another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub(super) server: String,
    /// Of users, then of groups.
    pub(super) places: Vec<Place>,
}

/// A place, in the words of each method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    Syncrepl { cookie: String },
    DirSync { cookie: String, invocation: String },
    Usn { after: i64, invocation: String },
    Modified { after: String },
    Full,
}

impl Cursor {
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Changes are read again that are up to five minutes older than the last one: a server may finish them in another order than that of
/// their times.
const OVERLAP: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// Keeps the latest time of a change among these entries, as the server writes it.
pub(super) fn note_latest(latest: &mut Option<String>, entries: &[Entry]) {
    for text in entries.iter().filter_map(|entry| entry.text("modifyTimestamp")) {
        let Some(time) = times::generalized(text) else { continue };
        if latest.as_deref().and_then(times::generalized).is_none_or(|latest| latest < time) {
            *latest = Some(text.to_owned());
        }
    }
}

/// The time to ask for, given the latest change, in the server's own form.
pub(super) fn ask_since(latest: &str) -> Option<String> {
    let since = times::generalized(latest)?.checked_sub(OVERLAP).ok()?;
    Some(times::written_like(since, latest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sync::entry::tests::entry;

    #[test]
    fn the_latest_change_is_kept_in_the_servers_own_form() {
        let changed = |at: &str| entry("cn=a", &[("modifytimestamp", &[at])]);
        let mut latest = None;
        note_latest(&mut latest, &[changed("20260101000000.0Z"), changed("junk"), entry("cn=b", &[])]);
        note_latest(&mut latest, &[changed("20260102000000.0Z"), changed("20260101120000.0Z")]);
        assert_eq!(latest.as_deref(), Some("20260102000000.0Z"));
        assert_eq!(ask_since("20260102000000.0Z").as_deref(), Some("20260101235500.0Z"));
        assert_eq!(ask_since("20260102000000Z").as_deref(), Some("20260101235500Z"));
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let places = vec![
            Place::Syncrepl { cookie: "YQ==".to_owned() },
            Place::Usn { after: 7, invocation: "x".to_owned() },
            Place::Full,
        ];
        let cursor = Cursor { server: "a:389".to_owned(), places };
        assert_eq!(Cursor::parse(&cursor.to_text()), Some(cursor));
        assert_eq!(Cursor::parse("{}"), None);
    }
}
