//! The faults that are tried. Pure. They are the requests of clean runs, times the faults of each request, and the faults of
//! the cluster at each stage of a test.

use std::fmt;

use artillery_operator::runtime::hash::fnv1a;

use crate::permanent::{self, Cause, Course};
use crate::support::live_worker::Behavior;

/// What the test of a run goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scenario {
    /// Both workers succeed.
    Completes,
    /// The second worker fails.
    Fails,
    /// The script is created after the test; both workers succeed.
    Waits,
    /// The operator holds a lease, and a second one stands by; both workers succeed.
    Leads,
}

impl Scenario {
    pub const ALL: [Self; 4] = [Self::Completes, Self::Fails, Self::Waits, Self::Leads];

    pub fn name(self) -> &'static str {
        match self {
            Self::Completes => "completes",
            Self::Fails => "fails",
            Self::Waits => "waits",
            Self::Leads => "leads",
        }
    }
}

/// One request of a run: its kind, and its number among the requests of this kind, from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    pub verb: String,
    /// The resource with its subresource, such as `loadtests/status`.
    pub resource: String,
    pub occurrence: usize,
}

impl Point {
    pub fn is_watch(&self) -> bool {
        self.verb == "watch"
    }

    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    pub fn is(&self, verb: &str, resource: &str) -> bool {
        self.verb == verb && self.resource == resource
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.resource, self.occurrence)
    }
}

/// How many requests are rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Times {
    Once,
    Thrice,
    /// Every request of this kind, for some seconds.
    UntilHealed,
}

/// A fault of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestFault {
    /// The operator is killed before the request is forwarded.
    KilledBefore,
    /// The request is carried out, and the operator is killed before the response.
    KilledAfter,
    /// The request is carried out, and the connection is closed without a response.
    ResponseLost,
    /// The connection is closed, and the request is not forwarded.
    Dropped,
    /// The request is carried out twice.
    SentTwice,
    /// The request is held back for longer than the operator's timeout, and then carried out.
    Delayed,
    /// The request is neither forwarded nor answered.
    BlackHoled,
    /// The request and the lease's renewals are held back until another operator leads. Then the request is carried out.
    LeaseLost,
    /// A third party writes the object first.
    Conflict,
    /// The request is rejected with this status and this Retry-After.
    Rejected(u16, Option<u32>, Times),
    /// This request and all later ones of its kind fail.
    Permanent(Cause, Course),
}

/// A fault of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchFault {
    /// Its events are delayed; other watches continue.
    Stalled,
    /// The connection is closed in the middle of the first event.
    CutInLine,
    /// Its first events are skipped: it expires, and a new list shows the later state.
    EventsSkipped,
    /// Its first event is the error that its resource version is too old.
    ExpiredInStream,
    /// It begins, and then delivers nothing.
    BlackHoled,
    /// Each event is preceded by all earlier ones.
    Replayed,
}

/// The stage of a test at which the cluster has its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The test does not exist.
    Before,
    /// The test has a Job, whose pods are pending.
    Starting,
    Running,
    /// The first worker has succeeded.
    OneDone,
    Ended,
}

/// A fault of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterFault {
    OperatorKilled,
    JobDeleted,
    PodDeleted,
    TestDeleted,
    NamespaceDeleted,
    /// The test is deleted, and created again under the same name.
    TestRecreated,
    /// The operator is killed. The lists that the next one reads are from before the test, and its watches are delayed.
    StaleWatches,
    /// The same for Jobs and pods only: the test seems to have neither.
    StaleJobWatches,
    /// The test is created again as in `TestRecreated`, and then the operator is restarted as in `StaleWatches`.
    RecreatedWithStaleWatches,
    /// All requests of the operator are forbidden for a while.
    PermissionsRevoked,
    /// A quota forbids Jobs for a while.
    NoJobs,
    /// A quota forbids pods for a while.
    NoPods,
    /// A Job of a third party has the test's name for a while.
    ForeignJob,
    /// A Job of a third party has the test's name, and remains.
    ForeignJobStays,
    /// A tenant creates pods that claim to be workers, with a start time of their own, and tests that are large or wait.
    HostileTenant,
}

/// A fault of the ports on which running workers serve their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortFault {
    /// Both workers respond like this.
    Responses(Behavior),
    /// The operator is killed after it has read the workers, which end before the next one reads them.
    OperatorKilled,
}

