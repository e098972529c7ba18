//! What this process knows: objects from watches, its own writes, and short-lived copies of reads.

mod key;
pub(crate) mod live;
pub(crate) mod own_writes;
mod prune;
pub mod store;
mod stored_test;
mod ttl;
pub(crate) mod turns;
pub(crate) mod warnings;

pub use key::NamespacedName;
pub(crate) use key::{ObjectRef, object_ref, shrink_if_sparse};
pub(crate) use prune::prune;
pub(crate) use ttl::TtlCache;
