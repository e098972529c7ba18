//! How objects are identified.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A namespace and a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// A reference to a `LoadTest`, or to its Job, which has the same name. Shared by everything that keeps one.
pub(crate) type ObjectRef = Arc<NamespacedName>;

/// The reference to the object with this metadata.
#[must_use]
pub(crate) fn object_ref(meta: &ObjectMeta) -> ObjectRef {
    Arc::new(NamespacedName {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    })
}

/// Shrinks a map that once held far more than it does now.
pub(crate) fn shrink_if_sparse<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > 64 && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}