/// The fault of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    None,
    Request(Point, RequestFault),
    Watch(Point, WatchFault),
    Cluster(Stage, ClusterFault),
    Port(PortFault),
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    pub scenario: Scenario,
    pub fault: Fault,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.scenario.name())?;
        match &self.fault {
            Fault::None => write!(f, "clean"),
            Fault::Request(point, _) | Fault::Watch(point, _) => {
                write!(f, "{point}: {}", self.fault.kind())
            }
            Fault::Cluster(stage, _) => write!(f, "{stage:?}: {}", self.fault.kind()),
            Fault::Port(_) => f.write_str(&self.fault.kind()),
        }
    }
}

impl Fault {
    /// The kind of the fault, without its place: a row of the table.
    pub fn kind(&self) -> String {
        match self {
            Self::None => "clean".into(),
            Self::Request(_, RequestFault::Rejected(code, wait, times)) => {
                let wait = wait
                    .map(|s| format!(" (Retry-After {s})"))
                    .unwrap_or_default();
                format!("{code}{wait} {times:?}")
            }
            Self::Request(_, RequestFault::Permanent(cause, course)) => {
                format!("permanent {cause:?}, test {course:?}")
            }
            Self::Request(_, fault) => format!("{fault:?}"),
            Self::Watch(_, fault) => format!("watch {fault:?}"),
            Self::Cluster(_, fault) => format!("cluster {fault:?}"),
            Self::Port(PortFault::Responses(behavior)) => format!("port {behavior:?}"),
            Self::Port(fault) => format!("port {fault:?}"),
        }
    }

    /// Whether the fault ends only after the operator's own timeouts. The subset leaves these out.
    pub fn is_slow(&self) -> bool {
        matches!(
            self,
            Self::Request(
                _,
                RequestFault::Delayed
                    | RequestFault::BlackHoled
                    | RequestFault::LeaseLost
                    | RequestFault::Permanent(Cause::Unanswered, _)
            ) | Self::Watch(_, WatchFault::BlackHoled)
        )
    }

    /// Whether the operator may report that something blocks the start of the test.
    pub fn may_block_start(&self) -> bool {
        match self {
            Self::Request(
                point,
                RequestFault::Rejected(403 | 404 | 422, ..) | RequestFault::Conflict,
            ) => {
                matches!(point.resource.as_str(), "jobs" | "configmaps")
            }
            Self::Cluster(..) => true,
            _ => false,
        }
    }

    /// Whether the proxy claims that an event exists already, so that it is never created.
    pub fn loses_events(&self) -> bool {
        matches!(self, Self::Request(p, RequestFault::Rejected(409, ..)) if p.is("create", "events"))
    }
}

/// The rejections: each status once, three times, and until healed.
fn rejections() -> impl Iterator<Item = RequestFault> {
    let codes = [403, 404, 409, 422, 500, 503, 504].map(|code| (code, None));
    codes
        .into_iter()
        .chain([(429, Some(1)), (429, Some(3600))])
        .flat_map(|(code, wait)| {
            [Times::Once, Times::Thrice, Times::UntilHealed]
                .map(|times| RequestFault::Rejected(code, wait, times))
        })
}

/// The faults of a request of this kind.
fn faults_of(point: &Point) -> Vec<Fault> {
    let rejected = rejections().map(|fault| Fault::Request(point.clone(), fault));
    if point.is_watch() {
        let in_stream = [
            WatchFault::Stalled,
            WatchFault::CutInLine,
            WatchFault::EventsSkipped,
            WatchFault::ExpiredInStream,
            WatchFault::BlackHoled,
            WatchFault::Replayed,
        ];
        let at_start = [
            RequestFault::Rejected(410, None, Times::Once),
            RequestFault::Dropped,
            RequestFault::BlackHoled,
        ];
        return in_stream
            .map(|fault| Fault::Watch(point.clone(), fault))
            .into_iter()
            .chain(at_start.map(|fault| Fault::Request(point.clone(), fault)))
            .chain(rejected)
            .collect();
    }
    let mut faults = vec![
        RequestFault::KilledBefore,
        RequestFault::KilledAfter,
        RequestFault::ResponseLost,
        RequestFault::Dropped,
        RequestFault::Delayed,
        RequestFault::BlackHoled,
    ];
    if point.is_write() {
        faults.push(RequestFault::SentTwice);
    }
    let third_party_writes = ["loadtests/status", "configmaps", "jobs"];
    if point.verb != "list" && third_party_writes.contains(&point.resource.as_str()) {
        faults.push(RequestFault::Conflict);
    }
    faults
        .into_iter()
        .map(|fault| Fault::Request(point.clone(), fault))
        .chain(rejected)
        .collect()
}

