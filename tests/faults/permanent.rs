//! Calls that never succeed: which ones, why, and what must happen all the same. Pure.

use std::time::Duration;

use crate::failing_calls::{
    Failure, Place, StopEffect, end_is_in_time, error_is_reported, stop_takes_effect,
};
use crate::invariants::{ObjectVersion, Violation};
use crate::plan::{Fault, Point, RequestFault, Run, Scenario};

/// The `startDeadlineSeconds` of tests whose calls fail, and of those that are stopped before that.
const START_DEADLINE: Duration = Duration::from_secs(5);
const LONG_START_DEADLINE: Duration = Duration::from_secs(600);

/// How long a report, an end or a stop may take beyond what it waits for.
pub const TOLERANCE: Duration = Duration::from_secs(10);

/// The operator's timeout of a request, and that of an event.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const EVENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a call never succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The API server has an internal error.
    ServerError,
    /// The operator has no permission.
    Forbidden,
    /// The API server does not answer.
    Unanswered,
    /// The API server calls a validating webhook of a third party, which is down.
    WebhookDown,
    /// A policy of a third party denies the request.
    PolicyDenies,
}

/// What happens to the test while the call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Course {
    /// Its workers run and end, if they can start before the deadline.
    Runs,
    /// `spec.stop` is set once the failure is reported, or else once the workers run.
    Stops,
    /// It ends, and its time to live expires.
    Expires,
}

impl Cause {
    const ALL: [Self; 5] = [
        Self::ServerError,
        Self::Forbidden,
        Self::Unanswered,
        Self::WebhookDown,
        Self::PolicyDenies,
    ];

    /// The status, reason and message of the API server; none without an answer. Those of webhooks and policies are as in
    /// `tests/integration/failing_calls.rs`, where both are real.
    pub fn answer(self, point: &Point) -> Option<(u16, &'static str, String)> {
        let forbidden = format!("{point} is forbidden");
        Some(match self {
            Self::Unanswered => return None,
            Self::ServerError => (
                500,
                "InternalError",
                format!("{point} was rejected by the fault proxy"),
            ),
            Self::Forbidden => (
                403,
                "Forbidden",
                format!("{forbidden}: it was rejected by the fault proxy"),
            ),
            Self::WebhookDown => (
                500,
                "InternalError",
                "Internal error occurred: failed calling webhook \"fault-proxy.example.com\": failed to call webhook: Post \
                 \"https://fault-proxy.default.svc:443/?timeout=10s\": service \"fault-proxy\" not found"
                    .to_owned(),
            ),
            Self::PolicyDenies => (
                422,
                "Invalid",
                format!(
                    "{forbidden}: ValidatingAdmissionPolicy 'fault-proxy' with binding 'fault-proxy' denied request: \
                     failed expression: false"
                ),
            ),
        })
    }

    /// What every report of the failure contains.
    pub fn error(self) -> &'static str {
        match self {
            Self::ServerError | Self::Forbidden => "rejected by the fault proxy",
            Self::Unanswered => "did not answer within",
            Self::WebhookDown => "failed calling webhook",
            Self::PolicyDenies => "denied request",
        }
    }

    /// How long after a request its call fails.
    pub fn fails_after(self, point: &Point) -> Duration {
        match self {
            Self::Unanswered if point.is("create", "events") => EVENT_TIMEOUT,
            Self::Unanswered => REQUEST_TIMEOUT,
            _ => Duration::ZERO,
        }
    }

    /// The API server calls webhooks and evaluates policies for changes of objects.
    fn concerns(self, point: &Point) -> bool {
        match self {
            _ if is_of_third_party(point) => {
                matches!(self, Self::WebhookDown | Self::PolicyDenies)
            }
            Self::ServerError | Self::Forbidden => true,
            // Its first lists and watches are the operator's own start: other faults leave those without an answer.
            Self::Unanswered => !is_of_operator(point),
            Self::WebhookDown | Self::PolicyDenies => point.is_write(),
        }
    }
}

/// Whether the request concerns all tests of the operator. Without it, the operator does not work.
fn is_of_operator(point: &Point) -> bool {
    match point.verb.as_str() {
        "list" => point.resource != "events",
        "watch" => true,
        _ => point.resource == "version",
    }
}

/// Whether not the operator makes the request, but Kubernetes does.
fn is_of_third_party(point: &Point) -> bool {
    point.is("create", "pods")
}

