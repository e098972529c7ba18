//! Which tests are looked at next: pure. Each is in it at most once, and looked at by one at a time; what happens to it
//! meanwhile has it looked at once more.
//!
//! It takes the place of kube-runtime's `Controller`, which has a future for each test that waits for its turn and polls all of
//! them with each event: with thousands of tests at once that was most of what the operator did.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use crate::index::{Key, give_back};

/// What a test is looked at for. Each kind has lanes of its own: however much there is to say of tests that run, those that are
/// to start do not wait behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It may have to be started.
    Start,
    /// It has started: there may be something to say of it.
    Report,
}

/// The tests that are to be looked at.
#[derive(Debug, Default)]
pub struct Queue {
    starts: Waiters,
    reports: Waiters,
    tests: HashMap<Key, State>,
    /// When those are to be looked at that have nothing else to wait for.
    timers: BTreeSet<(Instant, Key)>,
}

/// The tests that wait for a lane, and how many have one. Namespaces take turns, so that a few tests of one do not wait
/// behind a thousand of another, such as one whose quota refuses them all, again and again.
#[derive(Debug, Default)]
struct Waiters {
    /// The namespaces that have a line.
    turns: VecDeque<String>,
    lines: HashMap<String, VecDeque<Key>>,
    busy: usize,
}

impl Waiters {
    fn push(&mut self, key: Key) {
        if let Some(line) = self.lines.get_mut(&key.0) {
            line.push_back(key);
        } else {
            self.turns.push_back(key.0.clone());
            self.lines.insert(key.0.clone(), VecDeque::from([key]));
        }
    }

    fn pop(&mut self) -> Option<Key> {
        let namespace = self.turns.pop_front()?;
        let line = self.lines.get_mut(&namespace)?;
        let key = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        key
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Until then nothing is to be done about it.
    Idle(Instant),
    /// It stands in a line.
    Waits,
    /// It is looked at, and whether something has happened to it since.
    Looked { lane: Lane, again: Option<Lane> },
}

impl Queue {
    /// Something has happened to a test: it is looked at as soon as there is a lane.
    pub fn add(&mut self, key: Key, lane: Lane) {
        match self.tests.get_mut(&key) {
            Some(State::Waits) => {}
            Some(State::Looked { again, .. }) => *again = Some(lane),
            Some(State::Idle(due)) => {
                let timer = (*due, key);
                self.timers.remove(&timer);
                self.stand(timer.1, lane);
            }
            None => self.stand(key, lane),
        }
    }

    fn stand(&mut self, key: Key, lane: Lane) {
        self.tests.insert(key.clone(), State::Waits);
        self.waiters(lane).push(key);
    }

    fn waiters(&mut self, lane: Lane) -> &mut Waiters {
        match lane {
            Lane::Start => &mut self.starts,
            Lane::Report => &mut self.reports,
        }
    }

    /// The next test to be looked at, if one waits and a lane is free; it has the lane until [`Queue::done`].
    pub fn take(&mut self, lanes: impl Fn(Lane) -> usize) -> Option<Key> {
        [Lane::Start, Lane::Report].into_iter().find_map(|lane| {
            let waiters = self.waiters(lane);
            let key = if waiters.busy < lanes(lane) {
                waiters.pop()
            } else {
                None
            }?;
            waiters.busy += 1;
            self.tests
                .insert(key.clone(), State::Looked { lane, again: None });
            Some(key)
        })
    }

    /// A test was looked at, and is to be again at that time, if nothing happens to it before.
    pub fn done(&mut self, key: Key, look_again: Option<Instant>) {
        let Some(State::Looked { lane, again }) = self.tests.remove(&key) else {
            return;
        };
        self.waiters(lane).busy -= 1;
        match (again, look_again) {
            (Some(lane), _) => self.stand(key, lane),
            (None, Some(at)) => {
                self.tests.insert(key.clone(), State::Idle(at));
                self.timers.insert((at, key));
            }
            (None, None) => give_back(&mut self.tests),
        }
    }

