//! How a test ended, compared with its end without a fault. Pure.

use serde_json::{Value, json};

use crate::invariants::{Change, ObjectVersion, Violation, is_foreign, owner, violation};
use crate::plan::{ClusterFault, Fault, Run, Scenario, Stage};
use crate::view::View;

/// How a run must end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// As without a fault.
    AsClean,
    /// With the status that it has without a fault. The Job or a pod may be missing.
    StatusAsClean,
    /// In phase `Failed`, with this reason if there is one.
    Fails(Option<&'static str>),
    /// The test has not started, for this reason.
    Waits(&'static str),
    /// Without a test, a Job and a pod.
    Nothing,
}

/// How a run must end.
pub fn expected(run: &Run) -> End {
    let Fault::Cluster(stage, fault) = run.fault else {
        return End::AsClean;
    };
    match (fault, stage) {
        (ClusterFault::TestDeleted | ClusterFault::NamespaceDeleted, _) => End::Nothing,
        (ClusterFault::ForeignJobStays, _) => End::Waits("NameConflict"),
        (ClusterFault::JobDeleted, Stage::Ended) => End::StatusAsClean,
        (ClusterFault::JobDeleted, _) => End::Fails(Some("JobDeleted")),
        (ClusterFault::PodDeleted, Stage::Starting | Stage::Running) => End::Fails(None),
        _ => End::AsClean,
    }
}

/// The end of a test in a form that is equal in all runs: without times, UIDs and names of pods.
pub fn normalized(
    view: &View,
    history: &[ObjectVersion],
    name: &str,
    uid: &str,
    namespace: &str,
) -> Value {
    let test = view.get("LoadTest", name).cloned().unwrap_or_default();
    let status = &test["status"];
    let normalized = |text: &Value| {
        let mut normalized = text
            .as_str()
            .unwrap_or_default()
            .replace(namespace, "NAMESPACE");
        for pod in history
            .iter()
            .filter(|s| s.kind == "Pod" && s.change == Change::Added)
        {
            let index =
                &pod.object["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
            normalized = normalized.replace(
                pod.name(),
                &format!("POD-{}", index.as_str().unwrap_or_default()),
            );
        }
        normalized
    };
    let conditions: Vec<Value> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| {
            json!([
                c["type"],
                c["status"],
                c["reason"],
                normalized(&c["message"])
            ])
        })
        .collect();
    let of_test =
        |e: &&Value| e["involvedObject"]["kind"] == "LoadTest" && e["involvedObject"]["uid"] == uid;
    let mut events: Vec<String> = view
        .all("Event")
        .filter(of_test)
        .map(|e| {
            format!(
                "{} {}: {}",
                e["type"].as_str().unwrap_or_default(),
                normalized(&e["reason"]),
                normalized(&e["message"])
            )
        })
        .collect();
    events.sort();
    let counts: Vec<&Value> = [
        "phase",
        "active",
        "succeeded",
        "failed",
        "completions",
        "image",
    ]
    .map(|f| &status[f])
    .into();
    let objects =
        ["LoadTest", "Job", "Pod"].map(|kind| view.all(kind).filter(|o| !is_foreign(o)).count());
    // The Job's start time, from the first version that has one.
    let job_started = history
        .iter()
        .filter(|s| s.kind == "Job" && owner(&s.object) == Some(uid))
        .find_map(|s| s.object.pointer("/status/startTime"));
    let start = match (&status["startTime"], job_started) {
        (Value::Null, _) => "none",
        (reported, Some(started)) if reported == started => "the Job's",
        _ => "not the Job's",
    };
    // Only the course of the test depends on what was read while it ran.
    let mut results = status["results"].clone();
    if let Some(results) = results.as_object_mut() {
        results.remove("series");
    }
    json!({"start": start, "status": counts, "results": results, "conditions": conditions, "events": events,
        "objects": objects})
}

/// Checks that a run ended as it must.
pub fn check(run: &Run, end: &Value, clean: Option<&Value>) -> Option<Violation> {
    let reasons: Vec<&str> = end["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c[2].as_str())
        .collect();
    let phase = end["status"][0].as_str().unwrap_or_default();
    let what = match expected(run) {
        End::AsClean => differences(run, end, clean?),
        End::StatusAsClean => {
            (end["status"] != clean?["status"]).then(|| format!("the status is {}", end["status"]))
        }
        End::Fails(reason) => {
            let is_expected = phase == "Failed" && reason.is_none_or(|r| reasons.contains(&r));
            (!is_expected)
                .then(|| format!("it is {phase} for {reasons:?}, not Failed for {reason:?}"))
        }
        End::Waits(reason) => {
            let waits = phase == "Pending" && reasons.contains(&reason);
            (!waits).then(|| format!("it is {phase} for {reasons:?}, not Pending for {reason}"))
        }
        End::Nothing => (end["objects"] != json!([0, 0, 0]))
            .then(|| format!("objects remain: {}", end["objects"])),
    };
    what.map(|what| violation("end", what))
}

/// The difference between an end and that of the clean run.
fn differences(run: &Run, end: &Value, clean: &Value) -> Option<String> {
    for part in ["status", "results", "conditions", "start"] {
        if end[part] != clean[part] {
            return Some(format!(
                "{part} is {}, without the fault {}",
                end[part], clean[part]
            ));
        }
    }
    let pod_was_deleted = matches!(run.fault, Fault::Cluster(_, ClusterFault::PodDeleted));
    if end["objects"] != clean["objects"] && !pod_was_deleted {
        return Some(format!(
            "LoadTests, Jobs and pods are {}, without the fault {}",
            end["objects"], clean["objects"]
        ));
    }
    let texts = |value: &Value| -> Vec<String> {
        value["events"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|e| e.as_str().map(str::to_owned))
            .collect()
    };
    let (recorded, expected) = (texts(end), texts(clean));
    let missing: Vec<&String> = expected.iter().filter(|e| !recorded.contains(e)).collect();
    if !missing.is_empty() && !run.fault.loses_events() {
        return Some(format!("these events are missing: {missing:?}"));
    }
    // There is no node. If a fault has delayed a pod, this warning is correct.
    let is_unschedulable = |event: &str| event.starts_with("Warning Unschedulable");
    let is_blocker = |event: &str| {
        ["NameConflict", "JobRejected", "MissingTestScript"]
            .iter()
            .any(|r| event.contains(r))
    };
    let unexpected: Vec<&String> = recorded
        .iter()
        .filter(|e| {
            !expected.contains(e)
                && !is_unschedulable(e)
                && !reports(e, &run.fault)
                && !(is_blocker(e)
                    && (run.fault.may_block_start() || run.scenario == Scenario::Waits))
        })
        .collect();
    (!unexpected.is_empty()).then(|| format!("these events are unexpected: {unexpected:?}"))
}

/// Whether this event reports a call that the fault made fail.
fn reports(event: &str, fault: &Fault) -> bool {
    let Some(failed) = event.strip_prefix("Warning RequestFailed: Cannot ") else {
        return false;
    };
    let calls: &[&str] = match fault {
        Fault::Cluster(_, ClusterFault::PermissionsRevoked) => &[""],
        Fault::Request(point, _) => match (point.verb.as_str(), point.resource.as_str()) {
            ("get", "configmaps") => &["read the ConfigMap", "read the worker files"],
            ("create", "configmaps") => &["create the worker files"],
            ("get" | "watch", "jobs") => &["read the Job"],
            ("create", "jobs") => &["create the Job"],
            ("patch", "loadtests/status") => &["write the status"],
            ("patch", "pods") => &["send the start time"],
            _ => return false,
        },
        _ => return false,
    };
    calls.iter().any(|call| failed.starts_with(call))
}

#[cfg(test)]
#[allow(
    dead_code,
    unused_imports,
    reason = "they run in unit.rs: main.rs has no test harness"
)]
mod tests {
    use super::*;
    use crate::plan::{Point, PortFault, RequestFault};
    use crate::support::live_worker::Behavior;

