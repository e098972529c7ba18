//! How a LoadTest is kept. Thousands of tests may wait, and no event is frequent for one that does.

use std::sync::Arc;

use loadtest_api::v1alpha1::{LoadTest, Phase};

/// A LoadTest in the store.
#[derive(Debug)]
pub(super) enum StoredTest {
    /// A test that has not started, as JSON: a third of the memory.
    Packed {
        phase: Option<Phase>,
        json: Box<[u8]>,
    },
    /// A test that has started, or has finished.
    Whole(Arc<LoadTest>),
}

impl From<LoadTest> for StoredTest {
    fn from(test: LoadTest) -> Self {
        let phase = test.phase();
        let is_waiting = !phase.is_some_and(Phase::has_started);
        match serde_json::to_vec(&test) {
            Ok(json) if is_waiting => Self::Packed {
                phase,
                json: json.into(),
            },
            _ => Self::Whole(Arc::new(test)),
        }
    }
}

impl StoredTest {
    /// The test.
    pub(super) fn unpack(&self) -> Option<Arc<LoadTest>> {
        match self {
            Self::Packed { json, .. } => serde_json::from_slice(json).ok().map(Arc::new),
            Self::Whole(test) => Some(test.clone()),
        }
    }

    /// The phase.
    pub(super) fn phase(&self) -> Option<Phase> {
        match self {
            Self::Packed { phase, .. } => *phase,
            Self::Whole(test) => test.phase(),
        }
    }

    /// The test, if it has started.
    pub(super) fn started(&self) -> Option<&Arc<LoadTest>> {
        match self {
            Self::Packed { .. } => None,
            Self::Whole(test) => Some(test),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixtures::load_test;
    use loadtest_api::v1alpha1::LoadTestStatus;

    #[test]
    fn a_waiting_test_is_packed_and_unpacked_as_it_was() {
        for phase in [
            None,
            Some(Phase::Pending),
            Some(Phase::Running),
            Some(Phase::Failed),
        ] {
            let mut test = load_test().build();
            test.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
            test.status = phase.map(|phase| LoadTestStatus {
                phase: Some(phase),
                ..LoadTestStatus::default()
            });
            let stored = StoredTest::from(test.clone());
            assert_eq!((*stored.unpack().unwrap()).clone(), test);
            assert_eq!(stored.phase(), phase);
            let waits = matches!(phase, None | Some(Phase::Pending));
            assert_eq!(stored.started().is_none(), waits, "{phase:?}");
        }
    }
}
