//! The invariants of the operator over all versions of all objects of a namespace: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use loadtest_api::labels::START_ANNOTATION;
use serde_json::Value;

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// One version of an object.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it was seen, since the begin of the watch.
    pub at: Duration,
    /// The store's revision, which orders the versions of all objects.
    pub version: u64,
    pub kind: String,
    pub change: Change,
    pub object: Value,
}

impl Seen {
    fn text(&self, pointer: &str) -> &str {
        self.object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    /// The UID of the object that controls this one.
    fn owner(&self) -> Option<&str> {
        owner(&self.object)
    }

    fn is_foreign(&self) -> bool {
        self.object.pointer("/metadata/labels/foreign").is_some()
    }
}

/// The UID of the object that controls this one.
pub fn owner(object: &Value) -> Option<&str> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    owners
        .iter()
        .find(|o| o["controller"] == Value::Bool(true))?["uid"]
        .as_str()
}

/// What was broken, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

/// A violation of this invariant.
pub fn violation(invariant: &'static str, what: impl Into<String>) -> Violation {
    Violation {
        invariant,
        what: what.into(),
    }
}

/// Judges a history, which is in the order of the versions. `freed` are the foreign objects that the run itself has deleted.
pub fn judge(history: &[Seen], freed: &BTreeSet<String>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut tests: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for seen in history
        .iter()
        .filter(|s| s.kind == "LoadTest" && s.change != Change::Deleted)
    {
        tests.entry(seen.uid()).or_default().push(seen);
    }
    for (uid, versions) in &tests {
        let jobs: Vec<&Seen> = created(history, "Job")
            .filter(|j| j.owner() == Some(uid))
            .collect();
        one_job(&jobs, versions, &mut found);
        end_is_final(versions, &mut found);
        counts_never_fall(versions, &mut found);
        conditions_are_in_order(versions, &mut found);
        nothing_is_taken_over(versions, &jobs, &mut found);
    }
    workers_are_told_one_instant(history, &mut found);
    events_are_said_once(history, &mut found);
    foreign_objects_are_untouched(history, freed, &mut found);
    found
}

fn created<'a>(history: &'a [Seen], kind: &'a str) -> impl Iterator<Item = &'a Seen> {
    history
        .iter()
        .filter(move |s| s.kind == kind && s.change == Change::Added)
}

fn conditions(seen: &Seen) -> Vec<&Value> {
    seen.object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect()
}

/// The terminal conditions that hold.
fn ends(seen: &Seen) -> Vec<&str> {
    let holds = |c: &&&Value| {
        c["status"] == "True" && matches!(c["type"].as_str(), Some("Completed" | "Failed"))
    };
    conditions(seen)
        .iter()
        .filter(holds)
        .filter_map(|c| c["type"].as_str())
        .collect()
}

fn one_job(jobs: &[&Seen], versions: &[&Seen], found: &mut Vec<Violation>) {
    if jobs.len() > 1 {
        let uids: Vec<&str> = jobs.iter().map(|j| j.uid()).collect();
        found.push(violation(
            "I1",
            format!("{} Jobs were created for one test: {uids:?}", jobs.len()),
        ));
    }
    let end = versions.iter().find(|v| !ends(v).is_empty());
    if let Some(end) = end
        && let Some(job) = jobs.iter().find(|j| j.version > end.version)
    {
        found.push(violation(
            "I2",
            format!("the Job {} was created after the end", job.uid()),
        ));
    }
}

fn end_is_final(versions: &[&Seen], found: &mut Vec<Violation>) {
    let mut end: Option<(&Seen, Vec<&str>)> = None;
    for seen in versions {
        let now = ends(seen);
        if now.len() > 1 {
            found.push(violation(
                "I3",
                format!(
                    "more than one end holds in version {}: {now:?}",
                    seen.version
                ),
            ));
        }
        match &end {
            None if !now.is_empty() => end = Some((seen, now)),
            Some((first, ended)) => {
                for field in ["/status/phase", "/status/completionTime"] {
                    if seen.object.pointer(field) != first.object.pointer(field) {
                        found.push(violation(
                            "I3",
                            format!("{field} changed after the end, in version {}", seen.version),
                        ));
                    }
                }
                if *ended != now {
                    found.push(violation(
                        "I3",
                        format!(
                            "the end {ended:?} became {now:?} in version {}",
                            seen.version
                        ),
                    ));
                }
            }
            None => {}
        }
    }
}

fn counts_never_fall(versions: &[&Seen], found: &mut Vec<Violation>) {
    for pair in versions.windows(2) {
        for field in ["/status/succeeded", "/status/failed"] {
            let count = |seen: &Seen| {
                seen.object
                    .pointer(field)
                    .and_then(Value::as_i64)
                    .unwrap_or_default()
            };
            if count(pair[1]) < count(pair[0]) {
                let (from, to) = (count(pair[0]), count(pair[1]));
                found.push(violation(
                    "I4",
                    format!(
                        "{field} fell from {from} to {to} in version {}",
                        pair[1].version
                    ),
                ));
            }
        }
    }
}

