//! The conditions of a status: pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::api::v1alpha1::{ConditionType, Reason};

/// What one condition is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Which condition.
    pub type_: ConditionType,
    /// Its status: `True`, `False`, or `Unknown`.
    pub holds: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// Why, in a sentence for people.
    pub message: String,
}

impl Wanted {
    /// A condition with what it is to say.
    pub fn new(
        type_: ConditionType,
        holds: Option<bool>,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            holds,
            reason,
            message: message.into(),
        }
    }
}

/// The most characters of a message: the API server takes more, but nobody reads it.
const MOST_MESSAGE: usize = 2000;

/// The conditions of a status, made from what each of them is to say, in that order. The time of a condition is
/// that of its last change between `True`, `False` and `Unknown`, so it is taken over from `current` where that has not changed.
///
/// Source: Kubernetes API conventions, "Typical status properties".
#[must_use]
pub fn conditions(
    current: &[Condition],
    wanted: Vec<Wanted>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    wanted
        .into_iter()
        .map(|wanted| {
            let type_ = wanted.type_.as_str();
            let status = wanted
                .holds
                .map_or("Unknown", |holds| if holds { "True" } else { "False" });
            let last_transition_time = current
                .iter()
                .find(|c| c.type_ == type_ && c.status == status)
                .map_or(Time(now), |c| c.last_transition_time.clone());
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: wanted.reason.as_str().to_owned(),
                message: wanted.message.chars().take(MOST_MESSAGE).collect(),
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

    fn wanted(holds: [bool; 3]) -> Vec<Wanted> {
        std::iter::zip(ConditionType::ALL, holds)
            .map(|(type_, holds)| Wanted::new(*type_, Some(holds), Reason::Running, "m"))
            .collect()
    }

    #[test]
    fn the_order_is_fixed_and_a_time_changes_only_with_its_status() {
        let (first, second): (Timestamp, Timestamp) = (
            "2026-01-01T00:00:00Z".parse().unwrap(),
            "2026-01-01T00:01:00Z".parse().unwrap(),
        );
        let before = conditions(&[], wanted([true, false, false]), Some(1), first);
        let mut shuffled = before.clone();
        shuffled.reverse();
        let after = conditions(&shuffled, wanted([false, true, false]), Some(1), second);
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
