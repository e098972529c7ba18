//! The watches that feed the store, and those of objects that tests wait for.

pub(crate) mod dependencies;
mod load_test;
pub mod watches;
