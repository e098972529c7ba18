//! Passes a watch on, line by line, and lets a fault befall it.

use std::io;
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use futures::{StreamExt, TryStreamExt};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::json;

use crate::plan::WatchDeed;

/// With more events than this, only these are told again.
const REPLAYED: usize = 6;

type Out = UnboundedSender<io::Result<Frame<Bytes>>>;

/// A body that tells what another tells, but for what a fault makes of it. `heal` is how long it lasts, where it does.
pub fn pass(body: Body, deed: Option<WatchDeed>, heal: Duration) -> BoxBody<Bytes, io::Error> {
    let (out, told) = futures::channel::mpsc::unbounded();
    tokio::spawn(async move {
        let listened_to = out.clone();
        tokio::select! {
            () = tell(body, deed, heal, out) => {}
            // A watch that nobody listens to any more would be held open until the server ends it.
            () = until_closed(&listened_to) => {}
        }
    });
    BodyExt::boxed(StreamBody::new(told.map(|frame| frame)))
}

async fn until_closed(out: &Out) {
    while !out.is_closed() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn tell(body: Body, deed: Option<WatchDeed>, heal: Duration, out: Out) {
    let mut lines = Lines {
        body: Box::pin(body.into_data_stream().map_err(io::Error::other)),
        rest: Vec::new(),
    };
    let send = |line: Vec<u8>| out.unbounded_send(Ok(Frame::data(line.into()))).is_ok();
    let mut events: Vec<Vec<u8>> = Vec::new();
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return,
            Err(error) => {
                let _ = out.unbounded_send(Err(error));
                return;
            }
        };
        // As the API server writes them, the type comes first.
        if line.starts_with(br#"{"type":"BOOKMARK""#) {
            if deed != Some(WatchDeed::BlackHoled) && !send(line) {
                return;
            }
            continue;
        }
        events.push(line.clone());
        let is_first = events.len() == 1;
        match deed {
            Some(WatchDeed::BlackHoled) => continue,
            Some(WatchDeed::Stalled) if is_first => tokio::time::sleep(heal).await,
            Some(WatchDeed::CutInLine) if is_first => {
                send(line[..line.len() / 2].to_vec());
                let _ = out.unbounded_send(Err(io::ErrorKind::ConnectionReset.into()));
                return;
            }
            Some(WatchDeed::StateHidden) if is_first => {
                tokio::time::sleep(heal).await;
                send(expired());
                return;
            }
            Some(WatchDeed::GoneInStream) if is_first => {
                send(expired());
                return;
            }
            Some(WatchDeed::Replayed) if events.len() <= REPLAYED => {
                if !send(events.concat()) {
                    return;
                }
                continue;
            }
            _ => {}
        }
        if !send(line) {
            return;
        }
    }
}

fn expired() -> Vec<u8> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version: by the fault proxy"});
    format!("{}\n", json!({"type": "ERROR", "object": status})).into_bytes()
}

/// A body in lines.
struct Lines<S> {
    body: S,
    rest: Vec<u8>,
}

impl<S: futures::Stream<Item = io::Result<Bytes>> + Unpin> Lines<S> {
    /// The next line, with its end.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let after = self.rest.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, after)));
            }
            match self.body.try_next().await? {
                Some(bytes) => self.rest.extend_from_slice(&bytes),
                None => return Ok((!self.rest.is_empty()).then(|| std::mem::take(&mut self.rest))),
            }
        }
    }
}
