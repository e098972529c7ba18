//! The conditions Ready and Stalled, from which generic tools such as Flux, Helm and Argo CD read whether a test is in progress, has
//! passed or has failed.
//!
//! Source: sigs.k8s.io/cli-utils, `pkg/kstatus/README.md`.

use loadtest_api::conditions::ConditionUpdate;
use loadtest_api::v1alpha1::{ConditionType, Reason};

/// Inserts Ready, and Stalled for a test that will not pass any more. Both follow from the other conditions: those of a test that is
/// in progress have no Passed.
pub(super) fn insert_readiness(updates: &mut Vec<ConditionUpdate>) {
    let find = |type_| updates.iter().find(|u| u.type_ == type_);
    let find_true = |type_| find(type_).filter(|u| u.status == Some(true));
    let verdict = find(ConditionType::Passed);
    let has_passed = verdict.is_some_and(|passed| passed.status == Some(true));
    let cause = match verdict {
        None => find(ConditionType::Progressing),
        Some(_) => find_true(ConditionType::Failed)
            .or_else(|| find_true(ConditionType::Stopped))
            .or(verdict),
    };
    let Some(cause) = cause.cloned() else {
        return;
    };
    let is_stalled = verdict.is_some() && !has_passed || cause.reason == Reason::SetAside;
    let ready = ConditionUpdate {
        type_: ConditionType::Ready,
        status: Some(has_passed),
        ..cause
    };
    let stalled = is_stalled.then(|| ConditionUpdate {
        type_: ConditionType::Stalled,
        status: Some(true),
        ..ready.clone()
    });
    let ends = updates
        .iter()
        .rposition(|u| u.type_ == ConditionType::Failed);
    let at = ends.map_or(updates.len(), |failed| failed + 1);
    updates.splice(at..at, [Some(ready), stalled].into_iter().flatten());
}
