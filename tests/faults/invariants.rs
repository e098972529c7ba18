//! The invariants of the operator, checked over all versions of all objects of a namespace. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use loadtest_api::labels::START_ANNOTATION;
use loadtest_api::v1alpha1::{ConditionType, Reason};
use serde_json::Value;

/// How an object changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// One version of an object.
#[derive(Clone, Debug)]
pub struct ObjectVersion {
    /// When the watch delivered it, since the beginning of the watch.
    pub at: Duration,
    /// The revision of the store, which orders the versions of all objects.
    pub revision: u64,
    pub kind: String,
    pub change: Change,
    pub object: Value,
}

impl ObjectVersion {
    pub fn text(&self, pointer: &str) -> &str {
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
        is_foreign(&self.object)
    }
}

/// Whether an object is neither the operator's nor a test of the run.
pub fn is_foreign(object: &Value) -> bool {
    object.pointer("/metadata/labels/foreign").is_some()
}

/// The UID of the object that controls this one.
pub fn owner(object: &Value) -> Option<&str> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    owners
        .iter()
        .find(|o| o["controller"] == Value::Bool(true))?["uid"]
        .as_str()
}

/// A violated invariant.
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

/// Checks a history, which is ordered by revision. `freed` are the foreign Jobs that the run itself has deleted.
pub fn check(history: &[ObjectVersion], freed: &BTreeSet<String>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut tests: BTreeMap<&str, Vec<&ObjectVersion>> = BTreeMap::new();
    for seen in history
        .iter()
        .filter(|s| s.kind == "LoadTest" && s.change != Change::Deleted)
    {
        tests.entry(seen.uid()).or_default().push(seen);
    }
    for (uid, versions) in &tests {
        let jobs: Vec<&ObjectVersion> = created(history, "Job")
            .filter(|j| j.owner() == Some(uid))
            .collect();
        one_job(&jobs, versions, &mut found);
        end_is_final(versions, &mut found);
        counts_never_decrease(versions, &mut found);
        conditions_are_in_order(versions, &mut found);
        new_test_inherits_nothing(versions, &jobs, &mut found);
        passes_only_with_its_load(versions, &mut found);
        series_adds_up(versions, &mut found);
        readiness_follows_the_end(versions, &mut found);
    }
    workers_get_one_start_time(history, &mut found);
    events_are_recorded_once(history, &mut found);
    foreign_jobs_are_untouched(history, freed, &mut found);
    found
}

/// The objects of a kind that were created.
pub fn created<'a>(
    history: &'a [ObjectVersion],
    kind: &'a str,
) -> impl Iterator<Item = &'a ObjectVersion> {
    history
        .iter()
        .filter(move |s| s.kind == kind && s.change == Change::Added)
}

/// The conditions of a test.
pub fn conditions(object: &Value) -> Vec<&Value> {
    object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect()
}

/// Whether the status records that events of the test are missing.
pub fn misses_events(test: &Value) -> bool {
    conditions(test)
        .iter()
        .any(|c| c["type"] == ConditionType::EventsRecorded.as_str())
}

/// The terminal conditions that are true.
fn ends(seen: &ObjectVersion) -> Vec<&str> {
    let holds = |c: &&&Value| {
        c["status"] == "True" && matches!(c["type"].as_str(), Some("Completed" | "Failed"))
    };
    conditions(&seen.object)
        .iter()
        .filter(holds)
        .filter_map(|c| c["type"].as_str())
        .collect()
}

fn one_job(jobs: &[&ObjectVersion], versions: &[&ObjectVersion], found: &mut Vec<Violation>) {
    if jobs.len() > 1 {
        let uids: Vec<&str> = jobs.iter().map(|j| j.uid()).collect();
        found.push(violation(
            "I1",
            format!("{} Jobs were created for one test: {uids:?}", jobs.len()),
        ));
    }
    let end = versions.iter().find(|v| !ends(v).is_empty());
    if let Some(end) = end
        && let Some(job) = jobs.iter().find(|j| j.revision > end.revision)
    {
        found.push(violation(
            "I2",
            format!("the Job {} was created after the end", job.uid()),
        ));
    }
}

