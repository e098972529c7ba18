//! The API of the operator: the types that users write and read, and the names that everything else agrees on.
//!
//! This crate knows no client. Start with [`v1alpha1::LoadTest`].

mod bounds;
pub mod conditions;
pub mod crd;
pub mod duration;
pub mod labels;
pub mod reference;
pub mod schema;
pub mod text;
pub mod v1alpha1;
