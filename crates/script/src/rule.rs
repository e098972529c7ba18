//! Reads the expressions of `ensure`, and translates what JavaScript writes differently.

use std::ops::Range;

use loadtest_api::v1alpha1::{RESERVED_WORDS, is_identifier_char, quote_metric};

/// As in the evaluation of thresholds.
pub(crate) const MAX_LENGTH: usize = 4096;
const MAX_DEPTH: usize = 50;

/// Objects with metrics in Artillery's reports, and those that contain them.
const REPORT_OBJECTS: [&str; 9] = [
    "aggregate",
    "report",
    "stats",
    "metrics",
    "counters",
    "rates",
    "summaries",
    "histograms",
    "vars",
];

enum Failure {
    /// The expression cannot be evaluated.
    Unreadable(String),
    /// The expression may name a metric with unusual characters, which only the results show.
    Undecided,
}

type Result<T> = std::result::Result<T, Failure>;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Number,
    /// The literal 0.
    Zero,
    Condition,
    List,
}

/// The expression as thresholds are evaluated, in which what is specific to JavaScript is replaced:
/// `counters['http.codes.200']`, `===`, `||`, `&&`, `!` and `(x || 0)`. An error if it cannot be
/// evaluated, with the reason.
pub(crate) fn read(expression: &str) -> std::result::Result<String, String> {
    if expression.len() > MAX_LENGTH {
        return Err(format!("it is longer than {MAX_LENGTH} characters"));
    }
    let mut parser = Parser {
        text: expression,
        pos: 0,
        depth: 0,
        follows_name: false,
        edits: Vec::new(),
    };
    match parser.whole() {
        Ok(()) => Ok(parser.edited()),
        Err(Failure::Undecided) => Ok(expression.to_owned()),
        Err(Failure::Unreadable(reason)) => Err(reason),
    }
}

/// Follows the grammar of `loadtest_results::thresholds`.
struct Parser<'a> {
    text: &'a str,
    pos: usize,
    depth: usize,
    /// Whether the last token was the name of a metric without quotes.
    follows_name: bool,
    /// What to replace, in order.
    edits: Vec<(Range<usize>, String)>,
}

fn unreadable<T>(reason: impl Into<String>) -> Result<T> {
    Err(Failure::Unreadable(reason.into()))
}

fn numeric(kind: Kind) -> Result<Kind> {
    match kind {
        Kind::Condition => unreadable("a condition is used as a number"),
        Kind::List => unreadable("a list is used as a number"),
        _ => Ok(Kind::Number),
    }
}

