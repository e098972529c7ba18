//! Builds the entries of a map.

use std::collections::HashMap;
use std::rc::Rc;

use super::{Entry, Node};

/// Maps with more entries than this are indexed while they are built.
const INDEX_AFTER: usize = 16;

#[derive(Default)]
pub(super) struct MapBuilder {
    entries: Vec<Entry>,
    index: HashMap<Rc<str>, usize>,
}

impl MapBuilder {
    fn find(&self, key: &str) -> Option<usize> {
        if self.index.is_empty() {
            crate::count_work(self.entries.len());
            self.entries.iter().position(|entry| &*entry.key == key)
        } else {
            self.index.get(key).copied()
        }
    }

    fn push(&mut self, entry: Entry) {
        if !self.index.is_empty() {
            self.index.insert(entry.key.clone(), self.entries.len());
        }
        self.entries.push(entry);
        if self.entries.len() == INDEX_AFTER {
            let keys = self.entries.iter().enumerate();
            self.index = keys.map(|(n, entry)| (entry.key.clone(), n)).collect();
        }
    }

    /// Adds an entry of the map itself. Returns false if it has one with this key already.
    pub(super) fn insert(&mut self, key: &str, value: Rc<Node>, at: usize) -> bool {
        let found = self.find(key);
        match found.and_then(|n| self.entries.get_mut(n)) {
            Some(entry) if !entry.is_merged => return false,
            Some(entry) => {
                entry.value = value;
                entry.at = at;
                entry.is_merged = false;
            }
            None => self.push(Entry {
                key: key.into(),
                value,
                at,
                is_merged: false,
            }),
        }
        true
    }

    /// Adds an entry that a merge key brings. Existing ones stay.
    pub(super) fn merge(&mut self, entry: &Entry) {
        if self.find(&entry.key).is_none() {
            self.push(Entry {
                is_merged: true,
                ..entry.clone()
            });
        }
    }

    /// Sets an entry to what `merge` makes of its earlier value.
    pub(super) fn update(&mut self, new: &Entry, merge: impl Fn(&Rc<Node>) -> Rc<Node>) {
        let found = self.find(&new.key);
        match found.and_then(|n| self.entries.get_mut(n)) {
            Some(entry) => entry.value = merge(&entry.value),
            None => self.push(new.clone()),
        }
    }

    pub(super) fn build(self) -> Vec<Entry> {
        self.entries
    }
}
