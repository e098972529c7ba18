//! Lists and maps.

use std::rc::Rc;

use super::{Context, MapBuilder, Node, Reader, Result, Value, is_white, is_white_or_eol};

/// A key of a mapping that awaits its value.
struct Key {
    node: Rc<Node>,
    is_merge: bool,
    at: usize,
}

impl Reader<'_> {
    pub(super) fn flow_collection(&mut self, indent: isize) -> Result<bool> {
        let (terminator, is_mapping) = match self.byte() {
            b'[' => (b']', false),
            b'{' => (b'}', true),
            _ => return Ok(false),
        };
        let (tag, anchor, start) = (self.tag.take(), self.anchor.take(), self.pos);
        self.begin(anchor.as_ref());
        let mut map = MapBuilder::default();
        let mut list = Vec::new();
        let mut reads_next = true;
        self.pos += 1;
        while self.byte() != 0 {
            self.separation(true)?;
            if self.byte() == terminator {
                self.pos += 1;
                let value = if is_mapping {
                    Value::Map(map.build())
                } else {
                    Value::List(list)
                };
                self.end(tag, anchor, start, value)?;
                return Ok(true);
            }
            if !reads_next {
                return self.error("missed comma between flow collection entries");
            }
            let is_explicit = self.byte() == b'?' && is_white_or_eol(self.peek(1));
            if is_explicit {
                self.pos += 1;
                self.separation(true)?;
            }
            let (line, at) = (self.line, self.pos);
            self.compose(indent, Context::FlowIn, false, true)?;
            let key = Key {
                node: self.result.clone(),
                is_merge: self.is_merge_key(),
                at,
            };
            self.separation(true)?;
            let has_value = (is_explicit || self.line == line) && self.byte() == b':';
            if has_value {
                self.pos += 1;
                self.separation(true)?;
                self.compose(indent, Context::FlowIn, false, true)?;
            }
            let value = if has_value {
                self.result.clone()
            } else {
                self.null.clone()
            };
            if is_mapping {
                self.store_pair(&mut map, &key, value)?;
            } else if is_explicit || has_value {
                let mut pair = MapBuilder::default();
                self.store_pair(&mut pair, &key, value)?;
                list.push(Self::collection(at, Value::Map(pair.build()))?);
            } else {
                list.push(key.node);
            }
            self.separation(true)?;
            reads_next = self.byte() == b',';
            if reads_next {
                self.pos += 1;
            }
        }
        self.error("unexpected end of the stream within a flow collection")
    }

    pub(super) fn block_sequence(&mut self, indent: isize) -> Result<bool> {
        if self.byte() != b'-' || !is_white_or_eol(self.peek(1)) {
            return Ok(false);
        }
        let (tag, anchor, start) = (self.tag.take(), self.anchor.take(), self.pos);
        self.begin(anchor.as_ref());
        let mut list = Vec::new();
        while self.byte() == b'-' && is_white_or_eol(self.peek(1)) {
            let at = self.pos;
            self.pos += 1;
            if self.separation(true)? > 0 && self.line_indent <= indent {
                self.count_value()?;
                list.push(Node::null(at));
                continue;
            }
            let line = self.line;
            self.compose(indent, Context::BlockIn, false, true)?;
            list.push(self.result.clone());
            self.separation(true)?;
            if (self.line == line || self.line_indent > indent) && self.byte() != 0 {
                return self.error("bad indentation of a sequence entry");
            }
            if self.line_indent < indent {
                break;
            }
        }
        self.end(tag, anchor, start, Value::List(list))?;
        Ok(true)
    }

    pub(super) fn block_mapping(&mut self, indent: isize, flow_indent: isize) -> Result<bool> {
        let (tag, anchor, start) = (self.tag.clone(), self.anchor.clone(), self.pos);
        self.begin(anchor.as_ref());
        let mut map = MapBuilder::default();
        // The key after `?`, whose value is not read yet.
        let mut explicit: Option<Key> = None;
        let mut detected = false;
        while self.byte() != 0 {
            let (c, line, at) = (self.byte(), self.line, self.pos);
            // None for `?`, which a key follows instead of a value.
            let mut key = None;
            let mut allows_compact = true;
            if matches!(c, b'?' | b':') && is_white_or_eol(self.peek(1)) {
                let earlier = explicit.take();
                if c == b'?' {
                    if let Some(earlier) = earlier {
                        self.store_pair(&mut map, &earlier, Node::null(earlier.at))?;
                    }
                    detected = true;
                } else if earlier.is_some() {
                    key = earlier;
                } else {
                    return self.error("incomplete explicit mapping pair; a key node is missed");
                }
                self.pos += 1;
            } else if self.compose(flow_indent, Context::FlowOut, false, true)? {
                let is_one_line = self.line == line;
                if is_one_line {
                    self.skip_while(is_white);
                }
                if !is_one_line || self.byte() != b':' {
                    if detected {
                        return self.error(if is_one_line {
                            "can not read an implicit mapping pair; a colon is missed"
                        } else {
                            "can not read a block mapping entry; a multiline key may not be an \
                             implicit key"
                        });
                    }
                    // js-yaml returns the scalar here, but anchors an empty map.
                    if let Some(anchor) = &anchor {
                        self.define(anchor, Node::new(start, Value::Map(Vec::new())));
                    }
                    self.tag = tag;
                    self.anchor = anchor;
                    return Ok(true);
                }
                self.pos += 1;
                if !is_white_or_eol(self.byte()) {
                    return self.error("white space is missing after the colon of a mapping entry");
                }
                key = Some(Key {
                    node: self.result.clone(),
                    is_merge: self.is_merge_key(),
                    at,
                });
                if let Some(earlier) = explicit.take() {
                    self.store_pair(&mut map, &earlier, Node::null(earlier.at))?;
                }
                detected = true;
                allows_compact = false;
            } else {
                break;
            }
            if self.line == line || self.line_indent > indent {
                self.compose(indent, Context::BlockOut, true, allows_compact)?;
                let value = self.result.clone();
                match key {
                    Some(key) => self.store_pair(&mut map, &key, value)?,
                    None => {
                        explicit = Some(Key {
                            node: value,
                            is_merge: false,
                            at,
                        });
                    }
                }
                self.separation(true)?;
            }
            if self.line_indent > indent && self.byte() != 0 {
                return self.error("bad indentation of a mapping entry");
            }
            if self.line_indent < indent {
                break;
            }
        }
        if let Some(earlier) = explicit {
            self.store_pair(&mut map, &earlier, Node::null(earlier.at))?;
        }
        if detected {
            self.end(tag, anchor, start, Value::Map(map.build()))?;
        }
        Ok(detected)
    }

    fn store_pair(&mut self, map: &mut MapBuilder, key: &Key, value: Rc<Node>) -> Result<()> {
        if key.is_merge {
            self.merge(map, &value)
        } else {
            self.store(map, &key.node, value, key.at)
        }
    }
}
