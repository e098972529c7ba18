//! What is to be tried: pure. The requests of clean runs, times what may befall each of them; and what may befall the
//! world at each stage of a test.

use std::fmt;

use artillery_operator::runtime::hash::fnv1a;

/// What a run's test is to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scenario {
    /// Both workers succeed.
    Completes,
    /// The second worker fails.
    Fails,
    /// The script comes after the test; both workers succeed.
    Waits,
    /// The operator has a lease, and another one stands by; both workers succeed.
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

/// A request, by what it is and the how many-eth of its kind it is in a run, from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    pub verb: String,
    /// With its subresource, such as `loadtests/status`.
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

/// How often a refusal is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Times {
    Once,
    Thrice,
    /// To every request of this kind, for some seconds.
    UntilHealed,
}

/// What befalls a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// The operator is killed before it is sent.
    KilledBefore,
    /// It is carried out, and the operator killed before it hears of it.
    KilledAfter,
    /// It is carried out, and the connection closed without an answer.
    AnswerLost,
    /// The connection is closed without sending it.
    Dropped,
    SentTwice,
    /// It is held back for longer than the operator waits for an answer, and then carried out.
    Delayed,
    /// It is never sent, and never answered.
    BlackHoled,
    /// It and the lease's renewals are held back until another operator leads; then it is carried out.
    Deposed,
    /// Somebody else writes the object first.
    Conflict,
    /// The API server refuses it, with this status and this Retry-After.
    Refused(u16, Option<u32>, Times),
}

/// What befalls a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchDeed {
    /// Its events are held back for a while; all others go on.
    Stalled,
    /// The connection is closed within its first event.
    CutInLine,
    /// Its first events are never told: it is closed, and a new list shows what has become of them.
    StateHidden,
    /// Its first event is that its version is too old.
    GoneInStream,
    /// It begins, and then nothing comes any more.
    BlackHoled,
    /// With each event, all that came before are told again.
    Replayed,
}

/// How far a test is when something befalls the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before it is created.
    Before,
    /// It has a Job, whose pods wait.
    Starting,
    Running,
    /// Its first worker has succeeded.
    OneDone,
    Ended,
}

/// What befalls the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorldDeed {
    OperatorKilled,
    JobDeleted,
    PodDeleted,
    TestDeleted,
    NamespaceDeleted,
    /// Deleted, and created again under the same name as soon as it is gone.
    TestRecreated,
    /// The operator is killed, and comes back to an API server whose view of everything is from before the test, and only
    /// catches up after a while.
    BackInTime,
    /// The same, but the view of the tests is that of now: their Jobs and pods look as if they had never been.
    JobsBackInTime,
    /// Deleted and created again, and then the operator comes back to a view from before both.
    RecreatedBackInTime,
    /// The operator may do nothing for a while.
    RightsTakenAway,
    /// No Job may be created for a while.
    NoJobs,
    /// No pod may be created for a while.
    NoPods,
    /// Somebody else's Job has the test's name, for a while.
    ForeignJob,
    /// Somebody else's Job has the test's name, for good.
    ForeignJobStays,
}

/// What befalls a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    None,
    Request(Point, Deed),
    Watch(Point, WatchDeed),
    World(Stage, WorldDeed),
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
            Fault::World(stage, _) => write!(f, "{stage:?}: {}", self.fault.kind()),
        }
    }
}

impl Fault {
    /// What it is, without where: a row of the table.
    pub fn kind(&self) -> String {
        match self {
            Self::None => "clean".into(),
            Self::Request(_, Deed::Refused(code, wait, times)) => {
                let wait = wait
                    .map(|s| format!(" (Retry-After {s})"))
                    .unwrap_or_default();
                format!("{code}{wait} {times:?}")
            }
            Self::Request(_, deed) => format!("{deed:?}"),
            Self::Watch(_, deed) => format!("watch {deed:?}"),
            Self::World(_, deed) => format!("world {deed:?}"),
        }
    }

