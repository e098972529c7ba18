//! The objects that there are, after a history: pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::judge::{Change, Seen};

/// The objects that there are, by kind and name.
pub struct View(BTreeMap<(String, String), Value>);

impl View {
    /// What is left of a history, which is in the order of the versions.
    pub fn of(history: impl IntoIterator<Item = Seen>) -> Self {
        let mut view = BTreeMap::new();
        for seen in history {
            let key = (seen.kind.clone(), seen.name().to_owned());
            match seen.change {
                Change::Deleted => view.remove(&key),
                Change::Added | Change::Modified => view.insert(key, seen.object),
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
