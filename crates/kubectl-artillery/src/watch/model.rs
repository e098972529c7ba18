//! What is shown of a test, and how updates change it.

use std::collections::BTreeMap;

use loadtest_api::v1alpha1::LoadTest;

use crate::error::Error;
use crate::view::{EventLine, Worker};

/// Where an update comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The test itself.
    Test,
    /// The pods of its workers.
    Workers,
    /// Its events.
    Events,
}

/// A change of what is known of a test.
#[derive(Debug)]
pub enum Update {
    /// The test changed.
    Test(Box<LoadTest>),
    /// The test does not exist.
    NoTest,
    /// A worker changed, by the name of its pod.
    Worker(Box<Worker>),
    /// The pod of a worker was deleted.
    NoWorker(String),
    /// An event, by its name.
    Event(String, EventLine),
    /// A source cannot be read now (Some), or can be read again (None).
    Connection(Source, Option<String>),
    /// A source will never be readable.
    Fatal(Source, Error),
}

/// What is known of a test.
#[derive(Debug, Default)]
pub struct Model {
    /// The namespace of the test.
    pub namespace: String,
    /// The name of the test.
    pub name: String,
    /// The test, once it was read.
    pub test: Option<LoadTest>,
    /// Whether it does not exist.
    pub is_deleted: bool,
    /// Its workers, by the names of their pods.
    pub workers: BTreeMap<String, Worker>,
    /// Its events, by their names.
    pub events: BTreeMap<String, EventLine>,
    /// What cannot be read now, and why.
    pub problems: BTreeMap<Source, String>,
    /// What the user may not read.
    pub notes: Vec<String>,
}

impl Model {
    /// A test of which nothing is known.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Applies an update.
    ///
    /// # Errors
    /// The test itself can never be read.
    pub fn apply(&mut self, update: Update) -> Result<(), Error> {
        match update {
            Update::Test(test) => {
                self.is_deleted = false;
                self.test = Some(*test);
            }
            Update::NoTest => self.is_deleted = true,
            Update::Worker(worker) => {
                self.workers.insert(worker.pod.clone(), *worker);
            }
            Update::NoWorker(pod) => {
                self.workers.remove(&pod);
            }
            Update::Event(name, event) => {
                self.events.insert(name, event);
            }
            Update::Connection(source, Some(problem)) => {
                self.problems.insert(source, problem);
            }
            Update::Connection(source, None) => {
                self.problems.remove(&source);
            }
            Update::Fatal(Source::Test, error) => return Err(error),
            Update::Fatal(_, error) => self.notes.push(error.to_string()),
        }
        Ok(())
    }

    /// The test, if it has ended and its result is complete.
    #[must_use]
    pub fn finished(&self) -> Option<&LoadTest> {
        let ended = |test: &&LoadTest| {
            test.phase()
                .is_some_and(loadtest_api::v1alpha1::Phase::is_terminal)
        };
        self.test.as_ref().filter(ended)
    }

    /// The workers by their index, those with problems of the same index last.
    #[must_use]
    pub fn workers_by_index(&self) -> Vec<&Worker> {
        let mut workers: Vec<_> = self.workers.values().collect();
        workers.sort_by_key(|worker| (worker.index, worker.started));
        workers
    }

    /// The events, the newest last.
    #[must_use]
    pub fn events_by_time(&self) -> Vec<&EventLine> {
        let mut events: Vec<_> = self.events.values().collect();
        events.sort_by_key(|event| event.time);
        events
    }
}
