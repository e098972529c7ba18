//! The objects that exist after a history. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::invariants::{Change, ObjectVersion};

/// The objects that exist, by kind and name.
pub struct View(BTreeMap<(String, String), Value>);

impl View {
    /// The objects that exist after a history, which is ordered by revision.
    pub fn of(history: impl IntoIterator<Item = ObjectVersion>) -> Self {
        let mut view = BTreeMap::new();
        for version in history {
            let key = (version.kind.clone(), version.name().to_owned());
            match version.change {
                Change::Deleted => view.remove(&key),
                Change::Added | Change::Modified => view.insert(key, version.object),
            };
        }
        Self(view)
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0.get(&(kind.to_owned(), name.to_owned()))
    }

    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0
            .iter()
            .filter(move |((k, _), _)| k == kind)
            .map(|(_, object)| object)
    }

    pub fn phase(&self, test: &str) -> &str {
        self.get("LoadTest", test)
            .and_then(|t| t.pointer("/status/phase"))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}
