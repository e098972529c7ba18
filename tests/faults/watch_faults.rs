//! Forwards the events of a watch line by line, and injects a fault.

use std::io;
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use futures::{StreamExt, TryStreamExt};

use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::json;

use crate::plan::WatchFault;
use crate::support::proxy::ResponseBody;

/// How many events are replayed at most.
const REPLAYED: usize = 6;

type Out = UnboundedSender<io::Result<Frame<Bytes>>>;

/// A body with the lines of another, changed by a fault. `heal` is the duration of a temporary fault.
pub fn forward(body: Body, fault: Option<WatchFault>, heal: Duration) -> ResponseBody {
    let (out, frames) = futures::channel::mpsc::unbounded();
    tokio::spawn(async move {
        let receiver = out.clone();
        tokio::select! {
            () = forward_lines(body, fault, heal, out) => {}
            // Without a receiver the watch would stay open until the server ends it.
            () = until_closed(&receiver) => {}
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames.map(|frame| frame)))
}

async fn until_closed(out: &Out) {
    while !out.is_closed() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn forward_lines(body: Body, fault: Option<WatchFault>, heal: Duration, out: Out) {
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
            if fault != Some(WatchFault::BlackHoled) && !send(line) {
                return;
            }
            continue;
        }
        events.push(line.clone());
        let is_first = events.len() == 1;
        match fault {
            Some(WatchFault::BlackHoled) => continue,
            Some(WatchFault::Stalled) if is_first => tokio::time::sleep(heal).await,
            Some(WatchFault::CutInLine) if is_first => {
                send(line[..line.len() / 2].to_vec());
                let _ = out.unbounded_send(Err(io::ErrorKind::ConnectionReset.into()));
                return;
            }
            Some(WatchFault::EventsSkipped) if is_first => {
                tokio::time::sleep(heal).await;
                send(expired());
                return;
            }
            Some(WatchFault::ExpiredInStream) if is_first => {
                send(expired());
                return;
            }
            Some(WatchFault::Replayed) if events.len() <= REPLAYED => {
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
        "reason": "Expired", "message": "too old resource version (fault proxy)"});
    format!("{}\n", json!({"type": "ERROR", "object": status})).into_bytes()
}

/// A body in lines.
struct Lines<S> {
    body: S,
    rest: Vec<u8>,
}

impl<S: futures::Stream<Item = io::Result<Bytes>> + Unpin> Lines<S> {
    /// The next line, with its newline.
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
