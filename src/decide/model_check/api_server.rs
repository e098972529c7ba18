//! The API server, which applies the requests of the operator.

use super::check::check_status;
use super::*;

impl State {
    /// Applies a request to the cluster. Returns whether the API server accepts it.
    pub(super) fn serve(&mut self, request: &Request, late: bool, names: &Names) -> bool {
        match *request {
            Request::Events(ref events) => {
                self.recorded.extend(events);
                true
            }
            Request::Status {
                uid,
                version,
                status,
            } => {
                let Some(test) = self
                    .cluster
                    .test
                    .filter(|t| t.uid == uid && t.version == version)
                else {
                    return false;
                };
                check_status(
                    test.status.map(|id| &names.statuses[usize::from(id)]),
                    &names.statuses[usize::from(status)],
                );
                let test = Test {
                    version: version + 1,
                    status: Some(status),
                    ..test
                };
                self.cluster.test = Some(test);
                self.job_since_write = false;
                if !late {
                    self.written = Some(test);
                }
                true
            }
            Request::Create { owner } => {
                if self.cluster.job.is_some() {
                    // After a conflict, the Job is read live, as `apply` does.
                    self.view.job = self.cluster.job;
                    return false;
                }
                let index = usize::from(owner - 1);
                self.created[index] += 1;
                self.created_late[index] += u8::from(late);
                let uid = 10 * owner + self.created[index];
                let job = Job {
                    uid,
                    owner,
                    started: false,
                    suspended: false,
                    at_once: false,
                    emptied: false,
                    failing: None,
                    outcome: None,
                };
                self.cluster.job = Some(job);
                self.cluster.pods.clear();
                self.job_since_write = true;
                if !late && self.view.lost.is_none_or(|lost| lost.uid != uid) {
                    self.view.job = Some(job);
                    self.view.pods.clear();
                }
                true
            }
            Request::Start { job, at, ref pods } => {
                if self.cluster.job.is_some_and(|j| j.uid == job) {
                    self.check_start(job, at, late, names);
                    for index in pods {
                        let pod = self.cluster.pods.get_mut(*index);
                        if let Some(pod @ (Pod::Running | Pod::StartSent(_))) = pod {
                            *pod = Pod::StartSent(at);
                        }
                    }
                    self.check_one_start(late);
                }
                true
            }
            Request::End { job, without_pods } => {
                if let Some(there) = self.cluster.job.as_mut().filter(|j| j.uid == job) {
                    assert_ne!(there.owner, 0, "I7: a foreign Job was written to");
                    there.at_once = true;
                    there.emptied |= without_pods;
                }
                true
            }
        }
    }
}
