//! A model check of [`decide`]. It explores every interleaving of the steps of a small cluster, its users and the
//! operator, with lagging watches, crashes between any two writes, lost responses and delayed requests. The invariants
//! are asserted after every step. From every state, the run must reach a final state once faults stop.
//!
//! The state space is bounded by the numbers of workers, faults and user actions in a run.
#![allow(clippy::unwrap_used, clippy::panic, clippy::struct_excessive_bools)]

mod api_server;
mod check;
mod objects;
mod operator;
mod steps;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::*;
use loadtest_api::v1alpha1::JobRecord;

use crate::state::{
    Deletion, JobOutcome, JobStatus, ScriptState, StartHandshake, StartState, WorkerFiles,
    WorkerState, WorkerStatus,
};
use objects::{at, load_test, test_job, worker};

/// The ID of an interned status or event. Interning keeps states small and cheap to compare.
type Id = u16;

/// A `LoadTest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Test {
    uid: u8,
    version: u8,
    status: Option<Id>,
    stop: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Complete,
    Workers,
    Deadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Job {
    uid: u8,
    /// The UID of the owning test, or 0 for a foreign Job.
    owner: u8,
    started: bool,
    suspended: bool,
    at_once: bool,
    /// Whether it creates no pods.
    emptied: bool,
    failing: Option<End>,
    outcome: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pod {
    Pending,
    /// The container runs. With several workers, it waits for the start instant.
    Running,
    /// The worker has received this start instant.
    StartSent(Timestamp),
    Succeeded,
    Failed,
    /// The pod was deleted, manually or because another worker failed.
    Gone {
        ran: bool,
        by_hand: bool,
    },
}

/// Adds a step: its name and its effect.
type Add<'a> = dyn FnMut(&'static str, &mut dyn FnMut(&mut State)) + 'a;

