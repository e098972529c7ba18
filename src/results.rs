//! One result of all workers: pure. Each worker leaves a [`snapshot`] of what it has measured (`src/worker/results.js`
//! writes it), snapshots are merged into [`Measurements`], and [`Results`] is what the status shows of them.

mod measurements;
mod sketch;
mod snapshot;
mod summary;

pub use measurements::Measurements;
pub use sketch::Sketch;
pub use snapshot::{Packed, SnapshotError, last_words};
pub use summary::{Count, Distribution, Results};

#[cfg(test)]
pub(crate) mod tests;
