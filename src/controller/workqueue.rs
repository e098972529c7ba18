//! The workqueue: decides which test is reconciled next. A test is queued at most once and is processed by one
//! reconcile at a time. A test that changes while it is processed is queued again afterwards.
//!
//! The workqueue replaces kube-runtime's `Controller`, which keeps a future for each waiting test and polls all of them
//! at each event. This does not scale to thousands of tests.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use crate::cache::{ObjectRef, shrink_if_sparse};

/// How many tests that may start are reconciled at a time. Each makes several requests, one after the other.
pub(crate) const MAX_CONCURRENT_STARTS: usize = 48;

/// How many tests of one namespace are reconciled at a time, at first and at least.
const INITIAL_PER_NAMESPACE: usize = 16;
const MIN_PER_NAMESPACE: usize = 4;

/// The priority of a test. Each priority has its own capacity, so that updates of running tests never delay starts, and suspects
/// delay neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// The test may have to be started.
    Start,
    /// The test has started, and its status may have to be updated.
    Update,
    /// The process may end while it reconciles the test.
    Suspect,
}

/// The tests to reconcile.
#[derive(Debug, Default)]
pub(crate) struct Workqueue {
    starts: FairQueue,
    updates: FairQueue,
    suspects: FairQueue,
    tests: HashMap<ObjectRef, ItemState>,
    /// The tests that are scheduled for a later time.
    timers: BTreeSet<(Instant, ObjectRef)>,
}

/// The tests of one priority. Namespaces are served round-robin, so that one namespace with many tests does not delay
/// the others, for example when its quota rejects all of them again and again.
#[derive(Debug, Default)]
struct FairQueue {
    /// The namespaces with queued tests.
    round_robin: VecDeque<String>,
    /// The namespaces with queued tests or tests in flight.
    by_namespace: HashMap<String, NamespaceQueue>,
    in_flight: usize,
}

#[derive(Debug, Default)]
struct NamespaceQueue {
    queued: VecDeque<ObjectRef>,
    in_flight: usize,
    limit: NamespaceLimit,
}

/// How many tests of a namespace are reconciled at a time. It grows with each one that starts, and shrinks with each one that does
/// not: 15,000 suspended tests that are reported 48 at a time cost the API server so much that its watches deliver the tests of
/// others ten seconds late.
#[derive(Clone, Copy, Debug, PartialEq)]
struct NamespaceLimit(usize);

impl Default for NamespaceLimit {
    fn default() -> Self {
        Self(INITIAL_PER_NAMESPACE)
    }
}

impl NamespaceLimit {
    fn after(self, has_started: bool) -> Self {
        Self(if has_started {
            MAX_CONCURRENT_STARTS.min(self.0 + 2)
        } else {
            MIN_PER_NAMESPACE.max(self.0 - 1)
        })
    }
}

impl FairQueue {
    fn push(&mut self, key: ObjectRef) {
        let queue = self.by_namespace.entry(key.namespace.clone()).or_default();
        if queue.queued.is_empty() {
            self.round_robin.push_back(key.namespace.clone());
        }
        queue.queued.push_back(key);
    }

    /// Returns the next test of the first namespace below its limit, and counts it as in flight.
    fn pop(&mut self) -> Option<ObjectRef> {
        for _ in 0..self.round_robin.len() {
            let namespace = self.round_robin.pop_front()?;
            let queue = self.by_namespace.get_mut(&namespace)?;
            let key = if queue.in_flight < queue.limit.0 {
                queue.queued.pop_front()
            } else {
                None
            };
            if !queue.queued.is_empty() {
                self.round_robin.push_back(namespace);
            }
            if key.is_some() {
                queue.in_flight += 1;
                self.in_flight += 1;
                return key;
            }
        }
        None
    }

