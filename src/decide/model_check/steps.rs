//! The steps of the cluster and its users.

use super::*;

impl State {
    pub(super) fn see_test(&mut self) {
        self.view.test = self.world.test;
    }

    pub(super) fn see_job(&mut self) {
        if self.view.job != self.world.job {
            if self.world.job.is_none() {
                self.view.lost = self.view.job;
            }
            self.view.job = self.world.job;
        }
    }

    pub(super) fn see_pods(&mut self) {
        // The store keeps pods by Job, so pods of another Job are ignored.
        if self.view.job.map(|j| j.uid) == self.world.job.map(|j| j.uid) {
            self.view.pods.clone_from(&self.world.pods);
        }
    }

    /// Adds the steps of the Job controller, the kubelet, the garbage collector and time.
    pub(super) fn world_steps(&self, add: &mut Add) {
        if let Some(job) = self.world.job {
            let orphan = job.owner != 0 && self.world.test.map(|t| t.uid) != Some(job.owner);
            if orphan {
                add("garbage collected", &mut |s| {
                    s.world.job = None;
                    s.world.pods.clear();
                    s.job_since_write = true;
                });
            }
            if job.owner != 0 && job.outcome.is_none() {
                self.job_steps(job, add);
            }
        }
        let not_started = self.world.pods.contains(&Pod::Pending);
        if !self.late
            && (not_started || !self.script || self.world.job.is_some_and(|j| j.owner == 0))
        {
            add("time passes", &mut |s| s.late = true);
        }
    }

    pub(super) fn job_steps(&self, job: Job, add: &mut Add) {
        let change = |s: &mut Self, f: &dyn Fn(&mut Job)| {
            let mut job = s.world.job.unwrap();
            f(&mut job);
            s.world.job = Some(job);
            s.job_since_write = true;
        };
        if !job.started && !job.suspended && job.failing.is_none() {
            add("job starts", &mut |s| {
                change(s, &|j| j.started = true);
                s.world.pods.resize(s.workers, Pod::Pending);
                // The Job controller recreates pods that a suspension stopped. Their load is then sent twice.
                for pod in s
                    .world
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
        for index in 0..self.world.pods.len() {
            let becomes: &[Pod] = match self.world.pods[index] {
                Pod::Pending => &[Pod::Running],
                // A single worker does not wait for a start instant.
                Pod::Running if self.workers > 1 => &[Pod::Failed],
                Pod::Running | Pod::Told => &[Pod::Succeeded, Pod::Failed],
                _ => &[],
            };
            for pod in becomes {
                add("pod", &mut |s| s.world.pods[index] = *pod);
            }
        }
        let pods = &self.world.pods;
        if job.failing.is_none() {
            if pods.iter().all(|p| *p == Pod::Succeeded) {
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
            .any(|p| matches!(p, Pod::Pending | Pod::Running | Pod::Told))
        {
            add("pods stopped", &mut |s| s.stop_pods());
        } else {
            add("job failed", &mut |s| change(s, &|j| j.outcome = j.failing));
        }
    }

    pub(super) fn stop_pods(&mut self) {
        for pod in &mut self.world.pods {
            if matches!(pod, Pod::Pending | Pod::Running | Pod::Told) {
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
        if let Some(test) = self.world.test {
            act("test deleted", &mut |s| s.world.test = None);
            if !test.stop && !names.phase(test).is_some_and(Phase::is_terminal) {
                act("stop", &mut |s| {
                    s.world.test = Some(Test {
                        stop: true,
                        version: test.version + 1,
                        ..test
                    });
                });
            }
        }
        if self.world.test.is_some_and(|t| t.uid == 1) {
            act("test recreated", &mut |s| {
                s.world.test = Some(Test {
                    uid: 2,
                    version: 100,
                    status: None,
                    stop: false,
                });
            });
        }
        match self.world.job {
            Some(job) => {
                act("job deleted", &mut |s| {
                    s.world.job = None;
                    s.world.pods.clear();
                    s.job_since_write = true;
                });
                if job.owner != 0 && job.outcome.is_none() {
                    act("job suspended", &mut |s| {
                        s.stop_pods();
                        s.world.job = Some(Job {
                            suspended: !job.suspended,
                            started: false,
                            ..job
                        });
                        s.job_since_write = true;
                    });
                }
                if let Some(index) = self
                    .world
                    .pods
                    .iter()
                    .position(|p| matches!(p, Pod::Running | Pod::Told))
                {
                    act("pod deleted", &mut |s| {
                        s.world.pods[index] = Pod::Gone {
                            ran: true,
                            by_hand: true,
                        }
                    });
                }
            }
            None => act("foreign job", &mut |s| {
                let owner = 0;
                s.world.job = Some(Job {
                    uid: 99,
                    owner,
                    started: true,
                    suspended: false,
                    at_once: false,
                    failing: None,
                    outcome: None,
                });
                s.job_since_write = true;
            }),
        }
        act("script comes or goes", &mut |s| s.script = !s.script);
    }
}