/// The objects of the cluster, or the operator's view of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Objects {
    test: Option<Test>,
    job: Option<Job>,
    /// A deleted Job of the test that the operator has observed.
    lost: Option<Job>,
    pods: Vec<Pod>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Request {
    /// The events of a plan. They have unique names, so their order and repetition make no difference.
    Events(BTreeSet<Id>),
    Status {
        uid: u8,
        version: u8,
        status: Id,
    },
    Create {
        owner: u8,
    },
    End {
        job: u8,
        without_pods: bool,
    },
    /// The start instant for workers of a Job, by index.
    Start {
        job: u8,
        at: Timestamp,
        pods: BTreeSet<usize>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    cluster: Objects,
    script: bool,
    /// Whether the start deadline has passed.
    late: bool,
    /// Whether a Job of the test's name was created or deleted since the last write of the test.
    job_since_write: bool,
    recorded: BTreeSet<Id>,
    /// The number of Jobs created for the first and the second test, in total and by late requests.
    created: [u8; 2],
    created_late: [u8; 2],
    view: Objects,
    written: Option<Test>,
    /// The requests that the operator is about to send, in this order.
    pending: Vec<Request>,
    delayed: Option<Request>,
    faults: u8,
    users: u8,
    workers: usize,
    /// Whether the watches lag, independently of each other.
    lag: bool,
}

/// The inputs of a reconcile. They determine its requests.
#[derive(PartialEq, Eq, Hash)]
struct Sight {
    view: Objects,
    test: Test,
    cluster_job: Option<Job>,
    history: bool,
    script: bool,
    late: bool,
}

/// Interned statuses and events, and memoized results.
#[derive(Default)]
struct Names {
    plans: HashMap<Sight, Vec<Request>>,
    final_states: HashMap<State, State>,
    statuses: Vec<LoadTestStatus>,
    by_text: HashMap<String, Id>,
    events: Vec<(u8, Reason)>,
}

impl Names {
    fn status(&mut self, status: LoadTestStatus) -> Id {
        let text = serde_json::to_string(&status).unwrap();
        if let Some(id) = self.by_text.get(&text) {
            return *id;
        }
        let id = Id::try_from(self.statuses.len()).unwrap();
        self.statuses.push(status);
        self.by_text.insert(text, id);
        id
    }

    fn event(&mut self, uid: u8, record: &EventRecord) -> Id {
        let text = format!("event {uid} {:?} {}", record.reason, record.dedup_key);
        if let Some(id) = self.by_text.get(&text) {
            return *id;
        }
        let id = Id::try_from(self.events.len()).unwrap();
        self.events.push((uid, record.reason));
        self.by_text.insert(text, id);
        id
    }

    fn phase(&self, test: Test) -> Option<Phase> {
        test.status
            .and_then(|id| self.statuses[usize::from(id)].phase)
    }
}

impl State {
    fn new(workers: usize, lag: bool, faults: u8, users: u8) -> Self {
        let test = Test {
            uid: 1,
            version: 1,
            status: None,
            stop: false,
        };
        Self {
            cluster: Objects {
                test: Some(test),
                ..Objects::default()
            },
            script: true,
            late: false,
            job_since_write: false,
            recorded: BTreeSet::new(),
            created: [0; 2],
            created_late: [0; 2],
            view: Objects::default(),
            written: None,
            pending: Vec::new(),
            delayed: None,
            faults,
            users,
            workers,
            lag,
        }
    }

    /// Returns all successor states.
    fn steps(&self, names: &mut Names) -> Vec<(&'static str, Self)> {
        let mut next = Vec::new();
        let mut add = |what, change: &mut dyn FnMut(&mut Self)| {
            let mut state = self.clone();
            change(&mut state);
            if !state.lag {
                state.see_test();
                state.see_job();
                state.see_pods();
            }
            if state != *self {
                next.push((what, state));
            }
        };
        self.world_steps(&mut add);
        if self.users > 0 {
            self.user_steps(names, &mut add);
        }
        // Each watch delivers independently. Views matter only between reconciles, so they do not change while requests
        // are in flight.
        if self.pending.is_empty() {
            add("test seen", &mut |s| s.see_test());
            add("job seen", &mut |s| s.see_job());
            add("pods seen", &mut |s| s.see_pods());
        }
        if let Some(request) = self.pending.first() {
            add("request", &mut |s| {
                let request = s.pending.remove(0);
                if !s.serve(&request, false, names) {
                    s.pending.clear();
                }
            });
            if self.faults > 0 {
                add("crash", &mut |s| {
                    s.faults -= 1;
                    s.crash();
                });
                add("answer lost", &mut |s| {
                    s.faults -= 1;
                    let view = s.view.clone();
                    let written = s.written;
                    let request = s.pending.remove(0);
                    s.serve(&request, false, names);
                    (s.view, s.written) = (view, written);
                    s.pending.clear();
                });
                add("request lost", &mut |s| {
                    s.faults -= 1;
                    s.pending.clear();
                });
                if self.delayed.is_none() && !matches!(request, Request::Events(_)) {
                    add("request delayed", &mut |s| {
                        s.faults -= 1;
                        s.delayed = Some(s.pending.remove(0));
                        s.pending.clear();
                    });
                }
            }
        } else if let Some(requests) = self.reconcile(names).filter(|r| !r.is_empty()) {
            add("reconcile", &mut |s| s.pending.clone_from(&requests));
        }
        if let Some(delayed) = &self.delayed {
            add("late request", &mut |s| {
                s.delayed = None;
                s.serve(delayed, true, names);
            });
        }
        next
    }

    /// Runs without faults and user actions until no step is left.
    fn final_states(&self, names: &mut Names) -> Self {
        let mut state = Self {
            faults: 0,
            users: 0,
            ..self.clone()
        };
        let mut path = Vec::new();
        let end = loop {
            if let Some(end) = names.final_states.get(&state) {
                break end.clone();
            }
            assert!(path.len() < 200, "the run does not terminate: {state:#?}");
            // Time passes only if no other step is possible.
            let steps = state.steps(names);
            let next = steps
                .iter()
                .find(|(what, _)| *what != "time passes")
                .or(steps.first())
                .map(|(_, next)| next.clone());
            path.push(state.clone());
            match next {
                Some(next) => state = next,
                None => break state,
            }
        };
        names
            .final_states
            .extend(path.into_iter().map(|state| (state, end.clone())));
        end
    }
}

/// Explores all states, with at most `faults` faults and `users` user actions in a run. Returns the phases in which
/// runs end.
fn explore(workers: usize, lag: bool, faults: u8, users: u8) -> HashSet<Option<Phase>> {
    let begun = Instant::now();
    let mut names = Names::default();
    let first = State::new(workers, lag, faults, users);
    let mut seen: HashSet<State> = HashSet::from([first.clone()]);
    let mut queue = VecDeque::from([first]);
    let mut final_states: HashSet<State> = HashSet::new();
    let (mut steps, mut ends) = (0_usize, HashSet::new());
    while let Some(state) = queue.pop_front() {
        for (_, next) in state.steps(&mut names) {
            steps += 1;
            next.check();
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
        let end = state.final_states(&mut names);
        if final_states.insert(end.clone()) {
            end.check_final(&names, &state);
            ends.insert(end.cluster.test.and_then(|t| names.phase(t)));
        }
    }
    println!(
        "model check: {workers} workers, {} views, {faults} faults, {users} user actions: {} states, {steps} steps, {} final_states states, {:.1}s",
        if lag { "lagging" } else { "prompt" },
        seen.len(),
        final_states.len(),
        begun.elapsed().as_secs_f64()
    );
    ends
}

#[test]
fn invariants_hold_in_every_order_of_steps() {
    explore(2, false, 1, 0);
    explore(1, true, 1, 0);
    let ends = explore(1, false, 1, 1);
    for phase in [
        Phase::Completed,
        Phase::Failed,
        Phase::Stopped,
        Phase::Suspended,
        Phase::Pending,
    ] {
        assert!(
            ends.contains(&Some(phase)),
            "no run ends in {phase:?}: the model is incomplete"
        );
    }
}

/// Explores a larger state space. `make model-check` runs it.
#[test]
#[ignore = "takes minutes: run it with make model-check"]
fn invariants_hold_in_every_order_of_steps_of_larger_runs() {
    explore(2, true, 0, 0);
    explore(2, false, 0, 1);
    explore(1, false, 1, 1);
    explore(1, true, 0, 1);
}
