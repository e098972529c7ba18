//! Whether the workers sent the load that the script's phases plan, and what kept them from it.

use loadtest_api::conditions::ConditionUpdate;
use loadtest_api::v1alpha1::{
    ConditionType, Generators, Load, LoadTestSpec, Reason, Results, WorstGenerator,
};
use loadtest_results::{Generator, Measurements};

use super::messages::load as messages;

/// A load that takes longer than planned by less than this says nothing about the size of a worker: a busy node delays even a healthy
/// one while it starts.
const MIN_LATE_SECONDS: f64 = 2.0;

/// The same for the delay of virtual users. A worker that lacks CPU is late at the end, too, so that a shorter delay is passing: on a
/// node with ten times as many runnable threads as CPUs, the first virtual users of a healthy worker are late by up to 5 s.
const MIN_DELAY_SECONDS: f64 = 5.0;

/// A Poisson process creates its expected number of virtual users within this many standard deviations, except in one of 30,000
/// runs.
const DEVIATIONS: f64 = 4.0;

/// The share of throttled CPU periods from which the CPU limit explains a late load.
const THROTTLED: f64 = 0.1;

/// The average utilization from which the event loop explains a late load. Phases are not even, so that the average is below 1 even if
/// the event loop was busy for long.
const BUSY: f64 = 0.7;

/// The event-loop delay that has the same meaning, in ms.
const BUSY_DELAY_MS: f64 = 200.0;

/// The ratio of CPU time to the time in which the event loop was busy, below which the node had no CPU for the worker.
const STARVED: f64 = 0.7;

/// The share of its memory limit from which a worker needs more memory.
const MEMORY_FULL: f64 = 0.9;

/// How much more capacity a saturated worker needs at least, and what a division by almost zero is limited to.
const FACTORS: (f64, f64) = (1.1, 1000.0);

/// How far the sent load may differ from the planned load, as shares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    users: f64,
    time: f64,
    skipped: f64,
}

impl Tolerance {
    pub(super) fn of(spec: &LoadTestSpec) -> Self {
        let accepted = spec.load_tolerance.unwrap_or_default();
        let share = |percent: Option<i32>, default: i32| {
            f64::from(percent.unwrap_or(default).max(0)) / 100.0
        };
        Self {
            users: share(accepted.users_percent, 1),
            time: share(accepted.time_percent, 10),
            skipped: share(accepted.skipped_percent, 1),
        }
    }

    /// By how many seconds a load of this planned duration may be late.
    fn seconds(self, planned_seconds: f64, at_least: f64) -> f64 {
        (self.time * planned_seconds).max(at_least)
    }
}

/// The load of one worker that reported its plan.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WorkerLoad {
    /// The worker's index.
    pub(super) index: i32,
    /// What it measured about itself.
    pub(super) generator: Generator,
    /// The duration of the phases by plan, in seconds.
    pub(super) planned_seconds: f64,
    /// The time that they took, in seconds.
    pub(super) actual_seconds: f64,
    /// Virtual users that were created. If the phases took too long, the part of them that was created in the planned time.
    pub(super) sent: f64,
    /// Virtual users per second that were planned.
    pub(super) planned_rate: f64,
    /// Virtual users per second that arrived: were created or skipped.
    pub(super) arrival_rate: f64,
    /// The 99th percentile of the arrival delay, in seconds.
    pub(super) delay_seconds: f64,
    /// Whether the phases took too long.
    pub(super) is_overdue: bool,
    /// Whether the load was late.
    pub(super) is_saturated: bool,
}

impl WorkerLoad {
    /// The load of one worker. None if its plan is unknown.
    ///
    /// A worker is saturated if its load was late: if its phases took longer than planned by more than the tolerance, or if more
    /// than 1 % of its virtual users arrived later than that. Short delays are normal, so that the tolerance is at least
    /// [`MIN_LATE_SECONDS`] or [`MIN_DELAY_SECONDS`]. Both values are also valid for a worker that has not finished.
    pub(super) fn new(index: i32, measured: &Measurements, tolerance: Tolerance) -> Option<Self> {
        let plan = measured.plan()?;
        let created = counter(measured, "vusers.created");
        let arrived = created + counter(measured, "vusers.skipped");
        let delay = measured
            .arrival_delay()
            .and_then(|delay| delay.summary("p99"));
        let delay_seconds = delay.unwrap_or_default() / 1000.0;
        let accepted = |at_least| tolerance.seconds(plan.planned_seconds, at_least);
        let overrun = plan.actual_seconds - plan.planned_seconds;
        let is_overdue = overrun > accepted(MIN_LATE_SECONDS);
        let in_time = if is_overdue {
            plan.planned_seconds / plan.actual_seconds
        } else {
            1.0
        };
        let rate = |vusers: f64, seconds: f64| vusers / seconds.max(1.0);
        Some(Self {
            index,
            generator: measured.generator().cloned().unwrap_or_default(),
            planned_seconds: plan.planned_seconds,
            actual_seconds: plan.actual_seconds,
            sent: created * in_time,
            planned_rate: rate(plan.vusers, plan.planned_seconds),
            arrival_rate: rate(arrived, plan.actual_seconds),
            delay_seconds,
            is_overdue,
            is_saturated: is_overdue || delay_seconds > accepted(MIN_DELAY_SECONDS),
        })
    }