fn end_is_final(versions: &[&ObjectVersion], found: &mut Vec<Violation>) {
    let mut end: Option<(&ObjectVersion, Vec<&str>)> = None;
    for seen in versions {
        let now = ends(seen);
        if now.len() > 1 {
            found.push(violation(
                "I3",
                format!("version {} has more than one end: {now:?}", seen.revision),
            ));
        }
        match &end {
            None if !now.is_empty() => end = Some((seen, now)),
            Some((first, ended)) => {
                for field in ["/status/phase", "/status/completionTime"] {
                    if seen.object.pointer(field) != first.object.pointer(field) {
                        found.push(violation(
                            "I3",
                            format!(
                                "{field} changed after the end, in version {}",
                                seen.revision
                            ),
                        ));
                    }
                }
                if *ended != now {
                    found.push(violation(
                        "I3",
                        format!(
                            "the end {ended:?} became {now:?} in version {}",
                            seen.revision
                        ),
                    ));
                }
            }
            None => {}
        }
    }
}

fn counts_never_decrease(versions: &[&ObjectVersion], found: &mut Vec<Violation>) {
    for pair in versions.windows(2) {
        for field in ["/status/succeeded", "/status/failed"] {
            let count = |seen: &ObjectVersion| {
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
                        pair[1].revision
                    ),
                ));
            }
        }
    }
}

/// Whether a condition exists only while it is False, or of a running test.
fn is_optional(type_: &str) -> bool {
    let optional = [
        ConditionType::LoadDelivered,
        ConditionType::LiveResultsAvailable,
        ConditionType::EventsRecorded,
    ];
    optional.iter().any(|optional| optional.as_str() == type_)
}

fn conditions_are_in_order(versions: &[&ObjectVersion], found: &mut Vec<Violation>) {
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
                format!("observedGeneration is ahead in version {}", seen.revision),
            ));
        }
        let types: Vec<&str> = conditions(&seen.object)
            .iter()
            .filter_map(|c| c["type"].as_str())
            .collect();
        if types.is_empty() {
            continue;
        }
        let position = |type_: &str| ConditionType::ALL.iter().position(|t| t.as_str() == type_);
        let is_ordered = types.is_sorted_by_key(|type_| position(type_));
        let has_all = |before: &Vec<&str>| before.iter().all(|type_| types.contains(type_));
        if !is_ordered || !order.as_ref().is_none_or(has_all) {
            found.push(violation(
                "I5",
                format!(
                    "the conditions are not in order or incomplete in version {}: {types:?}",
                    seen.revision
                ),
            ));
        }
        held.retain(|held, _| types.contains(held));
        order = Some(
            types
                .into_iter()
                .filter(|type_| !is_optional(type_))
                .collect(),
        );
        for condition in conditions(&seen.object) {
            let now = (&condition["status"], &condition["lastTransitionTime"]);
            let before = held.insert(condition["type"].as_str().unwrap_or_default(), now);
            if before.is_some_and(|(status, time)| *status == *now.0 && *time != *now.1) {
                let (kind, version) = (&condition["type"], seen.revision);
                found.push(violation(
                    "I5",
                    format!("the time of {kind} changed without its status in version {version}"),
                ));
            }
        }
    }
}

fn passes_only_with_its_load(versions: &[&ObjectVersion], found: &mut Vec<Violation>) {
    let has = |seen: &ObjectVersion, type_: ConditionType, status: &str| {
        conditions(&seen.object)
            .iter()
            .any(|c| c["type"] == type_.as_str() && c["status"] == status)
    };
    let violates = |seen: &&&ObjectVersion| {
        has(seen, ConditionType::Passed, "True") && has(seen, ConditionType::LoadDelivered, "False")
    };
    if let Some(seen) = versions.iter().find(violates) {
        let what = format!("version {} passed without its load", seen.revision);
        found.push(violation("I17", what));
    }
}

/// The series of a test that has ended.
fn series_adds_up(versions: &[&ObjectVersion], found: &mut Vec<Violation>) {
    for seen in versions.iter().filter(|seen| !ends(seen).is_empty()) {
        let results = &seen.object["status"]["results"];
        let Some(series) = results.get("series") else {
            continue;
        };
        for field in ["requests", "errors", "vusersCreated"] {
            let counts = series[field].as_array().into_iter().flatten();
            let counts: Vec<i64> = counts.filter_map(Value::as_i64).collect();
            if Some(counts.iter().sum()) != results[field].as_i64() || counts.iter().any(|n| *n < 0)
            {
                let what = format!(
                    "the {field} {counts:?} of the series do not add up to {}, in version {}",
                    results[field], seen.revision
                );
                found.push(violation("I18", what));
            }
        }
    }
}

