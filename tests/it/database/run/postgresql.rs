//! PostgreSQL.

mod faults;
mod limits;
mod pool;
mod pooler;
mod values;
