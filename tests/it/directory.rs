//! Directories: the protocol, the sync and the login, against real servers and hostile ones.

mod active_directory;
mod connections;
mod groups;
mod guard;
pub(crate) mod harness;
mod incomplete;
mod incremental;
mod people;
