//! What the workers of running tests reported last.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use loadtest_api::v1alpha1::{AbortCondition, Series, Threshold};
use loadtest_results::thresholds::{self, Outcome};
use loadtest_results::{Measurements, Snapshot, series, summarize};

use super::key::{ObjectRef, shrink_if_sparse};
use crate::runtime::lock;
use crate::state::{AbortState, LiveResults, Unreachable};

/// A running test whose workers are due.
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

/// The last snapshots of a test's workers, by pod, with their indices. They are compressed. A worker that does not respond keeps its
/// last one, so nothing is counted twice or lost.
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
        self.get(key, job_uid, |test| test.latest.clone())
    }

    /// When a test was read last. None before its first round.
    pub(crate) fn read_at(&self, key: &ObjectRef, job_uid: &str) -> Option<Timestamp> {
        self.get(key, job_uid, |test| test.read_at)
    }

    fn get<T>(
        &self,
        key: &ObjectRef,
        job_uid: &str,
        field: impl FnOnce(&LiveTest) -> Option<T>,
    ) -> Option<T> {
        let tests = lock(&self.0);
        field(tests.get(key).filter(|test| test.job_uid == job_uid)?)
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

    /// Ends a round. Returns whether the test must be reconciled: it has results for the first time, or may have to be aborted.
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
    let begin = match (before, &round.recorded) {
        (Some(before), _) => before.as_of,
        (None, Some(recorded)) => end_of(recorded, target.started),
        (None, None) => target.started,
    };
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
        series::add_period(
            &mut series,
            seconds,
            &totals,
            &round.measured,
            window.as_ref(),
        );
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

/// When the last step of a series ends.
fn end_of(series: &Series, started: Timestamp) -> Timestamp {
    let steps = i64::try_from(series.requests.len()).unwrap_or(i64::MAX);
    let seconds = SignedDuration::from_secs(steps.saturating_mul(series.step_seconds));
    started.checked_add(seconds).unwrap_or(started)
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
    let holds = evaluation.as_ref().and_then(|e| match &e.outcome {
        Outcome::Met => Some(true),
        Outcome::NotMet => Some(false),
        Outcome::Unknown(_) => None,
    });
    let observed = match &evaluation {
        Some(evaluation) => evaluation.observed_values(),
        None => "no worker responded".to_owned(),
    };
    let since = |earlier: Option<Timestamp>| earlier.unwrap_or(begin);
    AbortState {
        held_since: (holds == Some(true)).then(|| since(earlier.and_then(|e| e.held_since))),
        unknown_since: holds
            .is_none()
            .then(|| since(earlier.and_then(|e| e.unknown_since))),
        observed,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use loadtest_results::testing::message;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + seconds).unwrap()
    }

    fn target(abort: serde_json::Value) -> Target {
        Target {
            key: ObjectRef::new(super::super::NamespacedName {
                namespace: "n".into(),
                name: "t".into(),
            }),
            job_uid: "j".into(),
            workers: vec![TargetWorker {
                pod: "t-0-x".into(),
                index: 0,
                ip: IpAddr::from([127, 0, 0, 1]),
            }],
            started: at(0),
            expected_seconds: Some(60.0),
            abort: serde_json::from_value(abort).unwrap(),
        }
    }

    /// A round in which the workers report so many requests in total.
    fn round(requests: Option<u32>) -> Round {
        let Some(requests) = requests else {
            return Round {
                error: Some("refused".into()),
                ..Round::default()
            };
        };
        let json = format!(r#"{{"counters":{{"http.requests":{requests}}},"histograms":{{}}}}"#);
        Round {
            measured: Snapshot::from_message(&message(&json))
                .unwrap()
                .decode()
                .unwrap(),
            responses: 1,
            ..Round::default()
        }
    }

    /// The results after rounds at these seconds.
    fn after(target: &Target, rounds: &[(i64, Option<u32>)]) -> LiveResults {
        let rounds = rounds
            .iter()
            .map(|(second, requests)| (at(*second), round(*requests)));
        let next = |before: Option<LiveResults>, (now, round)| {
            Some(next(before.as_ref(), target, round, now))
        };
        rounds.fold(None, next).unwrap()
    }

    #[test]
    fn a_condition_holds_since_the_period_in_which_it_first_held() {
        let target = target(json!([{"when": "http.requests > 100", "after": "15s"}]));
        let held = |rounds: &[(i64, Option<u32>)]| after(&target, rounds).aborts[0].held_since;
        assert_eq!(held(&[(10, Some(500))]), None, "too early");
        assert_eq!(held(&[(10, Some(0)), (20, Some(500))]), Some(at(10)));
        assert_eq!(
            held(&[(10, Some(0)), (20, Some(500)), (30, Some(900))]),
            Some(at(10))
        );
        let interrupted = [
            (10, Some(0)),
            (20, Some(500)),
            (30, Some(550)),
            (40, Some(900)),
        ];
        assert_eq!(held(&interrupted), Some(at(30)));
    }

    #[test]
    fn without_responses_a_condition_is_unknown() {
        let target = target(json!([{"when": "http.requests > 100"}]));
        let silent = after(&target, &[(10, Some(1)), (20, None), (30, None)]);
        assert_eq!(silent.aborts[0].unknown_since, Some(at(10)));
        assert_eq!(silent.unreachable.map(|u| u.since), Some(at(20)));
        let back = after(&target, &[(10, Some(1)), (20, None), (30, Some(2))]);
        assert_eq!(
            (back.aborts[0].unknown_since, back.unreachable),
            (None, None)
        );
    }

    #[test]
    fn the_series_of_an_earlier_process_goes_on() {
        let target = target(json!([]));
        let recorded = after(&target, &[(10, Some(7)), (20, Some(9))]).series;
        let first = Round {
            recorded: Some(recorded),
            ..round(Some(30))
        };
        let series = next(None, &target, first, at(50)).series;
        assert_eq!(series.requests, [7, 2, 0, 21]);
    }

    #[test]
    fn a_round_in_flight_is_not_begun_again() {
        let (store, target) = (LiveStore::default(), target(json!([])));
        let snapshots = store.begin_round(&target, at(10)).unwrap();
        assert!(store.begin_round(&target, at(20)).is_none());
        assert!(
            store.end_round(&target, snapshots, round(Some(1)), at(20)),
            "the first one"
        );
        let snapshots = store.begin_round(&target, at(30)).unwrap();
        assert!(!store.end_round(&target, snapshots, round(Some(1)), at(30)));
        assert!(store.latest(&target.key, "j").is_some());
        assert!(store.latest(&target.key, "another").is_none());
        store.forget(&target.key);
        assert!(store.latest(&target.key, "j").is_none());
    }
}