/// The faults of a request of an operator that holds a lease, besides those of any operator.
fn leader_faults_of(point: &Point) -> Vec<Fault> {
    let faults: &[RequestFault] = match (point.verb.as_str(), point.resource.as_str()) {
        // Later renewals are like the third.
        (_, "leases") if point.occurrence > 3 => &[],
        (_, "leases") => &[
            RequestFault::Dropped,
            RequestFault::ResponseLost,
            RequestFault::SentTwice,
            RequestFault::Delayed,
            RequestFault::KilledAfter,
            RequestFault::Rejected(403, None, Times::Thrice),
            RequestFault::Rejected(409, None, Times::Once),
            RequestFault::Rejected(429, Some(3600), Times::Once),
            RequestFault::Rejected(500, None, Times::UntilHealed),
        ],
        ("watch" | "list", _) | (_, "version") => &[],
        _ => &[
            RequestFault::LeaseLost,
            RequestFault::KilledBefore,
            RequestFault::KilledAfter,
        ],
    };
    faults
        .iter()
        .map(|fault| Fault::Request(point.clone(), *fault))
        .collect()
}

/// The faults of the cluster, with their stages.
fn cluster_faults() -> Vec<(Stage, ClusterFault)> {
    let mut all = vec![
        (Stage::Before, ClusterFault::NoJobs),
        (Stage::Before, ClusterFault::NoPods),
        (Stage::Before, ClusterFault::ForeignJob),
        (Stage::Before, ClusterFault::ForeignJobStays),
        (Stage::Before, ClusterFault::PermissionsRevoked),
        (Stage::Before, ClusterFault::OperatorKilled),
    ];
    for stage in [
        Stage::Starting,
        Stage::Running,
        Stage::OneDone,
        Stage::Ended,
    ] {
        all.extend(
            [
                ClusterFault::OperatorKilled,
                ClusterFault::JobDeleted,
                ClusterFault::PodDeleted,
                ClusterFault::TestDeleted,
                ClusterFault::NamespaceDeleted,
                ClusterFault::TestRecreated,
                ClusterFault::StaleWatches,
                ClusterFault::StaleJobWatches,
                ClusterFault::RecreatedWithStaleWatches,
                ClusterFault::PermissionsRevoked,
                ClusterFault::HostileTenant,
            ]
            .map(|fault| (stage, fault)),
        );
    }
    all
}

/// The faults of the workers' ports. The ports of all other runs have no address.
fn port_faults() -> impl Iterator<Item = Fault> {
    let responses = [
        Behavior::Normal,
        Behavior::Closed,
        Behavior::Silent,
        Behavior::Slow,
        Behavior::Cut,
        Behavior::Endless,
        Behavior::Garbage,
        Behavior::OtherPod,
        Behavior::Redirect,
        Behavior::ManyMetrics,
        Behavior::HighCounts,
    ];
    let responses = responses.into_iter().map(PortFault::Responses);
    responses
        .chain([PortFault::OperatorKilled])
        .map(Fault::Port)
}

/// All runs, derived from the requests of the clean runs.
pub fn all(learned: &[(Scenario, Vec<Point>)]) -> Vec<Run> {
    let mut runs = Vec::new();
    for (scenario, points) in learned {
        let mut points = points.clone();
        points.sort();
        points.dedup();
        let of_point = if *scenario == Scenario::Leads {
            leader_faults_of
        } else {
            faults_of
        };
        runs.extend(points.iter().flat_map(of_point).map(|fault| Run {
            scenario: *scenario,
            fault,
        }));
        runs.extend(permanent::runs(*scenario, &points));
        // The other scenarios differ from the first only before the Job exists.
        if matches!(scenario, Scenario::Completes | Scenario::Fails) {
            runs.extend(cluster_faults().into_iter().map(|(s, d)| Run {
                scenario: *scenario,
                fault: Fault::Cluster(s, d),
            }));
            runs.extend(port_faults().map(|fault| Run {
                scenario: *scenario,
                fault,
            }));
        }
    }
    runs
}

/// Orders runs by a seed, such that the first runs are spread evenly over the kinds of faults.
pub fn evenly(mut runs: Vec<Run>, seed: u64) -> Vec<Run> {
    let hash = |run: &Run| {
        fnv1a(
            seed.to_le_bytes()
                .into_iter()
                .chain(run.to_string().into_bytes()),
        )
    };
    runs.sort_by_key(|run| (hash(run), run.to_string()));
    // The first of each kind, then the second of each, and so on.
    let mut of_kind = std::collections::HashMap::<String, usize>::new();
    let mut ranked: Vec<(usize, Run)> = runs
        .into_iter()
        .map(|run| {
            let rank = of_kind.entry(run.fault.kind()).or_default();
            *rank += 1;
            (*rank, run)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, run)| run).collect()
}

#[cfg(test)]
#[allow(dead_code, reason = "they run in unit.rs: main.rs has no test harness")]
#[path = "plan_tests.rs"]
mod tests;
