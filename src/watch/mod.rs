//! The watches that feed the store, and those of objects that tests wait for.

pub mod dependencies;
mod load_test;
pub mod watches;