/// Tools that read only Ready and Stalled conclude what the other conditions show.
fn readiness_follows_the_end(versions: &[&ObjectVersion], found: &mut Vec<Violation>) {
    for seen in versions
        .iter()
        .filter(|v| !conditions(&v.object).is_empty())
    {
        let status = |type_: ConditionType| {
            let conditions = conditions(&seen.object);
            let condition = conditions.iter().find(|c| c["type"] == type_.as_str())?;
            condition["status"].as_str().map(str::to_owned)
        };
        let holds = |type_| status(type_).as_deref() == Some("True");
        let has_passed = holds(ConditionType::Passed);
        let has_ended = !ends(seen).is_empty() || holds(ConditionType::Stopped);
        let is_set_aside = conditions(&seen.object)
            .iter()
            .any(|c| c["reason"] == Reason::SetAside.as_str());
        let ready = if has_passed { "True" } else { "False" };
        if status(ConditionType::Ready).as_deref() != Some(ready)
            || holds(ConditionType::Stalled) != (has_ended && !has_passed || is_set_aside)
        {
            let what = format!(
                "Ready or Stalled differs from the end in version {}",
                seen.revision
            );
            found.push(violation("I19", what));
        }
    }
}

/// A test that is created again under a name takes over nothing of the earlier one.
fn new_test_inherits_nothing(
    versions: &[&ObjectVersion],
    jobs: &[&ObjectVersion],
    found: &mut Vec<Violation>,
) {
    let before_its_job =
        |seen: &&&ObjectVersion| jobs.first().is_none_or(|j| seen.revision < j.revision);
    // Only a test that completes needs a Job: another one fails without one, or is stopped.
    let has_ended = |seen: &ObjectVersion| match jobs.first() {
        Some(_) => !ends(seen).is_empty(),
        None => ends(seen).contains(&"Completed"),
    };
    for seen in versions.iter().filter(before_its_job) {
        let count = |pointer: &str| {
            seen.object
                .pointer(pointer)
                .and_then(Value::as_i64)
                .unwrap_or_default()
        };
        if count("/status/succeeded") + count("/status/failed") > 0 || has_ended(seen) {
            found.push(violation(
                "I9",
                format!(
                    "version {} has results, but the test had no Job",
                    seen.revision
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

/// However often it is sent.
fn workers_get_one_start_time(history: &[ObjectVersion], found: &mut Vec<Violation>) {
    let mut instants: BTreeMap<&str, BTreeSet<Timestamp>> = BTreeMap::new();
    for pod in history
        .iter()
        .filter(|s| s.kind == "Pod" && !s.is_foreign())
    {
        let annotation = pod
            .object
            .pointer("/metadata/annotations")
            .and_then(|a| a.get(START_ANNOTATION))
            .and_then(Value::as_str);
        if let (Some(job), Some(instant)) = (pod.owner(), annotation.and_then(|a| a.parse().ok())) {
            instants.entry(job).or_default().insert(instant);
        }
    }
    for (job, instants) in instants.iter().filter(|(_, instants)| instants.len() > 1) {
        found.push(violation(
            "start",
            format!("the workers of the Job {job} received several start times: {instants:?}"),
        ));
    }
}

fn events_are_recorded_once(history: &[ObjectVersion], found: &mut Vec<Violation>) {
    let mut recorded: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
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
        // These concern the whole test, so there is one of each, whatever its message.
        let message = if matches!(reason, "Created" | "Completed" | "Failed") {
            ""
        } else {
            event.text("/message")
        };
        *recorded
            .entry((event.text("/involvedObject/uid"), reason, message))
            .or_default() += 1;
    }
    for ((uid, reason, message), times) in recorded.iter().filter(|(_, times)| **times > 1) {
        found.push(violation(
            "I6",
            format!("the event {reason} of the test {uid} was recorded {times} times: {message}"),
        ));
    }
}

fn foreign_jobs_are_untouched(
    history: &[ObjectVersion],
    freed: &BTreeSet<String>,
    found: &mut Vec<Violation>,
) {
    let mut first: BTreeMap<&str, &ObjectVersion> = BTreeMap::new();
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
#[allow(dead_code, reason = "they run in unit.rs: main.rs has no test harness")]
#[path = "invariants_tests.rs"]
mod tests;
