//! The record of the reconciles in flight, which survives the process: a small file of lines of a fixed length, one for each
//! reconcile. It costs two writes to the page cache for each reconcile, and never makes one fail.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use tokio::sync::MutexGuard;

use super::backoff::Revision;
use super::suspects::{Record, Standing, Suspects};
use crate::runtime::lock;

const FILE_NAME: &str = "reconciles";

/// The length of a line: a UID of 36 bytes, numbers, a word and the line break.
const LINE_BYTES: usize = 80;

/// How many reconciles are recorded. More than are in flight in a few namespaces; further ones are not recorded.
const LINES: usize = 1024;

/// The record of the reconciles in flight, and the tests that may end the process.
#[derive(Debug, Default)]
pub struct CrashRecord {
    state: Mutex<State>,
    /// Held while a suspect is reconciled.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    suspects: Suspects,
    /// None where nothing is recorded.
    file: Option<File>,
    /// The lines of tests, by their UID.
    lines: HashMap<String, usize>,
    free: Vec<usize>,
}

impl CrashRecord {
    /// Reads what the last process left in a directory, and begins a new record. An error is logged; nothing is recorded then.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        let path = directory.join(FILE_NAME);
        let state = State::open(&path).unwrap_or_else(|error| {
            let path = path.display();
            tracing::warn!(%path, %error, "cannot record reconciles: a test that ends the process cannot be set aside");
            State::default()
        });
        Self {
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Whether any test may have ended the process.
    pub(super) fn has_suspects(&self) -> bool {
        !lock(&self.state).suspects.is_empty()
    }

    /// How a test is treated.
    pub(super) fn standing(&self, test: Revision) -> Standing {
        lock(&self.state).suspects.standing(test)
    }

    /// During how many unexpected ends of the process a test was being reconciled.
    pub(super) fn ends(&self, test: Revision) -> u8 {
        lock(&self.state).suspects.ends(test)
    }

    /// Waits until no other suspect is being reconciled.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Records that a reconcile of a test begins. Without [`CrashRecord::end`], the test is suspected of having ended the process.
    pub(super) fn begin(&self, test: Revision) {
        let mut state = lock(&self.state);
        let record = Record {
            uid: test.uid.to_owned(),
            generation: test.generation.unwrap_or_default(),
            ends: state.suspects.ends(test),
            in_flight: true,
        };
        state.write(&record);
    }

    /// Records that the reconcile of a test has ended. The test is no longer suspected.
    pub(super) fn end(&self, uid: &str) {
        let mut state = lock(&self.state);
        state.suspects.clear(uid);
        state.erase(uid);
    }

    /// Sets a test aside whose reconcile panicked.
    pub(super) fn set_aside(&self, test: Revision) {
        let mut state = lock(&self.state);
        state.suspects.set_aside(test);
        state.erase(test.uid);
    }

    /// Notes that the status records that a test is set aside. A later process finds it there.
    pub(super) fn is_reported(&self, uid: &str) {
        lock(&self.state).erase(uid);
    }

    /// Ends the record: the end of the process is expected from now on.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        let in_flight: Vec<_> = state.lines.keys().cloned().collect();
        for uid in in_flight {
            state.erase(&uid);
        }
        let suspects: Vec<_> = state.suspects.records().collect();
        for suspect in suspects {
            state.write(&suspect);
        }
        state.file = None;
    }
}

