//! How a start instant travels in the annotations of a worker's pod.

use k8s_openapi::jiff::Timestamp;
use loadtest_api::labels::{START_ANNOTATION, START_ATTEMPT_ANNOTATION};
use serde_json::{Value, json};

/// The annotations that send a start instant for the given attempt, as a merge patch of the pod's metadata needs them.
///
/// A kubelet syncs a pod only when the pod has changed. The attempt makes every retry a change; the instant stays the same.
#[must_use]
pub(crate) fn encode_start(at: Timestamp, attempt: u8) -> Value {
    json!({START_ANNOTATION: format!("{at:.3}"), START_ATTEMPT_ANNOTATION: attempt.to_string()})
}

/// The attempt that an annotation holds. A pod that an older operator started has none, and counts as sent once.
#[must_use]
pub(crate) fn decode_attempt(annotation: Option<&str>) -> u8 {
    annotation.and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_carry_the_same_instant() {
        let at = Timestamp::from_millisecond(1_767_225_600_120).unwrap_or_default();
        let [first, second] = [1, 2].map(|attempt| encode_start(at, attempt));
        assert_eq!(first[START_ANNOTATION], "2026-01-01T00:00:00.120Z");
        assert_eq!(first[START_ANNOTATION], second[START_ANNOTATION]);
        assert_ne!(first, second, "a kubelet passes over an unchanged pod");
        let attempt = second[START_ATTEMPT_ANNOTATION].as_str();
        assert_eq!(decode_attempt(attempt), 2);
        assert_eq!(decode_attempt(None), 1, "started by an older operator");
    }
}
