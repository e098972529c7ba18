//! What every reconcile needs: the client, the settings, and what this process knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::SignedDuration;
use kube::Client;
use tokio::sync::watch;

use crate::decide::refresh_every;
use crate::index::{Index, Key};
use crate::metrics::Metrics;
use crate::progress::Obstacle;
use crate::report::Memory;
use crate::script::Read;
use crate::settings::WorkerSettings;
use crate::waiting::Waiting;

/// How long a script that was seen is taken to be there: many tests of one script, created at once, look for it once.
const SCRIPT_SEEN: Duration = Duration::from_secs(2);
/// How long the workers' files are taken to be in a namespace that had them.
const WORKER_FILES_SEEN: Duration = Duration::from_secs(60);
/// How long the events of a namespace are not asked for again, and how long if they did not tell of what is looked for. Of a
/// thousand tests that wait for a quota one asks for all.
const EVENTS_ASKED: Duration = Duration::from_secs(60);
const EVENTS_ASKED_IN_VAIN: Duration = Duration::from_secs(10);
/// How long after its time a test that failed has not been tried again: it is gone.
const NO_LONGER_TRIED: Duration = Duration::from_secs(600);
/// How long the number of running tests is taken to be what it was: to count them is to look at all of them.
const COUNTED: Duration = Duration::from_secs(5);

/// What every reconcile needs.
pub struct Context {
    /// The client. It repeats nothing by itself.
    pub client: Client,
    /// What all workers share.
    pub settings: WorkerSettings,
    /// What has been said and written.
    pub memory: Memory,
    /// The tests that wait for something else than their Job and pods.
    pub waiting: Waiting,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The tests that failed to be reconciled.
    pub back_off: BackOff,
    index: Mutex<Index>,
    scripts: Mutex<Scripts>,
    asked: Mutex<HashMap<String, Asked>>,
    worker_files: Mutex<HashMap<String, Instant>>,
    running: Mutex<Option<(usize, Instant)>>,
    synced: watch::Sender<Synced>,
}

/// What is kept of the `ConfigMap`s of scripts that were seen, and when they were.
type Scripts = HashMap<ScriptMap, (Arc<SeenMap>, Instant)>;

/// A `ConfigMap` that is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScriptMap {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The key of the script in it, if it is looked for, and the environment of the script that is used.
    pub script: Option<(String, Option<String>)>,
}

/// What is kept of a `ConfigMap` of a script.
#[derive(Debug, Default)]
pub struct SeenMap {
    /// Its keys.
    pub keys: Vec<String>,
    /// What there is to know of the script, if it is there.
    pub script: Read,
}

/// What the events of a namespace said.
#[derive(Debug)]
pub struct Told {
    /// What keeps Jobs and pods from coming forward, by their UID.
    pub obstacles: HashMap<String, Obstacle>,
    /// When they were asked.
    pub at: Instant,
}

impl Told {
    /// Whether this is good enough to know what they say of the Job or pod with this UID.
    #[must_use]
    pub fn is_fresh(&self, uid: &str, now: Instant) -> bool {
        now.duration_since(self.at)
            < if self.obstacles.contains_key(uid) {
                EVENTS_ASKED
            } else {
                EVENTS_ASKED_IN_VAIN
            }
    }
}

/// What the events of a namespace said when they were asked last. Who asks holds it meanwhile, and others wait for the answer.
type Asked = Arc<tokio::sync::Mutex<Option<Told>>>;

/// How long tests that failed to be reconciled have to wait, by their UID.
#[derive(Debug, Default)]
pub struct BackOff(Mutex<HashMap<String, Failures>>);

/// The failures in a row of a test.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    until: Instant,
}

impl BackOff {
    fn failures(&self) -> MutexGuard<'_, HashMap<String, Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait after one more failure of a test.
    pub fn failed(&self, uid: &str, now: Instant) -> Duration {
        let mut all = self.failures();
        all.retain(|_, failures| now.saturating_duration_since(failures.until) < NO_LONGER_TRIED);
        let failures = all.entry(uid.to_owned()).or_insert(Failures {
            count: 0,
            until: now,
        });
        let delay = delay(failures.count);
        failures.count = failures.count.saturating_add(1);
        failures.until = now + delay;
        delay
    }

    /// How long a test has still to wait after its last failure. Events do not shorten that: what they tell of happens just
    /// when the API server is in need.
    pub fn rest(&self, uid: &str, now: Instant) -> Option<Duration> {
        let until = self.failures().get(uid)?.until;
        until
            .checked_duration_since(now)
            .filter(|rest| !rest.is_zero())
    }

    /// Notes that a test was reconciled, so that its next failure is a first one.
    pub fn recovered(&self, uid: &str) {
        self.failures().remove(uid);
    }
}

