//! Unit tests of the parts of the fault tests that need no cluster.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod end;
mod failing_calls;
mod invariants;
mod permanent;
mod plan;
mod view;
