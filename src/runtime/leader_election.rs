//! Leader election with a Lease, with the semantics of client-go's `tools/leaderelection`. The holder renews the lease
//! periodically and gives up after [`RENEW_DEADLINE`] without success. Another replica takes over after it has observed
//! no renewal for [`LEASE_DURATION`] by its own clock. A [`Fence`] blocks the writes of a former holder.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::client::Body;
use thiserror::Error;

use crate::runtime::api_error::{ApiError, with_timeout};
use crate::runtime::lock;

/// The default name of the lease. The original Go operator uses the same name, so the two never run concurrently.
pub const DEFAULT_LEASE_NAME: &str = "84f84c74.artillery.io";

const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// A candidate retries this long after the lease expires, because an attempt exactly at expiry would be too early.
const CLOCK_MARGIN: Duration = Duration::from_millis(50);
/// The timeout of one renewal. It leaves time for a second attempt within [`RENEW_DEADLINE`].
const RENEW_TIMEOUT: Duration = Duration::from_secs(4);

/// A candidate for the lease.
pub struct LeaderElector {
    leases: Api<Lease>,
    lease: String,
    identity: String,
    observed: Option<ObservedLease>,
    /// The lease as this candidate last wrote it.
    last_written: Option<Lease>,
    fence: Fence,
}

/// Blocks writes unless this replica certainly holds the lease.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    renewed: Arc<Mutex<Option<Instant>>>,
}

/// A write was not sent because this replica does not hold the lease.
#[derive(Debug, Error)]
#[error("request not sent: this replica no longer holds the lease")]
struct Fenced;

impl Fence {
    /// Wraps a client. A write is sent only while the lease is held, and is canceled before another replica can take
    /// the lease.
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
        *lock(&self.renewed)
    }

    fn set(&self, renewed: Option<Instant>) {
        *lock(&self.renewed) = renewed;
    }
}

/// The lease when it last changed, and the local time at which this was observed. Timestamps in the lease come from
/// another clock and are not trusted.
struct ObservedLease {
    spec: LeaseSpec,
    at: Instant,
}

/// What a candidate does about a lease.
#[derive(Debug, PartialEq)]
enum LeaseAction {
    /// The candidate holds the lease and renews it.
    Renew,
    /// The lease is free or expired.
    Take,
    /// Another candidate holds the lease.
    Wait,
}

