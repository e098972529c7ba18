//! A script's text, read as Artillery reads it: pure.

use serde_yaml::Value;

/// The text as libyaml can read it where js-yaml can, with which Artillery reads it. Lines and columns stay as they are.
pub(super) fn normalize_for_libyaml(text: &str) -> String {
    let mut normalize_for_libyaml = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line.trim_start_matches([' ', '\t']);
        let indentation = &line[..line.len() - rest.len()];
        // Where a line says nothing, or goes on with a list or map in brackets, tabs indent nothing.
        let is_no_indentation =
            rest.trim_end().is_empty() || rest.starts_with(['#', ',', ']', '}']);
        normalize_for_libyaml.push_str(&if is_no_indentation {
            indentation.replace('\t', " ")
        } else {
            indentation.to_owned()
        });
        while let Some(item) = rest.strip_prefix('-').filter(|item| item.starts_with('\t')) {
            rest = item.trim_start_matches('\t');
            normalize_for_libyaml.push('-');
            normalize_for_libyaml.extend(std::iter::repeat_n(' ', item.len() - rest.len()));
        }
        normalize_for_libyaml.extend(rest.chars().map(|c| if is_control(c) { '?' } else { c }));
    }
    without_surrogates(normalize_for_libyaml)
}

/// Whether js-yaml takes this character in quotes, and libyaml nowhere.
fn is_control(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}')
}

/// JSON writes what is beyond 16 bits as two halves, `\ud83d\ude00`, of which libyaml takes neither.
fn without_surrogates(mut text: String) -> String {
    let mut from = 0;
    while let Some(at) = text
        .get(from..)
        .and_then(|rest| rest.find("\\u"))
        .map(|at| from + at)
    {
        let half = text
            .get(at + 2..at + 6)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if half.is_some_and(|half| (0xd800..0xe000).contains(&half)) {
            text.replace_range(at + 2..at + 6, "fffd");
        }
        from = at + 2;
    }
    text
}

/// What the text says, with what `<<` brings in. None where it does not parse.
pub(super) fn parse(normalize_for_libyaml: &str) -> Option<Value> {
    let mut script: Value = serde_yaml::from_str(normalize_for_libyaml).ok()?;
    // One that is wrong is left as it is: Artillery does not run it.
    let _ = script.apply_merge();
    Some(script)
}

/// The script's `config` in the environment that is used. None where it has none.
///
/// Source: Artillery, `checkConfig` in `lib/util.ts`.
pub(super) fn config(script: &Value, environment: Option<&str>) -> Option<Value> {
    let mut config = script.get("config")?.clone();
    let overlay = environment
        .and_then(|name| config.get("environments")?.get(name))
        .cloned();
    if let Some(overlay) = overlay {
        merge(&mut config, overlay);
    }
    Some(config)
}

/// As lodash's `merge`, by which Artillery lays an environment over the rest: maps and lists are merged entry by entry.
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
