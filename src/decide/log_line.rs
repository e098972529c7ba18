//! The line of a worker's log that explains most.

/// How many characters of a worker's log line a message quotes at most.
const MAX_LINE: usize = 300;

/// The line of a log's end that explains most: the last one that names an error, or else the last one with a word in it. An
/// error that Node.js prints ends with its stack and its properties.
pub(super) fn most_informative_line(log: Option<&str>) -> Option<String> {
    error_line(log).or_else(|| {
        let mut lines = log.unwrap_or_default().lines().map(str::trim).rev();
        let line = lines.find(|line| line.chars().any(char::is_alphanumeric))?;
        Some(line.chars().take(MAX_LINE).collect())
    })
}

/// The last line of a log that names an error: `TypeError: ...`, `Error [ERR_MODULE_NOT_FOUND]: ...`, `error: ...`.
pub(super) fn error_line(log: Option<&str>) -> Option<String> {
    let names_error = |line: &&str| {
        let is_name = |word: &str| {
            let word = word.trim_end_matches(':');
            word.ends_with("Error") || word.eq_ignore_ascii_case("error")
        };
        // The name of an error ends with a colon, or its code follows in brackets.
        let mut words = line.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let has_end = word.ends_with(':') || words.peek().is_some_and(|w| w.starts_with('['));
            if is_name(word) && has_end {
                return true;
            }
        }
        ["Error", "error", "fatal", "Cannot find module", "npm ERR!"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let mut lines = log.unwrap_or_default().lines().map(str::trim).rev();
    let line = lines.find(|line| names_error(line) && !line.starts_with("at "))?;
    Some(line.chars().take(MAX_LINE).collect())
}