    /// Whether it heals only after an operator's own deadlines: left to the full run.
    pub fn is_slow(&self) -> bool {
        matches!(
            self,
            Self::Request(_, Deed::Delayed | Deed::BlackHoled | Deed::Deposed)
                | Self::Watch(_, WatchDeed::BlackHoled)
        )
    }

    /// Whether the operator may truly tell of something that keeps the test from starting.
    pub fn may_be_an_obstacle(&self) -> bool {
        match self {
            Self::Request(point, Deed::Refused(403 | 404 | 422, ..) | Deed::Conflict) => {
                matches!(point.resource.as_str(), "jobs" | "configmaps")
            }
            Self::World(..) => true,
            _ => false,
        }
    }

    /// Whether the API server is made to lie that an event is there already, which loses the event.
    pub fn loses_events(&self) -> bool {
        matches!(self, Self::Request(p, Deed::Refused(409, ..)) if p.is("create", "events"))
    }
}

/// The refusals: each status once, three times, and until healed.
fn refusals() -> impl Iterator<Item = Deed> {
    let codes = [403, 404, 409, 422, 500, 503, 504].map(|code| (code, None));
    codes
        .into_iter()
        .chain([(429, Some(1)), (429, Some(3600))])
        .flat_map(|(code, wait)| {
            [Times::Once, Times::Thrice, Times::UntilHealed]
                .map(|times| Deed::Refused(code, wait, times))
        })
}

/// What may befall a request of this kind.
fn deeds(point: &Point) -> Vec<Fault> {
    let refused = refusals().map(|deed| Fault::Request(point.clone(), deed));
    if point.is_watch() {
        let deeds = [
            WatchDeed::Stalled,
            WatchDeed::CutInLine,
            WatchDeed::StateHidden,
            WatchDeed::GoneInStream,
            WatchDeed::BlackHoled,
            WatchDeed::Replayed,
        ];
        let at_start = [
            Deed::Refused(410, None, Times::Once),
            Deed::Dropped,
            Deed::BlackHoled,
        ];
        return deeds
            .map(|deed| Fault::Watch(point.clone(), deed))
            .into_iter()
            .chain(at_start.map(|deed| Fault::Request(point.clone(), deed)))
            .chain(refused)
            .collect();
    }
    let mut deeds = vec![
        Deed::KilledBefore,
        Deed::KilledAfter,
        Deed::AnswerLost,
        Deed::Dropped,
        Deed::Delayed,
        Deed::BlackHoled,
    ];
    if point.is_write() {
        deeds.push(Deed::SentTwice);
    }
    let others_write = ["loadtests/status", "configmaps", "jobs"];
    if point.verb != "list" && others_write.contains(&point.resource.as_str()) {
        deeds.push(Deed::Conflict);
    }
    deeds
        .into_iter()
        .map(|deed| Fault::Request(point.clone(), deed))
        .chain(refused)
        .collect()
}

/// What may befall a request of an operator that has a lease, besides what may befall any operator's.
fn leader_deeds(point: &Point) -> Vec<Fault> {
    let deeds: &[Deed] = match (point.verb.as_str(), point.resource.as_str()) {
        // Later renewals are like the third.
        (_, "leases") if point.occurrence > 3 => &[],
        (_, "leases") => &[
            Deed::Dropped,
            Deed::AnswerLost,
            Deed::SentTwice,
            Deed::Delayed,
            Deed::KilledAfter,
            Deed::Refused(403, None, Times::Thrice),
            Deed::Refused(409, None, Times::Once),
            Deed::Refused(429, Some(3600), Times::Once),
            Deed::Refused(500, None, Times::UntilHealed),
        ],
        ("watch" | "list", _) | (_, "version") => &[],
        _ => &[Deed::Deposed, Deed::KilledBefore, Deed::KilledAfter],
    };
    deeds
        .iter()
        .map(|deed| Fault::Request(point.clone(), *deed))
        .collect()
}

