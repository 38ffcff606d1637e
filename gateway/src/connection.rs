//! One connection: hyper speaks HTTP/1.1 on it, and a supervisor in the same task sees to it that it cannot be held
//! open by sending slowly or not at all. A proxy in front of us terminates TLS and HTTP/2.
//!
//! hyper's own header timeout closes the connection without a word, and its answers to heads it cannot accept have no
//! body; here both are answered with a problem. That takes knowing what the connection is waiting for: [`Phase`].

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use http_conventions::Problem;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::config::{GatewayConfig, READ_BUFFER_BYTES_MAX};

/// After we have refused something, how much of what the client still sends is read and thrown away, and for how long:
/// closing at once would reset the connection, and the client would lose the answer.
const LINGER_BYTES_MAX: u64 = 4 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Opened, and nothing has come.
    Fresh,
    /// A request has begun; its headers are not complete.
    Head,
    /// A request is being read or answered: its own time-outs apply.
    Busy,
    /// Answered, waiting for the next request.
    Idle,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// The status with which hyper refused a head.
    refused: Option<StatusCode>,
}

/// What the supervisor, the socket and the service of one connection know together. They run in one task (only the
/// rest of a refused body is read in another), so the lock is never waited for.
#[derive(Debug, Clone)]
struct Watch(Arc<Mutex<State>>);

impl Watch {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            phase: Phase::Fresh,
            since: Instant::now(),
            refused: None,
        })))
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn enter(&self, phase: Phase) {
        self.with(|state| (state.phase, state.since) = (phase, Instant::now()));
    }

    fn received(&self) {
        if self.with(|state| matches!(state.phase, Phase::Fresh | Phase::Idle)) {
            self.enter(Phase::Head);
        }
    }

    fn phase(&self) -> Phase {
        self.with(|state| state.phase)
    }

    /// When the present phase has lasted too long; none while a request is in hand.
    fn deadline(&self, config: &GatewayConfig) -> Option<Instant> {
        let (phase, since) = self.with(|state| (state.phase, state.since));
        let millis = match phase {
            Phase::Fresh => config.first_byte_timeout_ms,
            Phase::Head => config.header_timeout_ms,
            Phase::Busy => return None,
            Phase::Idle => config.idle_timeout_ms,
        };
        Some(since + Duration::from_millis(millis))
    }
}

/// Held by a request's body and by its answer: when both are through, the connection rests.
struct Busy(Watch);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// How a connection ended.
enum End {
    /// By hyper: the client closed it, or broke it, or it was done.
    Closed,
    /// By us, without a word: nobody asked anything.
    Quiet,
    /// By us, with an answer to a request that was never complete.
    Refused(StatusCode),
}

/// Serves `stream` until the client leaves, a time-out strikes, or `soft` is cancelled and the request in hand is
/// answered. Drop the future to end it at once.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    config: Arc<GatewayConfig>,
    soft: CancellationToken,
) {
    let watch = Watch::new();
    let stall = Duration::from_millis(config.write_stall_timeout_ms);
    let wire = Wire {
        stream,
        watch: watch.clone(),
        stall,
        stalled: None,
    };
    let service =
        hyper::service::service_fn(|request| Box::pin(answer(request, peer, router.clone(), watch.clone())));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Ours tells a connection that rests from one that dawdles, and answers.
        .header_read_timeout(None)
        .max_header_size(config.header_bytes_max)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(wire), service);

    let mut stopping = false;
    let mut stop = std::pin::pin!(soft.cancelled());
    let mut timer = std::pin::pin!(tokio::time::sleep_until(Instant::now()));
    let end = poll_fn(|cx| {
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        let closed = connection.poll_without_shutdown(cx).is_ready();
        if let Some(status) = watch.with(|state| state.refused) {
            return Poll::Ready(End::Refused(status));
        }
        if closed {
            return Poll::Ready(End::Closed);
        }
        if stopping && matches!(watch.phase(), Phase::Fresh | Phase::Idle) {
            return Poll::Ready(End::Quiet);
        }
        if let Some(deadline) = watch.deadline(&config) {
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(match watch.phase() {
                    Phase::Head => End::Refused(StatusCode::REQUEST_TIMEOUT),
                    Phase::Fresh | Phase::Busy | Phase::Idle => End::Quiet,
                });
            }
        }
        Poll::Pending
    })
    .await;

    let mut stream = connection.into_parts().io.into_inner().stream;
    match end {
        End::Closed | End::Quiet => {
            // The client may be gone already.
            let _ = stream.shutdown().await;
        }
        End::Refused(status) => refuse(stream, head_problem(status)).await,
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    mut router: Router,
    watch: Watch,
) -> Result<Response<Held>, Infallible> {
    watch.enter(Phase::Busy);
    let busy = Arc::new(Busy(watch));
    let held = busy.clone();
    let mut request = request.map(|body| {
        Body::new(RequestBody {
            body: Some(body),
            busy,
        })
    });
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = router.call(request).await?;
    Ok(response.map(|body| Held { body, _busy: held }))
}

