//! YAML and JSON as Artillery's parser, js-yaml, reads them.

use std::borrow::Cow;
use std::rc::Rc;

mod map;
mod reader;
mod scalar;

pub(crate) use reader::ReadError;

/// A value with its place in the text. All uses of an anchor share one node.
#[derive(Debug)]
pub(crate) struct Node {
    /// The offset of its first byte.
    pub(crate) at: usize,
    /// The size of the value in bytes, with each use of an anchor counted.
    pub(crate) size: usize,
    /// How many lists and maps are nested in the value, with each use of an anchor counted.
    pub(crate) depth: usize,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// A key of a map and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Rc<str>,
    pub(crate) value: Rc<Node>,
    /// The offset of the key.
    pub(crate) at: usize,
    /// Whether a merge key (`<<`) brought it.
    pub(crate) is_merged: bool,
}

/// The minimum size of a value, in bytes.
const VALUE_SIZE: usize = 8;

/// The maximum size of a script, in bytes. A `ConfigMap` holds at most a fraction of it. A small text can exceed it, because each
/// use of an anchor repeats the anchored value.
pub(crate) const MAX_SIZE: usize = 4 << 20;

/// Why a script above [`MAX_SIZE`] is left to Artillery.
pub(crate) const TOO_LARGE: &str = "it is too large";

impl Node {
    pub(crate) fn new(at: usize, value: Value) -> Rc<Self> {
        let add = |(size, depth): (usize, usize), node: &Self, key: usize| {
            let size = size.saturating_add(node.size).saturating_add(key);
            (size, depth.max(node.depth + 1))
        };
        let (size, depth) = match &value {
            Value::Text(text) => (text.len(), 0),
            Value::List(items) => items.iter().fold((0, 1), |sum, item| add(sum, item, 0)),
            Value::Map(entries) => entries
                .iter()
                .fold((0, 1), |sum, entry| add(sum, &entry.value, entry.key.len())),
            _ => (0, 0),
        };
        let size = size.saturating_add(VALUE_SIZE);
        Rc::new(Self {
            at,
            size,
            depth,
            value,
        })
    }

    pub(crate) fn null(at: usize) -> Rc<Self> {
        Self::new(at, Value::Null)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Rc<Self>> {
        self.entries()
            .iter()
            .find(|entry| &*entry.key == key)
            .map(|entry| &entry.value)
    }

    /// The entries of a map. Empty for other values.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list. Empty for other values.
    pub(crate) fn items(&self) -> &[Rc<Self>] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.value, Value::List(_))
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Whether JavaScript treats the value as true.
    pub(crate) fn is_truthy(&self) -> bool {
        match &self.value {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::Number(number) => *number != 0.0 && !number.is_nan(),
            Value::Text(text) => !text.is_empty(),
            Value::List(_) | Value::Map(_) => true,
        }
    }

    /// The string that JavaScript makes of the value as a key. None for nested lists.
    pub(crate) fn as_key(&self) -> Option<Cow<'_, str>> {
        Some(match &self.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string().into(),
            // JavaScript writes these numbers with an exponent, and Rust with up to 325 digits.
            Value::Number(number) if number.abs() >= 1e21 || number.abs() < 1e-6 => {
                let exponent = if number.abs() >= 1.0 { "e+" } else { "e" };
                if *number == 0.0 {
                    "0".into()
                } else {
                    format!("{number:e}").replacen('e', exponent, 1).into()
                }
            }
            Value::Number(number) => number.to_string().into(),
            Value::Text(text) => text.into(),
            Value::Map(_) => "[object Object]".into(),
            Value::List(items) => {
                let keys = items.iter().map(|item| match item.value {
                    Value::List(_) => None,
                    Value::Null => Some("".into()),
                    _ => item.as_key(),
                });
                keys.collect::<Option<Vec<_>>>()?.join(",").into()
            }
        })
    }
}

/// A text that was read.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Rc<Node>,
    /// The offsets of the anchors that have an alias, in order.
    used_anchors: Vec<usize>,
}

impl Document {
    /// Whether a part of the text defines an anchor that is used.
    pub(crate) fn has_used_anchor(&self, from: usize, to: usize) -> bool {
        let next = self.used_anchors.partition_point(|at| *at < from);
        self.used_anchors.get(next).is_some_and(|at| *at < to)
    }
}

/// The text as the reader needs it: without byte order mark, and with a line break at the end.
pub(crate) fn prepare(text: &str) -> Cow<'_, str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.is_empty() || text.ends_with(['\n', '\r']) {
        text.into()
    } else {
        format!("{text}\n").into()
    }
}

/// Reads a prepared text and applies its merge keys (`<<`).
pub(crate) fn read(prepared: &str) -> Result<Document, ReadError> {
    reader::read(prepared)
}

/// Line and column of an offset, as messages report them.
pub(crate) fn position(prepared: &str, at: usize) -> String {
    let before = prepared.get(..at).unwrap_or(prepared);
    let mut lines = 1;
    let mut start = 0;
    let bytes = before.as_bytes();
    for (n, c) in bytes.iter().enumerate() {
        if *c == b'\n' || *c == b'\r' && prepared.as_bytes().get(n + 1) != Some(&b'\n') {
            lines += 1;
            start = n + 1;
        }
    }
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    format!("line {lines} column {column}")
}

/// The script's `config` with the selected environment merged into it. None if the script has no
/// `config`.
///
/// Source: Artillery, `checkMergedConfig` in `lib/util.ts`.
pub(crate) fn config(script: &Node, environment: Option<&str>) -> Option<Rc<Node>> {
    let config = script.get("config")?;
    let overlay = environment
        .and_then(|name| config.get("environments")?.get(name))
        .filter(|overlay| overlay.is_truthy());
    Some(match overlay {
        Some(overlay) => merge(config, overlay),
        None => config.clone(),
    })
}

/// Merges maps and lists entry by entry, like lodash's `merge`, which Artillery uses for
/// environments.
fn merge(to: &Rc<Node>, from: &Rc<Node>) -> Rc<Node> {
    match (&to.value, &from.value) {
        (Value::Map(old), Value::Map(new)) => {
            let mut map = map::MapBuilder::default();
            for entry in old {
                map.insert(&entry.key, entry.value.clone(), entry.at);
            }
            for entry in new {
                map.update(entry, |earlier| merge(earlier, &entry.value));
            }
            Node::new(to.at, Value::Map(map.build()))
        }
        (Value::List(old), Value::List(new)) => {
            let merged = new.iter().enumerate().map(|(n, item)| match old.get(n) {
                Some(earlier) => merge(earlier, item),
                None => item.clone(),
            });
            let rest = old.iter().skip(new.len()).cloned();
            Node::new(from.at, Value::List(merged.chain(rest).collect()))
        }
        _ => from.clone(),
    }
}
