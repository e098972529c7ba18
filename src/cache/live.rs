//! What the workers of running tests reported last.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use loadtest_api::v1alpha1::{AbortCondition, Results, Series, Threshold};
use loadtest_results::thresholds::{self, Outcome};
use loadtest_results::{Measurements, Snapshot, series, summarize};

use super::key::{ObjectRef, shrink_if_sparse};
use crate::runtime::lock;
use crate::state::{AbortState, LiveResults, Unreachable};

/// A running test whose workers are to be read.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The test.
    pub key: ObjectRef,
    /// The UID of its Job.
    pub job_uid: String,
    /// The workers that run.
    pub workers: Vec<TargetWorker>,
    /// When the load started.
    pub started: Timestamp,
    /// How long the script's phases take, in seconds, if that is known.
    pub expected_seconds: Option<f64>,
    /// The conditions that abort the test.
    pub abort: Vec<AbortCondition>,
}

/// A worker to read.
#[derive(Clone, Debug)]
pub(crate) struct TargetWorker {
    /// The name of its pod.
    pub pod: String,
    /// Its index.
    pub index: i32,
    /// The address of its pod.
    pub ip: IpAddr,
}

/// The last snapshots of a test's workers, by pod, with their indices. They are compressed. A worker that does not respond keeps its last one, so nothing
/// is counted twice or lost.
pub(crate) type WorkerSnapshots = BTreeMap<String, (i32, Snapshot)>;

/// The responses of one round.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// What all workers have measured.
    pub measured: Measurements,
    /// What the load of each is judged by, with its index.
    pub loads: Vec<(i32, Measurements)>,
    /// How many workers responded.
    pub responses: usize,
    /// The course that an earlier process recorded.
    pub recorded: Option<Series>,
    /// Why a worker did not respond.
    pub error: Option<String>,
}

/// The live results of all running tests.
#[derive(Debug, Default)]
pub(crate) struct LiveStore(Mutex<HashMap<ObjectRef, LiveTest>>);

#[derive(Debug, Default)]
struct LiveTest {
    job_uid: String,
    /// Taken while a round is in flight.
    snapshots: Option<WorkerSnapshots>,
    read_at: Option<Timestamp>,
    latest: Option<Arc<LiveResults>>,
}

impl LiveStore {
    /// The latest results of a test, if its workers have been read.
    pub(crate) fn latest(&self, key: &ObjectRef, job_uid: &str) -> Option<Arc<LiveResults>> {
        let tests = lock(&self.0);
        let test = tests.get(key).filter(|test| test.job_uid == job_uid)?;
        test.latest.clone()
    }

    /// When a test was read last. None before its first round.
    pub(crate) fn read_at(&self, key: &ObjectRef, job_uid: &str) -> Option<Timestamp> {
        let tests = lock(&self.0);
        tests
            .get(key)
            .filter(|test| test.job_uid == job_uid)?
            .read_at
    }

    /// Begins a round. Returns the snapshots of earlier rounds; None if a round is in flight.
    pub(crate) fn begin_round(&self, target: &Target, now: Timestamp) -> Option<WorkerSnapshots> {
        let mut tests = lock(&self.0);
        let test = tests.entry(target.key.clone()).or_default();
        if test.job_uid != target.job_uid {
            *test = LiveTest {
                job_uid: target.job_uid.clone(),
                snapshots: Some(WorkerSnapshots::new()),
                ..LiveTest::default()
            };
        }
        let snapshots = test.snapshots.take()?;
        test.read_at = Some(now);
        Some(snapshots)
    }

    /// Ends a round. Returns whether the test is to be reconciled: it has results for the first time, or may have to be aborted.
    pub(crate) fn end_round(
        &self,
        target: &Target,
        snapshots: WorkerSnapshots,
        round: Round,
        now: Timestamp,
    ) -> bool {
        let mut tests = lock(&self.0);
        let Some(test) = tests
            .get_mut(&target.key)
            .filter(|test| test.job_uid == target.job_uid)
        else {
            return false;
        };
        test.snapshots = Some(snapshots);
        let is_first = test.latest.is_none();
        let latest = next(test.latest.as_deref(), target, round, now);
        let is_suspicious = |state: &AbortState| state.held_since.or(state.unknown_since).is_some();
        let may_abort = latest.aborts.iter().any(is_suspicious);
        test.latest = Some(Arc::new(latest));
        is_first || may_abort
    }

