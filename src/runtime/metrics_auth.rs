//! Authentication and authorization of clients of `/metrics`. A `TokenReview` authenticates the bearer token, and a
//! `SubjectAccessReview` checks access, so RBAC grants it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hyper::header::{AUTHORIZATION, HeaderMap};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::runtime::api_error::ApiError;
use crate::runtime::lock;

/// The path of the metrics. Clients need permission to `get` it as a nonResourceURL.
pub(crate) const METRICS_PATH: &str = "/metrics";

/// How long [`Access::Allowed`] is cached.
const ALLOW_CACHE_TTL: Duration = Duration::from_secs(60);

/// How long a denial is cached. It is short, so that a newly granted permission takes effect soon.
const DENY_CACHE_TTL: Duration = Duration::from_secs(10);

/// No review is sent for this long after one has failed.
const FAILURE_BACKOFF: Duration = Duration::from_secs(1);

/// The timeout of both reviews together. It is shorter than the default scrape timeout of Prometheus.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of concurrent reviews. It bounds the load that a flood of tokens puts on the API server.
const MAX_CONCURRENT_REVIEWS: usize = 4;

/// The maximum number of cached results.
const MAX_CACHED_RESULTS: usize = 256;

/// The access of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The client may read the metrics.
    Allowed,
    /// The client sent no valid token.
    Unauthenticated,
    /// The client is authenticated but lacks the permission.
    Forbidden,
}

/// Why the access of a client could not be determined.
#[derive(Debug, Error)]
pub(crate) enum ReviewError {
    /// The `TokenReview` failed.
    #[error("TokenReview failed: {0}")]
    Token(#[source] ApiError),
    /// The `SubjectAccessReview` failed.
    #[error("SubjectAccessReview failed: {0}")]
    Access(#[source] ApiError),
    /// The API server did not respond in time.
    #[error("reviews timed out after {}s", REVIEW_TIMEOUT.as_secs())]
    Timeout,
    /// A review failed less than [`FAILURE_BACKOFF`] ago.
    #[error("backing off after a failed review")]
    BackingOff,
}

/// Decides which clients may read the metrics.
pub struct Authorizer {
    client: Client,
    permits: Semaphore,
    cache: Mutex<AccessCache>,
}

impl Authorizer {
    /// Creates an authorizer that sends its reviews with `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            permits: Semaphore::new(MAX_CONCURRENT_REVIEWS),
            cache: Mutex::default(),
        }
    }

    /// Determines the access of the client that sent `headers`.
    ///
    /// # Errors
    /// Fails if the API server does not review the token or the access.
    pub(crate) async fn access(&self, headers: &HeaderMap) -> Result<Access, ReviewError> {
        let Some(token) = bearer(headers) else {
            return Ok(Access::Unauthenticated);
        };
        let key = key(token);
        if let Some(access) = self.cache().get(&key, Instant::now()) {
            return Ok(access);
        }
        let reviewed = tokio::time::timeout(REVIEW_TIMEOUT, async {
            // `acquire` fails only on a closed semaphore. This one is never closed.
            let _permit = self.permits.acquire().await;
            // Another connection may have reviewed the same token in the meantime.
            let (cached, backing_off) = {
                let cache = self.cache();
                (
                    cache.get(&key, Instant::now()),
                    cache.is_backing_off(Instant::now()),
                )
            };
            match cached {
                Some(access) => Ok(access),
                None if backing_off => Err(ReviewError::BackingOff),
                None => self.review(token).await,
            }
        });
        let access = reviewed.await.unwrap_or(Err(ReviewError::Timeout));
        match &access {
            Ok(access) => self.cache().put(key, *access, Instant::now()),
            Err(ReviewError::BackingOff) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot authorize a metrics request");
                self.cache().failed = Some(Instant::now());
            }
        }
        access
    }

    async fn review(&self, token: &str) -> Result<Access, ReviewError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let review = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|e| ReviewError::Token(e.into()))?;
        let status = review.status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else {
            return Ok(Access::Unauthenticated);
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews
            .create(&PostParams::default(), &access_review(user))
            .await
            .map_err(|e| ReviewError::Access(e.into()))?;
        Ok(if review.status.is_some_and(|s| s.allowed) {
            Access::Allowed
        } else {
            Access::Forbidden
        })
    }

    fn cache(&self) -> MutexGuard<'_, AccessCache> {
        lock(&self.cache)
    }
}