fn condition(kind: Kind) -> Result<Kind> {
    if kind == Kind::Condition {
        Ok(kind)
    } else {
        unreadable("a number is used as a condition")
    }
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    fn edited(mut self) -> String {
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut edited = String::new();
        let mut from = 0;
        for (range, replacement) in self.edits {
            // Within a part that was removed.
            if range.start < from {
                continue;
            }
            edited.push_str(self.text.get(from..range.start).unwrap_or_default());
            edited.push_str(&replacement);
            from = range.end;
        }
        edited.push_str(self.text.get(from..).unwrap_or_default());
        edited
    }

    fn edit(&mut self, from: usize, replacement: impl Into<String>) {
        self.edits.push((from..self.pos, replacement.into()));
    }

    fn skip_space(&mut self) {
        self.pos = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, operators: &[&'static str]) -> Option<&'static str> {
        self.skip_space();
        let rest = self.rest();
        let found = operators.iter().find(|found| rest.starts_with(**found))?;
        self.pos += found.len();
        self.follows_name = false;
        Some(found)
    }

    fn eat_word(&mut self, word: &str) -> bool {
        self.skip_space();
        let rest = self.rest().strip_prefix(word);
        let found = rest.is_some_and(|rest| !rest.starts_with(is_identifier_char));
        if found {
            self.pos += word.len();
            self.follows_name = false;
        }
        found
    }

    fn take(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !is_identifier_char(c)).unwrap_or(rest.len());
        self.pos += end;
        rest.get(..end).unwrap_or_default()
    }

    /// The error at a character that does not continue the expression.
    fn unexpected<T>(&mut self) -> Result<T> {
        self.skip_space();
        match self.rest().chars().next() {
            None => unreadable("it is incomplete"),
            Some(c) if self.follows_name && !"=~?;&|[]{}\"'`".contains(c) => {
                Err(Failure::Undecided)
            }
            Some(c) => unreadable(format!("unexpected {c:?}")),
        }
    }

    fn whole(&mut self) -> Result<()> {
        let kind = self.any()?;
        self.skip_space();
        if !self.rest().is_empty() {
            return self.unexpected();
        }
        condition(kind).map(drop)
    }

    fn any(&mut self) -> Result<Kind> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return unreadable("it is nested too deeply");
        }
        let mut left = self.and()?;
        loop {
            if self.eat_word("or") {
                condition(left)?;
                left = self.and().and_then(condition)?;
            } else if let Some(operator) = self.eat(&["||", "??"]) {
                let start = self.pos - operator.len();
                let operator_end = self.pos;
                let right = self.and()?;
                if left == Kind::Number && right == Kind::Zero {
                    // The default of a metric that was not measured, which is 0 anyway.
                    let end = self.text.get(..start).map_or(start, |t| t.trim_end().len());
                    self.edit(end, "");
                } else {
                    condition(left)?;
                    left = condition(right)?;
                    self.edits.push((start..operator_end, " or ".into()));
                }
            } else {
                self.depth -= 1;
                return Ok(left);
            }
        }
    }

    fn and(&mut self) -> Result<Kind> {
        let mut left = self.is_in()?;
        loop {
            if !self.eat_word("and") {
                if self.eat(&["&&"]).is_none() {
                    return Ok(left);
                }
                self.edit(self.pos - 2, " and ");
            }
            condition(left)?;
            left = self.is_in().and_then(condition)?;
        }
    }

    fn is_in(&mut self) -> Result<Kind> {
        let mut left = self.equal()?;
        loop {
            let before = (self.pos, self.follows_name);
            self.eat_word("not");
            if !self.eat_word("in") {
                (self.pos, self.follows_name) = before;
                return Ok(left);
            }
            numeric(left)?;
            let right = self.equal()?;
            if right != Kind::List {
                numeric(right)?;
            }
            left = Kind::Condition;
        }
    }

    fn equal(&mut self) -> Result<Kind> {
        let mut left = self.compare()?;
        while let Some(operator) = self.eat(&["===", "!==", "==", "!="]) {
            if operator.len() == 3 {
                self.edit(self.pos - 1, "");
            }
            numeric(left)?;
            self.compare().and_then(numeric)?;
            left = Kind::Condition;
        }
        Ok(left)
    }

    fn compare(&mut self) -> Result<Kind> {
        let mut left = self.sum()?;
        while self.eat(&["<=", ">=", "<", ">"]).is_some() {
            numeric(left)?;
            self.sum().and_then(numeric)?;
            left = Kind::Condition;
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Kind> {
        let mut left = self.product()?;
        while self.eat(&["+", "-"]).is_some() {
            numeric(left)?;
            left = self.product().and_then(numeric)?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Kind> {
        let mut left = self.power()?;
        loop {
            self.skip_space();
            if self.rest().starts_with("**") || self.eat(&["*", "/", "%"]).is_none() {
                return Ok(left);
            }
            numeric(left)?;
            left = self.power().and_then(numeric)?;
        }
    }

    fn power(&mut self) -> Result<Kind> {
        let mut left = self.signed()?;
        while self.eat(&["^"]).is_some() {
            numeric(left)?;
            left = self.signed().and_then(numeric)?;
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Kind> {
        let (mut is_negated, mut is_negative) = (false, false);
        loop {
            self.skip_space();
            if !is_negative && self.eat_word("not") {
                is_negated = true;
            } else if !is_negative && self.rest().starts_with('!') && !self.rest().starts_with("!=")
            {
                self.pos += 1;
                self.edit(self.pos - 1, "not ");
                is_negated = true;
            } else if self.eat(&["-"]).is_some() {
                is_negative = true;
            } else {
                break;
            }
        }
        let kind = self.primary()?;
        if is_negated && is_negative {
            return numeric(kind).and_then(condition);
        }
        match (is_negated, is_negative) {
            (true, _) => condition(kind),
            (_, true) => numeric(kind),
            _ => Ok(kind),
        }
    }

    fn primary(&mut self) -> Result<Kind> {
        self.skip_space();
        match self.rest().chars().next() {
            None => unreadable("it is incomplete"),
            Some('(') => {
                self.eat(&["("]);
                let kinds = self.list()?;
                if let [only] = kinds.as_slice() {
                    return Ok(*only);
                }
                kinds
                    .into_iter()
                    .try_for_each(|kind| numeric(kind).map(drop))?;
                Ok(Kind::List)
            }
            Some('0'..='9') => self.number(),
            Some('.') if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.edits.push((self.pos..self.pos, "0".into()));
                self.number()
            }
            Some('\'') => {
                self.quoted()?;
                Ok(Kind::Number)
            }
            Some(c) if is_identifier_char(c) => self.name(),
            Some(_) => self.unexpected(),
        }
    }

    fn list(&mut self) -> Result<Vec<Kind>> {
        let mut kinds = vec![self.any()?];
        while self.eat(&[","]).is_some() {
            kinds.push(self.any()?);
        }
        if self.eat(&[")"]).is_some() {
            return Ok(kinds);
        }
        self.unexpected()
    }

    fn number(&mut self) -> Result<Kind> {
        let start = self.pos;
        let text = self.take();
        self.follows_name = false;
        let is_plain = text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
        let is_exponent = text
            .bytes()
            .all(|c| c.is_ascii_digit() || b".eE".contains(&c));
        match text.parse::<f64>() {
            Ok(number) if is_exponent && number.is_finite() && !text.ends_with('.') => {
                if !is_plain {
                    self.edit(start, number.to_string());
                }
                Ok(if number == 0.0 {
                    Kind::Zero
                } else {
                    Kind::Number
                })
            }
            _ => unreadable(format!("{text} is not a number")),
        }
    }

    fn name(&mut self) -> Result<Kind> {
        let start = self.pos;
        let name = self.take();
        if RESERVED_WORDS.contains(&name) {
            return unreadable(format!("unexpected {name}"));
        }
        let rest = self.rest();
        if rest.starts_with('[') && name.split('.').all(|part| REPORT_OBJECTS.contains(&part)) {
            let metric = self.subscripts()?;
            self.edit(start, quote_metric(&metric));
            return Ok(Kind::Number);
        }
        self.follows_name = true;
        if rest.trim_start().starts_with('(') {
            return self.function(name);
        }
        let is_ambiguous = rest
            .strip_prefix(['-', '/'])
            .is_some_and(|rest| rest.starts_with(|c: char| !c.is_ascii_digit() && c != ' '));
        if is_ambiguous {
            return Err(Failure::Undecided);
        }
        Ok(Kind::Number)
    }

    /// The name of the metric in `['http.response_time'].p95`.
    fn subscripts(&mut self) -> Result<String> {
        let mut names = Vec::new();
        loop {
            if self.rest().starts_with('[') {
                self.pos += 1;
                self.skip_space();
                if !self.rest().starts_with(['\'', '"']) {
                    return self.unexpected();
                }
                names.push(self.quoted()?);
                if self.eat(&["]"]).is_none() {
                    return self.unexpected();
                }
            } else if self.rest().starts_with('.') {
                names.push(self.take().trim_start_matches('.').to_owned());
            } else {
                return Ok(names.join("."));
            }
        }
    }

    fn function(&mut self, name: &str) -> Result<Kind> {
        let (one, many) = (
            ["abs", "ceil", "floor", "log", "round", "sqrt"],
            ["max", "min"],
        );
        if !one.contains(&name) && !many.contains(&name) {
            // The name of a metric can continue with a parenthesis.
            return Err(Failure::Undecided);
        }
        self.eat(&["("]);
        let kinds = self.list()?;
        if one.contains(&name) && kinds.len() != 1 {
            return unreadable(format!("{name}() takes one argument"));
        }
        kinds
            .into_iter()
            .try_for_each(|kind| numeric(kind).map(drop))?;
        Ok(Kind::Number)
    }

    /// A string in quotes, as JavaScript reads it.
    fn quoted(&mut self) -> Result<String> {
        self.follows_name = false;
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map(|(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if Some(c) == quote {
                self.pos += at + 1;
                return Ok(text);
            }
            if c == '\\' {
                text.extend(chars.next().map(|(_, escaped)| escaped));
            } else {
                text.push(c);
            }
        }
        unreadable("a closing quote is missing")
    }
}
