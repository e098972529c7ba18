//! A reader of YAML and JSON that accepts what js-yaml accepts. It follows the structure of js-yaml,
//! so that both can be compared, and takes time linear in the length of the text.
//!
//! Source: js-yaml 3.15.1, `lib/js-yaml/loader.js` and `lib/js-yaml/type`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use super::map::MapBuilder;
use super::scalar::{is_non_printable, resolve_plain};
use super::{Document, MAX_SIZE, Node, TOO_LARGE, VALUE_SIZE, Value};

mod collections;
mod properties;
mod scalars;

/// Why a text was not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// Artillery does not accept the text. The number is a byte offset.
    Syntax(String, usize),
    /// Artillery may accept the text.
    Unsupported(&'static str),
}

/// The tag of a node. That of plain scalars is `?`, or that of merge keys.
type Tag = Cow<'static, str>;

pub(super) type Result<T> = std::result::Result<T, ReadError>;

/// js-yaml limits the depth only by the stack. Scripts need less than 20.
const MAX_DEPTH: usize = 128;
const TOO_DEEP: &str = "it is nested too deeply";
const MERGE_TAG: &str = "tag:yaml.org,2002:merge";
const MAX_MERGED_KEYS: usize = 10_000;
/// Bounds the memory of a script: a value takes up to 200 bytes, however short its text is.
const MAX_VALUES: usize = 100_000;

#[derive(Clone, Copy, PartialEq)]
enum Context {
    FlowIn,
    FlowOut,
    BlockIn,
    BlockOut,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Scalar,
    Collection,
}

/// An anchor that the text defines.
struct Anchor {
    /// None while the anchored value is being read.
    node: Option<Rc<Node>>,
    at: usize,
    is_used: bool,
}

/// The place of an anchor property, and the number of its definition.
#[derive(Clone)]
struct Property {
    name: String,
    definition: usize,
}

/// The counterpart of js-yaml's `State`. Indentations are signed, because a document starts with -1.
struct Reader<'a> {
    text: &'a str,
    pos: usize,
    line: usize,
    line_start: usize,
    line_indent: isize,
    tag: Option<Tag>,
    anchor: Option<Property>,
    kind: Option<Kind>,
    result: Rc<Node>,
    null: Rc<Node>,
    tag_prefixes: HashMap<String, String>,
    anchors: HashMap<String, usize>,
    definitions: Vec<Anchor>,
    merged_keys: usize,
    /// The bytes of keys and merged values. Aliases can repeat long ones in a short text.
    repeated: usize,
    values: usize,
    depth: usize,
}

/// Reads a text without byte order mark that ends with a line break.
pub(super) fn read(text: &str) -> Result<Document> {
    if let Some(at) = text.find('\0') {
        return Err(ReadError::Syntax(
            "null byte is not allowed in input".into(),
            at,
        ));
    }
    let mut reader = Reader {
        text,
        pos: 0,
        line: 0,
        line_start: 0,
        line_indent: 0,
        tag: None,
        anchor: None,
        kind: None,
        result: Node::null(0),
        null: Node::null(0),
        tag_prefixes: HashMap::new(),
        anchors: HashMap::new(),
        definitions: Vec::new(),
        merged_keys: 0,
        repeated: 0,
        values: 0,
        depth: 0,
    };
    while reader.byte() == b' ' {
        reader.line_indent += 1;
        reader.pos += 1;
    }
    let mut root = None;
    while reader.pos + 1 < text.len() {
        let start = reader.pos;
        let document = reader.document()?;
        if root.replace(document).is_some() {
            let message = "expected a single document in the stream, but found more";
            return Err(ReadError::Syntax(message.into(), start));
        }
    }
    let used = reader.definitions.iter().filter(|anchor| anchor.is_used);
    let mut used_anchors: Vec<_> = used.map(|anchor| anchor.at).collect();
    used_anchors.sort_unstable();
    Ok(Document {
        root: root.unwrap_or_else(|| Node::null(0)),
        used_anchors,
    })
}

fn is_eol(c: u8) -> bool {
    matches!(c, b'\n' | b'\r')
}

fn is_white(c: u8) -> bool {
    matches!(c, b' ' | b'\t')
}

fn is_white_or_eol(c: u8) -> bool {
    is_white(c) || is_eol(c)
}

fn is_flow_indicator(c: u8) -> bool {
    matches!(c, b',' | b'[' | b']' | b'{' | b'}')
}

