//! How a test ended, compared with how it ends without a fault: pure.

use serde_json::{Value, json};

use crate::judge::{Change, Seen, Violation, owner, violation};
use crate::plan::{Fault, Run, Scenario, Stage, WorldDeed};
use crate::view::View;

/// What a run is to end in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// The same as without a fault.
    AsClean,
    /// As without a fault, but the Job or a pod is gone by then.
    StatusAsClean,
    /// Phase `Failed`, for this reason if one is given.
    Fails(Option<&'static str>),
    /// It has not started, and this is why.
    Waits(&'static str),
    /// There is no test, no Job and no pod.
    Nothing,
}

/// What a run is to end in.
pub fn expected(run: &Run) -> End {
    let Fault::World(stage, deed) = run.fault else {
        return End::AsClean;
    };
    match (deed, stage) {
        (WorldDeed::TestDeleted | WorldDeed::NamespaceDeleted, _) => End::Nothing,
        (WorldDeed::ForeignJobStays, _) => End::Waits("NameConflict"),
        (WorldDeed::JobDeleted, Stage::Ended) => End::StatusAsClean,
        (WorldDeed::JobDeleted, _) => End::Fails(Some("JobDeleted")),
        (WorldDeed::PodDeleted, Stage::Starting | Stage::Running) => End::Fails(None),
        _ => End::AsClean,
    }
}

/// A test's end in words that are the same in all runs: without times, UIDs and the names of pods.
pub fn normal(view: &View, history: &[Seen], name: &str, uid: &str, namespace: &str) -> Value {
    let test = view.get("LoadTest", name).cloned().unwrap_or_default();
    let status = &test["status"];
    let same = |text: &Value| {
        let mut told = text
            .as_str()
            .unwrap_or_default()
            .replace(namespace, "NAMESPACE");
        for pod in history
            .iter()
            .filter(|s| s.kind == "Pod" && s.change == Change::Added)
        {
            let index =
                &pod.object["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
            told = told.replace(
                pod.name(),
                &format!("POD-{}", index.as_str().unwrap_or_default()),
            );
        }
        told
    };
    let conditions: Vec<Value> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| json!([c["type"], c["status"], c["reason"], same(&c["message"])]))
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
                same(&e["reason"]),
                same(&e["message"])
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
    let objects = ["LoadTest", "Job", "Pod"].map(|kind| view.all(kind).count());
    // The Job's own start, in whichever version of it was the first to tell.
    let job_started = history
        .iter()
        .filter(|s| s.kind == "Job" && owner(&s.object) == Some(uid))
        .find_map(|s| s.object.pointer("/status/startTime"));
    let start = match (&status["startTime"], job_started) {
        (Value::Null, _) => "none",
        (told, Some(started)) if told == started => "the Job's",
        _ => "another than the Job's",
    };
    json!({"start": start, "status": counts, "conditions": conditions, "events": events, "objects": objects})
}

/// Whether a run ended as it is to end.
pub fn judge(run: &Run, end: &Value, clean: Option<&Value>) -> Option<Violation> {
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
            let as_told = phase == "Failed" && reason.is_none_or(|r| reasons.contains(&r));
            (!as_told).then(|| format!("it is {phase} for {reasons:?}, not Failed for {reason:?}"))
        }
        End::Waits(reason) => {
            let waits = phase == "Pending" && reasons.contains(&reason);
            (!waits).then(|| format!("it is {phase} for {reasons:?}, not Pending for {reason}"))
        }
        End::Nothing => {
            (end["objects"] != json!([0, 0, 0])).then(|| format!("left are {}", end["objects"]))
        }
    };
    what.map(|what| violation("end", what))
}

