//! Compares the API server's audit log with the requests that the proxies forwarded.

use std::collections::BTreeMap;
use std::path::Path;

use crate::proxy::USER_AGENT;
use crate::run::RunResult;
use crate::support::audit;

/// The successful writes, by namespace and then by kind, such as `create jobs`.
type Writes = BTreeMap<String, BTreeMap<String, usize>>;

fn writes(log: &Path, since: u64) -> Writes {
    let mut writes = Writes::new();
    // Leases are renewed until the end of the process, after the check of the run.
    let of_operators = audit::requests(log, since, USER_AGENT)
        .filter(|r| r.is_success() && r.is_write() && !r.is_lease());
    for request in of_operators {
        let kind = request.kind();
        *writes
            .entry(request.namespace)
            .or_default()
            .entry(kind)
            .or_default() += 1;
    }
    writes
}

/// The runs in which the API server carried out other writes than those that the proxies forwarded and saw succeed.
pub fn check(log: &Path, since: u64, results: &[RunResult]) -> Vec<String> {
    let recorded = writes(log, since);
    let mut violations = Vec::new();
    for result in results {
        let mut forwarded: BTreeMap<String, usize> = BTreeMap::new();
        for sent in result.sent.iter().filter(|s| {
            s.point.is_write() && s.point.resource != "leases" && (200..300).contains(&s.code)
        }) {
            *forwarded
                .entry(format!("{} {}", sent.point.verb, sent.point.resource))
                .or_default() += 1;
        }
        let empty = BTreeMap::new();
        let recorded = recorded.get(&result.namespace).unwrap_or(&empty);
        if *recorded != forwarded {
            violations.push(format!(
                "{}: the log has {recorded:?}, the proxies forwarded {forwarded:?}",
                result.run
            ));
        }
    }
    violations
}