    /// By how many seconds the load was late.
    pub(super) fn late_seconds(&self) -> f64 {
        (self.actual_seconds - self.planned_seconds).max(self.delay_seconds)
    }

    /// How many times the capacity of this worker the planned load needs.
    pub(super) fn factor(&self) -> f64 {
        let by_rate = self.planned_rate / self.arrival_rate.max(f64::MIN_POSITIVE);
        let by_delay = 1.0 + self.delay_seconds / self.planned_seconds.max(1.0);
        by_rate.max(by_delay).clamp(FACTORS.0, FACTORS.1)
    }

    /// CPU usage, in millicores.
    pub(super) fn cpu(&self) -> Option<f64> {
        let used = self
            .generator
            .cpu_ms
            .filter(|_| self.actual_seconds > 0.0)?;
        Some(used / self.actual_seconds)
    }

    /// What limited the worker, if it was late.
    pub(super) fn cause(&self) -> Cause {
        let generator = &self.generator;
        if generator
            .throttled_share()
            .is_some_and(|share| share >= THROTTLED)
        {
            return Cause::Throttled;
        }
        let is_delayed = generator
            .loop_delay_ms
            .is_some_and(|ms| ms >= BUSY_DELAY_MS);
        match (generator.utilization, self.cpu()) {
            (Some(busy), _) if busy < BUSY && !is_delayed => Cause::Unknown,
            (Some(busy), Some(cpu)) if cpu < STARVED * busy * 1000.0 => Cause::NodeBusy { cpu },
            (Some(_), _) => Cause::EventLoopBusy,
            (None, _) => Cause::Unknown,
        }
    }

    /// Whether the worker used almost all of its memory.
    pub(super) fn memory_is_full(&self) -> bool {
        let used = self.generator.memory.zip(self.generator.memory_limit);
        used.is_some_and(|(used, limit)| used >= MEMORY_FULL * limit)
    }

    fn is_worse_than(&self, other: &Self) -> bool {
        let rank = |load: &Self| {
            (
                load.is_saturated,
                load.late_seconds().max(0.0),
                load.generator.utilization.unwrap_or_default(),
            )
        };
        rank(self) > rank(other)
    }

    fn shown(&self) -> WorstGenerator {
        let generator = &self.generator;
        WorstGenerator {
            worker: self.index,
            planned_rate: Some(tenths(self.planned_rate)),
            arrival_rate: Some(tenths(self.arrival_rate)),
            #[allow(clippy::cast_possible_truncation)]
            threads: generator.threads.map(|threads| threads as i32),
            utilization: generator.utilization.map(messages::percent),
            event_loop_delay: generator.loop_delay_ms.map(messages::milliseconds),
            throttled: generator.throttled_share().map(messages::percent),
            throttled_time: generator
                .throttled_ms
                .map(|ms| messages::seconds(ms / 1000.0)),
            cpu: self.cpu().map(messages::millicores),
            cpu_limit: generator.cpu_limit.map(messages::millicores),
            memory: generator.memory.map(messages::mebibytes),
            memory_limit: generator.memory_limit.map(messages::mebibytes),
        }
    }
}

/// What limited a saturated worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cause {
    /// Its CPU limit.
    Throttled,
    /// Its event loop was always busy, and received only so many millicores from its node.
    NodeBusy {
        /// The average, in millicores.
        cpu: f64,
    },
    /// Its event loop was always busy: a thread uses at most one CPU.
    EventLoopBusy,
    /// The measurements do not show it.
    Unknown,
}

/// The loads of all workers.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkerLoads {
    /// Workers that reported a plan.
    known: u32,
    saturated: u32,
    /// Virtual users that were sent in time.
    sent: f64,
    /// The worker with the largest delay; of several, the first.
    worst: Option<WorkerLoad>,
}

impl WorkerLoads {
    pub(super) fn add(&mut self, load: WorkerLoad) {
        self.known += 1;
        self.saturated += u32::from(load.is_saturated);
        self.sent += load.sent;
        if self
            .worst
            .as_ref()
            .is_none_or(|worst| load.is_worse_than(worst))
        {
            self.worst = Some(load);
        }
    }
}

/// What is compared to judge the load of a test.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Whether all workers succeeded.
    pub(super) is_completed: bool,
    /// Workers without results.
    pub(super) missing_workers: u32,
    /// Workers whose load was late.
    pub(super) saturated_workers: u32,
    /// Virtual users planned, and due at the time of the snapshots. None if the plan of a worker is unknown.
    pub(super) planned: Option<f64>,
    pub(super) due: f64,
    /// The expected number of arrivals of Poisson processes.
    pub(super) random: f64,
    pub(super) created: f64,
    pub(super) skipped: f64,
}

