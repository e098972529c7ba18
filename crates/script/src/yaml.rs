//! Reads YAML and JSON as Artillery's parser, js-yaml, does.

use serde_yaml::Value;

/// Rewrites a text that js-yaml accepts into one that libyaml accepts too. Line and column numbers
/// stay valid.
pub(crate) fn normalize_for_libyaml(text: &str) -> String {
    let mut normalized = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line.trim_start_matches([' ', '\t']);
        let indentation = &line[..line.len() - rest.len()];
        // Tabs do not indent a line that is blank, a comment, or inside brackets.
        let ignores_indentation =
            rest.trim_end().is_empty() || rest.starts_with(['#', ',', ']', '}']);
        normalized.push_str(&if ignores_indentation {
            indentation.replace('\t', " ")
        } else {
            indentation.to_owned()
        });
        while let Some(item) = rest.strip_prefix('-').filter(|item| item.starts_with('\t')) {
            rest = item.trim_start_matches('\t');
            normalized.push('-');
            normalized.extend(std::iter::repeat_n(' ', item.len() - rest.len()));
        }
        normalized.extend(rest.chars().map(|c| if is_control(c) { '?' } else { c }));
    }
    replace_surrogates(normalized)
}

/// Whether js-yaml accepts this character in quotes and libyaml does not.
fn is_control(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}')
}

/// JSON escapes characters beyond 16 bits as surrogate pairs, `\ud83d\ude00`, which libyaml
/// rejects.
fn replace_surrogates(mut text: String) -> String {
    let mut from = 0;
    while let Some(at) = text
        .get(from..)
        .and_then(|rest| rest.find("\\u"))
        .map(|at| from + at)
    {
        let code = text
            .get(at + 2..at + 6)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if code.is_some_and(|code| (0xd800..0xe000).contains(&code)) {
            text.replace_range(at + 2..at + 6, "fffd");
        }
        from = at + 2;
    }
    text
}

/// Parses a normalized text and applies its merge keys (`<<`). None if it does not parse.
pub(crate) fn parse(normalized: &str) -> Option<Value> {
    let mut script: Value = serde_yaml::from_str(normalized).ok()?;
    // Artillery does not run a script with an invalid merge key.
    let _ = script.apply_merge();
    Some(script)
}

/// The script's `config` with the selected environment merged into it. None if the script has no
/// `config`.
///
/// Source: Artillery, `checkConfig` in `lib/util.ts`.
pub(crate) fn config(script: &Value, environment: Option<&str>) -> Option<Value> {
    let mut config = script.get("config")?.clone();
    let overlay = environment
        .and_then(|name| config.get("environments")?.get(name))
        .cloned();
    if let Some(overlay) = overlay {
        merge(&mut config, overlay);
    }
    Some(config)
}

/// Merges maps and lists entry by entry, like lodash's `merge`, which Artillery uses for
/// environments.
fn merge(to: &mut Value, from: Value) {
    match (to, from) {
        (Value::Mapping(to), Value::Mapping(from)) => {
            for (key, value) in from {
                merge(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Sequence(to), Value::Sequence(from)) => {
            to.resize(to.len().max(from.len()), Value::Null);
            to.iter_mut()
                .zip(from)
                .for_each(|(to, from)| merge(to, from));
        }
        (to, from) => *to = from,
    }
}
