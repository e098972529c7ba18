//! Infrastructure that any operator needs: client, leader election, metrics, probes and logging. Skip this folder on a
//! first reading.

pub(crate) mod api_error;
pub mod client;
pub mod hash;
pub mod health;
pub mod http;
pub mod leader_election;
pub mod list_pages;
pub mod logging;
pub mod metrics;
pub mod metrics_auth;
mod proxy;
pub mod request_metrics;
pub mod tls;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex and ignores poisoning. This is sound because no lock is held across a partial change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