fn conditions_are_in_order(versions: &[&Seen], found: &mut Vec<Violation>) {
    let mut order: Option<Vec<&str>> = None;
    let mut held: BTreeMap<&str, (&Value, &Value)> = BTreeMap::new();
    for seen in versions {
        let number = |pointer: &str| {
            seen.object
                .pointer(pointer)
                .and_then(Value::as_i64)
                .unwrap_or_default()
        };
        if number("/status/observedGeneration") > number("/metadata/generation") {
            found.push(violation(
                "I5",
                format!("observedGeneration is ahead in version {}", seen.version),
            ));
        }
        let types: Vec<&str> = conditions(seen)
            .iter()
            .filter_map(|c| c["type"].as_str())
            .collect();
        if types.is_empty() {
            continue;
        }
        // Those that only an ended test has come after the others.
        if order.as_ref().is_some_and(|o| !types.starts_with(o)) {
            found.push(violation(
                "I5",
                format!(
                    "the order of conditions changed in version {}: {types:?}",
                    seen.version
                ),
            ));
        }
        order = Some(types);
        for condition in conditions(seen) {
            let now = (&condition["status"], &condition["lastTransitionTime"]);
            let before = held.insert(condition["type"].as_str().unwrap_or_default(), now);
            if before.is_some_and(|(status, time)| *status == *now.0 && *time != *now.1) {
                let (kind, version) = (&condition["type"], seen.version);
                found.push(violation(
                    "I5",
                    format!("the time of {kind} changed without its status in version {version}"),
                ));
            }
        }
    }
}

/// A test that is created anew under a name begins with nothing of the one before.
fn nothing_is_taken_over(versions: &[&Seen], jobs: &[&Seen], found: &mut Vec<Violation>) {
    let before_its_job = |seen: &&&Seen| jobs.first().is_none_or(|j| seen.version < j.version);
    for seen in versions.iter().filter(before_its_job) {
        let count = |pointer: &str| {
            seen.object
                .pointer(pointer)
                .and_then(Value::as_i64)
                .unwrap_or_default()
        };
        if count("/status/succeeded") + count("/status/failed") > 0 || !ends(seen).is_empty() {
            found.push(violation(
                "I9",
                format!(
                    "version {} has results, but the test has had no Job",
                    seen.version
                ),
            ));
        }
    }
    if let (Some(job), Some(last)) = (jobs.first(), versions.last()) {
        let (start, created) = (
            last.text("/status/startTime"),
            job.text("/metadata/creationTimestamp"),
        );
        // Both are whole seconds in UTC, so they compare as texts.
        if !start.is_empty() && start < created {
            found.push(violation(
                "I9",
                format!("startTime {start} is before its Job was created, {created}"),
            ));
        }
    }
}

/// However often they are told.
fn workers_are_told_one_instant(history: &[Seen], found: &mut Vec<Violation>) {
    let mut told: BTreeMap<&str, BTreeSet<Timestamp>> = BTreeMap::new();
    for pod in history.iter().filter(|s| s.kind == "Pod") {
        let annotation = pod
            .object
            .pointer("/metadata/annotations")
            .and_then(|a| a.get(START_ANNOTATION))
            .and_then(Value::as_str);
        if let (Some(job), Some(instant)) = (pod.owner(), annotation.and_then(|a| a.parse().ok())) {
            told.entry(job).or_default().insert(instant);
        }
    }
    for (job, instants) in told.iter().filter(|(_, instants)| instants.len() > 1) {
        found.push(violation(
            "together",
            format!("the workers of the Job {job} were told several instants: {instants:?}"),
        ));
    }
}

fn events_are_said_once(history: &[Seen], found: &mut Vec<Violation>) {
    let mut said: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for event in history
        .iter()
        .filter(|s| s.kind == "Event" && s.text("/involvedObject/kind") == "LoadTest")
    {
        if event.change == Change::Modified {
            found.push(violation(
                "I6",
                format!("the event {} was changed", event.name()),
            ));
        }
        if event.change != Change::Added {
            continue;
        }
        let reason = event.text("/reason");
        // These are of the test as a whole, so there is one, whatever it says.
        let message = if matches!(reason, "Created" | "Completed" | "Failed") {
            ""
        } else {
            event.text("/message")
        };
        *said
            .entry((event.text("/involvedObject/uid"), reason, message))
            .or_default() += 1;
    }
    for ((uid, reason, message), times) in said.iter().filter(|(_, times)| **times > 1) {
        found.push(violation(
            "I6",
            format!("the event {reason} of the test {uid} was said {times} times: {message}"),
        ));
    }
}

fn foreign_objects_are_untouched(
    history: &[Seen],
    freed: &BTreeSet<String>,
    found: &mut Vec<Violation>,
) {
    let mut first: BTreeMap<&str, &Seen> = BTreeMap::new();
    for seen in history.iter().filter(|s| s.is_foreign() && s.kind == "Job") {
        let before = *first.entry(seen.uid()).or_insert(seen);
        let same = |field: &str| seen.object.pointer(field) == before.object.pointer(field);
        if !["/spec", "/metadata/labels", "/metadata/ownerReferences"]
            .into_iter()
            .all(same)
        {
            found.push(violation(
                "I7",
                format!("the foreign Job {} was changed", seen.name()),
            ));
        }
        if seen.change == Change::Deleted && !freed.contains(seen.uid()) {
            found.push(violation(
                "I7",
                format!("the foreign Job {} was deleted", seen.name()),
            ));
        }
    }
}

#[cfg(test)]
#[allow(dead_code, reason = "they run in pure.rs: main.rs has no test harness")]
#[path = "judge_tests.rs"]
mod tests;
