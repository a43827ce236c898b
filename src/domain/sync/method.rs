//! How changes are found without reading everything: by the best that the server offers and the spec leaves room for.

use std::time::Duration;

/// A way to find changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Content synchronization, refresh only (RFC 4533).
    Syncrepl,
    /// Active Directory's DirSync control ([MS-ADTS] 3.1.1.3.4.1.3).
    DirSync,
    /// Active Directory's update sequence numbers.
    Usn,
    /// What was changed since a time, by the server's clock. It tells of no deletion.
    ModifyTimestamp,
    /// There is none: everything is read each time.
    Full,
}

impl Method {
    /// As users read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syncrepl => "Syncrepl",
            Self::DirSync => "DirSync",
            Self::Usn => "UsnChanged",
            Self::ModifyTimestamp => "ModifyTimestamp",
            Self::Full => "Full",
        }
    }
}

/// Whose server it is, by its own words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Make {
    /// OpenLDAP.
    OpenLdap,
    /// 389 Directory Server, FreeIPA's included.
    Ds389,
    /// Active Directory, Samba included.
    ActiveDirectory,
    /// Another one, or one that does not say.
    #[default]
    Other,
}

/// What a server says that it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts of their own")]
pub struct Offers {
    /// Whose it is.
    pub make: Make,
    /// Whether it says anything: its root DSE can be read.
    pub readable: bool,
    /// Content synchronization.
    pub syncrepl: bool,
    /// DirSync.
    pub dirsync: bool,
    /// Whether it has refused DirSync to this account.
    pub dirsync_refused: bool,
}

/// Chooses, and says why it is not a better one; nothing where it is the best.
#[must_use]
pub fn choose(offers: &Offers, id_attribute: &str, computed: bool) -> (Method, &'static str) {
    let id = |name: &str| id_attribute.eq_ignore_ascii_case(name);
    if computed {
        return (
            Method::Full,
            "the filter or the mapping uses an attribute that the server works out, such as memberOf",
        );
    }
    if !offers.readable {
        return (Method::ModifyTimestamp, "the server's root DSE cannot be read");
    }
    match offers.make {
        Make::ActiveDirectory if offers.dirsync && !offers.dirsync_refused => (Method::DirSync, ""),
        Make::ActiveDirectory => (Method::Usn, "the account may not use DirSync"),
        Make::OpenLdap | Make::Other if offers.syncrepl && id("entryUUID") => (Method::Syncrepl, ""),
        Make::Ds389 if offers.syncrepl && id("nsUniqueId") => (Method::Syncrepl, ""),
        _ if offers.syncrepl => (
            Method::ModifyTimestamp,
            "the server's synchronization names entries by another id than the mapping",
        ),
        _ => (Method::ModifyTimestamp, "the server offers no synchronization"),
    }
}

/// What is known of the last runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When the last complete run that read everything began, in milliseconds after 1970.
    pub full_at: Option<i64>,
    /// Whether there is a cursor.
    pub cursor: bool,
    /// Whether the cursor was made by what is read now.
    pub same_config: bool,
}

/// Whether everything is to be read: where there is nothing to go on from, and after `every`, since no cursor tells everything.
#[must_use]
pub fn needs_full(history: &History, every: Duration, now: i64) -> bool {
    let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    !history.cursor
        || !history.same_config
        || history.full_at.is_none_or(|at| now.saturating_sub(at) >= every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_chosen_and_what_is_in_the_way_of_a_better_one_is_told() {
        let offers = |make, syncrepl, dirsync| Offers {
            make,
            readable: true,
            syncrepl,
            dirsync,
            dirsync_refused: false,
        };
        let rows = [
            (offers(Make::OpenLdap, true, false), "entryuuid", false, Method::Syncrepl, ""),
            (
                offers(Make::OpenLdap, true, false),
                "employeeNumber",
                false,
                Method::ModifyTimestamp,
                "another id",
            ),
            (
                offers(Make::OpenLdap, false, false),
                "entryUUID",
                false,
                Method::ModifyTimestamp,
                "no synchronization",
            ),
            (offers(Make::OpenLdap, true, false), "entryUUID", true, Method::Full, "memberOf"),
            (offers(Make::Ds389, true, false), "nsUniqueId", false, Method::Syncrepl, ""),
            (offers(Make::Ds389, true, false), "entryUUID", false, Method::ModifyTimestamp, "another id"),
            (offers(Make::Ds389, true, false), "ipaUniqueID", false, Method::ModifyTimestamp, "another id"),
            (offers(Make::ActiveDirectory, false, true), "objectGUID", false, Method::DirSync, ""),
            (offers(Make::ActiveDirectory, false, false), "objectGUID", false, Method::Usn, "DirSync"),
            (
                Offers { dirsync_refused: true, ..offers(Make::ActiveDirectory, false, true) },
                "objectGUID",
                false,
                Method::Usn,
                "DirSync",
            ),
            (Offers::default(), "entryUUID", false, Method::ModifyTimestamp, "root DSE"),
        ];
        for (offers, id, computed, method, why) in rows {
            let chosen = choose(&offers, id, computed);
            assert_eq!(chosen.0, method, "{offers:?} {id}");
            assert!(
                chosen.1.contains(why) && why.is_empty() == chosen.1.is_empty(),
                "{offers:?}: {}",
                chosen.1
            );
        }
    }

    #[test]
    fn everything_is_read_where_there_is_nothing_to_go_on_from_and_once_a_day() {
        let day = Duration::from_hours(24);
        let history = History { full_at: Some(0), cursor: true, same_config: true };
        assert!(!needs_full(&history, day, 86_399_999));
        assert!(needs_full(&history, day, 86_400_000));
        assert!(needs_full(&History { cursor: false, ..history }, day, 0));
        assert!(needs_full(&History { same_config: false, ..history }, day, 0));
        assert!(needs_full(&History { full_at: None, ..history }, day, 0));
    }
}
