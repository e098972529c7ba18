//! Exit codes.

use std::process::ExitCode;

use loadtest_api::v1alpha1::{LoadTest, Phase, Verdict};

/// How a command ended, which is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The test passed, or the command did what it was asked for.
    Passed,
    /// The test did not pass, or a condition of `--fail-if` holds.
    Failed,
    /// The test has not finished, or the command failed.
    Unfinished,
    /// No threshold is violated, but the planned load was not delivered.
    Inconclusive,
}

impl Outcome {
    /// The outcome of a test.
    #[must_use]
    pub fn of(test: &LoadTest) -> Self {
        let finished = test.phase().is_some_and(Phase::is_terminal);
        match test.status.as_ref().and_then(|status| status.verdict) {
            Some(Verdict::Passed) if finished => Self::Passed,
            Some(Verdict::Inconclusive) if finished => Self::Inconclusive,
            _ if finished => Self::Failed,
            _ => Self::Unfinished,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}