fn evaluate(spec: &LeaseSpec, identity: &str, unchanged_for: Duration) -> LeaseAction {
    match spec.holder_identity.as_deref() {
        Some(holder) if holder == identity => LeaseAction::Renew,
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

/// Why a lease was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseLoss {
    /// The API server could not be reached, or another candidate has the lease.
    NotRenewed,
    /// This process had no time to renew it: something else has occupied its thread.
    Starved,
}

impl LeaderElector {
    /// Creates a candidate for the named lease. `identity` must never be reused by another process.
    #[must_use]
    pub fn new(client: Client, namespace: &str, lease: &str, identity: String) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            lease: lease.to_owned(),
            identity,
            observed: None,
            last_written: None,
            fence: Fence::default(),
        }
    }

    /// Returns the fence that this candidate opens and closes.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Waits until this replica holds the lease.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_hold(Instant::now()).await {
                Ok(true) => return,
                Ok(false) => tracing::debug!("another replica holds the lease"),
                Err(error) => tracing::warn!(%error, "cannot acquire lease, retrying"),
            }
            // Retry exactly when the lease expires, if that is sooner than the next regular attempt.
            let left = self.observed.as_ref().map(|observed| {
                (LEASE_DURATION + CLOCK_MARGIN).saturating_sub(observed.at.elapsed())
            });
            tokio::time::sleep(
                left.filter(|left| !left.is_zero())
                    .unwrap_or(RETRY_PERIOD)
                    .min(RETRY_PERIOD),
            )
            .await;
        }
    }

    /// Renews the lease periodically. Returns why the lease was lost.
    pub async fn renew_until_lost(&mut self) -> LeaseLoss {
        let mut renewed = Instant::now();
        let mut loss = LeaseLoss::NotRenewed;
        while renewed.elapsed() < RENEW_DEADLINE {
            let begun = Instant::now();
            tokio::time::sleep(RETRY_PERIOD).await;
            let attempt = Instant::now();
            let left = RENEW_DEADLINE
                .saturating_sub(renewed.elapsed())
                .min(RENEW_TIMEOUT);
            let held = tokio::time::timeout(left, self.try_hold(attempt)).await;
            // Much more than both timers together.
            if begun.elapsed() > RETRY_PERIOD + 2 * RENEW_TIMEOUT {
                loss = LeaseLoss::Starved;
            }
            match held {
                Ok(Ok(true)) => (renewed, loss) = (attempt, LeaseLoss::NotRenewed),
                Ok(Ok(false)) => return loss,
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew lease, retrying"),
                Err(_) => tracing::warn!("lease renewal timed out"),
            }
        }
        loss
    }

    /// Releases the lease, so that another replica does not wait for its expiry. Callers must have stopped writing.
    pub async fn release(&mut self) {
        let Ok(Some(mut lease)) = with_timeout(self.leases.get_opt(&self.lease)).await else {
            return;
        };
        let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|s| s.holder_identity.as_deref() == Some(&self.identity))
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
            tracing::warn!(%error, "cannot release lease; it will expire");
        }
    }

    /// Takes or renews the lease if that is allowed. Returns whether this candidate then holds the lease. The API
    /// server rejects the write if another candidate has changed the lease, because the write carries the resource
    /// version.
    async fn try_hold(&mut self, now: Instant) -> Result<bool, ApiError> {
        let held = self.try_write(now).await?;
        // The fence counts from before the write. Other candidates count from when they observe it, which is later.
        self.fence.set(held.then_some(now));
        Ok(held)
    }

    async fn try_write(&mut self, now: Instant) -> Result<bool, ApiError> {
        let time = Some(MicroTime(Timestamp::now()));
        // A renewal skips the read: the API server rejects the write if the lease has changed.
        if let Some(mut lease) = self.last_written.take() {
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
                spec: Some(self.held_spec(time.clone(), time, 0)),
            };
            let created = with_timeout(self.leases.create(&PostParams::default(), &lease)).await;
            return self.record(created);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if self
            .observed
            .as_ref()
            .is_none_or(|observed| observed.spec != spec)
        {
            self.observed = Some(ObservedLease {
                spec: spec.clone(),
                at: now,
            });
        }
        let unchanged_for = self
            .observed
            .as_ref()
            .map_or(Duration::ZERO, |observed| now.duration_since(observed.at));
        let transitions = spec.lease_transitions.unwrap_or_default();
        lease.spec = Some(match evaluate(&spec, &self.identity, unchanged_for) {
            LeaseAction::Wait => return Ok(false),
            LeaseAction::Renew => self.held_spec(spec.acquire_time, time, transitions),
            LeaseAction::Take => self.held_spec(time.clone(), time, transitions.saturating_add(1)),
        });
        self.write(&lease).await
    }

    async fn write(&mut self, lease: &Lease) -> Result<bool, ApiError> {
        let written = with_timeout(
            self.leases
                .replace(&self.lease, &PostParams::default(), lease),
        )
        .await;
        self.record(written)
    }

    /// Records the result of a write. Returns whether the write succeeded.
    fn record(&mut self, written: Result<Lease, ApiError>) -> Result<bool, ApiError> {
        match written {
            Ok(lease) => {
                self.last_written = Some(lease);
                Ok(true)
            }
            // Another candidate wrote first.
            Err(error) if error.status() == Some(409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn held_spec(
        &self,
        acquired: Option<MicroTime>,
        renewed: Option<MicroTime>,
        transitions: i32,
    ) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
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
    fn lease_is_taken_only_when_it_is_free_or_expired() {
        let cases = [
            (Some("me"), 100, LeaseAction::Renew),
            (None, 0, LeaseAction::Take),
            (Some(""), 0, LeaseAction::Take),
            (Some("other"), 15, LeaseAction::Wait),
            (Some("other"), 16, LeaseAction::Take),
        ];
        for (holder, seconds, action) in cases {
            assert_eq!(
                evaluate(&spec(holder), "me", Duration::from_secs(seconds)),
                action,
                "{holder:?} {seconds}"
            );
        }
    }

    #[test]
    fn negative_lease_duration_is_ignored() {
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
