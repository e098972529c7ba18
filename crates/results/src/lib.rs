//! Merges the results of all workers. Each worker leaves a [`Snapshot`] of its measurements in its
//! termination message (written by `worker/plugins/results/index.js`). Snapshots are merged into
//! [`Measurements`], from which [`summarize`] makes the results in the status, and over which
//! [`thresholds`] are evaluated.

mod load;
mod measurements;
pub mod series;
mod sketch;
mod snapshot;
mod summarize;
pub mod thresholds;

pub use load::{Generator, LoadPlan};
pub use measurements::Measurements;
pub use sketch::Sketch;
pub use snapshot::{Snapshot, SnapshotError, log_tail};
pub use summarize::summarize;

#[cfg(any(test, feature = "test-support"))]
pub mod testing;
#[cfg(test)]
mod tests;
