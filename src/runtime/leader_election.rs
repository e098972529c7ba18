//! Leader election by a Lease, with the meaning of client-go's `tools/leaderelection`: a holder renews every 2 s; others
//! take over when they have seen no renewal for 15 s by their own clock; a holder that could not renew for 10 s gives up.
//! A [`Fence`] keeps what a former holder still wants to write from being sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};

use kube::client::Body;
use thiserror::Error;

use crate::runtime::api_error::{ApiError, with_timeout};

/// The lease's usual name, that of the original operator: the two never work side by side.
pub const DEFAULT_LEASE_NAME: &str = "84f84c74.artillery.io";

const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// Clocks are not read twice at the same time.
const CLOCK_MARGIN: Duration = Duration::from_millis(50);
/// One attempt that hangs leaves time for another.
const RENEW_TIMEOUT: Duration = Duration::from_secs(4);

/// A candidate for the lease.
pub struct LeaderElector {
    leases: Api<Lease>,
    lease: String,
    me: String,
    seen: Option<Seen>,
    /// The lease as this candidate wrote it last.
    mine: Option<Lease>,
    fence: Fence,
}

/// Lets writes through only while the lease is surely held.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    renewed: Arc<Mutex<Option<Instant>>>,
}

/// A write that was not sent, because the lease is not held.
#[derive(Debug, Error)]
#[error("not sent: this replica does not hold the lease any more")]
struct Fenced;

impl Fence {
    /// A client whose writes are sent only while the lease is held, and given up before another replica can take it.
    #[must_use]
    pub fn guard(&self, client: Client) -> Client {
        let fence = self.clone();
        let namespace = client.default_namespace().to_owned();
        let guarded = tower::service_fn(move |request: http::Request<Body>| {
            let (client, fence) = (client.clone(), fence.clone());
            async move {
                if request.method() == http::Method::GET {
                    return Ok::<_, tower::BoxError>(client.send(request).await?);
                }
                let renewed = fence
                    .renewed()
                    .filter(|renewed| renewed.elapsed() < RENEW_DEADLINE)
                    .ok_or(Fenced)?;
                let end = tokio::time::Instant::from_std(renewed + LEASE_DURATION);
                Ok(tokio::time::timeout_at(end, client.send(request))
                    .await
                    .map_err(|_| Fenced)??)
            }
        });
        Client::new(guarded, namespace)
    }

    fn renewed(&self) -> Option<Instant> {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, renewed: Option<Instant>) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = renewed;
    }
}

/// The lease as it was when it last changed, and when that was seen: other clocks are not trusted.
struct Seen {
    spec: LeaseSpec,
    at: Instant,
}

/// What a candidate may do about a lease.
#[derive(Debug, PartialEq)]
enum LeaseAction {
    /// It holds the lease, and is to renew it.
    Renew,
    /// Nobody holds it any more.
    Take,
    /// Somebody else holds it.
    Wait,
}

fn evaluate(spec: &LeaseSpec, me: &str, unchanged_for: Duration) -> LeaseAction {
    match spec.holder_identity.as_deref() {
        Some(holder) if holder == me => LeaseAction::Renew,
        None | Some("") => LeaseAction::Take,
        Some(_) => {
            let seconds = spec
                .lease_duration_seconds
                .and_then(|s| u64::try_from(s).ok());
            let duration = seconds.map_or(LEASE_DURATION, Duration::from_secs);
            if unchanged_for > duration {
                LeaseAction::Take
            } else {
                LeaseAction::Wait
            }
        }
    }
}

