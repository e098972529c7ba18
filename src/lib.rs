//! An operator that runs distributed Artillery load tests: a `LoadTest` becomes an Indexed Job of Artillery workers, and its
//! status and events report how the workers are doing.
//!
//! The folders are the flow: **watch -> observe -> decide -> report -> apply**, put together by
//! `controller/reconcile.rs`. A layer imports only layers below it; `hack/check-layers.sh` enforces that.

// The flow.
mod apply;
pub mod controller;
pub mod decide;
mod observe;
mod report;
pub mod watch;

// What the flow works on.
pub mod build;
pub mod cache;
pub mod config;
mod context;
mod error;
pub mod state;

// What every operator needs.
pub mod runtime;

#[cfg(test)]
mod fixtures;