    /// When the next test is to be looked at to which nothing has happened.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next test whose time has come; to be given to [`Queue::add`].
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Key> {
        self.timers
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, key)| key.clone())
    }

    /// Forgets when to look at a test that is gone.
    pub fn forget(&mut self, key: &Key) {
        if let Some(State::Idle(at)) = self.tests.get(key) {
            self.timers.remove(&(*at, key.clone()));
            self.tests.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn key(name: &str) -> Key {
        Arc::new(("n".into(), name.into()))
    }

    fn take(queue: &mut Queue) -> Option<String> {
        queue.take(|_| 1).map(|key| key.1.clone())
    }

    #[test]
    fn each_test_is_looked_at_by_one_at_a_time_and_once_more_for_all_that_happened_meanwhile() {
        let mut queue = Queue::default();
        for _ in 0..3 {
            queue.add(key("a"), Lane::Report);
        }
        assert_eq!(
            (take(&mut queue), take(&mut queue)),
            (Some("a".into()), None)
        );
        for _ in 0..3 {
            queue.add(key("a"), Lane::Report);
        }
        assert_eq!(take(&mut queue), None, "it is looked at");
        queue.done(key("a"), Some(Instant::now()));
        assert_eq!(
            (take(&mut queue), queue.next_due()),
            (Some("a".into()), None)
        );
        queue.done(key("a"), None);
        assert_eq!(take(&mut queue), None);
        assert!(
            queue.tests.is_empty(),
            "nothing is kept of a test that nothing is to be done about"
        );
    }

    #[test]
    fn starts_do_not_wait_behind_reports_and_none_takes_more_lanes_than_there_are() {
        let mut queue = Queue::default();
        for name in ["r1", "r2"] {
            queue.add(key(name), Lane::Report);
        }
        for name in ["s1", "s2"] {
            queue.add(key(name), Lane::Start);
        }
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut queue)).collect();
        assert_eq!(taken, ["s1", "r1"]);
        queue.done(key("s1"), None);
        assert_eq!(take(&mut queue), Some("s2".into()));
        // What happened while it was looked at may make it one of another kind.
        queue.add(key("s2"), Lane::Report);
        queue.done(key("s2"), None);
        queue.done(key("r1"), None);
        assert_eq!(
            [take(&mut queue), take(&mut queue)],
            [Some("r2".into()), None]
        );
        queue.done(key("r2"), None);
        assert_eq!(take(&mut queue), Some("s2".into()));
    }

    #[test]
    fn namespaces_take_turns() {
        let mut queue = Queue::default();
        let of = |namespace: &str, name: &str| Arc::new((namespace.to_owned(), name.to_owned()));
        for (namespace, name) in [
            ("many", "1"),
            ("many", "2"),
            ("many", "3"),
            ("few", "4"),
            ("one", "5"),
            ("few", "6"),
        ] {
            queue.add(of(namespace, name), Lane::Start);
        }
        let taken = |queue: &mut Queue| {
            let key = queue.take(|_| 1)?;
            queue.done(key.clone(), None);
            Some(key.1.clone())
        };
        assert_eq!(
            std::array::from_fn(|_| taken(&mut queue)),
            ["1", "4", "5", "2"].map(|name| Some(name.to_owned()))
        );
        // One that comes back stands behind those that wait.
        queue.add(of("one", "7"), Lane::Start);
        assert_eq!(
            std::array::from_fn(|_| taken(&mut queue)),
            ["6", "3", "7"].map(|name| Some(name.to_owned()))
        );
        assert!(
            taken(&mut queue).is_none()
                && queue.starts.lines.is_empty()
                && queue.starts.turns.is_empty()
        );
    }

    #[test]
    fn a_test_is_looked_at_when_its_time_has_come_or_something_happens_to_it_before() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (name, seconds) in [("b", 20), ("a", 10), ("c", 30)] {
            queue.add(key(name), Lane::Report);
            take(&mut queue);
            queue.done(key(name), Some(at(seconds)));
        }
        assert_eq!((queue.next_due(), queue.due(at(9))), (Some(at(10)), None));
        queue.add(key("b"), Lane::Report);
        assert_eq!(take(&mut queue), Some("b".into()));
        queue.done(key("b"), None);
        assert_eq!(queue.due(at(10)), Some(key("a")));
        queue.add(key("a"), Lane::Report);
        assert_eq!(
            (take(&mut queue), queue.next_due()),
            (Some("a".into()), Some(at(30)))
        );
        queue.forget(&key("c"));
        queue.forget(&key("a"));
        queue.done(key("a"), None);
        assert_eq!((queue.next_due(), queue.tests.len()), (None, 0));
    }
}
