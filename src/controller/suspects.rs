//! Which tests may end the process. Pure.
//!
//! A test whose reconcile was in flight when a process ended unexpectedly is a suspect: it is reconciled alone, so that a second
//! unexpected end shows whether it was the cause. A test that was in flight again is set aside until its spec changes.

use std::collections::HashMap;

use super::backoff::Revision;

/// After this many unexpected ends a test is set aside.
const MAX_ENDS: u8 = 2;

/// What a process leaves behind about a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) uid: String,
    pub(super) generation: i64,
    /// During how many unexpected ends the test was being reconciled.
    pub(super) ends: u8,
    /// Whether the test is being reconciled now.
    pub(super) in_flight: bool,
}

impl Record {
    /// The line of a record.
    pub(super) fn encode(&self) -> String {
        let state = if self.in_flight {
            "reconciling"
        } else {
            "waiting"
        };
        let (uid, generation, ends) = (&self.uid, self.generation, self.ends);
        format!("{uid} {generation} {ends} {state}")
    }

    /// The record of a line, unless it is empty or damaged.
    pub(super) fn decode(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        Some(Self {
            uid: words.next()?.to_owned(),
            generation: words.next()?.parse().ok()?,
            ends: words.next()?.parse().ok()?,
            in_flight: match words.next()? {
                "reconciling" => true,
                "waiting" => false,
                _ => return None,
            },
        })
    }
}

/// How a test is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Like any other.
    Normal,
    /// It is reconciled while no other suspect is.
    Suspect,
    /// It is not reconciled.
    SetAside,
}

/// The suspects, by their UID.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<String, Suspect>);

#[derive(Clone, Copy, Debug)]
struct Suspect {
    generation: i64,
    ends: u8,
}

impl Suspects {
    /// The suspects after a process that left these records has ended.
    pub(super) fn after_end(records: impl IntoIterator<Item = Record>) -> Self {
        let suspect = |record: Record| {
            let ends = record.ends.saturating_add(u8::from(record.in_flight));
            let generation = record.generation;
            (record.uid, Suspect { generation, ends })
        };
        Self(records.into_iter().map(suspect).collect())
    }

    /// The records of all suspects, none of which is being reconciled.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        self.0.iter().map(|(uid, suspect)| Record {
            uid: uid.clone(),
            generation: suspect.generation,
            ends: suspect.ends,
            in_flight: false,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn standing(&self, test: Revision) -> Standing {
        match self.ends(test) {
            0 => Standing::Normal,
            ends if ends < MAX_ENDS => Standing::Suspect,
            _ => Standing::SetAside,
        }
    }

    /// During how many unexpected ends this revision of a test was being reconciled.
    pub(super) fn ends(&self, test: Revision) -> u8 {
        let suspect = self.0.get(test.uid);
        suspect
            .filter(|suspect| Some(suspect.generation) == test.generation)
            .map_or(0, |suspect| suspect.ends)
    }

    /// A reconcile of the test has ended, and the process has not.
    pub(super) fn clear(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// Sets a test aside at once: its reconcile panicked.
    pub(super) fn set_aside(&mut self, test: Revision) {
        let suspect = Suspect {
            generation: test.generation.unwrap_or_default(),
            ends: MAX_ENDS,
        };
        self.0.insert(test.uid.to_owned(), suspect);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(uid: &str, generation: i64) -> Revision<'_> {
        Revision {
            uid,
            generation: Some(generation),
        }
    }

    /// What the next process finds if this one ends while it reconciles these tests.
    fn end(suspects: &Suspects, in_flight: &[Revision]) -> Suspects {
        let is_in_flight = |record: &Record| in_flight.iter().any(|test| test.uid == record.uid);
        let waiting = suspects.records().filter(|record| !is_in_flight(record));
        let reconciling = in_flight.iter().map(|test| Record {
            uid: test.uid.to_owned(),
            generation: test.generation.unwrap_or_default(),
            ends: suspects.ends(*test),
            in_flight: true,
        });
        let lines: Vec<_> = waiting.chain(reconciling).map(|r| r.encode()).collect();
        Suspects::after_end(lines.iter().filter_map(|line| Record::decode(line)))
    }

    #[test]
    fn test_in_flight_at_two_unexpected_ends_is_set_aside() {
        let [a, b] = [revision("a", 1), revision("b", 1)];
        let first = end(&Suspects::default(), &[a, b]);
        assert_eq!([a, b].map(|t| first.standing(t)), [Standing::Suspect; 2]);
        // The suspects are reconciled one after the other: only one was in flight.
        let second = end(&first, &[a]);
        assert_eq!(
            [a, b].map(|t| second.standing(t)),
            [Standing::SetAside, Standing::Suspect]
        );
        let third = end(&second, &[]);
        assert_eq!(third.standing(a), Standing::SetAside);
        assert_eq!(third.standing(revision("c", 1)), Standing::Normal);
    }

    #[test]
    fn suspect_whose_reconcile_ends_is_cleared() {
        let a = revision("a", 1);
        let mut suspects = end(&Suspects::default(), &[a]);
        suspects.clear("a");
        assert_eq!(suspects.standing(a), Standing::Normal);
        assert_eq!(end(&suspects, &[a]).standing(a), Standing::Suspect);
    }

    #[test]
    fn changed_spec_is_not_suspected() {
        let a = revision("a", 1);
        let suspects = end(&end(&Suspects::default(), &[a]), &[a]);
        assert_eq!(suspects.standing(a), Standing::SetAside);
        assert_eq!(suspects.standing(revision("a", 2)), Standing::Normal);
        let again = end(&suspects, &[revision("a", 2)]);
        assert_eq!(again.standing(revision("a", 2)), Standing::Suspect);
    }

    #[test]
    fn panicked_reconcile_sets_its_test_aside_at_once() {
        let mut suspects = Suspects::default();
        suspects.set_aside(revision("a", 3));
        assert_eq!(suspects.standing(revision("a", 3)), Standing::SetAside);
    }

    #[test]
    fn damaged_lines_are_skipped() {
        for line in ["", "a", "a 1 x waiting", "a 1 1 sleeping", "a - 1 waiting"] {
            assert_eq!(Record::decode(line), None, "{line}");
        }
    }
}
