//! The delivery engine, alone: a store, receivers, and no Kubernetes.

mod accepting;
mod answers;
mod bed;
mod clocks;
mod endpoints;
mod histories;
mod isolation;
mod kills;
mod model;
mod ordering;
mod process;
mod receiver;
mod replicas;
mod retries;
mod syncs;
