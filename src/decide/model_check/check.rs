//! The invariants, as `docs/invariants.md` defines them.

use super::*;

impl State {
    pub(super) fn check(&self) {
        for (created, late) in self.created.iter().zip(self.created_late) {
            assert!(created - late <= 1, "I1: two Jobs of one test: {self:#?}");
        }
    }

    /// Asserts that an instant that is sent is the recorded one. A delayed request may be older than the record.
    pub(super) fn check_start(&self, job: u8, at: Timestamp, late: bool, names: &Names) {
        let test = self.cluster.test.filter(|t| t.uid == job / 10 && !late);
        if let Some(status) = test.and_then(|t| t.status) {
            let recorded = names.statuses[usize::from(status)].load_start_time.as_ref();
            assert_eq!(
                recorded.map(|recorded| recorded.0),
                Some(at),
                "an instant is sent that is not recorded: {self:#?}"
            );
        }
    }

    /// Asserts that the workers of a Job have received one instant.
    pub(super) fn check_one_start(&self, late: bool) {
        let instants: BTreeSet<Timestamp> = self
            .cluster
            .pods
            .iter()
            .filter_map(|pod| match pod {
                Pod::StartSent(at) => Some(*at),
                _ => None,
            })
            .collect();
        assert!(late || instants.len() <= 1, "two start times: {self:#?}");
    }

    /// Asserts the invariants of a final state, in which no step is left.
    pub(super) fn check_final(&self, names: &Names, from: &Self) {
        let Some(test) = self.cluster.test else {
            assert!(
                self.cluster.job.is_none_or(|j| j.owner == 0),
                "I8: a Job outlives its test: {self:#?}"
            );
            return;
        };
        let phase = names.phase(test);
        let blocked = self.cluster.job.is_some_and(|j| j.owner == 0) || !self.script;
        match phase {
            Some(phase) if phase.is_terminal() => {
                let reasons: Vec<_> = self
                    .recorded
                    .iter()
                    .map(|id| names.events[usize::from(*id)])
                    .collect();
                let expected = match phase {
                    Phase::Completed => Reason::Completed,
                    Phase::Stopped => Reason::Stopped,
                    _ => Reason::Failed,
                };
                assert!(
                    reasons.contains(&(test.uid, expected)),
                    "missing event of the final phase: {self:#?}"
                );
                let status = &names.statuses[usize::from(test.status.unwrap())];
                let is_saturated = status
                    .condition(ConditionType::LoadDelivered)
                    .is_some_and(|c| c.reason == Reason::WorkersSaturated.as_str());
                assert_eq!(
                    reasons.contains(&(test.uid, Reason::WorkersSaturated)),
                    is_saturated,
                    "missing event of saturated workers: {self:#?}"
                );
            }
            Some(Phase::Pending) => {
                let status = &names.statuses[usize::from(test.status.unwrap())];
                let waits_since_then = status.conditions[0].last_transition_time.0 == at(700);
                assert!(
                    blocked && (!self.late || waits_since_then),
                    "I11: the test waits for nothing: {self:#?}\nfrom {from:#?}"
                );
            }
            Some(Phase::Suspended) => assert!(
                self.cluster.job.is_some_and(|j| j.suspended),
                "I11: the test is not suspended: {self:#?}"
            ),
            _ => panic!("I11: the test hangs in {phase:?}: {self:#?}\nfrom {from:#?}"),
        }
        // A Job that a late request created after the end of the test must be stopped.
        if let Some(job) = self
            .cluster
            .job
            .filter(|j| j.owner == test.uid && phase != Some(Phase::Suspended))
        {
            let all_done = self.cluster.pods.len() == self.workers
                && self.cluster.pods.iter().all(|p| *p == Pod::Succeeded);
            assert!(
                job.outcome.is_some() || job.suspended && (job.at_once && job.emptied || all_done),
                "I2, I20: a Job keeps running, or does when it is resumed: {self:#?}\nfrom {from:#?}"
            );
        }
    }
}

/// Asserts the invariants between two successive statuses of a test.
pub(super) fn check_status(before: Option<&LoadTestStatus>, after: &LoadTestStatus) {
    let ends = |s: &LoadTestStatus| -> Vec<String> {
        let ends = ["Completed", "Failed", "Stopped"];
        let holds = s
            .conditions
            .iter()
            .filter(|c| ends.contains(&c.type_.as_str()) && c.status == "True");
        holds.map(|c| c.type_.clone()).collect()
    };
    assert!(
        ends(after).len() <= 1,
        "I3: two final conditions: {after:#?}"
    );
    assert_eq!(
        ends(after).len() == 1,
        after.phase.is_some_and(Phase::is_terminal),
        "I3: the phase and the conditions differ"
    );
    let has = |type_: ConditionType, status: &str| {
        after
            .condition(type_)
            .is_some_and(|condition| condition.status == status)
    };
    assert!(
        !(has(ConditionType::Passed, "True") && has(ConditionType::LoadDelivered, "False")),
        "I17: the test passed without its load: {after:#?}"
    );
    let is_set_aside = after
        .progressing()
        .is_some_and(|c| c.reason == Reason::SetAside.as_str());
    let has_ended = ends(after).len() == 1;
    let has_passed = has(ConditionType::Passed, "True");
    assert_eq!(
        [
            has(ConditionType::Ready, "True"),
            has(ConditionType::Ready, "False"),
            after.condition(ConditionType::Stalled).is_some(),
        ],
        [
            has_passed,
            !has_passed,
            has_ended && !has_passed || is_set_aside
        ],
        "I18: Ready or Stalled differs from the end: {after:#?}"
    );
    let types: Vec<_> = after.conditions.iter().map(|c| c.type_.as_str()).collect();
    let order = ConditionType::ALL
        .iter()
        .map(|c| c.as_str())
        .filter(|c| types.contains(c));
    assert_eq!(
        types,
        order.collect::<Vec<_>>(),
        "I5: the order of conditions changed"
    );
    let Some(before) = before else { return };
    assert!(
        !before.phase.is_some_and(Phase::is_terminal),
        "I3: a final phase was overwritten: {before:#?} {after:#?}"
    );
    let counts = |s: &LoadTestStatus| [s.succeeded, s.failed];
    assert!(
        counts(before)
            .iter()
            .zip(counts(after))
            .all(|(b, a)| *b <= a),
        "I4: {before:#?} {after:#?}"
    );
    for condition in &before.conditions {
        let same = after
            .conditions
            .iter()
            .find(|c| c.type_ == condition.type_ && c.status == condition.status);
        assert!(
            same.is_none_or(|c| c.last_transition_time == condition.last_transition_time),
            "I5: a transition time changed"
        );
    }
    let started = |s: &LoadTestStatus| s.phase.is_some_and(Phase::has_started);
    let back = started(before) && !started(after);
    assert!(
        !back || before.start_time.is_none(),
        "a started test lost its start: {before:#?} {after:#?}"
    );
}