    /// Forgets a test that has ended or was deleted.
    pub(crate) fn forget(&self, key: &ObjectRef) {
        let mut tests = lock(&self.0);
        tests.remove(key);
        shrink_if_sparse(&mut tests);
    }
}

/// The results after a round.
fn next(
    before: Option<&LiveResults>,
    target: &Target,
    round: Round,
    now: Timestamp,
) -> LiveResults {
    let since_start = |at: Timestamp| at.duration_since(target.started).as_secs_f64().max(0.0);
    let begin = before.map_or(target.started, |before| before.as_of);
    let seconds = (since_start(begin), since_start(now));
    let window = match before {
        Some(before) => Some(
            round
                .measured
                .since(&before.measured, seconds.1 - seconds.0),
        ),
        // After a restart of the operator the beginning of the period is unknown.
        None if round.recorded.is_some() => None,
        None => Some(round.measured.clone()),
    };
    let unreachable = (round.responses == 0).then(|| Unreachable {
        since: before
            .and_then(|before| Some(before.unreachable.as_ref()?.since))
            .unwrap_or(now),
        workers: target.workers.len(),
        error: round.error.unwrap_or_default(),
    });
    let mut series = match before {
        Some(before) => before.series.clone(),
        None => round.recorded.unwrap_or_else(|| Series {
            start: Some(Time(target.started)),
            step_seconds: series::step_seconds(target.expected_seconds),
            ..Series::default()
        }),
    };
    if unreachable.is_none() {
        let workers = u32::try_from(target.workers.len()).unwrap_or(u32::MAX);
        let totals = summarize(&round.measured, workers, 0);
        let times = window.as_ref().map(|window| summarize(window, workers, 0));
        let times = times.as_ref().and_then(Results::response_time);
        #[allow(clippy::cast_possible_truncation)] // saturates
        let due = round
            .measured
            .plan()
            .map_or(0, |plan| plan.due.round() as i64);
        series::add(&mut series, seconds, &totals, due, times);
    }
    let is_known = unreachable.is_none();
    let states = target.abort.iter().enumerate().map(|(i, condition)| {
        let earlier = before.and_then(|before| before.aborts.get(i));
        let window = window.as_ref().filter(|_| is_known);
        abort_state(condition, earlier, window, target.started, begin, now)
    });
    LiveResults {
        as_of: now,
        aborts: states.collect(),
        measured: round.measured,
        loads: round.loads,
        series,
        unreachable,
    }
}

fn abort_state(
    condition: &AbortCondition,
    earlier: Option<&AbortState>,
    window: Option<&Measurements>,
    started: Timestamp,
    begin: Timestamp,
    now: Timestamp,
) -> AbortState {
    let after = condition
        .after
        .as_deref()
        .and_then(loadtest_api::duration::parse);
    let is_early = now.duration_since(started) < after.unwrap_or(SignedDuration::ZERO);
    if is_early {
        return AbortState::default();
    }
    let evaluation = window.map(|window| {
        let threshold = Threshold::strict(condition.when.clone());
        thresholds::evaluate(&[threshold], window).swap_remove(0)
    });
    let (holds, observed) = match &evaluation {
        Some(evaluation) => match &evaluation.outcome {
            Outcome::Met => (Some(true), evaluation.observed_values()),
            Outcome::NotMet => (Some(false), evaluation.observed_values()),
            Outcome::Unknown(_) => (None, evaluation.observed_values()),
        },
        None => (None, "no worker responded".to_owned()),
    };
    let since = |earlier: Option<Timestamp>| Some(earlier.unwrap_or(begin));
    AbortState {
        held_since: (holds == Some(true))
            .then(|| since(earlier.and_then(|e| e.held_since)))
            .flatten(),
        unknown_since: holds
            .is_none()
            .then(|| since(earlier.and_then(|e| e.unknown_since)))
            .flatten(),
        observed,
    }
}