impl LeaderElector {
    /// A candidate for the lease of this name in a namespace. `me` is to be unlike that of any other process, ever.
    #[must_use]
    pub fn new(client: Client, namespace: &str, lease: &str, me: String) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            lease: lease.to_owned(),
            me,
            seen: None,
            mine: None,
            fence: Fence::default(),
        }
    }

    /// The fence that this candidate opens and closes.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Waits until this candidate holds the lease.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_hold(Instant::now()).await {
                Ok(true) => return,
                Ok(false) => tracing::debug!("another replica holds the lease"),
                Err(error) => tracing::warn!(%error, "cannot take the lease; trying on"),
            }
            // A lease that is not renewed is taken as soon as it may be.
            let left = self
                .seen
                .as_ref()
                .map(|seen| (LEASE_DURATION + CLOCK_MARGIN).saturating_sub(seen.at.elapsed()));
            tokio::time::sleep(
                left.filter(|left| !left.is_zero())
                    .unwrap_or(RETRY_PERIOD)
                    .min(RETRY_PERIOD),
            )
            .await;
        }
    }

    /// Renews the lease for as long as that works. Returns when it is lost.
    pub async fn renew_until_lost(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < RENEW_DEADLINE {
            tokio::time::sleep(RETRY_PERIOD).await;
            let begun = Instant::now();
            let left = RENEW_DEADLINE
                .saturating_sub(renewed.elapsed())
                .min(RENEW_TIMEOUT);
            match tokio::time::timeout(left, self.try_hold(begun)).await {
                Ok(Ok(true)) => renewed = begun,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the lease; trying on"),
                Err(_) => tracing::warn!("the lease was not renewed in time"),
            }
        }
    }

    /// Gives the lease up, so that another replica need not wait for its end. To be called when nothing is written any more.
    pub async fn release(&mut self) {
        let Ok(Some(mut lease)) = with_timeout(self.leases.get_opt(&self.lease)).await else {
            return;
        };
        let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|s| s.holder_identity.as_deref() == Some(&self.me))
        else {
            return;
        };
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = with_timeout(self.leases.replace(
            &self.lease,
            &PostParams::default(),
            &lease,
        ))
        .await
        {
            tracing::warn!(%error, "cannot release the lease; it ends by itself");
        }
    }

    /// Takes or renews the lease if that is allowed; whether this candidate holds it then. A change by somebody else in the
    /// meantime is refused by the API server, since the write carries the version that was read.
    async fn try_hold(&mut self, now: Instant) -> Result<bool, ApiError> {
        let held = self.try_write(now).await?;
        // Counted from before the write: the others count from when they see it.
        self.fence.set(held.then_some(now));
        Ok(held)
    }

    async fn try_write(&mut self, now: Instant) -> Result<bool, ApiError> {
        let time = Some(MicroTime(Timestamp::now()));
        // A renewal needs no look before: the write is refused if anybody else has written since.
        if let Some(mut lease) = self.mine.take() {
            if let Some(spec) = &mut lease.spec {
                spec.renew_time.clone_from(&time);
            }
            match self.write(&lease).await {
                Err(error) if error.status() == Some(404) => {}
                Ok(false) => {}
                answer => return answer,
            }
        }
        let Some(mut lease) = with_timeout(self.leases.get_opt(&self.lease)).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.lease.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.held(time.clone(), time, 0)),
            };
            let created = with_timeout(self.leases.create(&PostParams::default(), &lease)).await;
            return self.keep(created);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|seen| seen.spec != spec) {
            self.seen = Some(Seen {
                spec: spec.clone(),
                at: now,
            });
        }
        let unchanged_for = self
            .seen
            .as_ref()
            .map_or(Duration::ZERO, |seen| now.duration_since(seen.at));
        let transitions = spec.lease_transitions.unwrap_or_default();
        lease.spec = Some(match evaluate(&spec, &self.me, unchanged_for) {
            LeaseAction::Wait => return Ok(false),
            LeaseAction::Renew => self.held(spec.acquire_time, time, transitions),
            LeaseAction::Take => self.held(time.clone(), time, transitions.saturating_add(1)),
        });
        self.write(&lease).await
    }

    async fn write(&mut self, lease: &Lease) -> Result<bool, ApiError> {
        let written = with_timeout(
            self.leases
                .replace(&self.lease, &PostParams::default(), lease),
        )
        .await;
        self.keep(written)
    }

    /// Keeps a lease that was written; whether it was.
    fn keep(&mut self, written: Result<Lease, ApiError>) -> Result<bool, ApiError> {
        match written {
            Ok(lease) => {
                self.mine = Some(lease);
                Ok(true)
            }
            // Somebody else was quicker.
            Err(error) if error.status() == Some(409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn held(
        &self,
        acquired: Option<MicroTime>,
        renewed: Option<MicroTime>,
        transitions: i32,
    ) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: acquired,
            renew_time: renewed,
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: Option<&str>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(Into::into),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_or_was_not_renewed() {
        let cases = [
            (Some("me"), 100, LeaseAction::Renew),
            (None, 0, LeaseAction::Take),
            (Some(""), 0, LeaseAction::Take),
            (Some("other"), 15, LeaseAction::Wait),
            (Some("other"), 16, LeaseAction::Take),
        ];
        for (holder, seconds, verdict) in cases {
            assert_eq!(
                evaluate(&spec(holder), "me", Duration::from_secs(seconds)),
                verdict,
                "{holder:?} {seconds}"
            );
        }
    }

    #[test]
    fn a_negative_duration_is_not_believed() {
        let spec = LeaseSpec {
            lease_duration_seconds: Some(-1),
            ..spec(Some("other"))
        };
        assert_eq!(
            evaluate(&spec, "me", Duration::from_secs(10)),
            LeaseAction::Wait
        );
    }
}
