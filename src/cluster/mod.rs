//! The Kubernetes API: what is read and written there, and nothing of the outside systems.

mod answers;
pub mod catalog;
pub mod discovery;
pub mod events;
pub mod fence;
pub mod objects;
pub mod ranges;
pub mod references;
pub mod review;
pub mod secrets;
mod services;
mod slices;
pub mod watches;
