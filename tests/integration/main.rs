//! The operator's program against a real etcd, API server and Job controller. The pods' states are set by the tests, so
//! that every order of events can be had. Each test has a namespace and an operator process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/proxy.rs"]
mod proxy;

mod admission;
mod connection;
mod endings;
mod leadership;
mod metrics;
mod operator;
mod restarts;
mod shards;
mod steering;
mod together;
mod waiting;
mod workers;
