//! Bodies that pass through: requests are capped while they stream, event streams end when we do.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::{LengthLimitError, Limited};
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What became of a request's body.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// It was longer than allowed.
    pub(crate) exceeded: AtomicBool,
    /// It arrived to its end.
    pub(crate) complete: AtomicBool,
}

/// A request body that fails beyond its limit, whatever was declared and whoever reads it.
pub(crate) struct Capped {
    body: Limited<Body>,
    fate: Arc<Fate>,
}

impl Capped {
    pub(crate) fn new(body: Body, bytes_max: usize) -> (Self, Arc<Fate>) {
        let fate = Arc::new(Fate::default());
        fate.complete.store(body.is_end_stream(), Ordering::Relaxed);
        (
            Self {
                body: Limited::new(body, bytes_max),
                fate: fate.clone(),
            },
            fate,
        )
    }
}

impl HttpBody for Capped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                self.fate.exceeded.store(true, Ordering::Relaxed);
            }
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            None | Some(Ok(_)) => self.fate.complete.store(true, Ordering::Relaxed),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether an answer is an event stream.
pub(crate) fn is_stream(response: &Response) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "text/event-stream")
}

/// An answer that goes on for as long as the client listens. It holds its place among the streams, if those are counted,
/// and ends on shutdown: the client comes back with `Last-Event-ID`.
pub(crate) struct Streaming {
    body: Body,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Streaming {
    pub(crate) fn new(
        body: Body,
        stopping: &CancellationToken,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            body,
            stop: Box::pin(stopping.clone().cancelled_owned()),
            _permit: permit,
        }
    }
}

impl HttpBody for Streaming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}
