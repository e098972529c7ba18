//! Directives, tags, anchors and aliases.

use super::{
    Anchor, Property, ReadError, Reader, Result, is_eol, is_flow_indicator, is_white,
    is_white_or_eol,
};

const MAX_TAG_PREFIX: usize = 256;

impl Reader<'_> {
    /// Reads the directives of a document. Returns whether there are any.
    pub(super) fn directives(&mut self) -> Result<bool> {
        let mut has_version = false;
        let mut found = false;
        while self.byte() != 0 {
            self.separation(true)?;
            if self.line_indent > 0 || self.byte() != b'%' {
                break;
            }
            found = true;
            self.pos += 1;
            let name = self.word().to_owned();
            if name.is_empty() {
                return self.error("directive name must not be less than one character in length");
            }
            let mut arguments = Vec::new();
            loop {
                self.skip_while(is_white);
                if self.byte() == b'#' {
                    self.skip_while(|c| !is_eol(c));
                }
                if self.byte() == 0 || is_eol(self.byte()) {
                    break;
                }
                arguments.push(self.word().to_owned());
            }
            if self.byte() != 0 {
                self.line_break()?;
            }
            match (name.as_str(), arguments.as_slice()) {
                ("YAML", [version]) => {
                    let is_supported = version.split_once('.').is_some_and(|(major, minor)| {
                        major.parse() == Ok(1)
                            && !minor.is_empty()
                            && minor.bytes().all(|c| c.is_ascii_digit())
                    });
                    if has_version || !is_supported {
                        return self.error("unacceptable YAML version of the document");
                    }
                    has_version = true;
                }
                ("TAG", [handle, prefix]) => {
                    self.tag_prefixes.insert(handle.clone(), prefix.clone());
                }
                ("YAML" | "TAG", _) => {
                    return self.error(format!("ill-formed %{name} directive"));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Reads up to the next white space.
    fn word(&mut self) -> &str {
        let start = self.pos;
        self.skip_while(|c| !is_white_or_eol(c));
        self.slice(start, self.pos)
    }

    pub(super) fn tag_property(&mut self) -> Result<bool> {
        if self.byte() != b'!' {
            return Ok(false);
        }
        if self.tag.is_some() {
            return self.error("duplication of a tag property");
        }
        self.pos += 1;
        if self.byte() == b'<' {
            let start = self.pos + 1;
            self.skip_while(|c| c != b'>');
            if self.byte() == 0 {
                return self.error("unexpected end of the stream within a verbatim tag");
            }
            self.tag = Some(self.slice(start, self.pos).to_owned().into());
            self.pos += 1;
            return Ok(true);
        }
        let name = self.word().to_owned();
        let (handle, suffix) = name.rsplit_once('!').map_or_else(
            || ("!".to_owned(), name.as_str()),
            |(handle, suffix)| (format!("!{handle}!"), suffix),
        );
        if suffix.bytes().any(is_flow_indicator) {
            return self.error("tag suffix cannot contain flow indicator characters");
        }
        let prefix = match (self.tag_prefixes.get(&handle), handle.as_str()) {
            (Some(prefix), _) => prefix.as_str(),
            (None, "!") => "!",
            (None, "!!") => "tag:yaml.org,2002:",
            (None, _) => return self.error(format!("undeclared tag handle {handle:?}")),
        };
        // A directive can give many short tags a long prefix.
        if prefix.len() > MAX_TAG_PREFIX {
            return Err(ReadError::Unsupported("a tag is too long"));
        }
        self.tag = Some(format!("{prefix}{suffix}").into());
        Ok(true)
    }

    /// The name of an anchor or alias, after its `&` or `*`.
    fn reference(&mut self, what: &str) -> Result<String> {
        self.pos += 1;
        let start = self.pos;
        self.skip_while(|c| !is_white_or_eol(c) && !is_flow_indicator(c));
        if self.pos == start {
            return self.error(format!(
                "name of an {what} node must contain at least one character"
            ));
        }
        Ok(self.slice(start, self.pos).to_owned())
    }

    pub(super) fn anchor_property(&mut self) -> Result<bool> {
        if self.byte() != b'&' {
            return Ok(false);
        }
        if self.anchor.is_some() {
            return self.error("duplication of an anchor property");
        }
        let at = self.pos;
        let name = self.reference("anchor")?;
        self.definitions.push(Anchor {
            node: None,
            at,
            is_used: false,
        });
        let definition = self.definitions.len() - 1;
        self.anchor = Some(Property { name, definition });
        Ok(true)
    }

    pub(super) fn alias(&mut self) -> Result<bool> {
        if self.byte() != b'*' {
            return Ok(false);
        }
        let name = self.reference("alias")?;
        let definition = self.anchors.get(&name);
        let Some(definition) = definition.and_then(|n| self.definitions.get_mut(*n)) else {
            return self.error(format!("unidentified alias {name:?}"));
        };
        definition.is_used = true;
        let Some(node) = &definition.node else {
            return Err(ReadError::Unsupported("an anchor contains itself"));
        };
        self.result = node.clone();
        self.separation(true)?;
        Ok(true)
    }
}