/// Builds the `SubjectAccessReview` that checks whether a user may read the metrics.
fn access_review(user: UserInfo) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(METRICS_PATH.into()),
                verb: Some("get".into()),
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// Returns the bearer token of a request, if it is well-formed (RFC 6750, `b64token`).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (given.next(), given.next()) else {
        return None;
    };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.bytes().all(fits))
        .then_some(token)
}

/// The cache key of a token. Tokens themselves are not kept in memory.
type TokenHash = [u8; SHA256_OUTPUT_LEN];

fn key(token: &str) -> TokenHash {
    let mut key = TokenHash::default();
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

/// The results of recent reviews.
#[derive(Default)]
struct AccessCache {
    /// The access of each token, with its expiry.
    entries: HashMap<TokenHash, (Access, Instant)>,
    failed: Option<Instant>,
}

impl AccessCache {
    fn get(&self, key: &TokenHash, now: Instant) -> Option<Access> {
        self.entries
            .get(key)
            .filter(|(_, until)| now < *until)
            .map(|(access, _)| *access)
    }

    fn put(&mut self, key: TokenHash, access: Access, now: Instant) {
        self.failed = None;
        self.entries.retain(|_, (_, until)| now < *until);
        if self.entries.len() >= MAX_CACHED_RESULTS {
            // The entry that expires first is evicted. Denials expire early, so a flood of bad tokens evicts only
            // denials.
            let oldest = self
                .entries
                .iter()
                .min_by_key(|(_, (_, until))| *until)
                .map(|(key, _)| *key);
            oldest.and_then(|key| self.entries.remove(&key));
        }
        let ttl = if access == Access::Allowed {
            ALLOW_CACHE_TTL
        } else {
            DENY_CACHE_TTL
        };
        self.entries.insert(key, (access, now + ttl));
    }

    fn is_backing_off(&self, now: Instant) -> bool {
        self.failed
            .is_some_and(|at| now.duration_since(at) < FAILURE_BACKOFF)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                AUTHORIZATION,
                hyper::header::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn malformed_bearer_tokens_are_rejected() {
        for (given, token) in [
            ("Bearer a.b-c_d", "a.b-c_d"),
            ("bearer  eyJ+/=~ ", "eyJ+/=~"),
        ] {
            assert_eq!(bearer(&headers(&[given])), Some(token), "{given}");
        }
        for given in [
            "",
            "Bearer",
            "Bearer ",
            "Basic YTpi",
            "Bearer a b",
            "Bearer a,b",
            "Bearer é",
            "Bearera",
            "Bearer \"a\"",
        ] {
            assert_eq!(bearer(&headers(&[given])), None, "{given}");
        }
        assert_eq!(bearer(&headers(&[])), None);
        assert_eq!(
            bearer(&headers(&["Bearer a", "Bearer b"])),
            None,
            "two headers are ambiguous"
        );
    }

    #[test]
    fn denials_expire_sooner_than_allowed_access() {
        let (mut cache, start) = (AccessCache::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        cache.put(key("may"), Access::Allowed, start);
        cache.put(key("may not"), Access::Forbidden, start);
        assert_eq!(cache.get(&key("may"), at(59)), Some(Access::Allowed));
        assert_eq!(cache.get(&key("may"), at(60)), None);
        assert_eq!(cache.get(&key("may not"), at(9)), Some(Access::Forbidden));
        assert_eq!(cache.get(&key("may not"), at(10)), None);
        assert_eq!(cache.get(&key("other"), start), None);
    }

    #[test]
    fn flood_of_bad_tokens_does_not_evict_a_valid_token() {
        let (mut cache, now) = (AccessCache::default(), Instant::now());
        cache.put(key("good"), Access::Allowed, now);
        for n in 0..5000_u32 {
            cache.put(
                key(&n.to_string()),
                Access::Unauthenticated,
                now + Duration::from_millis(n.into()),
            );
        }
        assert_eq!(cache.entries.len(), MAX_CACHED_RESULTS);
        assert_eq!(cache.get(&key("good"), now), Some(Access::Allowed));
    }

    #[test]
    fn failed_review_delays_the_next_one() {
        let now = Instant::now();
        let mut cache = AccessCache {
            failed: Some(now),
            ..AccessCache::default()
        };
        assert!(cache.is_backing_off(now));
        assert!(!cache.is_backing_off(now + FAILURE_BACKOFF));
        cache.put(key("t"), Access::Unauthenticated, now);
        assert!(!cache.is_backing_off(now));
    }
}
