//! Evaluates the expressions of Artillery's `ensure`.

use loadtest_api::v1alpha1::{RESERVED_WORDS, is_identifier_char};

use super::metrics::Metrics;
use super::names::{is_known, misspelling};
use super::syntax::{incomplete, not_a_number, unexpected};
use crate::Sketch;

/// In bytes. Together with the depth it limits the cost of an expression.
const MAX_LENGTH: usize = 4096;
const MAX_DEPTH: usize = 50;
/// Artillery's names are not longer.
const MAX_NAME_LENGTH: usize = 1024;
/// Bounds the time of an evaluation, and the length of the message about it.
const MAX_METRICS: usize = 50;
const TO_SUBTRACT: &str = "to subtract or divide, put spaces around - and /";
const FUNCTIONS: &str = "the functions are abs, ceil, floor, log, max, min, round and sqrt";

/// A value in an expression. Artillery only has numbers, where 1 is true. Here a condition used as a
/// number, or a number used as a condition, is an error, because it is usually a mistake: `not a > 1`
/// means `(not a) > 1`.
enum Value {
    Number(f64),
    Bool(bool),
    List(Vec<f64>),
}

/// Whether an expression is true, or why it cannot be evaluated. Adds the metrics that it names to
/// `values`.
///
/// The language is that of filtrex 2 (`src/generateParser.js`), with the same precedences: numbers,
/// metrics, `+ - * / % ^`, `< <= > >= == !=`, `and`, `or`, `not`, `in (..)`, `not in (..)` and the
/// numeric functions except `random`. Strings, `? :`, `of` and `~=` have no use for metrics and are
/// errors. Unlike there, `and(` is `and (`.
pub(super) fn evaluate(
    expression: &str,
    metrics: &Metrics,
    values: &mut Vec<(String, f64)>,
) -> Result<bool, String> {
    if expression.len() > MAX_LENGTH {
        return Err(format!(
            "the expression is longer than {MAX_LENGTH} characters"
        ));
    }
    let mut parser = Parser {
        whole: expression,
        rest: expression,
        metrics,
        values,
        depth: 0,
    };
    let value = parser.any()?;
    parser.skip_space();
    if !parser.rest.is_empty() {
        return Err(parser.unexpected());
    }
    match (&value, values.first()) {
        (Value::Number(_), Some((name, _))) => Err(format!(
            "a number is used as a condition; compare the metric with a value, such as {name} > 0"
        )),
        _ => value.bool(),
    }
}

/// Whether an expression can be evaluated, whatever the workers measure, or why not.
pub(super) fn validate(expression: &str) -> Result<(), String> {
    let mut values = Vec::new();
    evaluate(expression, &Metrics::unmeasured(), &mut values)?;
    if values.is_empty() {
        return Err(
            "the expression names no metric; write a comparison such as http.response_time.p95 < 200"
                .into(),
        );
    }
    Ok(())
}

impl Value {
    fn number(&self) -> Result<f64, String> {
        match self {
            Self::Number(n) if n.is_finite() => Ok(*n),
            Self::Number(_) => Err("division by zero or a number that is not finite".into()),
            Self::Bool(_) => {
                Err("a condition is used as a number; combine comparisons with and, or".into())
            }
            Self::List(_) => Err("a list is used as a number".into()),
        }
    }

    fn bool(&self) -> Result<bool, String> {
        match self {
            Self::Bool(value) => Ok(*value),
            _ => Err("a number is used as a condition; use a comparison".into()),
        }
    }
}

