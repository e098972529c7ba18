//! The operator: its reconciles and its crashes.

use super::*;

impl State {
    pub(super) fn now(&self) -> Timestamp {
        at(if self.late { 700 } else { 2 })
    }

    /// Returns the requests of a reconcile.
    pub(super) fn reconcile(&self, names: &mut Names) -> Option<Vec<Request>> {
        let seen = self.view.test?;
        let test = self
            .written
            .filter(|w| w.uid == seen.uid && w.version > seen.version)
            .unwrap_or(seen);
        let sight = Sight {
            view: self.view.clone(),
            test,
            cluster_job: self.cluster.job,
            history: self.job_since_write || self.cluster.test != Some(test),
            script: self.script,
            late: self.late,
        };
        if !names.plans.contains_key(&sight) {
            let plan = self.plan(test, names);
            names.plans.insert(sight, plan);
            return self.reconcile(names);
        }
        let unsaid = |request: &&Request| !matches!(request, Request::Events(events) if events.is_subset(&self.recorded));
        Some(names.plans[&sight].iter().filter(unsaid).cloned().collect())
    }

    fn plan(&self, test: Test, names: &mut Names) -> Vec<Request> {
        let object = load_test(test, self.workers, names);
        let ours = |job: Job| {
            if job.owner == test.uid {
                JobState::Owned(test_job(job, &self.view.pods))
            } else {
                JobState::NotOwned
            }
        };
        let job = match (self.view.job, self.view.lost) {
            (Some(job), _) => ours(job),
            (None, Some(job)) if job.owner == test.uid => {
                JobState::Deleted(Some(test_job(job, &self.view.pods)))
            }
            // A Job that the store does not contain is read live, as `observe` does.
            _ => match (names.phase(test), self.cluster.job) {
                (Some(phase), Some(job)) if !phase.is_terminal() => ours(job),
                (Some(phase), None) if !phase.is_terminal() => match object.recorded_job() {
                    JobRecord::Existed => JobState::Deleted(None),
                    JobRecord::Unclear
                        if self.job_since_write || self.cluster.test != Some(test) =>
                    {
                        JobState::Deleted(None)
                    }
                    _ => JobState::Absent,
                },
                _ => JobState::Absent,
            },
        };
        let workers = if matches!(job, JobState::Owned(_) | JobState::Deleted(Some(_))) {
            self.view
                .pods
                .iter()
                .enumerate()
                .map(worker)
                .map(Arc::new)
                .collect()
        } else {
            Vec::new()
        };
        let script = if self.script {
            ScriptState::NotRead
        } else {
            ScriptState::ConfigMapMissing {
                name: "s".into(),
                similar: None,
            }
        };
        let observed = Observed {
            job,
            workers,
            script,
            worker_files: WorkerFiles::Verified,
            blocker: None,
            ..Observed::default()
        };
        let plan = decide(&object, &observed, &WorkerConfig::default(), self.now());
        let mut requests: Vec<Request> = Vec::new();
        if !plan.events.is_empty() {
            requests.push(Request::Events(
                plan.events
                    .iter()
                    .map(|record| names.event(test.uid, record))
                    .collect(),
            ));
        }
        if let Some(status) = plan.status {
            requests.push(Request::Status {
                uid: test.uid,
                version: test.version,
                status: names.status(status),
            });
        }
        match plan.action {
            Some(Action::CreateJob(_)) => requests.push(Request::Create { owner: test.uid }),
            Some(Action::PatchJob(patch)) => requests.push(Request::End {
                job: patch.uid.parse().unwrap(),
                without_pods: patch.field == JobField::EndWithoutPods,
            }),
            Some(Action::SendStartTime(start)) => {
                let Some(job) = self.view.job else {
                    panic!("start instant for workers without a Job")
                };
                let number = |pod: &PodRef| pod.uid.trim_start_matches('p').parse().unwrap();
                requests.push(Request::Start {
                    job: job.uid,
                    at: start.at,
                    pods: start.pods.iter().map(number).collect(),
                });
            }
            Some(Action::CreateWorkerFiles | Action::RecordGeneration(_) | Action::DeleteTest)
            | None => {}
        }
        requests
    }

    pub(super) fn crash(&mut self) {
        self.pending.clear();
        self.written = None;
        // The restarted operator relists everything. Deleted objects are not in a list.
        self.view = Objects {
            lost: None,
            ..self.cluster.clone()
        };
    }
}
