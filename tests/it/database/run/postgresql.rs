//! PostgreSQL.

mod faults;
mod limits;
mod pooler;
mod values;
