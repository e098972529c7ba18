//! A proxy between an operator and the API server. A hook handles each request: it may forward, delay, change or reject it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The body of a response.
pub type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

/// A response. An error closes the connection without one.
pub type Answer = io::Result<Response<ResponseBody>>;

/// An HTTP proxy on the loopback interface. It stops when this is dropped.
pub struct Proxy {
    kubeconfig: PathBuf,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy whose requests `hook` handles.
    pub async fn start<F>(hook: impl Fn(Request<Bytes>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let hook = Arc::new(hook);
        let (address, server) = listen(move |stream| {
            let hook = hook.clone();
            let service = service_fn(move |request| answer(hook.clone(), request));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        })
        .await;
        let name = format!("proxy-{}-{}.kubeconfig", std::process::id(), address.port());
        let kubeconfig = std::env::temp_dir().join(name);
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "p",
            "contexts": [{"name": "p", "context": {"cluster": "p", "user": "p"}}], "users": [{"name": "p", "user": {}}],
            "clusters": [{"name": "p", "cluster": {"server": format!("http://{address}")}}]});
        std::fs::write(&kubeconfig, text.to_string()).expect("a kubeconfig can be written");
        Self { kubeconfig, server }
    }

    /// A kubeconfig that leads through the proxy.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

/// Listens on the loopback interface, and passes each connection on.
pub async fn listen(
    mut on_connection: impl FnMut(TcpStream) + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    let server = tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                on_connection(stream);
            }
        }
    });
    (address, server)
}

async fn answer<F>(
    hook: Arc<impl Fn(Request<Bytes>) -> F + Send + Sync + 'static>,
    request: Request<Incoming>,
) -> Answer
where
    F: Future<Output = Answer> + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    // The client adds its own address and credentials.
    parts.headers.remove(header::HOST);
    parts.headers.remove(header::CONNECTION);
    parts.version = http::Version::HTTP_11;
    // A separate task: a request that is held back is forwarded even after its sender has gone.
    tokio::spawn(hook(Request::from_parts(parts, body)))
        .await
        .map_err(io::Error::other)?
}

/// Sends a request to the API server. Returns its response, with the body of the client.
pub async fn send(client: &Client, request: Request<Bytes>) -> io::Result<Response<Body>> {
    client
        .send(request.map(|body| Body::from(body.to_vec())))
        .await
        .map_err(io::Error::other)
}

/// Forwards a request. A failure is answered with 502.
pub async fn forward(client: &Client, request: Request<Bytes>) -> Answer {
    Ok(match send(client, request).await {
        Ok(response) => response.map(|body| body.map_err(io::Error::other).boxed_unsync()),
        Err(error) => {
            let mut response = Response::new(full(error.to_string()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    })
}

/// A body that is known completely.
pub fn full(body: impl Into<Bytes>) -> ResponseBody {
    Full::new(body.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The response with which the API server rejects a request.
pub fn rejection(
    code: u16,
    reason: &str,
    message: &str,
    retry_after: Option<u32>,
) -> Response<ResponseBody> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": message});
    let mut response = Response::new(full(status.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).expect("this is a status code");
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