    /// Counts a test as no longer in flight.
    fn done(&mut self, key: &ObjectRef, has_started: bool) {
        self.in_flight -= 1;
        let Some(queue) = self.by_namespace.get_mut(&key.namespace) else {
            return;
        };
        queue.in_flight -= 1;
        queue.limit = queue.limit.after(has_started);
        if queue.in_flight == 0 && queue.queued.is_empty() {
            self.by_namespace.remove(&key.namespace);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum ItemState {
    /// The test is reconciled at this time, unless an event comes first.
    Scheduled(Instant),
    /// The test waits in a queue.
    Queued,
    /// The test is being reconciled. `dirty` is set if it has changed meanwhile.
    Processing {
        priority: Priority,
        dirty: Option<Priority>,
    },
}

impl Workqueue {
    /// Queues a test that has changed.
    pub(crate) fn add(&mut self, key: ObjectRef, priority: Priority) {
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
            Priority::Suspect => &mut self.suspects,
        }
    }

    /// Returns the next test to reconcile, if one is queued and its priority has free capacity. The test occupies the
    /// capacity until [`Workqueue::done`].
    pub(crate) fn get(&mut self, capacity: impl Fn(Priority) -> usize) -> Option<ObjectRef> {
        [Priority::Start, Priority::Update, Priority::Suspect]
            .into_iter()
            .find_map(|priority| {
                let queue = self.queue_of(priority);
                let key = if queue.in_flight < capacity(priority) {
                    queue.pop()
                } else {
                    None
                }?;
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

    /// Finishes the processing of a test. The test is queued again if it is dirty, or else scheduled for `requeue_at`.
    pub(crate) fn done(&mut self, key: ObjectRef, requeue_at: Option<Instant>, has_started: bool) {
        let Some(ItemState::Processing { priority, dirty }) = self.tests.remove(&key) else {
            return;
        };
        let has_started = has_started || priority != Priority::Start;
        self.queue_of(priority).done(&key, has_started);
        match (dirty, requeue_at) {
            (Some(priority), _) => self.push(key, priority),
            (None, Some(at)) => {
                self.tests.insert(key.clone(), ItemState::Scheduled(at));
                self.timers.insert((at, key));
            }
            (None, None) => shrink_if_sparse(&mut self.tests),
        }
    }

    /// Returns the time of the earliest scheduled test.
    #[must_use]
    pub(crate) fn next_requeue(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns a scheduled test that is due. The caller passes it to [`Workqueue::add`].
    #[must_use]
    pub(crate) fn pop_due(&self, now: Instant) -> Option<ObjectRef> {
        self.timers
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, key)| key.clone())
    }

    /// Cancels the schedule of a deleted test.
    pub(crate) fn forget(&mut self, key: &ObjectRef) {
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
    fn changed_test_is_processed_again_once_after_the_running_reconcile() {
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
        assert_eq!(take(&mut queue), None, "the test is being processed");
        queue.done(key("a"), Some(Instant::now()), true);
        assert_eq!(
            (take(&mut queue), queue.next_requeue()),
            (Some("a".into()), None)
        );
        queue.done(key("a"), None, true);
        assert_eq!(take(&mut queue), None);
        assert!(queue.tests.is_empty(), "idle tests are not kept");
    }

    #[test]
    fn priorities_have_separate_capacity() {
        let mut queue = Workqueue::default();
        for name in ["r1", "r2"] {
            queue.add(key(name), Priority::Update);
        }
        for name in ["s1", "s2"] {
            queue.add(key(name), Priority::Start);
        }
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut queue)).collect();
        assert_eq!(taken, ["s1", "r1"]);
        queue.done(key("s1"), None, true);
        assert_eq!(take(&mut queue), Some("s2".into()));
        // The event changes the priority of the test that is being processed.
        queue.add(key("s2"), Priority::Update);
        queue.done(key("s2"), None, true);
        queue.done(key("r1"), None, true);
        assert_eq!(
            [take(&mut queue), take(&mut queue)],
            [Some("r2".into()), None]
        );
        queue.done(key("r2"), None, true);
        assert_eq!(take(&mut queue), Some("s2".into()));
    }

    #[test]
    fn namespaces_are_served_round_robin() {
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
            queue.done(key.clone(), None, true);
            Some(key.name.clone())
        };
        assert_eq!(
            std::array::from_fn(|_| taken(&mut queue)),
            ["1", "4", "5", "2"].map(|name| Some(name.to_owned()))
        );
        // A namespace that returns is queued behind the waiting namespaces.
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
    fn namespace_whose_tests_do_not_start_occupies_little_capacity() {
        let mut queue = Workqueue::default();
        for i in 0..1000 {
            queue.add(key(&format!("{i}")), Priority::Start);
        }
        let take_all = |queue: &mut Workqueue| -> Vec<_> {
            std::iter::from_fn(|| queue.get(|_| 48)).collect()
        };
        let finish = |queue: &mut Workqueue, taken: Vec<ObjectRef>, has_started| {
            for key in taken {
                queue.done(key, None, has_started);
            }
        };
        let (mut occupied, mut taken) = (vec![], take_all(&mut queue));
        for has_started in [false, false, true, true, true, false] {
            occupied.push(taken.len());
            finish(&mut queue, taken, has_started);
            taken = take_all(&mut queue);
        }
        assert_eq!(occupied, [16, 4, 4, 12, 36, 48]);
        assert_eq!(taken.len(), 4, "48 that did not start");
        let other = Arc::new(NamespacedName {
            namespace: "other".into(),
            name: "a".into(),
        });
        queue.add(other.clone(), Priority::Start);
        assert_eq!(take_all(&mut queue), [other], "the capacity of others");
    }

    #[test]
    fn scheduled_test_is_due_at_its_time_or_at_an_earlier_event() {
        let (mut queue, now) = (Workqueue::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (name, seconds) in [("b", 20), ("a", 10), ("c", 30)] {
            queue.add(key(name), Priority::Update);
            take(&mut queue);
            queue.done(key(name), Some(at(seconds)), true);
        }
        assert_eq!(
            (queue.next_requeue(), queue.pop_due(at(9))),
            (Some(at(10)), None)
        );
        queue.add(key("b"), Priority::Update);
        assert_eq!(take(&mut queue), Some("b".into()));
        queue.done(key("b"), None, true);
        assert_eq!(queue.pop_due(at(10)), Some(key("a")));
        queue.add(key("a"), Priority::Update);
        assert_eq!(
            (take(&mut queue), queue.next_requeue()),
            (Some("a".into()), Some(at(30)))
        );
        queue.forget(&key("c"));
        queue.forget(&key("a"));
        queue.done(key("a"), None, true);
        assert_eq!((queue.next_requeue(), queue.tests.len()), (None, 0));
    }
}
