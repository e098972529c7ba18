//! What this process knows: objects from watches, its own writes, and short-lived copies of reads.

mod key;
pub mod own_writes;
mod prune;
pub mod store;
mod ttl;
pub mod warnings;

pub(crate) use key::shrink_if_sparse;
pub use key::{NamespacedName, ObjectRef, object_ref};
pub use prune::prune;
pub use ttl::TtlCache;
