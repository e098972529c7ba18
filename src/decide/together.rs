//! Workers that begin their load together: each says that it is ready, and once all are, all are told one instant.
//!
//! The instant is kept nowhere but on the workers' pods. So an operator that is ended while it tells them finds it on the
//! first of them when it comes back, and tells the rest the same.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

use super::{Scene, StartWorkers, named};
use crate::progress::{Readiness, Worker};

/// So far ahead is the instant. It takes the kubelets a quarter of a second to bring it to the workers, and up to 1.2 s until
/// these say so.
const LEAD: SignedDuration = SignedDuration::from_millis(1800);

/// And so much further for each worker that is to be told. A control plane of two cores, busy with what 5000 workers make it do
/// besides, took 7.8 ms for each; who is told after the instant begins late.
const LEAD_OF_EACH: SignedDuration = SignedDuration::from_millis(8);

/// So many milliseconds after the instant those are told again that do not say that they know it: the first time while they can
/// still begin with the others. A kubelet passes over a change of a pod now and then, until it looks at the pod a minute or
/// more later: where its volume manager has just listed the volumes with the pod as it was, it brings that to the pod's files
/// and takes the change for done (1.34, pkg/kubelet/volumemanager: the populator comes in between in reconcile). With many
/// workers on a node it is one test in ten.
const AGAIN: [i64; 6] = [-350, 1500, 3000, 7000, 15_000, 30_000];

/// And so long after it, and after their answer was due, they are late.
const LATE: SignedDuration = SignedDuration::from_secs(10);

/// How far the workers are that wait for each other.
pub(super) enum Gathering {
    /// None waits any more.
    Begun {
        /// When they were to begin, if they were told.
        at: Option<Timestamp>,
    },
    /// Some are not ready, which this names.
    Waits(String),
    /// All are to be told, or the rest is.
    Tell(StartWorkers),
}

impl Gathering {
    /// What is waited for, if anything is.
    pub(super) fn told(&self) -> Option<String> {
        match self {
            Self::Begun { .. } => None,
            Self::Waits(missing) => Some(format!("waiting until {missing} is ready")),
            Self::Tell(start) => Some(format!(
                "all are ready, and {} of them to be told when to begin",
                start.pods.len()
            )),
        }
    }
}

impl Scene<'_> {
    /// How far workers are all of which have started.
    pub(super) fn gathering(&self, workers: &[Arc<Worker>]) -> Gathering {
        let told = workers.iter().filter_map(|w| w.start_at).min();
        // Nobody waits for one that has ended before the others were ready: whether the test goes on is the Job's matter.
        let untold: Vec<&Worker> = workers
            .iter()
            .map(Arc::as_ref)
            .filter(|w| w.start_at.is_none() && goes_on(w))
            .collect();
        if untold.is_empty() || !self.test.spec.starts_together() {
            return Gathering::Begun { at: told };
        }
        let missing: Vec<&Worker> = untold
            .iter()
            .copied()
            .filter(|w| w.readiness == Readiness::Loads)
            .collect();
        if told.is_none() && !missing.is_empty() {
            return Gathering::Waits(named(&missing));
        }
        let pods = untold
            .into_iter()
            .map(|w| (w.pod.clone(), w.uid.clone()))
            .collect::<Vec<_>>();
        Gathering::Tell(StartWorkers {
            at: told.unwrap_or_else(|| start(self.now, pods.len())),
            times: 1,
            pods,
        })
    }

    /// Who is to be told again of those that were told, and when to look at this the next time.
    pub(super) fn telling_again(
        &self,
        workers: &[Arc<Worker>],
    ) -> (Option<StartWorkers>, Option<Timestamp>) {
        let Some(at) = workers
            .iter()
            .filter_map(|w| w.start_at)
            .min()
            .filter(|_| self.test.spec.starts_together())
        else {
            return (None, None);
        };
        let after = |ms: &i64| super::later(at, SignedDuration::from_millis(*ms));
        // Where none has said it, it is not the one kubelet that is late.
        let too_early =
            self.now < at && !workers.iter().any(|w| w.readiness == Readiness::KnowsStart);
        let due = AGAIN.iter().filter(|ms| after(ms) <= self.now).count();
        let times = u8::try_from(due).unwrap_or_default().saturating_add(1);
        let unaware = silent(workers).filter(|w| w.answer_due.is_some_and(|due| due <= self.now));
        let again = unaware.filter(|w| w.told < times && !too_early);
        let pods: Vec<_> = again.map(|w| (w.pod.clone(), w.uid.clone())).collect();
        let answer = silent(workers)
            .filter_map(|w| w.answer_due)
            .filter(|due| *due > self.now)
            .min();
        let next = AGAIN
            .get(due)
            .map(after)
            .filter(|_| silent(workers).next().is_some());
        (
            (!pods.is_empty()).then_some(StartWorkers { at, times, pods }),
            [next, answer].into_iter().flatten().min(),
        )
    }

    /// Those that do not say that they know when to begin, though it is over, if there are any.
    pub(super) fn late(&self, workers: &[Arc<Worker>]) -> Option<String> {
        let at = self.current.load_start_time.as_ref()?.0;
        let is_late = |w: &&Worker| {
            w.answer_due
                .is_some_and(|due| super::later(due.max(at), LATE) <= self.now)
        };
        let late: Vec<_> = silent(workers).filter(is_late).collect();
        (!late.is_empty()).then(|| {
            format!("worker {} does not say that it knows to begin at {at}: see its log, and how busy its node is", named(&late))
        })
    }
}

/// Those that were told when to begin, and have not said that they know it.
fn silent(workers: &[Arc<Worker>]) -> impl Iterator<Item = &Worker> {
    workers
        .iter()
        .map(Arc::as_ref)
        .filter(|w| goes_on(w) && w.start_at.is_some() && w.readiness < Readiness::KnowsStart)
}

/// Whether a worker has not ended, and is not about to.
fn goes_on(worker: &Worker) -> bool {
    !worker.has_ended() && worker.deleted.is_none()
}

/// The instant for so many workers, in whole milliseconds, which is what they read.
fn start(now: Timestamp, workers: usize) -> Timestamp {
    let each = LEAD_OF_EACH.saturating_mul(i32::try_from(workers).unwrap_or(i32::MAX));
    let at = super::later(now, LEAD.saturating_add(each));
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}
