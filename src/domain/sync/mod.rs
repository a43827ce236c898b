//! User sync, decided: what an entry means, who is missing and whether that may be believed, and who may log in.

pub mod account;
pub mod closure;
pub mod counts;
pub mod decide;
pub mod dn;
pub mod entry;
pub mod filter;
pub mod guard;
pub mod ids;
pub mod key;
pub mod linking;
pub mod login;
pub mod mapping;
pub mod method;
pub mod plan;
pub mod preset;
pub mod record;
pub mod roles;
pub mod strikes;
pub mod times;
