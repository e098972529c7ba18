//! A test with texts that are markup in every format.

use serde_json::Value;

use super::fixtures::slow;
use crate::view::View;

pub(super) const HOSTILE: &str = "</script><img src=x onerror=alert(1)> | `@team` \"'&\u{1}";

/// The test of [`slow`] with [`HOSTILE`] in every text that users or workers choose.
pub(super) fn hostile() -> View {
    let mut view = slow();
    let mut value = serde_json::to_value(&view.test).unwrap();
    poison(&mut value);
    view.test = serde_json::from_value(value).unwrap();
    let text = || format!("{HOSTILE} {}", "x".repeat(300));
    view.test.metadata.name = Some(text());
    view.test.metadata.namespace = Some(text());
    view.script = Some(text());
    view.missing = vec![text()];
    for worker in &mut view.workers {
        (worker.pod, worker.state, worker.detail, worker.node) =
            (text(), text(), Some(text()), Some(text()));
        worker.is_problem = true;
    }
    for event in &mut view.events {
        (event.reason, event.message) = (text(), text());
    }
    view
}

/// Replaces all texts that are neither an enum, a time, nor a name that the report looks for.
fn poison(value: &mut Value) {
    const KEPT: [&str; 16] = [
        "apiVersion",
        "kind",
        "phase",
        "verdict",
        "status",
        "type",
        "load",
        "start",
        "failurePolicy",
        "lastTransitionTime",
        "startTime",
        "loadStartTime",
        "completionTime",
        "creationTimestamp",
        "asOf",
        "saturated",
    ];
    match value {
        Value::String(text) if !text.ends_with(".response_time") => *text = HOSTILE.to_owned(),
        Value::Array(all) => all.iter_mut().for_each(poison),
        Value::Object(fields) => {
            let is_poisoned = |(key, value): &(&String, &mut Value)| {
                !KEPT.contains(&key.as_str()) || !value.is_string()
            };
            fields
                .iter_mut()
                .filter(is_poisoned)
                .for_each(|(_, value)| poison(value));
        }
        _ => {}
    }
}
