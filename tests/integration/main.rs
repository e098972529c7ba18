//! Runs the operator's binary against a real etcd, API server and Job controller. The tests set the
//! states of the pods, so they can produce any order of events. Each test has its own namespace and
//! its own operator process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod command_line;
mod connection;
mod coordinated_start;
mod crd;
mod failing_calls;
mod kueue;
mod leadership;
mod lifecycle;
mod live_results;
mod load;
mod metrics;
mod preconditions;
mod process;
mod restarts;
mod set_aside;
mod shards;
mod spec_changes;
mod tenants;
mod third_parties;
mod workers;
mod your_cluster;
