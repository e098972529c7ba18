//! Plain, quoted and block scalars.

use super::{
    Kind, MERGE_TAG, Node, Reader, Result, Value, is_eol, is_flow_indicator, is_non_printable,
    is_white, is_white_or_eol, resolve_plain,
};

impl Reader<'_> {
    fn finish_scalar(&mut self, at: usize, text: String) {
        self.kind = Some(Kind::Scalar);
        self.result = Node::new(at, Value::Text(text));
    }

    /// Appends a part of a scalar.
    fn capture(&self, text: &mut String, from: usize, to: usize, is_quoted: bool) -> Result<()> {
        let part = self.slice(from, to.max(from));
        if is_quoted {
            if part.bytes().any(|c| c < b' ' && c != b'\t') {
                return self.error("expected valid JSON character");
            }
        } else if part.chars().any(is_non_printable) {
            return self.error("the stream contains non-printable characters");
        }
        text.push_str(part);
        Ok(())
    }

    pub(super) fn plain(&mut self, indent: isize, in_flow: bool) -> Result<bool> {
        let c = self.byte();
        if c == 0
            || is_white_or_eol(c)
            || is_flow_indicator(c)
            || b"#&*!|>'\"%@`".contains(&c)
            || matches!(c, b'?' | b'-')
                && (is_white_or_eol(self.peek(1)) || in_flow && is_flow_indicator(self.peek(1)))
        {
            return Ok(false);
        }
        let at = self.pos;
        let mut text = String::new();
        let (mut start, mut end) = (at, at);
        // The line of the last break, if the scalar continues after it.
        let mut broken = None;
        while self.byte() != 0 {
            let c = self.byte();
            if c == b':' {
                let following = self.peek(1);
                if is_white_or_eol(following) || in_flow && is_flow_indicator(following) {
                    break;
                }
            } else if c == b'#' {
                let before = self.text.as_bytes().get(self.pos.wrapping_sub(1));
                if before.is_some_and(|c| is_white_or_eol(*c)) {
                    break;
                }
            } else if self.at_document_separator() || in_flow && is_flow_indicator(c) {
                break;
            } else if is_eol(c) {
                let before = (self.line, self.line_start, self.line_indent);
                self.separation(false)?;
                if self.line_indent >= indent {
                    broken = Some(before.0);
                    continue;
                }
                self.pos = end;
                (self.line, self.line_start, self.line_indent) = before;
                break;
            }
            if let Some(line) = broken.take() {
                self.capture(&mut text, start, end, false)?;
                fold(&mut text, self.line - line);
                start = self.pos;
                end = self.pos;
            }
            if !is_white(c) {
                end = self.pos + 1;
            }
            self.pos += 1;
        }
        self.capture(&mut text, start, end, false)?;
        if text.is_empty() {
            return Ok(false);
        }
        if self.tag.is_some() {
            self.finish_scalar(at, text);
            return Ok(true);
        }
        let tag = if text == "<<" { MERGE_TAG } else { "?" };
        self.tag = Some(tag.into());
        self.kind = Some(Kind::Scalar);
        self.result = Node::new(at, resolve_plain(&text).unwrap_or(Value::Text(text)));
        Ok(true)
    }

    /// Reads a scalar in single or double quotes.
    pub(super) fn quoted(&mut self) -> Result<bool> {
        let quote = self.byte();
        if !matches!(quote, b'\'' | b'"') {
            return Ok(false);
        }
        let at = self.pos;
        let mut text = String::new();
        self.pos += 1;
        let mut start = self.pos;
        while self.byte() != 0 {
            let c = self.byte();
            if c == quote {
                self.capture(&mut text, start, self.pos, true)?;
                self.pos += 1;
                if quote == b'"' || self.byte() != quote {
                    self.finish_scalar(at, text);
                    return Ok(true);
                }
                start = self.pos;
                self.pos += 1;
            } else if c == b'\\' && quote == b'"' {
                self.capture(&mut text, start, self.pos, true)?;
                self.pos += 1;
                if is_eol(self.byte()) {
                    self.separation(false)?;
                } else {
                    self.escape(&mut text)?;
                }
                start = self.pos;
            } else if is_eol(c) {
                self.capture(&mut text, start, self.pos, true)?;
                fold(&mut text, self.separation(false)?);
                start = self.pos;
            } else if self.at_document_separator() {
                return self.error("unexpected end of the document within a quoted scalar");
            } else {
                self.pos += 1;
            }
        }
        self.error("unexpected end of the stream within a quoted scalar")
    }

    /// Reads an escape sequence after its backslash.
    fn escape(&mut self, text: &mut String) -> Result<()> {
        let digits = match self.byte() {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            c => {
                text.push(match c {
                    b'0' => '\0',
                    b'a' => '\u{7}',
                    b'b' => '\u{8}',
                    b't' | b'\t' => '\t',
                    b'n' => '\n',
                    b'v' => '\u{b}',
                    b'f' => '\u{c}',
                    b'r' => '\r',
                    b'e' => '\u{1b}',
                    b' ' | b'"' | b'/' | b'\\' => c.into(),
                    b'N' => '\u{85}',
                    b'_' => '\u{a0}',
                    b'L' => '\u{2028}',
                    b'P' => '\u{2029}',
                    _ => return self.error("unknown escape sequence"),
                });
                self.pos += 1;
                return Ok(());
            }
        };
        let mut code = 0_u32;
        for _ in 0..digits {
            self.pos += 1;
            let Some(digit) = char::from(self.byte()).to_digit(16) else {
                return self.error("expected hexadecimal character");
            };
            code = code << 4 | digit;
        }
        self.pos += 1;
        // JSON writes characters beyond 16 bits as two surrogates. They are not needed here.
        text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        Ok(())
    }

    pub(super) fn block_scalar(&mut self, indent: isize) -> Result<bool> {
        let is_folded = match self.byte() {
            b'|' => false,
            b'>' => true,
            _ => return Ok(false),
        };
        let at = self.pos;
        let mut text = String::new();
        let mut chomping = None;
        let mut text_indent = indent;
        let mut has_indent = false;
        loop {
            self.pos += 1;
            match self.byte() {
                c @ (b'+' | b'-') if chomping.is_none() => chomping = Some(c),
                b'+' | b'-' => return self.error("repeat of a chomping mode identifier"),
                b'0' => return self.error("bad explicit indentation width of a block scalar"),
                c @ b'1'..=b'9' if !has_indent => {
                    text_indent = indent + isize::from(i8::try_from(c - b'0').unwrap_or(1)) - 1;
                    has_indent = true;
                }
                b'1'..=b'9' => return self.error("repeat of an indentation width identifier"),
                _ => break,
            }
        }
        if is_white(self.byte()) {
            self.skip_while(is_white);
            if self.byte() == b'#' {
                self.skip_while(|c| !is_eol(c));
            }
        }
        let mut has_content = false;
        let mut is_more_indented = false;
        let mut empty_lines = 0;
        while self.byte() != 0 {
            self.line_break()?;
            self.line_indent = 0;
            while (!has_indent || self.line_indent < text_indent) && self.byte() == b' ' {
                self.line_indent += 1;
                self.pos += 1;
            }
            if !has_indent {
                text_indent = text_indent.max(self.line_indent);
            }
            if is_eol(self.byte()) {
                empty_lines += 1;
                continue;
            }
            let pending = empty_lines + usize::from(has_content);
            if self.line_indent < text_indent {
                match chomping {
                    Some(b'+') => newlines(&mut text, pending),
                    None if has_content => text.push('\n'),
                    _ => {}
                }
                break;
            }
            if !is_folded {
                newlines(&mut text, pending);
            } else if is_white(self.byte()) {
                is_more_indented = true;
                newlines(&mut text, pending);
            } else if is_more_indented {
                is_more_indented = false;
                newlines(&mut text, empty_lines + 1);
            } else if empty_lines > 0 {
                newlines(&mut text, empty_lines);
            } else if has_content {
                text.push(' ');
            }
            has_content = true;
            has_indent = true;
            empty_lines = 0;
            let start = self.pos;
            self.skip_while(|c| !is_eol(c));
            self.capture(&mut text, start, self.pos, false)?;
        }
        self.finish_scalar(at, text);
        Ok(true)
    }
}

fn newlines(text: &mut String, count: usize) {
    text.extend(std::iter::repeat_n('\n', count));
}

fn fold(text: &mut String, breaks: usize) {
    if breaks == 1 {
        text.push(' ');
    } else {
        newlines(text, breaks.saturating_sub(1));
    }
}
