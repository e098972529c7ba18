//! What all tests against a real API server share.
//!
//! - `env`: a namespace and operator processes for one test, and waiting for a state with a deadline
//! - `process`: one operator process
//! - `proxy`, `holding_proxy`: between an operator and the API server
//! - `cluster`: clients, the CRD, namespaces and quotas
//! - `audit`: the API server's audit log
//! - `live_worker`: the port of a running worker
//! - `nodes`: simulated nodes, whose pods start and end by themselves
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "each kind of tests uses a part of this"
)]

pub mod audit;
pub mod cluster;
pub mod dump;
pub mod env;
pub mod events;
pub mod holding_proxy;
pub mod live_worker;
pub mod nodes;
pub mod objects;
pub mod pods;
pub mod process;
pub mod proxy;

use std::time::Duration;

pub use cluster::{connect, control_plane, http_get};
pub use env::{OPERATOR_KUBECONFIG, TestEnv};
pub use objects::{condition, condition_reason, load_test, phase_of};

/// How long a test waits for a state by default. Only a fault takes this long.
pub const DEADLINE: Duration = Duration::from_secs(60);
