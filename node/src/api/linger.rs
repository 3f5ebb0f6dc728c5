//! What is left of a request's body once it has been answered.
//!
//! A request can be answered before all of its body has arrived: it is too large, or comes from a stranger. Closing the
//! connection then makes the system answer the bytes that still come with a reset, and a reset takes the answer away
//! from a caller who has not read it yet. So the rest is read and thrown away for a short while, as other servers do
//! (nginx calls it a lingering close).

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::oneshot;

/// How long a caller may go on sending after the answer. Less than the time that the server's stop leaves to requests.
const LINGER: Duration = Duration::from_secs(2);
/// How long the server waits for the next bytes of it.
const SILENCE: Duration = Duration::from_millis(500);

/// A body that comes back when the handler lets go of it.
pub(super) struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// Where a lent body comes back to.
pub(super) struct Rest(oneshot::Receiver<Incoming>);

/// Lends a body to a handler.
pub(super) fn lend(body: Incoming) -> (Lent, Rest) {
    let (back, rest) = oneshot::channel();
    (Lent { body: Some(body), back: Some(back) }, Rest(rest))
}

impl Rest {
    /// Reads what the handler has left, if anything, beside the answer that is on its way.
    pub(super) fn discard(mut self) {
        let Ok(mut body) = self.0.try_recv() else { return };
        if body.is_end_stream() {
            return;
        }
        let reading = async move { while let Ok(Some(Ok(_))) = tokio::time::timeout(SILENCE, body.frame()).await {} };
        tokio::spawn(tokio::time::timeout(LINGER, reading));
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // The server has gone: nobody waits for an answer.
            let _ = back.send(body);
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
