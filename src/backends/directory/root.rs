//! The root DSE: what a server says of itself (RFC 4512, section 5.1).

use super::{connection::Connection, controls};
use crate::{
    backends::Fault,
    domain::sync::{
        dn::Dn,
        entry::Entry,
        method::{Make, Offers},
    },
};

const ATTRIBUTES: &[&str] = &[
    "objectClass",
    "vendorName",
    "vendorVersion",
    "namingContexts",
    "defaultNamingContext",
    "supportedControl",
    "supportedCapabilities",
    "highestCommittedUSN",
    "dsServiceName",
];

/// LDAP_CAP_ACTIVE_DIRECTORY_OID ([MS-ADTS] 3.1.1.3.4.3.1)
const ACTIVE_DIRECTORY: &str = "1.2.840.113556.1.4.800";

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootDse {
    /// What it can do, as far as it says.
    pub offers: Offers,
    /// Its maker's name and version, as it writes them.
    pub vendor: String,
    /// The names below which it has entries.
    pub naming_contexts: Vec<String>,
    /// Active Directory's: the last number that it has given to a change.
    pub highest_usn: Option<i64>,
    /// Active Directory's: the entry of the server itself.
    service: Option<String>,
}

impl RootDse {
    /// Reads it. One that may not be read is empty, and nothing to fail for.
    ///
    /// # Errors
    /// What kept the server from answering.
    pub async fn read(connection: &mut Connection) -> Result<Self, Fault> {
        use crate::api::Reason::{PermissionDenied, ProtocolError, SearchBaseMissing, Timeout, Unavailable};
        match connection.read("", ATTRIBUTES).await {
            Ok(Some(entry)) => Ok(Self::of(&entry)),
            Ok(None) => Ok(Self::default()),
            // Some answer an empty base by unwillingToPerform.
            Err(fault) if matches!(fault.reason, PermissionDenied | SearchBaseMissing) => Ok(Self::default()),
            Err(fault) if fault.reason == Unavailable && fault.detail.contains("(53)") => Ok(Self::default()),
            Err(fault) if matches!(fault.reason, ProtocolError | Timeout | Unavailable) => Err(fault),
            Err(fault) => Err(fault),
        }
    }

    fn of(entry: &Entry) -> Self {
        let all = |name: &str| entry.values(name).iter().filter_map(|value| std::str::from_utf8(value).ok());
        let has = |name: &str, value: &str| all(name).any(|found| found.eq_ignore_ascii_case(value));
        let text = |name: &str| entry.text(name).unwrap_or_default().to_owned();
        let vendor = text("vendorName");
        let make = if has("supportedCapabilities", ACTIVE_DIRECTORY) {
            Make::ActiveDirectory
        } else if vendor.to_ascii_lowercase().contains("389") {
            Make::Ds389
        } else if has("objectClass", "OpenLDAProotDSE") {
            Make::OpenLdap
        } else {
            Make::Other
        };
        let mut naming_contexts: Vec<_> = all("defaultNamingContext").map(str::to_owned).collect();
        naming_contexts.extend(all("namingContexts").map(str::to_owned));
        Self {
            offers: Offers {
                make,
                readable: entry
                    .attributes
                    .iter()
                    .any(|attribute| !attribute.name.eq_ignore_ascii_case(b"objectClass")),
                syncrepl: has("supportedControl", controls::SYNC_REQUEST),
                dirsync: has("supportedControl", controls::DIRSYNC),
                dirsync_refused: false,
            },
            vendor: format!("{vendor} {}", text("vendorVersion")).trim().to_owned(),
            naming_contexts,
            highest_usn: entry.text("highestCommittedUSN").and_then(|number| number.parse().ok()),
            service: entry.text("dsServiceName").map(str::to_owned),
        }
    }

    /// The naming context that a base lies in: the nearest above it.
    #[must_use]
    pub fn context_of(&self, base: &str) -> Option<&str> {
        let base = Dn::parse(base);
        let above = self.naming_contexts.iter().filter(|context| base.is_within(&Dn::parse(context)));
        above.max_by_key(|context| context.len()).map(String::as_str)
    }

    /// What tells this copy of the database from every other one, a restored one included: the `invocationId` of an Active Directory
    /// server. Numbers of changes mean something only together with it.
    ///
    /// # Errors
    /// What kept the server from answering.
    pub async fn invocation(&self, connection: &mut Connection) -> Result<Option<String>, Fault> {
        let Some(service) = &self.service else { return Ok(None) };
        let entry = connection.read(service, &["invocationId"]).await?;
        let value = entry.as_ref().and_then(|entry| entry.values("invocationId").first());
        Ok(value.and_then(|value| crate::domain::sync::ids::IdSyntax::Guid.read(value).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sync::entry::tests::entry;

    #[test]
    fn a_server_is_known_by_what_it_says() {
        let open = entry(
            "",
            &[("objectClass", &["top", "OpenLDAProotDSE"]), ("supportedControl", &[controls::SYNC_REQUEST])],
        );
        assert_eq!(
            RootDse::of(&open).offers,
            Offers { make: Make::OpenLdap, readable: true, syncrepl: true, ..Offers::default() }
        );
        let ad =
            entry("", &[("supportedCapabilities", &[ACTIVE_DIRECTORY]), ("highestCommittedUSN", &["42"])]);
        assert_eq!(
            (RootDse::of(&ad).offers.make, RootDse::of(&ad).highest_usn),
            (Make::ActiveDirectory, Some(42))
        );
        let ds = entry("", &[("vendorName", &["389 Project"]), ("vendorVersion", &["389-Directory/2.3.1"])]);
        assert_eq!(RootDse::of(&ds).offers.make, Make::Ds389);
        assert_eq!(RootDse::of(&ds).vendor, "389 Project 389-Directory/2.3.1");
        let closed = entry("", &[("objectClass", &["top"])]);
        assert!(!RootDse::of(&closed).offers.readable);
    }

    #[test]
    fn a_base_lies_in_the_nearest_context_above_it() {
        let contexts = ["dc=x", "ou=a,dc=x", "dc=y"].map(str::to_owned).to_vec();
        let root = RootDse { naming_contexts: contexts, ..RootDse::default() };
        assert_eq!(root.context_of("ou=people,OU=A,dc=x"), Some("ou=a,dc=x"));
        assert_eq!(root.context_of("ou=people,dc=x"), Some("dc=x"));
        assert_eq!(root.context_of("dc=z"), None);
    }
}