impl State {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut text = Vec::new();
        let limit = u64::try_from(LINES * LINE_BYTES).unwrap_or(u64::MAX);
        Read::by_ref(&mut file).take(limit).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let suspects = Suspects::after_end(text.lines().filter_map(Record::decode));
        file.set_len(0)?;
        let mut state = Self {
            suspects,
            file: Some(file),
            lines: HashMap::new(),
            free: (0..LINES).rev().collect(),
        };
        let left: Vec<_> = state.suspects.records().collect();
        for record in &left {
            let Record { uid, ends, .. } = record;
            tracing::warn!(
                uid,
                ends,
                "the last process ended unexpectedly while it reconciled a LoadTest"
            );
            state.write(record);
        }
        Ok(state)
    }

    fn write(&mut self, record: &Record) {
        let line = format!("{:<width$}\n", record.encode(), width = LINE_BYTES - 1);
        if line.len() != LINE_BYTES {
            return;
        }
        let number = match self.lines.get(&record.uid) {
            Some(number) => Some(*number),
            None => self.free.pop(),
        };
        let Some(number) = number else { return };
        self.lines.insert(record.uid.clone(), number);
        self.write_line(number, &line);
    }

    fn erase(&mut self, uid: &str) {
        if let Some(number) = self.lines.remove(uid) {
            self.free.push(number);
            self.write_line(number, &format!("{:<width$}\n", "", width = LINE_BYTES - 1));
        }
    }

    /// After an error nothing is recorded any more: what the file says could be wrong.
    fn write_line(&mut self, number: usize, line: &str) {
        let Some(file) = &self.file else { return };
        let offset = u64::try_from(number * LINE_BYTES).unwrap_or(u64::MAX);
        if let Err(error) = file.write_all_at(line.as_bytes(), offset) {
            tracing::warn!(%error, "cannot record reconciles: a test that ends the process cannot be set aside");
            let _ = file.set_len(0);
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const A: Revision = Revision {
        uid: "a",
        generation: Some(1),
    };
    const B: Revision = Revision {
        uid: "b",
        generation: Some(1),
    };

    /// A directory of its own, which is removed when this is dropped.
    struct Directory(std::path::PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("crash-record-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// The record of the next process. The last one is not closed, as after a crash.
        fn open(&self) -> CrashRecord {
            CrashRecord::open(&self.0)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn reconciles_in_flight_survive_the_process() {
        let directory = Directory::new("survive");
        let first = directory.open();
        first.begin(A);
        first.begin(B);
        first.end(B.uid);
        let second = directory.open();
        assert_eq!(second.standing(A), Standing::Suspect);
        assert_eq!(second.standing(B), Standing::Normal);
        second.begin(A);
        let third = directory.open();
        assert_eq!((third.standing(A), third.ends(A)), (Standing::SetAside, 2));
        // Until the status records it.
        assert_eq!(directory.open().standing(A), Standing::SetAside);
        third.is_reported(A.uid);
        assert_eq!(third.standing(A), Standing::SetAside);
        assert_eq!(directory.open().standing(A), Standing::Normal);
    }

    #[test]
    fn expected_end_leaves_nothing_in_flight() {
        let directory = Directory::new("expected");
        let first = directory.open();
        first.begin(A);
        first.close();
        first.begin(B);
        let second = directory.open();
        assert_eq!([A, B].map(|t| second.standing(t)), [Standing::Normal; 2]);
    }

    #[test]
    fn expected_end_clears_no_suspect() {
        let directory = Directory::new("suspect");
        directory.open().begin(A);
        let second = directory.open();
        second.begin(A);
        second.close();
        assert_eq!(directory.open().standing(A), Standing::Suspect);
    }

    #[test]
    fn missing_directory_fails_no_reconcile() {
        let record = CrashRecord::open(Path::new("/nonexistent"));
        record.begin(A);
        record.end(A.uid);
        assert_eq!(record.standing(A), Standing::Normal);
    }

    #[test]
    fn reconciles_beyond_the_file_are_not_recorded() {
        let directory = Directory::new("full");
        let record = directory.open();
        let uids: Vec<_> = (0..=LINES).map(|n| format!("u{n}")).collect();
        let revision = |uid| Revision { uid, ..A };
        for uid in &uids {
            record.begin(revision(uid));
        }
        let next = directory.open();
        assert_eq!(next.standing(revision(&uids[0])), Standing::Suspect);
        assert_eq!(next.standing(revision(&uids[LINES])), Standing::Normal);
    }
}
