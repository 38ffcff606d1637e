//! Bodies on their way: a request's is lent to an attempt, so that it is there for the next if nothing was read of it;
//! an answer's is held to its size and its pace.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use crate::replica::Held;

/// A request's body, which attempts borrow.
pub(crate) struct Loan(Arc<Lender>);

struct Lender {
    /// None once an attempt has begun to read it.
    body: Mutex<Option<Body>>,
    /// There was nothing to read from the beginning: it can be sent as often as one likes.
    empty: bool,
    /// It failed on its way from the client.
    failed: AtomicBool,
    /// Nothing of it is left to send.
    sent: Notify,
}

impl Loan {
    pub(crate) fn new(body: Body) -> Self {
        Self(Arc::new(Lender {
            empty: body.is_end_stream(),
            body: Mutex::new(Some(body)),
            failed: AtomicBool::new(false),
            sent: Notify::new(),
        }))
    }

    /// The body, for one attempt.
    pub(crate) fn lend(&self) -> Body {
        if self.0.empty {
            return Body::empty();
        }
        Body::new(Lent {
            lender: self.0.clone(),
            body: None,
        })
    }

    /// Whether another attempt would send all of it.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.empty
            || self
                .0
                .body
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some()
    }

    /// Whether the client is to blame.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Resolves when nothing of it is left to send.
    pub(crate) async fn sent(&self) {
        if !self.0.empty {
            self.0.sent.notified().await;
        }
    }
}

struct Lent {
    lender: Arc<Lender>,
    body: Option<Body>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.body.is_none() {
            let mut lent = self.lender.body.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = lent.take();
            drop(lent);
            self.body = taken;
        }
        let Some(body) = &mut self.body else {
            // Somebody else has read it: this must not look like a body that came to its end.
            return Poll::Ready(Some(Err(axum::Error::new("the body was read before"))));
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let at_end = frame.is_none() || body.is_end_stream();
        if let Some(Err(_)) = &frame {
            self.lender.failed.store(true, Ordering::Relaxed);
        } else if at_end {
            self.lender.sent.notify_one();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(body) = &self.body {
            return body.size_hint();
        }
        let lent = self.lender.body.lock().unwrap_or_else(PoisonError::into_inner);
        lent.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Whatever is not sent by now never is.
        if self.body.is_some() {
            self.lender.sent.notify_one();
        }
    }
}

/// The answer's body stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Cut {
    #[error("the answer did not go on")]
    Stalled,
    #[error("the answer is too long")]
    TooLong,
}

/// An answer's body; the replica has a request of ours in flight until it is through.
pub(crate) struct Returned {
    body: Incoming,
    stall_timeout: Duration,
    /// Runs while nothing comes.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes that may still come; none for a stream without end.
    left: Option<u64>,
    _held: Option<Held>,
}

impl Returned {
    pub(crate) fn new(
        body: Incoming,
        stall_timeout: Duration,
        bytes_max: Option<u64>,
        held: Option<Held>,
    ) -> Self {
        Self {
            body,
            stall_timeout,
            stalled: None,
            left: bytes_max,
            _held: held,
        }
    }
}

impl HttpBody for Returned {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            let stall_timeout = self.stall_timeout;
            let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall_timeout)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Cut::Stalled.into())));
        };
        self.stalled = None;
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) | None => 0,
        };
        if let Some(left) = self.left {
            let Some(left) = left.checked_sub(bytes) else {
                return Poll::Ready(Some(Err(Cut::TooLong.into())));
            };
            self.left = Some(left);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
