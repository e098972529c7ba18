//! The watches that feed the store, those of objects that tests wait for, and the check of the CRD.

pub mod crd;
pub(crate) mod dependencies;
pub(crate) mod live;
mod load_test;
pub mod watches;