/// Judges the load of a test that has ended. The first rule that applies decides:
///
/// | rule | condition `LoadDelivered` |
/// |---|---|
/// | a worker was late ([`WorkerLoad::new`]) | False, `WorkersSaturated` |
/// | `maxVusers` skipped more than `skippedPercent` of the virtual users that were due | False, `VusersSkipped` |
/// | the test failed or was stopped | Unknown, `NotCompleted` |
/// | a worker left no results | False, `WorkersMissing` |
/// | a worker's plan is unknown | Unknown, `PlanUnknown` |
/// | more than `usersPercent` of the planned virtual users were neither created nor skipped | False, `WorkersMissing` |
/// | otherwise | True, `AsPlanned` |
///
/// The first two rules prove a shortfall of any test, also of one that did not complete. A Poisson process may create fewer
/// virtual users than expected, by four standard deviations. Surplus virtual users are no shortfall.
pub(super) fn judge(facts: &Facts, tolerance: Tolerance) -> (Option<bool>, Reason) {
    let arrived = facts.created + facts.skipped;
    let due = if facts.planned.is_some() {
        facts.due
    } else {
        arrived
    };
    let spread = DEVIATIONS * facts.random.sqrt();
    if facts.saturated_workers > 0 {
        return (Some(false), Reason::WorkersSaturated);
    }
    if facts.skipped > tolerance.skipped * due {
        return (Some(false), Reason::VusersSkipped);
    }
    if !facts.is_completed {
        return (None, Reason::NotCompleted);
    }
    if facts.missing_workers > 0 {
        return (Some(false), Reason::WorkersMissing);
    }
    let Some(planned) = facts.planned else {
        return (None, Reason::PlanUnknown);
    };
    if planned - arrived > tolerance.users * planned + spread {
        return (Some(false), Reason::WorkersMissing);
    }
    (Some(true), Reason::AsPlanned)
}

/// The judgement about the load of a test.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Whether the load was delivered; None if that is unknown.
    pub(super) delivered: Option<bool>,
    pub(super) reason: Reason,
    /// The message of the condition.
    message: String,
    /// The shortfall, as a part of a sentence.
    pub(super) shortfall: String,
}

impl Delivery {
    /// Judges the load of a test that has ended and adds its figures to the results.
    pub(super) fn new(
        spec: &LoadTestSpec,
        is_completed: bool,
        measured: &Measurements,
        loads: &WorkerLoads,
        results: &mut Results,
    ) -> Self {
        let tolerance = Tolerance::of(spec);
        let workers = u32::try_from(spec.count).unwrap_or_default();
        let plan = measured.plan();
        let facts = Facts {
            is_completed,
            missing_workers: workers.saturating_sub(measured.workers),
            saturated_workers: loads.saturated,
            planned: plan.map(|plan| plan.vusers),
            due: plan.map(|plan| plan.due).unwrap_or_default(),
            random: plan.map(|plan| plan.random).unwrap_or_default(),
            created: counter(measured, "vusers.created"),
            skipped: counter(measured, "vusers.skipped"),
        };
        let (delivered, reason) = judge(&facts, tolerance);
        let figures = messages::Figures {
            facts: &facts,
            planned_seconds: plan.map(|plan| plan.planned_seconds),
            delay_ms: measured
                .arrival_delay()
                .and_then(|delay| delay.summary("p99")),
            session_ms: measured
                .histogram("vusers.session_length")
                .and_then(|length| length.summary("p99")),
            workers,
            divides: spec.load == Load::Divide,
            known_workers: loads.known,
            worst: loads.worst.as_ref(),
        };
        let advice = (delivered == Some(false))
            .then(|| messages::advice(reason, &figures))
            .flatten();
        let message = messages::delivery(reason, &figures, advice.as_deref());
        if let (Some(load), 0) = (&mut results.load, facts.missing_workers) {
            load.sent = plan.and_then(|plan| percent_sent(loads.sent, plan.vusers));
        }
        results.generators = loads.worst.as_ref().map(|worst| Generators {
            saturated: format!("{} of {}", loads.saturated, loads.known),
            worst: Some(worst.shown()),
            advice,
        });
        Self {
            delivered,
            reason,
            message,
            shortfall: messages::shortfall(reason, &figures),
        }
    }

    /// The condition `LoadDelivered`.
    pub(super) fn condition(&self) -> ConditionUpdate {
        ConditionUpdate::new(
            ConditionType::LoadDelivered,
            self.delivered,
            self.reason,
            &self.message,
        )
    }
}

/// The share of the planned load that was sent. 100 % means that no virtual user is missing. None without a planned load.
fn percent_sent(sent: f64, planned: f64) -> Option<String> {
    let percent = 100.0 * sent / planned;
    let rounded = if percent < 100.0 {
        percent.round().min(99.0)
    } else {
        percent.round()
    };
    percent.is_finite().then(|| format!("{rounded}%"))
}

fn counter(measured: &Measurements, name: &str) -> f64 {
    // Forged counters may be larger than what a worker can count.
    let counted = measured.counter(name).unwrap_or_default();
    counted.clamp(0.0, 9_007_199_254_740_992.0)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