/// Evaluates while parsing. Each level of precedence is a function, the lowest first.
struct Parser<'a> {
    whole: &'a str,
    rest: &'a str,
    metrics: &'a Metrics<'a>,
    values: &'a mut Vec<(String, f64)>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("the expression is nested too deeply".into());
        }
        let mut left = self.and()?;
        while self.eat_word("or") {
            let right = self.and()?;
            left = Value::Bool(left.bool()? | right.bool()?);
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Value, String> {
        let mut left = self.is_in()?;
        while self.eat_word("and") {
            let right = self.is_in()?;
            left = Value::Bool(left.bool()? & right.bool()?);
        }
        Ok(left)
    }

    // JavaScript compares floats exactly.
    #[allow(clippy::float_cmp)]
    fn is_in(&mut self) -> Result<Value, String> {
        let mut left = self.equal()?;
        loop {
            let before = self.rest;
            let negated = self.eat_word("not");
            if !self.eat_word("in") {
                self.rest = before;
                return Ok(left);
            }
            let number = left.number()?;
            let found = match self.equal()? {
                Value::List(list) => list.contains(&number),
                value => value.number()? == number,
            };
            left = Value::Bool(found != negated);
        }
    }

    #[allow(clippy::float_cmp)]
    fn equal(&mut self) -> Result<Value, String> {
        let mut left = self.compare()?;
        while let Some(operator) = self.eat(&["==", "!="]) {
            let (a, b) = (left.number()?, self.compare()?.number()?);
            left = Value::Bool((a == b) == (operator == "=="));
        }
        Ok(left)
    }

    fn compare(&mut self) -> Result<Value, String> {
        let mut left = self.sum()?;
        while let Some(operator) = self.eat(&["<=", ">=", "<", ">"]) {
            let (a, b) = (left.number()?, self.sum()?.number()?);
            left = Value::Bool(match operator {
                "<=" => a <= b,
                ">=" => a >= b,
                "<" => a < b,
                _ => a > b,
            });
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Value, String> {
        let mut left = self.product()?;
        while let Some(operator) = self.eat(&["+", "-"]) {
            let (a, b) = (left.number()?, self.product()?.number()?);
            left = self.computed(if operator == "+" { a + b } else { a - b });
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Value, String> {
        let mut left = self.power()?;
        while let Some(operator) = self.eat(&["*", "/", "%"]) {
            let (a, b) = (left.number()?, self.power()?.number()?);
            left = self.computed(match operator {
                "*" => a * b,
                "/" => a / b,
                _ => a % b,
            });
        }
        Ok(left)
    }

    fn power(&mut self) -> Result<Value, String> {
        let mut left = self.signed()?;
        while self.eat(&["^"]).is_some() {
            let power = left.number()?.powf(self.signed()?.number()?);
            left = self.computed(power);
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Value, String> {
        let mut minus = 0;
        let mut not = 0;
        loop {
            if minus == 0 && self.eat_word("not") {
                not += 1;
            } else if self.eat(&["-"]).is_some() {
                minus += 1;
            } else {
                break;
            }
        }
        let mut value = self.primary()?;
        if minus > 0 {
            value = Value::Number(if minus % 2 == 1 {
                -value.number()?
            } else {
                value.number()?
            });
        }
        if not > 0 {
            value = Value::Bool(value.bool()? == (not % 2 == 0));
        }
        Ok(value)
    }

    fn primary(&mut self) -> Result<Value, String> {
        self.skip_space();
        let Some(first) = self.rest.chars().next() else {
            return Err(incomplete(self.consumed()));
        };
        match first {
            '(' => {
                self.eat(&["("]);
                let mut values = self.list()?;
                match values.pop() {
                    Some(only) if values.is_empty() => Ok(only),
                    last => values
                        .iter()
                        .chain(&last)
                        .map(Value::number)
                        .collect::<Result<_, _>>()
                        .map(Value::List),
                }
            }
            '0'..='9' => self.number(),
            '\'' => {
                let name = self.quoted()?;
                self.metric(&name, true)
            }
            _ => self.name(),
        }
    }

    /// The rest of a list after its opening parenthesis: `a, b, c)`.
    fn list(&mut self) -> Result<Vec<Value>, String> {
        let mut list = vec![self.any()?];
        while self.eat(&[","]).is_some() {
            list.push(self.any()?);
        }
        self.eat(&[")"])
            .map(|_| list)
            .ok_or_else(|| "missing closing parenthesis".into())
    }

    fn number(&mut self) -> Result<Value, String> {
        let text = self.take(is_identifier_char);
        let is_number =
            text.bytes().all(|c| c.is_ascii_digit() || c == b'.') && !text.ends_with('.');
        let number = text
            .parse()
            .ok()
            .filter(|_| is_number)
            .ok_or_else(|| not_a_number(text))?;
        Ok(Value::Number(number))
    }

    fn name(&mut self) -> Result<Value, String> {
        if let Some(name) = self.metrics.strip_unusual_name(self.rest) {
            self.rest = self.rest.get(name.len()..).unwrap_or_default();
            return self.metric(name, false);
        }
        let start = self.rest;
        let name = self.take(is_identifier_char);
        if name.is_empty() {
            return Err(self.unexpected());
        }
        if name.starts_with('.') {
            return Err(format!("{name} is not a number; write 0{name}"));
        }
        if self.rest.trim_start().starts_with('(') {
            return self.function(name);
        }
        // This is either a difference or quotient, or the name of a metric that was not measured.
        let is_ambiguous = self.rest.starts_with("://")
            || self
                .rest
                .strip_prefix(['-', '/'])
                .is_some_and(|rest| rest.starts_with(|c: char| !c.is_ascii_digit() && c != ' '));
        if !is_ambiguous {
            return self.metric(name, false);
        }
        let all = start.get(..unusual_name_length(start)).unwrap_or_default();
        let is_new = self.known_value(all).is_none();
        let has_any_end = ["plugins.", "browser."]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if is_new && !has_any_end && (misspelling(name).is_some() || is_known(name)) {
            return Err(format!("{all} is the name of a metric; {TO_SUBTRACT}"));
        }
        self.rest = start.get(all.len()..).unwrap_or_default();
        self.metric(all, false)
            .map_err(|reason| format!("{reason}; {TO_SUBTRACT}"))
    }

    fn metric(&mut self, name: &str, is_quoted: bool) -> Result<Value, String> {
        if RESERVED_WORDS.contains(&name) {
            return Err(format!("unexpected {name}"));
        }
        if let Some(value) = self.known_value(name) {
            return Ok(Value::Number(value));
        }
        if self.values.len() == MAX_METRICS {
            return Err(format!(
                "the expression names more than {MAX_METRICS} metrics"
            ));
        }
        let value = self.metrics.value(name, is_quoted)?;
        self.values.push((name.to_owned(), value));
        Ok(Value::Number(value))
    }

    /// The value of a metric that the expression has named before.
    fn known_value(&self, name: &str) -> Option<f64> {
        let known = self.values.iter().find(|(known, _)| known == name);
        known.map(|(_, value)| *value)
    }

    fn function(&mut self, name: &str) -> Result<Value, String> {
        self.eat(&["("]);
        let arguments = self
            .list()?
            .iter()
            .map(Value::number)
            .collect::<Result<Vec<_>, _>>()?;
        let result = match (name, arguments.as_slice()) {
            ("abs", [x]) => x.abs(),
            ("ceil", [x]) => x.ceil(),
            ("floor", [x]) => x.floor(),
            ("log", [x]) => x.ln(),
            // JavaScript rounds halves up.
            ("round", [x]) => (x + 0.5).floor(),
            ("sqrt", [x]) => x.sqrt(),
            ("max", all) => all.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ("min", all) => all.iter().copied().fold(f64::INFINITY, f64::min),
            _ => {
                let arguments = match arguments.len() {
                    1 => "1 argument".into(),
                    n => format!("{n} arguments"),
                };
                return Err(format!(
                    "{name}() with {arguments} is not supported; {FUNCTIONS}"
                ));
            }
        };
        Ok(self.computed(result))
    }

    /// A result of arithmetic. Before the test starts, metrics have no values, so any result is
    /// possible.
    fn computed(&self, result: f64) -> Value {
        let is_known = self.metrics.is_measured() || result.is_finite();
        Value::Number(if is_known { result } else { 1.0 })
    }

    fn unexpected(&self) -> String {
        unexpected(self.consumed(), self.rest)
    }

    fn consumed(&self) -> &'a str {
        let end = self.whole.len() - self.rest.len();
        self.whole.get(..end).unwrap_or_default()
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\'' => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(name);
                }
                '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
                c => name.push(c),
            }
        }
        Err("missing closing '".into())
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, operators: &[&'static str]) -> Option<&'static str> {
        self.skip_space();
        let found = operators
            .iter()
            .find(|operator| self.rest.starts_with(**operator))?;
        self.rest = self.rest.get(found.len()..).unwrap_or_default();
        Some(found)
    }

    fn eat_word(&mut self, word: &str) -> bool {
        self.skip_space();
        let rest = self
            .rest
            .strip_prefix(word)
            .filter(|rest| !rest.starts_with(is_identifier_char));
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take(&mut self, of: impl Fn(char) -> bool) -> &'a str {
        let (taken, rest) = self
            .rest
            .split_at(self.rest.find(|c| !of(c)).unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// The length of the name at the start of a text, where the name contains characters that identifiers
/// do not have, and possibly spaces: `plugins.metrics-by-endpoint./a (get).codes.200 == 4`. It ends
/// with the first known ending, or else before a space or an operator.
fn unusual_name_length(text: &str) -> usize {
    let is_delimiter = |c: char| c.is_whitespace() || "<>=!(),".contains(c);
    // The part that ends before the current character, and the part before that.
    let (mut part, mut before) = (0, None);
    let mut delimiter = None;
    let ends = text.char_indices().chain([(text.len(), ' ')]);
    for (at, c) in ends.take(MAX_NAME_LENGTH) {
        if !is_identifier_char(c) {
            let last = text.get(part..at).unwrap_or_default();
            let has_known_ending = before.is_some_and(|kind| {
                Sketch::SUMMARIES.contains(&last) || ["codes", "errors"].contains(&kind)
            });
            if has_known_ending {
                return at;
            }
        }
        if c == '.' {
            before = text.get(part..at);
            part = at + 1;
        }
        if delimiter.is_none() && is_delimiter(c) {
            delimiter = Some(at);
        }
    }
    delimiter.unwrap_or(text.len())
}
