//! `Database`.

mod engines;
mod faults;
mod protocols;
mod tls;
