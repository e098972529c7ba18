//! The API that users write and read, one module a version.

pub mod v1alpha1;