/// In what an end differs from that of the clean run.
fn differences(run: &Run, end: &Value, clean: &Value) -> Option<String> {
    for part in ["status", "conditions", "start"] {
        if end[part] != clean[part] {
            return Some(format!(
                "{part} is {}, without the fault {}",
                end[part], clean[part]
            ));
        }
    }
    let pod_is_gone = matches!(run.fault, Fault::World(_, WorldDeed::PodDeleted));
    if end["objects"] != clean["objects"] && !pod_is_gone {
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
    let (said, to_be_said) = (texts(end), texts(clean));
    let missing: Vec<&String> = to_be_said.iter().filter(|e| !said.contains(e)).collect();
    if !missing.is_empty() && !run.fault.loses_events() {
        return Some(format!("these events are missing: {missing:?}"));
    }
    // There is no node: where a fault has delayed a pod, that is told, and is true.
    let is_of_no_fault = |event: &str| event.starts_with("Warning Unschedulable");
    let is_obstacle = |event: &str| {
        ["NameConflict", "JobRejected", "MissingTestScript"]
            .iter()
            .any(|r| event.contains(r))
    };
    let more: Vec<&String> = said
        .iter()
        .filter(|e| {
            !to_be_said.contains(e)
                && !is_of_no_fault(e)
                && !(is_obstacle(e)
                    && (run.fault.may_be_an_obstacle() || run.scenario == Scenario::Waits))
        })
        .collect();
    (!more.is_empty()).then(|| format!("these events should not be there: {more:?}"))
}

#[cfg(test)]
#[allow(dead_code, reason = "they run in pure.rs: main.rs has no test harness")]
mod tests {
    use super::*;
    use crate::plan::{Deed, Point};

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
            Deed::Conflict,
        )
    }

    fn ended(phase: &str, reason: &str, events: &[&str], objects: [usize; 3]) -> Value {
        json!({"start": "the Job's", "status": [phase], "conditions": [["Failed", "True", reason, ""]], "events": events,
            "objects": objects})
    }

    #[test]
    fn an_end_is_compared_with_the_clean_one() {
        let clean = ended(
            "Completed",
            "Completed",
            &["Created", "Completed"],
            [1, 1, 2],
        );
        let broken = |fault: Fault, end: &Value| judge(&run(fault), end, Some(&clean)).is_some();
        assert!(!broken(conflict("events"), &clean));
        assert!(broken(
            conflict("events"),
            &ended("Failed", "JobFailed", &["Created", "Completed"], [1, 1, 2])
        ));
        assert!(broken(
            conflict("events"),
            &ended("Completed", "Completed", &["Completed"], [1, 1, 2])
        ));
        assert!(broken(
            conflict("events"),
            &ended(
                "Completed",
                "Completed",
                &["Created", "Completed"],
                [1, 0, 2]
            )
        ));
        let obstacle = ended(
            "Completed",
            "Completed",
            &["Created", "Completed", "Warning NameConflict: x"],
            [1, 1, 2],
        );
        assert!(broken(conflict("events"), &obstacle));
        assert!(
            !broken(conflict("jobs"), &obstacle),
            "somebody had truly taken the name"
        );
    }

    #[test]
    fn the_worlds_faults_have_ends_of_their_own() {
        let broken =
            |stage, deed, end: &Value| judge(&run(Fault::World(stage, deed)), end, None).is_some();
        let lost = ended("Failed", "JobDeleted", &[], [1, 0, 0]);
        assert!(!broken(Stage::Running, WorldDeed::JobDeleted, &lost));
        assert!(broken(
            Stage::Running,
            WorldDeed::JobDeleted,
            &ended("Failed", "JobFailed", &[], [1, 0, 0])
        ));
        assert!(!broken(
            Stage::Running,
            WorldDeed::PodDeleted,
            &ended("Failed", "JobFailed", &[], [1, 1, 1])
        ));
        assert!(!broken(
            Stage::Before,
            WorldDeed::ForeignJobStays,
            &ended("Pending", "NameConflict", &[], [1, 1, 0])
        ));
        assert!(broken(Stage::Before, WorldDeed::ForeignJobStays, &lost));
        assert!(!broken(
            Stage::Running,
            WorldDeed::TestDeleted,
            &ended("", "", &[], [0, 0, 0])
        ));
        assert!(broken(
            Stage::Running,
            WorldDeed::TestDeleted,
            &ended("", "", &[], [0, 1, 0])
        ));
    }
}
