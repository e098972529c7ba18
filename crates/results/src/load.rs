//! The load that workers should have sent, and what they measured about themselves. Workers report it in the keys `load`, `delay`
//! and `generator` of a snapshot. What a worker does not report, or reports wrongly, is unknown.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::sketch::Sketch;

/// 2^53, the limit of exact integers in JavaScript.
const MAX_USERS: f64 = 9_007_199_254_740_992.0;
/// About 31 years.
const MAX_MS: f64 = 1e12;
const MAX_THREADS: f64 = 10_000.0;
const MAX_MILLICORES: f64 = 1e7;
/// One PiB. Without a limit, cgroup v1 reports a number close to 2^63 bytes.
const MAX_MEBIBYTES: f64 = 1_073_741_824.0;

/// The load that one worker, or all workers merged, should have sent according to the script's phases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadPlan {
    /// Virtual users of the whole script.
    pub vusers: f64,
    /// Virtual users that were due when the worker wrote its snapshot: all of them once its load has ended.
    pub due: f64,
    /// The part of `vusers` that is the expected number of arrivals of Poisson processes.
    pub random: f64,
    /// Duration of the phases by plan, in seconds; of the slowest worker.
    pub planned_seconds: f64,
    /// Duration that the phases took, or have taken until the snapshot, in seconds; of the slowest worker.
    pub actual_seconds: f64,
}

impl LoadPlan {
    /// Reads `[planned, due, plannedMs, actualMs, random]`.
    pub(crate) fn read(value: &RawValue) -> Option<Self> {
        let numbers: Vec<f64> = serde_json::from_str(value.get()).ok()?;
        let [planned, due, planned_ms, actual_ms, random, ..] = numbers[..] else {
            return None;
        };
        let are_users = [planned, due, random]
            .iter()
            .all(|n| (0.0..=MAX_USERS).contains(n));
        let are_times = [planned_ms, actual_ms]
            .iter()
            .all(|n| (0.0..=MAX_MS).contains(n));
        (are_users && are_times).then_some(Self {
            vusers: planned,
            due: due.min(planned),
            random: random.min(planned),
            planned_seconds: planned_ms / 1000.0,
            actual_seconds: actual_ms / 1000.0,
        })
    }

    /// The plan of several workers.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            vusers: self.vusers + other.vusers,
            due: self.due + other.due,
            random: self.random + other.random,
            planned_seconds: self.planned_seconds.max(other.planned_seconds),
            actual_seconds: self.actual_seconds.max(other.actual_seconds),
        }
    }
}

/// What a worker measured about itself while its load ran. None stands for a value that it could not measure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generator {
    /// Artillery's threads.
    pub threads: Option<f64>,
    /// Event-loop utilization of the busiest thread, from 0 to 1.
    pub utilization: Option<f64>,
    /// 99th percentile of the event-loop delay of the worst thread, in ms.
    pub loop_delay_ms: Option<f64>,
    /// CPU periods in which the CPU limit throttled the worker.
    pub throttled: Option<f64>,
    /// CPU periods.
    pub periods: Option<f64>,
    /// Total time for which the worker was throttled, in ms.
    pub throttled_ms: Option<f64>,
    /// CPU time, in ms.
    pub cpu_ms: Option<f64>,
    /// CPU limit, in millicores.
    pub cpu_limit: Option<f64>,
    /// Peak memory, in MiB.
    pub memory: Option<f64>,
    /// Memory limit, in MiB.
    pub memory_limit: Option<f64>,
}

impl Generator {
    /// Reads `[threads, utilization, loopDelay, throttled, periods, throttledMs, cpuMs, cpuLimit, memory, memoryLimit]`.
    pub(crate) fn read(value: &RawValue) -> Option<Self> {
        let numbers: Vec<Value> = serde_json::from_str(value.get()).ok()?;
        let [
            threads,
            utilization,
            loop_delay,
            throttled,
            periods,
            throttled_ms,
            cpu_ms,
            cpu_limit,
            memory,
            memory_limit,
            ..,
        ] = &numbers[..]
        else {
            return None;
        };
        let up_to = |max: f64, value: &Value| value.as_f64().filter(|n| (0.0..=max).contains(n));
        let above_zero = |max: f64, value: &Value| up_to(max, value).filter(|n| *n > 0.0);
        let periods = above_zero(MAX_USERS, periods);
        Some(Self {
            threads: above_zero(MAX_THREADS, threads),
            utilization: up_to(1000.0, utilization).map(|n| n / 1000.0),
            loop_delay_ms: up_to(MAX_MS, loop_delay),
            throttled: up_to(periods.unwrap_or_default(), throttled).filter(|_| periods.is_some()),
            periods,
            // Without a CPU limit there are no periods, and this time is always 0.
            throttled_ms: up_to(MAX_MS, throttled_ms).filter(|_| periods.is_some()),
            cpu_ms: up_to(MAX_MS, cpu_ms),
            cpu_limit: above_zero(MAX_MILLICORES, cpu_limit),
            memory: up_to(MAX_MEBIBYTES, memory),
            memory_limit: above_zero(MAX_MEBIBYTES, memory_limit),
        })
    }

    /// The share of CPU periods in which the CPU limit throttled the worker.
    #[must_use]
    pub fn throttled_share(&self) -> Option<f64> {
        Some(self.throttled? / self.periods?)
    }
}

/// The load of one worker, or of all workers merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// The merged plan of the workers that report one.
    known: Option<LoadPlan>,
    /// Whether a worker reports no plan.
    is_incomplete: bool,
    /// How late virtual users arrived, in ms.
    pub(crate) delay: Option<Sketch>,
    /// Whether a worker with virtual users reports no delay.
    pub(crate) is_delay_incomplete: bool,
    /// Set on the load of a single worker.
    pub(crate) generator: Option<Generator>,
}

impl Load {
    /// The load of one worker, which created or skipped so many virtual users; None if that is unknown.
    pub(crate) fn of_worker(
        plan: Option<LoadPlan>,
        delay: Option<Sketch>,
        generator: Option<Generator>,
        arrived: Option<f64>,
    ) -> Self {
        // A plan is useless without what it is compared with.
        let known = plan.filter(|_| arrived.is_some());
        Self {
            known,
            is_incomplete: known.is_none(),
            is_delay_incomplete: delay.is_none() && arrived.is_none_or(|n| n > 0.0),
            delay,
            generator,
        }
    }

    pub(crate) fn merge(&mut self, other: &Self, has_generator: bool) {
        self.known = self
            .known
            .into_iter()
            .chain(other.known)
            .reduce(LoadPlan::merge);
        self.is_incomplete |= other.is_incomplete;
        self.is_delay_incomplete |= other.is_delay_incomplete;
        match (&mut self.delay, &other.delay) {
            (Some(delay), Some(other)) => delay.merge(other),
            (None, Some(other)) => self.delay = Some(other.clone()),
            (_, None) => {}
        }
        self.generator = self
            .generator
            .take()
            .or_else(|| other.generator.clone())
            .filter(|_| has_generator);
    }

    /// The plan, if every worker reports one.
    pub(crate) fn plan(&self) -> Option<LoadPlan> {
        self.known.filter(|_| !self.is_incomplete)
    }
}
