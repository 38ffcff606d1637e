//! The accept loop: caps on connections, and a shutdown that is soft first and hard later.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use http_conventions::{ClientAddress, Problem};
use metrics::{Gauge, counter, gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::GatewayConfig;
use crate::{Gateway, connection};

/// Connections beyond the caps that are told so at once; what comes beyond these is closed unheard.
const REFUSALS_MAX: usize = 64;

/// How long to wait when the system cannot accept (out of file descriptors): trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `gateway` on `listener` until `soft` is cancelled, then lets requests in flight finish: until they are done,
/// `hard` is cancelled, or the configured drain time is over, whichever comes first.
pub async fn serve(
    listener: TcpListener,
    gateway: Gateway,
    soft: CancellationToken,
    hard: CancellationToken,
) {
    let listening = Listening {
        service: "gateway",
        router: gateway.router(),
        config: gateway.config(),
        stopping: gateway.stopping(),
    };
    listen(listener, listening, soft, hard).await;
}

/// What a listener serves.
pub(crate) struct Listening {
    /// The service's name in metrics.
    pub(crate) service: &'static str,
    pub(crate) router: Router,
    /// Of which the listener takes caps and time-outs of connections.
    pub(crate) config: Arc<GatewayConfig>,
    /// Cancelled here when shutdown begins: event streams and `/readyz` hear of it this way.
    pub(crate) stopping: CancellationToken,
}

/// The accept loop of a gateway or of a service.
pub(crate) async fn listen(
    listener: TcpListener,
    listening: Listening,
    soft: CancellationToken,
    hard: CancellationToken,
) {
    let Listening {
        service,
        router,
        config,
        stopping,
    } = listening;
    let tracker = TaskTracker::new();
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let connections = Arc::new(Connections {
        all: Arc::new(Semaphore::new(config.connections_max)),
        by_address: Mutex::default(),
        open: gauge!("omisys_http_connections", "service" => service),
    });
    // Ends with the drain time too, which is ours, while `hard` is the caller's.
    let end = hard.child_token();

    loop {
        let (stream, peer) = tokio::select! {
            () = soft.cancelled() => break,
            () = hard.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_the_connections(&error) => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let exempt = config
            .trusted_proxies
            .iter()
            .any(|proxy| proxy.contains(peer.ip()));
        let limit = if exempt {
            config.connections_max
        } else {
            config.connections_per_address_max
        };
        let Some(place) = connections.take(ClientAddress(Some(peer.ip())).bucket(), limit) else {
            counter!("omisys_http_connections_refused_total", "service" => service).increment(1);
            if let Ok(permit) = refusals.clone().try_acquire_owned() {
                tracker.spawn(until(end.clone(), refuse(stream, permit)));
            }
            continue;
        };
        // Answers are small and whole: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let serving = connection::serve(stream, peer, router.clone(), config.clone(), stopping.clone());
        tracker.spawn(until(end.clone(), async move {
            serving.await;
            drop(place);
        }));
    }

    drop(listener);
    stopping.cancel();
    tracker.close();
    tokio::select! {
        () = tracker.wait() => return,
        () = hard.cancelled() => {}
        () = tokio::time::sleep(config.drain_timeout()) => {
            tracing::warn!(connections = tracker.len(), "requests in flight did not finish in time");
        }
    }
    end.cancel();
    tracker.wait().await;
}

async fn until(end: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = end.cancelled() => {}
        () = task => {}
    }
}

async fn refuse(stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let problem =
        Problem::unavailable("too many connections", Duration::from_secs(1)).detail("too many connections");
    connection::refuse(stream, problem).await;
}

/// Errors that concern only the one connection that was to be accepted.
fn is_the_connections(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// Counts open connections, in all and by address.
struct Connections {
    all: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    open: Gauge,
}

/// One open connection among those that count.
struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    fn take(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Place> {
        let permit = self.all.clone().try_acquire_owned().ok()?;
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let open = by_address.entry(address).or_default();
        if *open >= limit {
            return None;
        }
        *open += 1;
        self.open.increment(1.0);
        Some(Place {
            connections: self.clone(),
            address,
            _permit: permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.decrement(1.0);
        let mut by_address = self
            .connections
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by_address.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}