impl Reader<'_> {
    /// The byte at the position plus `ahead`; 0 at the end.
    fn peek(&self, ahead: usize) -> u8 {
        crate::count_work(1);
        self.text
            .as_bytes()
            .get(self.pos + ahead)
            .copied()
            .unwrap_or(0)
    }

    fn byte(&self) -> u8 {
        self.peek(0)
    }

    fn slice(&self, from: usize, to: usize) -> &str {
        self.text.get(from..to).unwrap_or_default()
    }

    fn column(&self) -> isize {
        isize::try_from(self.pos - self.line_start).unwrap_or(isize::MAX)
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(ReadError::Syntax(message.into(), self.pos))
    }

    fn skip_while(&mut self, skip: impl Fn(u8) -> bool) {
        while self.byte() != 0 && skip(self.byte()) {
            self.pos += 1;
        }
    }

    fn line_break(&mut self) -> Result<()> {
        match self.byte() {
            b'\r' if self.peek(1) == b'\n' => self.pos += 2,
            b'\r' | b'\n' => self.pos += 1,
            _ => return self.error("a line break is expected"),
        }
        self.line += 1;
        self.line_start = self.pos;
        Ok(())
    }

    /// Skips white space, line breaks and comments. Returns the number of line breaks.
    fn separation(&mut self, allows_comments: bool) -> Result<usize> {
        let mut breaks = 0;
        loop {
            self.skip_while(is_white);
            if allows_comments && self.byte() == b'#' {
                self.skip_while(|c| !is_eol(c));
            }
            if !is_eol(self.byte()) {
                return Ok(breaks);
            }
            self.line_break()?;
            breaks += 1;
            self.line_indent = 0;
            while self.byte() == b' ' {
                self.line_indent += 1;
                self.pos += 1;
            }
        }
    }

    fn at_document_separator(&self) -> bool {
        let c = self.byte();
        self.pos == self.line_start
            && matches!(c, b'-' | b'.')
            && c == self.peek(1)
            && c == self.peek(2)
            && (self.peek(3) == 0 || is_white_or_eol(self.peek(3)))
    }

    fn document(&mut self) -> Result<Rc<Node>> {
        self.tag_prefixes.clear();
        self.anchors.clear();
        let has_directives = self.directives()?;
        self.separation(true)?;
        if self.line_indent == 0
            && self
                .text
                .get(self.pos..)
                .is_some_and(|t| t.starts_with("---"))
        {
            self.pos += 3;
            self.separation(true)?;
        } else if has_directives {
            return self.error("directives end mark is expected");
        }
        self.compose(self.line_indent - 1, Context::BlockOut, false, true)?;
        self.separation(true)?;
        let document = self.result.clone();
        if self.at_document_separator() {
            if self.byte() == b'.' {
                self.pos += 3;
                self.separation(true)?;
            }
        } else if self.pos + 1 < self.text.len() {
            return self.error("end of the stream or a document separator is expected");
        }
        Ok(document)
    }

    /// Reads a node into `result`. Returns whether there was one.
    fn compose(
        &mut self,
        parent_indent: isize,
        context: Context,
        seeks: bool,
        allows_compact: bool,
    ) -> Result<bool> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ReadError::Unsupported(TOO_DEEP));
        }
        self.count_value()?;
        let found = self.compose_node(parent_indent, context, seeks, allows_compact)?;
        self.depth -= 1;
        if !found {
            self.result = Node::null(self.pos);
        }
        Ok(found)
    }

    fn compose_node(
        &mut self,
        parent_indent: isize,
        context: Context,
        seeks: bool,
        allows_compact: bool,
    ) -> Result<bool> {
        self.tag = None;
        self.anchor = None;
        self.kind = None;
        self.result = self.null.clone();
        let is_block = matches!(context, Context::BlockIn | Context::BlockOut);
        let mut allows_collections = is_block;
        let mut indentation = std::cmp::Ordering::Greater;
        let mut at_new_line = false;
        if seeks && self.separation(true)? > 0 {
            at_new_line = true;
            indentation = self.line_indent.cmp(&parent_indent);
        }
        if indentation.is_gt() {
            while self.tag_property()? || self.anchor_property()? {
                if self.separation(true)? > 0 {
                    at_new_line = true;
                    allows_collections = is_block;
                    indentation = self.line_indent.cmp(&parent_indent);
                } else {
                    allows_collections = false;
                }
            }
        }
        allows_collections &= at_new_line || allows_compact;
        let mut found = false;
        let block_indent = self.column();
        if indentation.is_gt() {
            let flow_indent = if is_block {
                parent_indent + 1
            } else {
                parent_indent
            };
            found = allows_collections
                && (self.block_sequence(block_indent)?
                    || self.block_mapping(block_indent, flow_indent)?)
                || self.flow_collection(flow_indent)?;
            if !found {
                found = self.scalar(context, is_block, flow_indent)?;
                if let Some(anchor) = self.anchor.clone() {
                    self.define(&anchor, self.result.clone());
                }
            }
        } else if indentation.is_eq() && context == Context::BlockOut {
            found = allows_collections && self.block_sequence(block_indent)?;
        }
        self.resolve()?;
        Ok(self.tag.is_some() || self.anchor.is_some() || found)
    }

    fn scalar(&mut self, context: Context, is_block: bool, flow_indent: isize) -> Result<bool> {
        if is_block && self.block_scalar(flow_indent)? || self.quoted()? {
            return Ok(true);
        }
        if self.alias()? {
            if self.tag.is_some() || self.anchor.is_some() {
                return self.error("alias node should not have any properties");
            }
            return Ok(true);
        }
        self.plain(flow_indent, context == Context::FlowIn)
    }

    /// Gives a scalar the type of its tag. Tags that are not known are ignored.
    fn resolve(&mut self) -> Result<()> {
        let (Some(tag), Value::Text(text)) = (&self.tag, &self.result.value) else {
            return Ok(());
        };
        let is_resolved = self.kind == Some(Kind::Scalar)
            && ["null", "bool", "int", "float"]
                .iter()
                .any(|kind| tag.strip_prefix("tag:yaml.org,2002:") == Some(*kind));
        if !is_resolved {
            return Ok(());
        }
        let Some(value) = resolve_plain(text) else {
            return self.error(format!("cannot resolve a node with !<{tag}> explicit tag"));
        };
        self.result = Node::new(self.result.at, value);
        if let Some(anchor) = self.anchor.clone() {
            self.define(&anchor, self.result.clone());
        }
        Ok(())
    }

    /// Adds the pairs of a merge key's value to a mapping.
    fn merge(&mut self, map: &mut MapBuilder, value: &Rc<Node>) -> Result<()> {
        let sources = match &value.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        for source in sources {
            self.count_repeated(VALUE_SIZE)?;
            match &source.value {
                Value::Map(source) => {
                    self.merged_keys += source.len();
                    if self.merged_keys > MAX_MERGED_KEYS {
                        return self.error("merge keys exceeded maxTotalMergeKeys (10000)");
                    }
                    for entry in source {
                        self.count_repeated(entry.key.len())?;
                        map.merge(entry);
                    }
                }
                Value::List(_) => {
                    return Err(ReadError::Unsupported("a merge key has nested lists"));
                }
                _ => {
                    return self.error(
                        "cannot merge mappings; the provided source object is unacceptable",
                    );
                }
            }
        }
        Ok(())
    }

    /// Stores a pair of a mapping. `at` is the offset of its key.
    fn store(
        &mut self,
        map: &mut MapBuilder,
        key: &Node,
        value: Rc<Node>,
        at: usize,
    ) -> Result<()> {
        // The items of a list are written, which takes longer than a copy.
        self.count_repeated(key.size + key.items().len() * 32)?;
        let Some(name) = key.as_key() else {
            let message = "nested arrays are not supported inside keys";
            return Err(ReadError::Syntax(message.into(), at));
        };
        if map.insert(&name, value, at) {
            Ok(())
        } else {
            let name = crate::shorten(&name);
            Err(ReadError::Syntax(format!("duplicate key `{name}`"), at))
        }
    }

    fn count_value(&mut self) -> Result<()> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(ReadError::Unsupported("it has too many values"));
        }
        Ok(())
    }

    fn count_repeated(&mut self, bytes: usize) -> Result<()> {
        self.repeated = self.repeated.saturating_add(bytes);
        if self.repeated > MAX_SIZE {
            return Err(ReadError::Unsupported(TOO_LARGE));
        }
        crate::count_work(bytes);
        Ok(())
    }

    /// A list or map. Its depth is limited, so that code can recurse through a script.
    fn collection(at: usize, value: Value) -> Result<Rc<Node>> {
        let node = Node::new(at, value);
        if node.depth > MAX_DEPTH {
            return Err(ReadError::Unsupported(TOO_DEEP));
        }
        Ok(node)
    }

    fn begin(&mut self, anchor: Option<&Property>) {
        let definition = anchor.and_then(|anchor| self.definitions.get_mut(anchor.definition));
        if let (Some(anchor), Some(definition)) = (anchor, definition) {
            definition.node = None;
            self.anchors.insert(anchor.name.clone(), anchor.definition);
        }
    }

    fn define(&mut self, anchor: &Property, node: Rc<Node>) {
        if let Some(definition) = self.definitions.get_mut(anchor.definition) {
            definition.node = Some(node);
            self.anchors.insert(anchor.name.clone(), anchor.definition);
        }
    }

    /// Ends a collection whose properties were `tag` and `anchor`.
    fn end(
        &mut self,
        tag: Option<Tag>,
        anchor: Option<Property>,
        at: usize,
        value: Value,
    ) -> Result<()> {
        self.result = Self::collection(at, value)?;
        if let Some(anchor) = &anchor {
            self.define(anchor, self.result.clone());
        }
        self.tag = tag;
        self.anchor = anchor;
        self.kind = Some(Kind::Collection);
        Ok(())
    }

    fn is_merge_key(&self) -> bool {
        self.tag.as_deref() == Some(MERGE_TAG)
    }
}
