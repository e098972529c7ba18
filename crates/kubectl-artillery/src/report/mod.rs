//! The report of a test, in four formats with the same numbers. Nothing here reads the cluster or the clock.

mod course;
mod data;
mod format;
mod html;
mod junit;
mod markdown;
mod measured;
mod plot;
mod sections;
mod timeline;

pub use data::{Report, Versions};
pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use measured::{Endpoint, ResponseTimes, WorkerLine, WorkerResults};
pub use timeline::{Entry, EntryKind};

#[cfg(test)]
mod tests;
