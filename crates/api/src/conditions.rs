//! Sets the conditions of a status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::v1alpha1::{ConditionType, Reason};

/// The new state of one condition.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionUpdate {
    /// The condition.
    pub type_: ConditionType,
    /// Its status: `True`, `False`, or `Unknown`.
    pub status: Option<bool>,
    /// The reason.
    pub reason: Reason,
    /// The message for people.
    pub message: String,
}

impl ConditionUpdate {
    /// A new state of a condition.
    pub fn new(
        type_: ConditionType,
        status: Option<bool>,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            status,
            reason,
            message: message.into(),
        }
    }
}

/// How many characters of a message are kept.
const MAX_MESSAGE: usize = 2000;

/// The conditions of a status after these updates, in their order. The transition time of a condition changes only with its
/// status.
///
/// Source: Kubernetes API conventions, "Typical status properties".
#[must_use]
pub fn set_conditions(
    current: &[Condition],
    wanted: Vec<ConditionUpdate>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    wanted
        .into_iter()
        .map(|wanted| {
            let type_ = wanted.type_.as_str();
            let status = wanted
                .status
                .map_or("Unknown", |status| if status { "True" } else { "False" });
            let last_transition_time = current
                .iter()
                .find(|c| c.type_ == type_ && c.status == status)
                .map_or(Time(now), |c| c.last_transition_time.clone());
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: wanted.reason.as_str().to_owned(),
                message: wanted.message.chars().take(MAX_MESSAGE).collect(),
                observed_generation: generation,
                last_transition_time,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wanted(status: [bool; 3]) -> Vec<ConditionUpdate> {
        std::iter::zip(ConditionType::ALL, status)
            .map(|(type_, status)| ConditionUpdate::new(*type_, Some(status), Reason::Running, "m"))
            .collect()
    }

    #[test]
    fn the_order_is_fixed_and_transition_times_change_only_with_the_status() {
        let (first, second): (Timestamp, Timestamp) = (
            "2026-01-01T00:00:00Z".parse().unwrap(),
            "2026-01-01T00:01:00Z".parse().unwrap(),
        );
        let before = set_conditions(&[], wanted([true, false, false]), Some(1), first);
        let mut shuffled = before.clone();
        shuffled.reverse();
        let after = set_conditions(&shuffled, wanted([false, true, false]), Some(1), second);
        let seen: Vec<_> = after
            .iter()
            .map(|c| {
                (
                    c.type_.as_str(),
                    c.status.as_str(),
                    c.last_transition_time.0,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("Progressing", "False", second),
                ("Completed", "True", second),
                ("Failed", "False", first)
            ]
        );
    }
}
