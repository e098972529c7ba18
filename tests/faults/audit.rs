//! The API server's own record of what the operators asked for, compared with what the proxies passed on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;

use crate::proxy::USER_AGENT;
use crate::world::Verdict;

/// How long the log is now.
pub fn length(log: &Path) -> u64 {
    std::fs::metadata(log)
        .unwrap_or_else(|e| panic!("no audit log {}: {e}", log.display()))
        .len()
}

/// The writes that were carried out, by namespace and then such as `create jobs`.
type Writes = BTreeMap<String, BTreeMap<String, usize>>;

fn writes(log: &Path, since: u64) -> Writes {
    let mut file = File::open(log).expect("the audit log can be read");
    file.seek(SeekFrom::Start(since))
        .expect("the audit log is a file");
    let mut writes = Writes::new();
    // Others write most of the log: their lines are not worth parsing. A last line may be half written.
    for line in BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.contains(USER_AGENT))
    {
        let Ok(entry) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let text = |pointer: &str| {
            entry
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let done = entry
            .pointer("/responseStatus/code")
            .and_then(Value::as_u64)
            .is_some_and(|code| code < 300);
        // Leases are renewed until the end of the process, after the run has been judged.
        if !done
            || matches!(text("/verb"), "get" | "list" | "watch")
            || text("/objectRef/resource") == "leases"
        {
            continue;
        }
        let subresource = text("/objectRef/subresource");
        let slash = if subresource.is_empty() { "" } else { "/" };
        let kind = format!(
            "{} {}{slash}{subresource}",
            text("/verb"),
            text("/objectRef/resource")
        );
        *writes
            .entry(text("/objectRef/namespace").to_owned())
            .or_default()
            .entry(kind)
            .or_default() += 1;
    }
    writes
}

/// Where the API server has carried out other writes than the proxies passed on and saw succeed.
pub fn judge(log: &Path, since: u64, verdicts: &[Verdict]) -> Vec<String> {
    let recorded = writes(log, since);
    let mut violations = Vec::new();
    for verdict in verdicts {
        let mut passed: BTreeMap<String, usize> = BTreeMap::new();
        for sent in verdict.sent.iter().filter(|s| {
            s.point.is_write() && s.point.resource != "leases" && (200..300).contains(&s.code)
        }) {
            *passed
                .entry(format!("{} {}", sent.point.verb, sent.point.resource))
                .or_default() += 1;
        }
        let empty = BTreeMap::new();
        let recorded = recorded.get(&verdict.namespace).unwrap_or(&empty);
        if *recorded != passed {
            violations.push(format!(
                "{}: recorded are {recorded:?}, passed on were {passed:?}",
                verdict.run
            ));
        }
    }
    violations
}