/// The permanent faults, of these requests of a scenario and of those that only failures cause.
pub fn runs(scenario: Scenario, points: &[Point]) -> Vec<Run> {
    let rare = [
        // The Job controller creates pods: for this request the webhooks and policies are real.
        ("create", "pods"),
        ("patch", "jobs"),
        ("list", "events"),
        ("delete", "loadtests"),
    ];
    let rare = rare.map(|(verb, resource)| Point {
        verb: verb.into(),
        resource: resource.into(),
        occurrence: 1,
    });
    let of_test: Vec<&Point> = match scenario {
        Scenario::Completes => points.iter().chain(&rare).collect(),
        // Only a test that has waited reads its Job.
        Scenario::Waits => points.iter().filter(|p| p.is("get", "jobs")).collect(),
        Scenario::Fails | Scenario::Leads => Vec::new(),
    };
    let mut runs = Vec::new();
    for point in of_test {
        let courses: &[Course] = match (point.verb.as_str(), point.resource.as_str()) {
            ("delete", "loadtests") => &[Course::Expires],
            ("patch", "jobs") => &[Course::Runs, Course::Stops, Course::Expires],
            _ if is_of_operator(point) => &[Course::Runs],
            _ => &[Course::Runs, Course::Stops],
        };
        for cause in Cause::ALL.into_iter().filter(|c| c.concerns(point)) {
            runs.extend(courses.iter().map(|course| Run {
                scenario,
                fault: Fault::Request(point.clone(), RequestFault::Permanent(cause, *course)),
            }));
        }
    }
    runs
}

/// A call that never succeeds, and the course of its test.
#[derive(Clone, Debug)]
pub struct Permanent {
    pub point: Point,
    pub cause: Cause,
    pub course: Course,
}

impl Permanent {
    /// The permanent fault of a run, if that is its fault.
    pub fn of(run: &Run) -> Option<Self> {
        match &run.fault {
            Fault::Request(point, RequestFault::Permanent(cause, course)) => Some(Self {
                point: point.clone(),
                cause: *cause,
                course: *course,
            }),
            _ => None,
        }
    }

    /// The `startDeadlineSeconds` of the test.
    pub fn start_deadline(&self) -> Duration {
        match self.course {
            Course::Stops => LONG_START_DEADLINE,
            Course::Runs | Course::Expires => START_DEADLINE,
        }
    }

    /// Whether workers run and do not become ready: only then the operator lists what events report.
    pub fn keeps_workers_loading(&self) -> bool {
        self.point.is("list", "events")
    }

    /// Whether pods stay pending: only then the operator ends the Job at the start deadline.
    pub fn keeps_workers_pending(&self) -> bool {
        self.fails_in_cluster() || self.point.is("patch", "jobs") && self.course == Course::Runs
    }

    /// Whether the cluster itself makes the call fail.
    pub fn fails_in_cluster(&self) -> bool {
        is_of_third_party(&self.point)
    }

    /// Whether the test is never deleted. Each attempt is reported again, by an event that exists.
    pub fn keeps_test(&self) -> bool {
        self.point.is("delete", "loadtests")
    }

    fn place(&self) -> Place {
        if is_of_operator(&self.point) || self.point.resource == "openapi" {
            Place::Log
        } else if self.point.resource == "loadtests/status" || self.course == Course::Expires {
            Place::EventOrLog
        } else {
            Place::Condition
        }
    }

    /// Whether the test can reach its final phase.
    pub fn can_end(&self) -> bool {
        let ends_by_patch = self.point.is("patch", "jobs") && self.course != Course::Expires;
        !is_of_operator(&self.point) && self.point.resource != "loadtests/status" && !ends_by_patch
    }

    fn stop_effect(&self) -> StopEffect {
        match self.point.resource.as_str() {
            "loadtests/status" => StopEffect::NoLoad,
            "jobs" if self.point.verb == "patch" => StopEffect::Reported,
            _ => StopEffect::Stopped,
        }
    }

    /// The missing or late report of the failure.
    pub fn check_report(
        &self,
        history: &[ObjectVersion],
        log: &[(Duration, &str)],
        failed_at: Duration,
    ) -> Option<Violation> {
        let failure = Failure {
            error: self.cause.error(),
            at: failed_at,
        };
        error_is_reported(history, log, failure, self.place(), TOLERANCE)
    }

    /// What has not happened, or too late.
    pub fn check(
        &self,
        history: &[ObjectVersion],
        log: &[(Duration, &str)],
        failed_at: Option<Duration>,
        stopped_at: Option<Duration>,
    ) -> Vec<Violation> {
        let error = self.cause.error();
        // A reconcile may wait for the call twice: before the deadline or the stop, and after it.
        let limit = TOLERANCE + 2 * self.cause.fails_after(&self.point);
        let report = failed_at.and_then(|at| self.check_report(history, log, at));
        let mut found: Vec<Violation> = report.into_iter().collect();
        if self.can_end() {
            found.extend(end_is_in_time(history, self.start_deadline() + limit));
        }
        if let Some(at) = stopped_at {
            let effect = self.stop_effect();
            found.extend(stop_takes_effect(history, error, at, effect, limit));
        }
        found
    }
}