/// Which watches have given their first complete list.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Synced {
    /// The watch of tests.
    pub tests: bool,
    /// The watch of Jobs.
    pub jobs: bool,
    /// The watch of pods.
    pub pods: bool,
}

impl Context {
    /// A context that knows nothing yet.
    #[must_use]
    pub fn new(
        client: Client,
        settings: WorkerSettings,
        waiting: Waiting,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            settings,
            memory: Memory::default(),
            waiting,
            metrics,
            back_off: BackOff::default(),
            index: Mutex::default(),
            scripts: Mutex::default(),
            asked: Mutex::default(),
            worker_files: Mutex::default(),
            running: Mutex::default(),
            synced: watch::Sender::default(),
        }
    }

    /// The index, locked. Not to be held across an `await`.
    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the progress of a running test is to be written, by how many of them there are.
    pub fn refresh_every(&self, now: Instant) -> SignedDuration {
        let mut counted = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = match counted.filter(|(_, at)| now.duration_since(*at) < COUNTED) {
            Some((running, _)) => running,
            None => counted.insert((self.index().running(), now)).0,
        };
        refresh_every(running)
    }

    /// Notes that a watch has given its first complete list.
    pub fn note_synced(&self, note: impl FnOnce(&mut Synced)) {
        self.synced.send_modify(note);
    }

    /// Which watches have given their first complete list so far.
    pub fn synced(&self) -> Synced {
        *self.synced.borrow()
    }

    /// Waits until certain watches have given their first complete list.
    pub async fn until_synced(&self, enough: fn(&Synced) -> bool) {
        // It fails only where the watches have ended, and nothing is waited for any more.
        let _ = self.synced.subscribe().wait_for(enough).await;
    }

    /// What is kept of a `ConfigMap`, if it was seen a moment ago.
    pub fn script_just_seen(&self, map: &ScriptMap, now: Instant) -> Option<Arc<SeenMap>> {
        let mut scripts = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        scripts.retain(|_, (_, seen)| now.duration_since(*seen) < SCRIPT_SEEN);
        scripts.get(map).map(|(seen, _)| seen.clone())
    }

    /// Notes what was seen of a `ConfigMap`.
    pub fn note_script(&self, map: ScriptMap, seen: Arc<SeenMap>, now: Instant) {
        self.scripts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(map, (seen, now));
    }

    /// Whether a namespace has the workers' files, as far as was seen not long ago.
    pub fn has_worker_files(&self, namespace: &str, now: Instant) -> bool {
        let mut there = self
            .worker_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        there.retain(|_, seen| now.duration_since(*seen) < WORKER_FILES_SEEN);
        there.contains_key(namespace)
    }

    /// Notes that a namespace has the workers' files.
    pub fn note_worker_files(&self, namespace: &str, now: Instant) {
        self.worker_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(namespace.to_owned(), now);
    }

    /// What the events of a namespace said when they were asked last.
    pub fn events_of(&self, namespace: &str, now: Instant) -> Asked {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |asked: &Asked| {
            asked.try_lock().is_ok_and(|t| {
                t.as_ref()
                    .is_none_or(|t| now.duration_since(t.at) > EVENTS_ASKED)
            })
        };
        asked.retain(|of, asked| of == namespace || !is_old(asked));
        asked.entry(namespace.to_owned()).or_default().clone()
    }

    /// Forgets a test that is gone.
    pub fn forget(&self, key: &Key) {
        self.index().forget_test(key);
        self.memory.forget(key);
        self.waiting.stop(key);
    }
}

/// The delay after `failures` failures in a row: from half a second, doubling, to a minute.
fn delay(failures: u32) -> Duration {
    Duration::from_millis(500)
        .saturating_mul(1 << failures.min(7))
        .min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_later_each_time_but_always() {
        let delays: Vec<_> = [0, 1, 2, 6, 7, u32::MAX]
            .map(|n| delay(n).as_millis())
            .into();
        assert_eq!(delays, [500, 1000, 2000, 32_000, 60_000, 60_000]);
    }

    #[test]
    fn events_neither_shorten_a_wait_nor_make_it_longer() {
        let (waits, begun) = (BackOff::default(), Instant::now());
        let at = |millis| begun + Duration::from_millis(millis);
        assert_eq!(waits.rest("u", at(0)), None);
        waits.failed("u", at(0));
        // Events come one after the other: each finds that the test still waits, and so fails no more.
        assert_eq!(waits.rest("u", at(200)), Some(Duration::from_millis(300)));
        assert_eq!(waits.rest("u", at(500)), None);
        assert_eq!(waits.failed("u", at(500)).as_millis(), 1000);
        waits.recovered("u");
        assert_eq!(waits.failed("u", at(2000)).as_millis(), 500);
    }
}