    fn run(fault: Fault) -> Run {
        Run {
            scenario: Scenario::Completes,
            fault,
        }
    }

    fn conflict(resource: &str) -> Fault {
        Fault::Request(
            Point {
                verb: "create".into(),
                resource: resource.into(),
                occurrence: 1,
            },
            RequestFault::Conflict,
        )
    }

    fn ended(phase: &str, reason: &str, events: &[&str], objects: [usize; 3]) -> Value {
        json!({"start": "the Job's", "status": [phase], "conditions": [["Failed", "True", reason, ""]], "events": events,
            "objects": objects})
    }

    #[test]
    fn end_must_equal_the_clean_end() {
        let clean = ended(
            "Completed",
            "Completed",
            &["Created", "Completed"],
            [1, 1, 2],
        );
        let differs = |fault: Fault, end: &Value| check(&run(fault), end, Some(&clean)).is_some();
        assert!(!differs(conflict("events"), &clean));
        assert!(differs(
            conflict("events"),
            &ended("Failed", "JobFailed", &["Created", "Completed"], [1, 1, 2])
        ));
        assert!(differs(
            conflict("events"),
            &ended("Completed", "Completed", &["Completed"], [1, 1, 2])
        ));
        assert!(differs(
            conflict("events"),
            &ended(
                "Completed",
                "Completed",
                &["Created", "Completed"],
                [1, 0, 2]
            )
        ));
        let failed = ended(
            "Completed",
            "Completed",
            &[
                "Created",
                "Completed",
                "Warning RequestFailed: Cannot create the Job: x.",
            ],
            [1, 1, 2],
        );
        assert!(!differs(conflict("jobs"), &failed));
        assert!(differs(conflict("configmaps"), &failed));
        assert!(differs(conflict("events"), &failed));
        let blocked = ended(
            "Completed",
            "Completed",
            &["Created", "Completed", "Warning NameConflict: x"],
            [1, 1, 2],
        );
        assert!(differs(conflict("events"), &blocked));
        assert!(
            !differs(conflict("jobs"), &blocked),
            "a third party had taken the name"
        );
    }

