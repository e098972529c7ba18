//! What the operator reads of the cluster, and what it means. Pure: no client, no clock.
//!
//! Start with [`Observed`], which is what every decision is made from.

pub(crate) mod abridged;
mod clip;
mod job;
mod live;
mod observed;
mod partial;
pub(crate) mod start_annotation;
mod start_blocker;
mod worker;

pub use job::{JobOutcome, JobStatus};
pub use live::{AbortState, LiveResults, Unreachable};
pub use observed::{ConfigMapFiles, FailedCall, JobState, Observed, ScriptState, WorkerFiles};
pub use partial::{PartialJob, PartialPod};
pub(crate) use partial::{owning_job, partial_metadata};
pub use start_blocker::{OtherContainer, StartBlocker};
pub use worker::{Deletion, StartHandshake, StartState, WorkerState, WorkerStatus};

#[cfg(test)]
mod tests;
