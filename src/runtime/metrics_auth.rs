//! Whether a client may read the metrics: the API server is asked who it is, by a `TokenReview`, and what it may, by a
//! `SubjectAccessReview`. So rights are given as all others are, by RBAC.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// What is asked for: to `get` this path, which is in no namespace and of no resource.
pub const METRICS_PATH: &str = "/metrics";

/// How long it is believed that a token may read.
const ALLOW_CACHE_TTL: Duration = Duration::from_secs(60);

/// How long it is believed that it may not: a right that has just been given is soon seen.
const DENY_CACHE_TTL: Duration = Duration::from_secs(10);

/// After the API server could not be reached, it is left alone for this long.
const PAUSE: Duration = Duration::from_secs(1);

/// How long both questions may take together; Prometheus itself waits 10 s.
const DEADLINE: Duration = Duration::from_secs(5);

/// The most questions at a time: who sends many tokens burdens the API server no more than this.
const CONCURRENCY: usize = 4;

/// The most answers that are remembered.
const MAX_CACHED_ANSWERS: usize = 256;

/// What a client may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may read the metrics.
    Allowed,
    /// Nobody knows who it is.
    Unauthenticated,
    /// It is known, and may not.
    Forbidden,
}

/// Why nothing is known of what a client may.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// The API server did not answer, or refused to say who has a token.
    #[error("cannot review a token: {0}")]
    Token(#[source] ApiError),
    /// The API server did not answer, or refused to say what somebody may.
    #[error("cannot review a right: {0}")]
    Access(#[source] ApiError),
    /// The API server did not answer in time.
    #[error("no answer to a review within {} s", DEADLINE.as_secs())]
    Deadline,
    /// The API server has just not answered.
    #[error("the API server has just not answered")]
    Paused,
}

/// Knows who may read the metrics.
pub struct Authorizer {
    client: Client,
    turns: Semaphore,
    answers: Mutex<Answers>,
}

impl Authorizer {
    /// One that asks the API server by this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            turns: Semaphore::new(CONCURRENCY),
            answers: Mutex::default(),
        }
    }

    /// What the sender of these headers may.
    ///
    /// # Errors
    /// [`ReviewError`], where the API server does not say.
    pub async fn verdict(&self, headers: &HeaderMap) -> Result<Access, ReviewError> {
        let Some(token) = bearer(headers) else {
            return Ok(Access::Unauthenticated);
        };
        let key = key(token);
        if let Some(known) = self.answers().get(&key, Instant::now()) {
            return Ok(known);
        }
        let asked = tokio::time::timeout(DEADLINE, async {
            // It fails only when the semaphore is closed, which nobody does.
            let _turn = self.turns.acquire().await;
            // Another connection may have asked the same in the meantime.
            let (known, paused) = {
                let answers = self.answers();
                (
                    answers.get(&key, Instant::now()),
                    answers.paused(Instant::now()),
                )
            };
            match known {
                Some(known) => Ok(known),
                None if paused => Err(ReviewError::Paused),
                None => self.ask(token).await,
            }
        });
        let verdict = asked.await.unwrap_or(Err(ReviewError::Deadline));
        match &verdict {
            Ok(verdict) => self.answers().put(key, *verdict, Instant::now()),
            Err(ReviewError::Paused) => {}
            Err(error) => {
                tracing::warn!(%error, "the metrics were not served");
                self.answers().failed = Some(Instant::now());
            }
        }
        verdict
    }

    async fn ask(&self, token: &str) -> Result<Access, ReviewError> {
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
            .create(&PostParams::default(), &may_read(user))
            .await
            .map_err(|e| ReviewError::Access(e.into()))?;
        Ok(if review.status.is_some_and(|s| s.allowed) {
            Access::Allowed
        } else {
            Access::Forbidden
        })
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The question whether a user may read the metrics.
fn may_read(user: UserInfo) -> SubjectAccessReview {
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

/// The token that a request brings, if it looks like one (RFC 6750, `b64token`).
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

/// What a token is remembered by: never the token itself.
type TokenHash = [u8; SHA256_OUTPUT_LEN];

fn key(token: &str) -> TokenHash {
    let mut key = TokenHash::default();
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

/// The answers of the API server, for a while.
#[derive(Default)]
struct Answers {
    /// With the time until which each is believed.
    known: HashMap<TokenHash, (Access, Instant)>,
    failed: Option<Instant>,
}

impl Answers {
    fn get(&self, key: &TokenHash, now: Instant) -> Option<Access> {
        self.known
            .get(key)
            .filter(|(_, until)| now < *until)
            .map(|(verdict, _)| *verdict)
    }

    fn put(&mut self, key: TokenHash, verdict: Access, now: Instant) {
        self.failed = None;
        self.known.retain(|_, (_, until)| now < *until);
        if self.known.len() >= MAX_CACHED_ANSWERS {
            // One that would end soon anyway: a flood of bad tokens pushes out others of its kind.
            let first = self
                .known
                .iter()
                .min_by_key(|(_, (_, until))| *until)
                .map(|(key, _)| *key);
            first.and_then(|key| self.known.remove(&key));
        }
        let believed = if verdict == Access::Allowed {
            ALLOW_CACHE_TTL
        } else {
            DENY_CACHE_TTL
        };
        self.known.insert(key, (verdict, now + believed));
    }

    fn paused(&self, now: Instant) -> bool {
        self.failed.is_some_and(|at| now.duration_since(at) < PAUSE)
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
    fn only_what_can_be_a_token_is_taken_for_one() {
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
            "which of them?"
        );
    }

    #[test]
    fn answers_are_believed_for_a_while_and_a_refusal_for_less() {
        let (mut answers, begun) = (Answers::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        answers.put(key("may"), Access::Allowed, begun);
        answers.put(key("may not"), Access::Forbidden, begun);
        assert_eq!(answers.get(&key("may"), at(59)), Some(Access::Allowed));
        assert_eq!(answers.get(&key("may"), at(60)), None);
        assert_eq!(answers.get(&key("may not"), at(9)), Some(Access::Forbidden));
        assert_eq!(answers.get(&key("may not"), at(10)), None);
        assert_eq!(answers.get(&key("other"), begun), None);
    }

    #[test]
    fn a_flood_of_bad_tokens_takes_no_memory_and_pushes_out_no_good_one() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.put(key("good"), Access::Allowed, now);
        for n in 0..5000_u32 {
            answers.put(
                key(&n.to_string()),
                Access::Unauthenticated,
                now + Duration::from_millis(n.into()),
            );
        }
        assert_eq!(answers.known.len(), MAX_CACHED_ANSWERS);
        assert_eq!(answers.get(&key("good"), now), Some(Access::Allowed));
    }

    #[test]
    fn an_api_server_that_fails_is_left_alone_for_a_moment() {
        let (mut answers, now) = (
            Answers {
                failed: Some(Instant::now()),
                ..Answers::default()
            },
            Instant::now(),
        );
        assert!(answers.paused(now));
        assert!(!answers.paused(now + PAUSE));
        answers.put(key("t"), Access::Unauthenticated, now);
        assert!(!answers.paused(now));
    }
}
