//! One result of all workers: pure. Each worker leaves a [`snapshot`] of what it has measured (`src/worker/results.js`
//! writes it), snapshots are merged into [`Measurements`], and [`Results`] is what the status shows of them.

mod measurements;
mod sketch;
mod snapshot;
mod summarize;
pub mod thresholds;

pub use measurements::Measurements;
pub use sketch::Sketch;
pub use snapshot::{Snapshot, SnapshotError, log_tail};
pub use summarize::summarize;

#[cfg(any(test, feature = "test-support"))]
pub mod testing;
#[cfg(test)]
mod tests;
