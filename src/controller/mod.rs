//! The controller: what is reconciled when, and how.
//!
//! Start with [`reconcile`](reconcile::Reconciler::reconcile).

mod backoff;
mod reconcile;
mod run;
mod workqueue;

pub use run::run;
