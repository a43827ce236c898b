//! How a directory is laid out: where users and groups are, and what their attributes mean.

use super::Scope;
use crate::domain::sync::{
    filter::Filter,
    mapping::{GroupMapping, UserMapping},
};

/// Where users are, and what their attributes mean.
#[derive(Clone, Debug, PartialEq)]
pub struct UserSearch {
    /// The name of the entry where the search starts.
    pub base: String,
    /// How far down it goes.
    pub scope: Scope,
    /// Finds everybody.
    pub filter: Filter,
    /// What the attributes mean.
    pub mapping: UserMapping,
}

/// Where groups are, and what their attributes mean.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSearch {
    /// The name of the entry where the search starts.
    pub base: String,
    /// How far down it goes.
    pub scope: Scope,
    /// Finds all groups.
    pub filter: Filter,
    /// What the attributes mean.
    pub mapping: GroupMapping,
}

/// How a directory is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Users.
    pub users: UserSearch,
    /// Groups, if they are read.
    pub groups: Option<GroupSearch>,
    /// Entries of a page.
    pub page_size: u32,
    /// Whether a server that gives no pages is believed to give everybody.
    pub allow_unpaged: bool,
    /// Whether references to other servers are passed over; otherwise what they lead to is missing, so that nobody is taken for gone.
    pub ignore_references: bool,
}

impl Layout {
    /// References to other naming contexts are passed over where the make of directory has no others.
    #[must_use]
    pub fn new(users: UserSearch, groups: Option<GroupSearch>) -> Self {
        let ignore_references = users.mapping.preset.refers_elsewhere();
        Self { users, groups, page_size: 1000, allow_unpaged: false, ignore_references }
    }
}