/// What may befall the world, and when.
fn world() -> Vec<(Stage, WorldDeed)> {
    let mut all = vec![
        (Stage::Before, WorldDeed::NoJobs),
        (Stage::Before, WorldDeed::NoPods),
        (Stage::Before, WorldDeed::ForeignJob),
        (Stage::Before, WorldDeed::ForeignJobStays),
        (Stage::Before, WorldDeed::RightsTakenAway),
        (Stage::Before, WorldDeed::OperatorKilled),
    ];
    for stage in [
        Stage::Starting,
        Stage::Running,
        Stage::OneDone,
        Stage::Ended,
    ] {
        all.extend(
            [
                WorldDeed::OperatorKilled,
                WorldDeed::JobDeleted,
                WorldDeed::PodDeleted,
                WorldDeed::TestDeleted,
                WorldDeed::NamespaceDeleted,
                WorldDeed::TestRecreated,
                WorldDeed::BackInTime,
                WorldDeed::JobsBackInTime,
                WorldDeed::RecreatedBackInTime,
                WorldDeed::RightsTakenAway,
            ]
            .map(|deed| (stage, deed)),
        );
    }
    all
}

/// All runs, given the requests of the scenarios' clean runs.
pub fn all(learned: &[(Scenario, Vec<Point>)]) -> Vec<Run> {
    let mut runs = Vec::new();
    for (scenario, points) in learned {
        let mut points = points.clone();
        points.sort();
        points.dedup();
        let of_point = if *scenario == Scenario::Leads {
            leader_deeds
        } else {
            deeds
        };
        runs.extend(points.iter().flat_map(of_point).map(|fault| Run {
            scenario: *scenario,
            fault,
        }));
        // The others differ from the first only before the Job.
        if matches!(scenario, Scenario::Completes | Scenario::Fails) {
            runs.extend(world().into_iter().map(|(s, d)| Run {
                scenario: *scenario,
                fault: Fault::World(s, d),
            }));
        }
    }
    runs
}

/// The runs in an order chosen by a seed, such that a part of them is spread evenly over the kinds of faults.
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
#[allow(dead_code, reason = "they run in pure.rs: main.rs has no test harness")]
mod tests {
    use super::*;

    fn point(verb: &str, resource: &str, occurrence: usize) -> Point {
        Point {
            verb: verb.into(),
            resource: resource.into(),
            occurrence,
        }
    }

    fn plan() -> Vec<Run> {
        let points = vec![
            point("create", "jobs", 1),
            point("watch", "pods", 1),
            point("patch", "loadtests/status", 2),
        ];
        all(&[
            (Scenario::Completes, points.clone()),
            (Scenario::Fails, points),
        ])
    }

    #[test]
    fn names_are_unique_and_tell_where_and_what() {
        let names: Vec<String> = plan().iter().map(ToString::to_string).collect();
        let unique: std::collections::HashSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        assert!(names.contains(&"completes: create jobs 1: KilledBefore".to_owned()));
        assert!(names.contains(
            &"fails: patch loadtests/status 2: 429 (Retry-After 3600) UntilHealed".to_owned()
        ));
        assert!(names.contains(&"fails: Running: world JobDeleted".to_owned()));
    }

    #[test]
    fn watches_and_reads_are_not_sent_twice() {
        let twice = |verb, resource| {
            deeds(&point(verb, resource, 1))
                .iter()
                .any(|f| matches!(f, Fault::Request(_, Deed::SentTwice)))
        };
        assert!(twice("create", "jobs"));
        assert!(!twice("get", "configmaps") && !twice("watch", "jobs"));
    }

    #[test]
    fn the_first_runs_have_every_kind_and_are_the_same_for_a_seed() {
        let kinds: std::collections::BTreeSet<String> =
            plan().iter().map(|r| r.fault.kind()).collect();
        let chosen = evenly(plan(), 7);
        let first = &chosen[..kinds.len()];
        assert_eq!(
            first
                .iter()
                .map(|r| r.fault.kind())
                .collect::<std::collections::BTreeSet<_>>(),
            kinds
        );
        assert_eq!(chosen, evenly(plan(), 7));
        assert_ne!(chosen, evenly(plan(), 8));
    }
}
