//! Which tests are looked at next: pure. Each is in it at most once, and looked at by one at a time; what happens to it
//! meanwhile has it looked at once more.
//!
//! It takes the place of kube-runtime's `Controller`, which has a future for each test that waits for its turn and polls all of
//! them with each event: with thousands of tests at once that was most of what the operator did.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use crate::cache::{ObjectRef, shrink_if_sparse};

/// What a test is looked at for. Each kind has capacity of its own: however much there is to say of tests that run, those that are
/// to start do not wait behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// It may have to be started.
    Start,
    /// It has started: there may be something to say of it.
    Update,
}

/// The tests that are to be looked at.
#[derive(Debug, Default)]
pub struct Workqueue {
    starts: FairQueue,
    updates: FairQueue,
    tests: HashMap<ObjectRef, ItemState>,
    /// When those are to be looked at that have nothing else to wait for.
    timers: BTreeSet<(Instant, ObjectRef)>,
}

/// The tests that wait for a priority, and how many have one. Namespaces take round_robin, so that a few tests of one do not wait
/// behind a thousand of another, such as one whose quota refuses them all, dirty and dirty.
#[derive(Debug, Default)]
struct FairQueue {
    /// The namespaces that have a line.
    round_robin: VecDeque<String>,
    by_namespace: HashMap<String, VecDeque<ObjectRef>>,
    in_flight: usize,
}

impl FairQueue {
    fn push(&mut self, key: ObjectRef) {
        if let Some(line) = self.by_namespace.get_mut(&key.namespace) {
            line.push_back(key);
        } else {
            self.round_robin.push_back(key.namespace.clone());
            self.by_namespace
                .insert(key.namespace.clone(), VecDeque::from([key]));
        }
    }

    fn pop(&mut self) -> Option<ObjectRef> {
        let namespace = self.round_robin.pop_front()?;
        let line = self.by_namespace.get_mut(&namespace)?;
        let key = line.pop_front();
        if line.is_empty() {
            self.by_namespace.remove(&namespace);
        } else {
            self.round_robin.push_back(namespace);
        }
        key
    }
}

#[derive(Clone, Copy, Debug)]
enum ItemState {
    /// Until then nothing is to be done about it.
    Scheduled(Instant),
    /// It stands in a line.
    Queued,
    /// It is looked at, and whether something has happened to it since.
    Processing {
        priority: Priority,
        dirty: Option<Priority>,
    },
}

impl Workqueue {
    /// Something has happened to a test: it is looked at as soon as there is a priority.
    pub fn add(&mut self, key: ObjectRef, priority: Priority) {
        match self.tests.get_mut(&key) {
            Some(ItemState::Queued) => {}
            Some(ItemState::Processing { dirty, .. }) => *dirty = Some(priority),
            Some(ItemState::Scheduled(due)) => {
                let timer = (*due, key);
                self.timers.remove(&timer);
                self.push(timer.1, priority);
            }
            None => self.push(key, priority),
        }
    }

    fn push(&mut self, key: ObjectRef, priority: Priority) {
        self.tests.insert(key.clone(), ItemState::Queued);
        self.queue_of(priority).push(key);
    }

    fn queue_of(&mut self, priority: Priority) -> &mut FairQueue {
        match priority {
            Priority::Start => &mut self.starts,
            Priority::Update => &mut self.updates,
        }
    }

    /// The next test to be looked at, if one waits and a priority is free; it has the priority until [`Workqueue::done`].
    pub fn get(&mut self, capacity: impl Fn(Priority) -> usize) -> Option<ObjectRef> {
        [Priority::Start, Priority::Update]
            .into_iter()
            .find_map(|priority| {
                let queue = self.queue_of(priority);
                let key = if queue.in_flight < capacity(priority) {
                    queue.pop()
                } else {
                    None
                }?;
                queue.in_flight += 1;
                self.tests.insert(
                    key.clone(),
                    ItemState::Processing {
                        priority,
                        dirty: None,
                    },
                );
                Some(key)
            })
    }

    /// A test was looked at, and is to be dirty at that time, if nothing happens to it before.
    pub fn done(&mut self, key: ObjectRef, requeue_at: Option<Instant>) {
        let Some(ItemState::Processing { priority, dirty }) = self.tests.remove(&key) else {
            return;
        };
        self.queue_of(priority).in_flight -= 1;
        match (dirty, requeue_at) {
            (Some(priority), _) => self.push(key, priority),
            (None, Some(at)) => {
                self.tests.insert(key.clone(), ItemState::Scheduled(at));
                self.timers.insert((at, key));
            }
            (None, None) => shrink_if_sparse(&mut self.tests),
        }
    }

