//! What a `Webhook` says, decided: its url, its filter and its payload's template, the keys that sign, and its proof that it wants events.

pub mod challenge;
pub mod expressions;
pub mod key_ring;
pub mod signing;
pub mod url;
