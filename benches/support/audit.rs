//! What the API server's audit log says of one user.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::PathBuf,
};

use serde::Deserialize;

use super::{Outcome, variable};

/// A place in the log; requests before it do not count.
pub(crate) struct Mark {
    log: PathBuf,
    offset: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Option<ObjectRef>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: Option<String>,
}

impl Mark {
    /// The end of the log as it is now.
    pub(crate) fn now() -> Outcome<Self> {
        let log = PathBuf::from(variable("AUTHLINK_TEST_AUDIT")?);
        let offset = std::fs::metadata(&log)?.len();
        Ok(Self { log, offset })
    }

    /// How often `user` has asked for what since, such as `patch databases/status`; requests about its Lease are left out.
    pub(crate) fn requests(&self, user: &str) -> Outcome<BTreeMap<String, usize>> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut counts = BTreeMap::new();
        for line in BufReader::new(file).lines() {
            // The last line may be half written: it is of after the question.
            let Ok(entry) = serde_json::from_str::<Entry>(&line?) else { continue };
            let Some(object) = entry.object_ref else { continue };
            if entry.user.username != user || object.resource == "leases" {
                continue;
            }
            let subresource = object.subresource.map(|name| format!("/{name}")).unwrap_or_default();
            *counts.entry(format!("{} {}{subresource}", entry.verb, object.resource)).or_default() += 1;
        }
        Ok(counts)
    }

    /// How often it has changed something since, Events included.
    pub(crate) fn writes(&self, user: &str) -> Outcome<usize> {
        let reads = ["get ", "list ", "watch "];
        let requests = self.requests(user)?;
        let writes = requests.iter().filter(|(what, _)| !reads.iter().any(|read| what.starts_with(read)));
        Ok(writes.map(|(_, count)| count).sum())
    }
}
