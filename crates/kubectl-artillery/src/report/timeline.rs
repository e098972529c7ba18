//! What happened to a test, in the order of time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;

use super::Report;
use crate::view::EventLine;

/// Something that happened to a test.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When. None if an event has no time.
    pub time: Option<Time>,
    /// What kind of entry this is.
    pub kind: EntryKind,
    /// What happened, in a few words.
    pub title: String,
    /// The message of an event.
    pub message: Option<String>,
}

/// Kinds of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum EntryKind {
    /// A time of the status.
    Milestone,
    /// A change of a condition.
    Condition,
    /// An event of type Normal.
    Event,
    /// An event of type Warning.
    Warning,
}

/// The times of the status, the changes of the conditions, and the events. Where times are equal, they stay in this order.
pub(super) fn entries(report: &Report, events: &[EventLine]) -> Vec<Entry> {
    let milestones = [
        (&report.created, "LoadTest created"),
        (&report.started, "Job started"),
        (&report.load_started, "Load started on all workers"),
        (&report.completed, "Test finished"),
    ];
    let milestones = milestones.into_iter().filter_map(|(time, title)| {
        Some(Entry {
            time: Some(time.clone()?),
            kind: EntryKind::Milestone,
            title: title.to_owned(),
            message: None,
        })
    });
    // A condition that never changed has nothing to show here. Its message is in the table of the conditions.
    let shown = report.conditions.iter().filter(|condition| {
        condition.status != "False"
            || matches!(condition.type_.as_str(), "Passed" | "LoadDelivered")
    });
    let changes = shown.map(|condition| Entry {
        time: Some(condition.last_transition_time.clone()),
        kind: EntryKind::Condition,
        title: format!(
            "{} is {}: {}",
            condition.type_, condition.status, condition.reason
        ),
        message: None,
    });
    let events = events.iter().map(|event| Entry {
        time: event.time.map(Time),
        kind: if event.is_warning {
            EntryKind::Warning
        } else {
            EntryKind::Event
        },
        title: event.reason.clone(),
        message: Some(event.message.clone()),
    });
    let mut entries: Vec<_> = milestones.chain(changes).chain(events).collect();
    entries.sort_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    entries
}
