//! The steps of the cluster and its users.

use super::*;

impl State {
    pub(super) fn see_test(&mut self) {
        self.view.test = self.cluster.test;
    }

    pub(super) fn see_job(&mut self) {
        if self.view.job != self.cluster.job {
            if self.cluster.job.is_none() {
                self.view.lost = self.view.job;
            }
            self.view.job = self.cluster.job;
        }
    }

    pub(super) fn see_pods(&mut self) {
        // The store keeps pods by Job, so pods of another Job are ignored.
        if self.view.job.map(|j| j.uid) == self.cluster.job.map(|j| j.uid) {
            self.view.pods.clone_from(&self.cluster.pods);
        }
    }

    /// Adds the steps of the Job controller, the kubelet, the garbage collector and time.
    pub(super) fn world_steps(&self, add: &mut Add) {
        if let Some(job) = self.cluster.job {
            let orphan = job.owner != 0 && self.cluster.test.map(|t| t.uid) != Some(job.owner);
            if orphan {
                add("garbage collected", &mut |s| {
                    s.cluster.job = None;
                    s.cluster.pods.clear();
                    s.job_since_write = true;
                });
            }
            if job.owner != 0 && job.outcome.is_none() {
                self.job_steps(job, add);
            }
        }
        let waits_for_start = self.workers > 1 && self.cluster.pods.contains(&Pod::Running);
        let not_started = waits_for_start || self.cluster.pods.contains(&Pod::Pending);
        if !self.late
            && (not_started || !self.script || self.cluster.job.is_some_and(|j| j.owner == 0))
        {
            add("time passes", &mut |s| s.late = true);
        }
    }

    pub(super) fn job_steps(&self, job: Job, add: &mut Add) {
        let change = |s: &mut Self, f: &dyn Fn(&mut Job)| {
            let mut job = s.cluster.job.unwrap();
            f(&mut job);
            s.cluster.job = Some(job);
            s.job_since_write = true;
        };
        if !job.started && !job.suspended && job.failing.is_none() {
            add("job starts", &mut |s| {
                change(s, &|j| j.started = true);
                if job.emptied {
                    return;
                }
                s.cluster.pods.resize(s.workers, Pod::Pending);
                // The Job controller recreates pods that a suspension stopped. Their load is then sent twice.
                for pod in s
                    .cluster
                    .pods
                    .iter_mut()
                    .filter(|p| matches!(p, Pod::Gone { .. }))
                {
                    *pod = Pod::Pending;
                }
            });
            return;
        }
        if job.suspended && job.failing.is_none() {
            return;
        }
        for index in 0..self.cluster.pods.len() {
            let becomes: &[Pod] = match self.cluster.pods[index] {
                Pod::Pending => &[Pod::Running],
                // A single worker does not wait for a start instant.
                Pod::Running if self.workers > 1 => &[Pod::Failed],
                Pod::Running | Pod::StartSent(_) => &[Pod::Succeeded, Pod::Failed],
                _ => &[],
            };
            for pod in becomes {
                add("pod", &mut |s| s.cluster.pods[index] = *pod);
            }
        }
        let pods = &self.cluster.pods;
        if job.failing.is_none() {
            if !pods.is_empty() && pods.iter().all(|p| *p == Pod::Succeeded) {
                add("job complete", &mut |s| {
                    change(s, &|j| j.outcome = Some(End::Complete));
                });
            } else if pods
                .iter()
                .any(|p| matches!(p, Pod::Failed | Pod::Gone { .. }))
            {
                add("job failing", &mut |s| {
                    change(s, &|j| j.failing = Some(End::Workers));
                });
            } else if job.at_once {
                add("job too late", &mut |s| {
                    change(s, &|j| j.failing = Some(End::Deadline));
                });
            }
        } else if pods
            .iter()
            .any(|p| matches!(p, Pod::Pending | Pod::Running | Pod::StartSent(_)))
        {
            add("pods stopped", &mut |s| s.stop_pods());
        } else {
            add("job failed", &mut |s| change(s, &|j| j.outcome = j.failing));
        }
    }

    pub(super) fn stop_pods(&mut self) {
        for pod in &mut self.cluster.pods {
            if matches!(pod, Pod::Pending | Pod::Running | Pod::StartSent(_)) {
                *pod = Pod::Gone {
                    ran: *pod != Pod::Pending,
                    by_hand: false,
                };
            }
        }
    }

    pub(super) fn user_steps(&self, names: &Names, add: &mut Add) {
        let mut act = |what, change: &mut dyn FnMut(&mut Self)| {
            add(what, &mut |s| {
                s.users -= 1;
                change(s);
            });
        };
        if let Some(test) = self.cluster.test {
            act("test deleted", &mut |s| s.cluster.test = None);
            if !test.stop && !names.phase(test).is_some_and(Phase::is_terminal) {
                act("stop", &mut |s| {
                    s.cluster.test = Some(Test {
                        stop: true,
                        version: test.version + 1,
                        ..test
                    });
                });
            }
        }
        if self.cluster.test.is_some_and(|t| t.uid == 1) {
            act("test recreated", &mut |s| {
                s.cluster.test = Some(Test {
                    uid: 2,
                    version: 100,
                    status: None,
                    stop: false,
                });
            });
        }
        match self.cluster.job {
            Some(job) => {
                act("job deleted", &mut |s| {
                    s.cluster.job = None;
                    s.cluster.pods.clear();
                    s.job_since_write = true;
                });
                if job.owner != 0 && job.outcome.is_none() {
                    act("job suspended", &mut |s| {
                        s.stop_pods();
                        s.cluster.job = Some(Job {
                            suspended: !job.suspended,
                            started: false,
                            ..job
                        });
                        s.job_since_write = true;
                    });
                }
                if let Some(index) = self
                    .cluster
                    .pods
                    .iter()
                    .position(|p| matches!(p, Pod::Running | Pod::StartSent(_)))
                {
                    act("pod deleted", &mut |s| {
                        s.cluster.pods[index] = Pod::Gone {
                            ran: true,
                            by_hand: true,
                        }
                    });
                }
            }
            None => act("foreign job", &mut |s| {
                let owner = 0;
                s.cluster.job = Some(Job {
                    uid: 99,
                    owner,
                    started: true,
                    suspended: false,
                    at_once: false,
                    emptied: false,
                    failing: None,
                    outcome: None,
                });
                s.job_since_write = true;
            }),
        }
        act("script comes or goes", &mut |s| s.script = !s.script);
    }
}
