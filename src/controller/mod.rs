//! The controller: what is reconciled when, and how.
//!
//! Start with [`reconcile`](reconcile::Reconciler::reconcile).

mod backoff;
mod crash_record;
mod reconcile;
mod run;
mod suspects;
mod workqueue;

pub use crash_record::CrashRecord;
pub use run::run;