    /// When the next test is to be looked at to which nothing has happened.
    #[must_use]
    pub fn next_requeue(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next test whose time has come; to be given to [`Workqueue::add`].
    #[must_use]
    pub fn pop_due(&self, now: Instant) -> Option<ObjectRef> {
        self.timers
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, key)| key.clone())
    }

    /// Forgets when to look at a test that is gone.
    pub fn forget(&mut self, key: &ObjectRef) {
        if let Some(ItemState::Scheduled(at)) = self.tests.get(key) {
            self.timers.remove(&(*at, key.clone()));
            self.tests.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::NamespacedName;
    use std::sync::Arc;
    use std::time::Duration;

    fn key(name: &str) -> ObjectRef {
        Arc::new(NamespacedName {
            namespace: "n".into(),
            name: name.into(),
        })
    }

    fn take(queue: &mut Workqueue) -> Option<String> {
        queue.get(|_| 1).map(|key| key.name.clone())
    }

    #[test]
    fn each_test_is_looked_at_by_one_at_a_time_and_once_more_for_all_that_happened_meanwhile() {
        let mut queue = Workqueue::default();
        for _ in 0..3 {
            queue.add(key("a"), Priority::Update);
        }
        assert_eq!(
            (take(&mut queue), take(&mut queue)),
            (Some("a".into()), None)
        );
        for _ in 0..3 {
            queue.add(key("a"), Priority::Update);
        }
        assert_eq!(take(&mut queue), None, "it is looked at");
        queue.done(key("a"), Some(Instant::now()));
        assert_eq!(
            (take(&mut queue), queue.next_requeue()),
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
        let mut queue = Workqueue::default();
        for name in ["r1", "r2"] {
            queue.add(key(name), Priority::Update);
        }
        for name in ["s1", "s2"] {
            queue.add(key(name), Priority::Start);
        }
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut queue)).collect();
        assert_eq!(taken, ["s1", "r1"]);
        queue.done(key("s1"), None);
        assert_eq!(take(&mut queue), Some("s2".into()));
        // What happened while it was looked at may make it one of another kind.
        queue.add(key("s2"), Priority::Update);
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
        let mut queue = Workqueue::default();
        let of = |namespace: &str, name: &str| {
            Arc::new(NamespacedName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        };
        for (namespace, name) in [
            ("many", "1"),
            ("many", "2"),
            ("many", "3"),
            ("few", "4"),
            ("one", "5"),
            ("few", "6"),
        ] {
            queue.add(of(namespace, name), Priority::Start);
        }
        let taken = |queue: &mut Workqueue| {
            let key = queue.get(|_| 1)?;
            queue.done(key.clone(), None);
            Some(key.name.clone())
        };
        assert_eq!(
            std::array::from_fn(|_| taken(&mut queue)),
            ["1", "4", "5", "2"].map(|name| Some(name.to_owned()))
        );
        // One that comes back stands behind those that wait.
        queue.add(of("one", "7"), Priority::Start);
        assert_eq!(
            std::array::from_fn(|_| taken(&mut queue)),
            ["6", "3", "7"].map(|name| Some(name.to_owned()))
        );
        assert!(
            taken(&mut queue).is_none()
                && queue.starts.by_namespace.is_empty()
                && queue.starts.round_robin.is_empty()
        );
    }

    #[test]
    fn a_test_is_looked_at_when_its_time_has_come_or_something_happens_to_it_before() {
        let (mut queue, now) = (Workqueue::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (name, seconds) in [("b", 20), ("a", 10), ("c", 30)] {
            queue.add(key(name), Priority::Update);
            take(&mut queue);
            queue.done(key(name), Some(at(seconds)));
        }
        assert_eq!(
            (queue.next_requeue(), queue.pop_due(at(9))),
            (Some(at(10)), None)
        );
        queue.add(key("b"), Priority::Update);
        assert_eq!(take(&mut queue), Some("b".into()));
        queue.done(key("b"), None);
        assert_eq!(queue.pop_due(at(10)), Some(key("a")));
        queue.add(key("a"), Priority::Update);
        assert_eq!(
            (take(&mut queue), queue.next_requeue()),
            (Some("a".into()), Some(at(30)))
        );
        queue.forget(&key("c"));
        queue.forget(&key("a"));
        queue.done(key("a"), None);
        assert_eq!((queue.next_requeue(), queue.tests.len()), (None, 0));
    }
}
