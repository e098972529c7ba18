//! Explains what is wrong with an expression, and what to write instead.

/// Why a character is not expected after the `consumed` part of an expression.
pub(super) fn unexpected(consumed: &str, rest: &str) -> String {
    let c = rest.chars().next().unwrap_or_default();
    let excerpt: String = rest.chars().take(20).collect();
    let hint = hint(consumed.trim_end(), rest).map_or_else(String::new, |hint| format!("; {hint}"));
    format!("unexpected {c:?} at `{excerpt}`{hint}")
}

/// Why an expression is incomplete after its `consumed` part, which is all of it.
pub(super) fn incomplete(consumed: &str) -> String {
    let consumed = consumed.trim_end();
    let hint = if consumed.is_empty() {
        "it is empty".into()
    } else if consumed.ends_with('%') {
        "% is the remainder of a division; write a percentage as a number".into()
    } else {
        let last = consumed.split_whitespace().next_back().unwrap_or(consumed);
        format!("a number or metric is missing after `{last}`")
    };
    format!("the expression is incomplete: {hint}")
}

/// Why a text that begins with a digit is not a number.
pub(super) fn not_a_number(text: &str) -> String {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let value = number.parse::<f64>().ok();
    let milliseconds = |factor: f64| {
        value.map(|n| format!("; response times are in milliseconds: write {}", n * factor))
    };
    let plain = || {
        let written = text.replace('_', "").parse::<f64>().ok()?;
        (written.is_finite() && written.fract() == 0.0).then(|| format!("; write {written}"))
    };
    let hint = match unit {
        "ms" | "msec" | "millis" | "milliseconds" => milliseconds(1.0),
        "s" | "sec" | "seconds" => milliseconds(1000.0),
        "m" | "min" | "minutes" => milliseconds(60_000.0),
        "xx" => Some("; Artillery counts single codes such as http.codes.500".into()),
        _ => plain(),
    };
    format!("{text} is not a number{}", hint.unwrap_or_default())
}

fn hint(consumed: &str, rest: &str) -> Option<String> {
    let not_an_operator =
        |wrong: &str, right: &str| Some(format!("{wrong} is not an operator; use {right}"));
    for (wrong, right) in [
        ("=<", "<="),
        ("=>", ">="),
        ("=~", "=="),
        ("&", "and"),
        ("|", "or"),
        ("≤", "<="),
        ("≥", ">="),
        ("≠", "!="),
    ] {
        if rest.starts_with(wrong) {
            return not_an_operator(wrong, right);
        }
    }
    let c = rest.chars().next()?;
    match c {
        '=' if consumed.ends_with("==") => not_an_operator("===", "=="),
        '=' if consumed.ends_with("!=") => not_an_operator("!==", "!="),
        '=' if consumed.ends_with(['<', '>']) => Some("write <= and >= without a space".into()),
        '=' => not_an_operator("=", "=="),
        '>' if consumed.ends_with('<') => not_an_operator("<>", "!="),
        '!' => not_an_operator("!", "not"),
        '{' | '$' => Some("templates are not evaluated in thresholds; write the number".into()),
        ':' => Some("compare the metric with an operator, such as <".into()),
        ',' => Some("write numbers without separators".into()),
        '"' => Some("names of metrics are in single quotes, and numbers have no quotes".into()),
        c if c.is_ascii_alphabetic() => Some(word_hint(consumed, rest)),
        _ => None,
    }
}

fn word_hint(consumed: &str, rest: &str) -> String {
    let end = rest
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(rest.len());
    let word = rest.get(..end).unwrap_or_default();
    if ["and", "or", "not", "in"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
    {
        return format!("write {} instead of {word}", word.to_lowercase());
    }
    if consumed.ends_with(|c: char| c.is_ascii_digit()) && ["ms", "s", "sec"].contains(&word) {
        return "response times are in milliseconds; write the number without a unit".into();
    }
    "compare with <, <=, >, >=, == or !=, and combine comparisons with and, or".into()
}
