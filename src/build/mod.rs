//! The objects that the operator creates.

mod env;
mod job;
mod pod;
mod worker_files;

pub(crate) use job::active_deadline;
pub use job::build_job;
pub(crate) use pod::image;
pub(crate) use worker_files::{READINESS_PERIOD, is_verified};
pub use worker_files::{config_map, config_map_name};