/// What a head that never became a request is answered with.
fn head_problem(status: StatusCode) -> Problem {
    match status {
        StatusCode::REQUEST_TIMEOUT => Problem::new(status, "request-timeout", "Request timed out")
            .detail("the request's headers took too long to arrive"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            Problem::new(status, "headers-too-large", "Request headers too large")
        }
        StatusCode::URI_TOO_LONG => Problem::new(status, "uri-too-long", "URI too long"),
        _ => Problem::malformed("this is no well-formed HTTP/1.1 request"),
    }
}

/// Answers on a bare socket, for the last time.
pub(crate) async fn refuse(mut stream: TcpStream, problem: Problem) {
    let (parts, body) = problem.into_response().into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let reason = parts.status.canonical_reason().unwrap_or("");
    let mut answer = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_u16()).into_bytes();
    for (name, value) in &parts.headers {
        if name != http::header::CONTENT_LENGTH {
            answer.extend_from_slice(name.as_str().as_bytes());
            answer.extend_from_slice(b": ");
            answer.extend_from_slice(value.as_bytes());
            answer.extend_from_slice(b"\r\n");
        }
    }
    answer
        .extend_from_slice(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes());
    answer.extend_from_slice(&body);
    let farewell = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        let mut rest = (&mut stream).take(LINGER_BYTES_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Whether the client hears it is up to the client.
    let _ = tokio::time::timeout(LINGER, farewell).await;
}

/// A request's body. If the service does not want the rest of it, the rest is read and dropped, within bounds.
struct RequestBody {
    /// None only after drop has taken it.
    body: Option<Incoming>,
    busy: Arc<Busy>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        let busy = self.busy.clone();
        let rest = async move {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                if bytes > LINGER_BYTES_MAX {
                    break;
                }
            }
            drop(busy);
        };
        // Bodies are dropped inside the runtime; at its very end there is nobody left to be polite to.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER, rest));
        }
    }
}

/// An answer's body, which keeps its connection busy until it is through.
struct Held {
    body: Body,
    _busy: Arc<Busy>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket, watched.
struct Wire {
    stream: TcpStream,
    watch: Watch,
    /// How long a write may make no progress.
    stall: Duration,
    /// Runs while a write makes none.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// hyper writes while a head is still incomplete only to refuse it: takes note of the status instead, so that the
    /// supervisor answers. Not while an earlier answer is stuck half-written.
    fn refusal(&self, bytes: &[u8]) -> bool {
        self.watch.with(|state| {
            if state.refused.is_some() {
                return true;
            }
            if state.phase != Phase::Head || self.stalled.is_some() {
                return false;
            }
            let status = bytes.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
            let status = status.and_then(|digits| StatusCode::from_bytes(digits).ok());
            state.refused = status.filter(StatusCode::is_client_error);
            state.refused.is_some()
        })
    }

    /// Passes a write's outcome on; one that has made no progress for too long is an error.
    fn progress(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let stall = self.stall;
        let timer = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.watch.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.refusal(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices
            .iter()
            .find(|slice| !slice.is_empty())
            .is_some_and(|first| self.refusal(first))
        {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.progress(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
