//! Writing: again after a fault that passes, and in halves around what the store refuses.

use std::time::Duration;

use super::SyncError;
use crate::{
    domain::sync::record::{GroupRecord, Rejected, Unusable},
    store::{
        self,
        users::{GroupsMerged, Incoming, Merge, MergeOptions, Run, Users},
    },
};

/// How long to wait before each further try.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// How long to wait before the next try, after so many; nothing for a failure that does not pass.
pub(super) fn pause(error: &store::Error, tries: usize) -> Option<Duration> {
    let passes = matches!(error, store::Error::TimedOut(_) | store::Error::Unreachable(_));
    PAUSES.get(tries).copied().filter(|_| passes)
}

/// Does something with the store, again if that fails in a way that may pass. `Fenced` where it finds the run ended.
macro_rules! retried {
    ($attempt:expr) => {{
        let mut tries = 0;
        loop {
            match $attempt.await {
                Ok(done) => break done.ok_or($crate::sync::SyncError::Fenced),
                Err(error) => match $crate::sync::write::pause(&error, tries) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => break Err($crate::sync::SyncError::from(error)),
                },
            }
            tries += 1;
        }
    }};
}
pub(super) use retried;

/// The same for what is only read.
macro_rules! retried_read {
    ($attempt:expr) => {
        $crate::sync::write::retried!(futures::TryFutureExt::map_ok($attempt, Some))
    };
}
pub(super) use retried_read;

/// Merges a batch of users; one that the store refuses is kept apart.
pub(super) async fn merge(
    users: Users<'_>,
    run: &Run,
    batch: &[Incoming],
    options: MergeOptions<'_>,
) -> Result<Merge, SyncError> {
    let mut all = Merge::default();
    // What is left to do, the next one last, with where it begins.
    let mut parts = vec![(0, batch)];
    while let Some((start, part)) = parts.pop() {
        // Only the last one says how far the run is.
        let options = MergeOptions { mark: options.mark.filter(|_| parts.is_empty()), ..options };
        match retried!(users.merge(run, part, options)) {
            Ok(merge) => {
                all.counts += merge.counts;
                all.held.extend(merge.held.into_iter().map(|(index, old)| (index + start, old)));
                all.steps.extend(merge.steps);
                all.rejected.extend(merge.rejected);
            }
            Err(SyncError::Store(store::Error::Refused(_))) if part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.push((start + first.len(), second));
                parts.push((start, first));
            }
            Err(SyncError::Store(store::Error::Refused(error))) => {
                tracing::warn!(error, "the store refuses a user");
                all.counts.seen += part.len() as u64;
                all.counts.failed += part.len() as u64;
                all.rejected.extend(part.iter().map(|it| Rejected {
                    external_id: Some(it.record.external_id.clone()),
                    dn: it.record.dn.clone(),
                    reason: Unusable::Refused,
                }));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Merges groups, those with many members by themselves.
pub(super) async fn merge_groups(
    users: Users<'_>,
    run: &Run,
    groups: &[GroupRecord],
    dry: bool,
) -> Result<GroupsMerged, SyncError> {
    const MOST_MEMBERS: usize = 20_000;
    let (mut all, mut rest) = (GroupsMerged::default(), groups);
    while !rest.is_empty() {
        let mut members = 0;
        let fits = rest.iter().take_while(|group| {
            members += group.members.len();
            members <= MOST_MEMBERS
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        let merged = retried!(users.merge_groups(run, now, dry))?;
        all.counts += merged.counts;
        all.steps.extend(merged.steps);
        all.touched |= merged.touched;
        rest = later;
    }
    Ok(all)
}
