//! Unit tests of the parts of the fault tests that need no cluster.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod end;
mod invariants;
mod plan;
mod view;
