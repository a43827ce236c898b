//! The Kubernetes API: what is read and written there, and nothing of the outside systems.

pub mod events;
pub mod fence;
pub mod object_cache;
pub mod objects;
pub mod owned;
pub mod ranges;
pub mod reference_index;
pub mod references;
pub mod resources;
pub mod review;
mod review_cache;
pub mod service_publisher;
mod services;
pub mod shared_watches;
mod slices;
pub mod watches;