    #[test]
    fn results_must_be_those_of_the_clean_end() {
        let clean = ended("Completed", "Completed", &[], [1, 1, 2]);
        let port = Fault::Port(PortFault::Responses(Behavior::HighCounts));
        let with_results = |results: Value| {
            let mut end = clean.clone();
            end["results"] = results;
            check(&run(port.clone()), &end, Some(&clean)).is_some()
        };
        assert!(!with_results(Value::Null));
        assert!(with_results(json!({"requests": 7})));
    }

    #[test]
    fn cluster_faults_have_their_own_ends() {
        let differs = |stage, fault, end: &Value| {
            check(&run(Fault::Cluster(stage, fault)), end, None).is_some()
        };
        let lost = ended("Failed", "JobDeleted", &[], [1, 0, 0]);
        assert!(!differs(Stage::Running, ClusterFault::JobDeleted, &lost));
        assert!(differs(
            Stage::Running,
            ClusterFault::JobDeleted,
            &ended("Failed", "JobFailed", &[], [1, 0, 0])
        ));
        assert!(!differs(
            Stage::Running,
            ClusterFault::PodDeleted,
            &ended("Failed", "JobFailed", &[], [1, 1, 1])
        ));
        assert!(!differs(
            Stage::Before,
            ClusterFault::ForeignJobStays,
            &ended("Pending", "NameConflict", &[], [1, 1, 0])
        ));
        assert!(differs(Stage::Before, ClusterFault::ForeignJobStays, &lost));
        assert!(!differs(
            Stage::Running,
            ClusterFault::TestDeleted,
            &ended("", "", &[], [0, 0, 0])
        ));
        assert!(differs(
            Stage::Running,
            ClusterFault::TestDeleted,
            &ended("", "", &[], [0, 1, 0])
        ));
    }
}
