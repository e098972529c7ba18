//! The types of plain scalars.

use super::Value;

/// Whether js-yaml rejects a character in plain and block scalars.
pub(super) fn is_non_printable(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{84}'
        | '\u{86}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}')
}

/// The value of a plain scalar that is not a string.
///
/// Source: js-yaml 3.15.1, `lib/js-yaml/type/{null,bool,int,float}.js`.
pub(super) fn resolve_plain(text: &str) -> Option<Value> {
    match text {
        "~" | "null" | "Null" | "NULL" => Some(Value::Null),
        "true" | "True" | "TRUE" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => Some(Value::Bool(false)),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            integer(text).or_else(|| float(text)).map(Value::Number)
        }
        _ => None,
    }
}

/// Splits a sign from a number.
fn sign(text: &str) -> (f64, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (-1.0, &text[1..]),
        Some(b'+') => (1.0, &text[1..]),
        _ => (1.0, text),
    }
}

fn integer(text: &str) -> Option<f64> {
    let (sign, digits) = sign(text);
    if digits == "0" {
        return Some(0.0 * sign);
    }
    let (radix, digits) = match digits.strip_prefix('0') {
        None => (10, digits),
        Some(rest) => match (rest.strip_prefix('b'), rest.strip_prefix('x')) {
            (Some(rest), _) => (2, rest),
            (_, Some(rest)) => (16, rest),
            _ => (8, rest),
        },
    };
    if digits.ends_with('_') || radix == 10 && digits.starts_with('_') {
        return None;
    }
    let mut parts = digits.split(':');
    let mut value = in_radix(parts.next()?, radix)?;
    for part in parts {
        if radix != 10 || !is_base_60(part) {
            return None;
        }
        value = value * 60.0 + in_radix(part, 10)?;
    }
    Some(sign * value)
}

fn is_base_60(part: &str) -> bool {
    match part.as_bytes() {
        [c] => c.is_ascii_digit(),
        [tens, c] => (b'0'..=b'5').contains(tens) && c.is_ascii_digit(),
        _ => false,
    }
}

fn in_radix(digits: &str, radix: u32) -> Option<f64> {
    let mut value = None;
    for c in digits.chars().filter(|c| *c != '_') {
        let digit = f64::from(c.to_digit(radix)?);
        value = Some(value.unwrap_or(0.0) * f64::from(radix) + digit);
    }
    value
}

fn float(text: &str) -> Option<f64> {
    if text.ends_with('_') {
        return None;
    }
    let (sign, digits) = sign(text);
    match digits {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" if digits.len() == text.len() => return Some(f64::NAN),
        _ => {}
    }
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    if let Some((whole, fraction)) = digits.split_once('.')
        && let Some((hours, rest)) = whole.split_once(':')
    {
        let is_number = |part: &str| part.bytes().all(|c| c.is_ascii_digit() || c == b'_');
        let is_valid = hours.starts_with(|c: char| c.is_ascii_digit())
            && is_number(hours)
            && is_number(fraction)
            && rest.split(':').all(is_base_60);
        let mut parts = plain.split(':').map(|part| part.parse::<f64>().ok());
        let value = parts.try_fold(0.0, |value, part| Some(value * 60.0 + part?));
        return value.filter(|_| is_valid).map(|value| sign * value);
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_digits = |part: &str| part.bytes().all(|c| c.is_ascii_digit() || c == b'_');
    let is_valid = is_digits(whole)
        && fraction.is_none_or(is_digits)
        && exponent.is_none_or(|exponent| {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())
        })
        && match whole.as_bytes() {
            // Without a whole part there is no sign.
            [] => digits.len() == text.len() && fraction.is_some_and(|f| !f.is_empty()),
            [b'0', rest @ ..] => rest.is_empty(),
            [first, ..] => first.is_ascii_digit(),
        };
    plain
        .parse::<f64>()
        .ok()
        .filter(|_| is_valid)
        .map(|value| sign * value)
}
