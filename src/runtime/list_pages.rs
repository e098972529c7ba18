//! Bounds the memory of lists: the pages of a list are counted in objects, and one object can have 1.5 MB.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;

use crate::runtime::lock;

/// How large the body of a page may be. A page is held several times over while it is parsed.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// Wraps a client. The page of a list that is larger than [`MAX_PAGE_BYTES`] is not read to its end but requested again with
/// fewer objects, down to a single one. Later pages of the list have at most twice as many objects as the one before.
#[must_use]
pub fn with_bounded_pages(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let reduced = Arc::<ReducedLimits>::default();
    let bounding = tower::service_fn(move |request: Request<Body>| {
        let (client, reduced) = (client.clone(), reduced.clone());
        async move {
            match PageRequest::from_request(&request) {
                Some(page) => send(&client, &page, &reduced).await,
                None => client.send(request).await,
            }
        }
    });
    Client::new(bounding, namespace)
}

async fn send(
    client: &Client,
    page: &PageRequest,
    reduced: &ReducedLimits,
) -> kube::Result<Response<Body>> {
    let mut limit = reduced.next(page);
    loop {
        let request = page.with_limit(limit).map_err(kube::Error::HttpError)?;
        let (parts, body) = client.send(request).await?.into_parts();
        if !parts.status.is_success() {
            return Ok(Response::from_parts(parts, body));
        }
        // A single object is read whatever its size, which etcd limits.
        let max = if limit == 1 {
            usize::MAX
        } else {
            MAX_PAGE_BYTES
        };
        if let Some(bytes) = read_at_most(body, max).await? {
            reduced.record(page, limit);
            return Ok(Response::from_parts(parts, bytes.into()));
        }
        limit = (limit / 4).max(1);
    }
}

/// The body. None if it is longer than `max` bytes.
async fn read_at_most(mut body: Body, max: usize) -> kube::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > max {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes))
}

/// A request for a page of a list.
struct PageRequest {
    request: Request<()>,
    /// The objects that the request asks for.
    limit: u32,
}

impl PageRequest {
    /// None if the request is another one.
    fn from_request(request: &Request<Body>) -> Option<Self> {
        let limit = parameters(request.uri())
            .find_map(|p| p.strip_prefix("limit="))?
            .parse()
            .ok()?;
        let is_list = *request.method() == Method::GET
            && !parameters(request.uri()).any(|p| p == "watch=true");
        let mut copy = Request::new(());
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        (is_list && limit > 1).then_some(Self {
            request: copy,
            limit,
        })
    }

    /// The same request for another number of objects.
    fn with_limit(&self, limit: u32) -> Result<Request<Body>, http::Error> {
        let query: Vec<String> = parameters(self.request.uri())
            .map(|p| {
                if p.starts_with("limit=") {
                    format!("limit={limit}")
                } else {
                    p.to_owned()
                }
            })
            .collect();
        let path = self.request.uri().path();
        let mut request = Request::get(format!("{path}?{}", query.join("&"))).body(Body::empty())?;
        *request.headers_mut() = self.request.headers().clone();
        Ok(request)
    }

    fn path(&self) -> &str {
        self.request.uri().path()
    }
}

fn parameters(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&')
}

/// The limits of lists whose last page was reduced, by path.
#[derive(Default)]
struct ReducedLimits(Mutex<HashMap<String, u32>>);

impl ReducedLimits {
    fn next(&self, page: &PageRequest) -> u32 {
        let last = lock(&self.0).get(page.path()).copied();
        last.map_or(page.limit, |last| last.saturating_mul(2).min(page.limit))
    }

    fn record(&self, page: &PageRequest, limit: u32) {
        let mut limits = lock(&self.0);
        if limit < page.limit {
            limits.insert(page.path().to_owned(), limit);
        } else {
            limits.remove(page.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const LARGE: usize = 600 * 1024;

    /// A client whose pages have objects of this size. Counts requests, and the largest limit of a page that was read.
    fn client(size: usize, requests: Arc<AtomicU32>) -> Client {
        let serve = tower::service_fn(move |request: Request<Body>| {
            requests.fetch_add(1, Ordering::Relaxed);
            let limit = parameters(request.uri()).find_map(|p| p.strip_prefix("limit="));
            let limit: usize = limit.unwrap_or("1").parse().unwrap();
            async move { Ok::<_, tower::BoxError>(Response::new(Body::from(vec![b'x'; size * limit]))) }
        });
        Client::new(serve, "default")
    }

    async fn bytes_of(client: &Client, uri: &str) -> usize {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let body = client.send(request).await.unwrap().into_body();
        body.collect().await.unwrap().to_bytes().len()
    }

    #[tokio::test]
    async fn pages_of_large_objects_have_fewer_of_them() {
        let requests = Arc::<AtomicU32>::default();
        let client = with_bounded_pages(client(LARGE, requests.clone()));
        let page = "/api/v1/pods?limit=200&continue=abc";
        assert_eq!(bytes_of(&client, page).await, 3 * LARGE);
        assert_eq!(requests.load(Ordering::Relaxed), 4, "200, 50, 12 and 3");
        assert_eq!(bytes_of(&client, page).await, LARGE, "6 are too many again");
    }

    #[tokio::test]
    async fn other_requests_and_small_pages_are_sent_once() {
        let requests = Arc::<AtomicU32>::default();
        let client = with_bounded_pages(client(100, requests.clone()));
        assert_eq!(bytes_of(&client, "/api/v1/pods?limit=200").await, 20_000);
        bytes_of(&client, "/api/v1/pods?watch=true&limit=200").await;
        bytes_of(&client, "/api/v1/namespaces/n/pods/p").await;
        assert_eq!(requests.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn one_object_is_read_whatever_its_size() {
        let client = with_bounded_pages(client(3 << 20, Arc::default()));
        assert_eq!(bytes_of(&client, "/api/v1/pods?limit=200").await, 3 << 20);
    }
}
