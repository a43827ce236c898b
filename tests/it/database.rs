//! `Database`.

mod engines;
