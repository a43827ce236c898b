//! `Database`.

mod binding;
mod compatibility;
mod endpoints;
mod engines;
mod faults;
mod health;
mod lifecycle;
mod pool;
mod protocols;
mod queries;
mod references;
mod rotation;
mod run;
mod secrecy;
mod tls;
