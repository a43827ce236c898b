//! The delivery engine, alone: a store, receivers, and no Kubernetes.

mod accepting;
mod addresses;
mod answers;
mod bed;
mod clocks;
mod endpoints;
mod histories;
mod interoperability;
mod isolation;
mod kills;
mod model;
mod ordering;
mod process;
mod receiver;
mod replicas;
mod retries;
mod storage;
mod syncs;
