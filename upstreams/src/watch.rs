//! Watching over a pool's replicas: which there are, and whether they say that they can serve.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use futures_util::future::join_all;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Limited};
use metrics::gauge;
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::pool::{Shared, uri};
use crate::replica::Replica;

/// Replicas of one service that we know at once; a name that resolves to more is a mistake.
const REPLICAS_MAX: usize = 64;

/// What is read of the answer to a check.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Watches until `stopping`: the names every so often (at every check while they resolve to nothing), the replicas more
/// often.
pub(crate) async fn run(shared: Arc<Shared>, stopping: CancellationToken) {
    let options = &shared.options;
    let mut resolve_at = Instant::now() + options.resolve_every;
    // At once, so that a replica that is down at the start is known before it costs requests much.
    let mut check_at = Instant::now();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = sleep_until(check_at) => {}
        }
        let round = async {
            if Instant::now() >= resolve_at || shared.replicas().is_empty() {
                resolve(&shared).await;
                resolve_at = Instant::now() + options.resolve_every;
            }
            check_all(&shared).await;
        };
        tokio::select! {
            () = stopping.cancelled() => return,
            () = round => {}
        }
        check_at = Instant::now() + options.check_every;
    }
}

/// Resolves all names. Replicas that stay keep what is known of them; a name that does not resolve just now keeps its
/// replicas too, because a name server may be away as well.
pub(crate) async fn resolve(shared: &Shared) {
    let known = shared.replicas();
    let lookups = shared
        .authorities
        .iter()
        .map(|authority| timeout(shared.options.check_timeout, addresses(authority)));
    let resolved = join_all(lookups).await;
    let mut found: BTreeMap<SocketAddr, Arc<Replica>> = BTreeMap::new();
    for (authority, addresses) in shared.authorities.iter().zip(resolved) {
        let addresses = match addresses {
            Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
            Ok(Ok(_) | Err(_)) | Err(_) => {
                let before = known
                    .iter()
                    .filter(|replica| replica.host.as_bytes() == authority.as_str().as_bytes());
                before.map(|replica| replica.address).collect()
            }
        };
        for address in addresses {
            let replica = known
                .iter()
                .find(|replica| replica.address == address)
                .cloned()
                .or_else(|| Replica::new(address, authority, &shared.options).map(Arc::new));
            if let Some(replica) = replica.filter(|_| found.len() < REPLICAS_MAX) {
                found.insert(address, replica);
            }
        }
    }
    let same = known.len() == found.len() && known.iter().all(|replica| found.contains_key(&replica.address));
    if !same {
        let addresses: Vec<&SocketAddr> = found.keys().collect();
        tracing::info!(
            upstream = shared.options.name,
            ?addresses,
            "the replicas have changed"
        );
        shared.replace(found.into_values().collect());
    }
}

async fn addresses(authority: &Authority) -> std::io::Result<Vec<SocketAddr>> {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let all: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    // A machine that has both kinds of address would be two replicas.
    let has_v4 = all.iter().any(SocketAddr::is_ipv4);
    Ok(all
        .into_iter()
        .filter(|address| address.is_ipv4() == has_v4)
        .collect())
}

async fn check_all(shared: &Shared) {
    let replicas = shared.replicas();
    join_all(replicas.iter().map(|replica| check(shared, replica))).await;
    let ready = replicas.iter().filter(|replica| replica.is_ready()).count();
    for (state, count) in [("ready", ready), ("away", replicas.len() - ready)] {
        gauge!("omisys_upstream_replicas", "upstream" => shared.options.name, "state" => state)
            .set(count as f64);
    }
}

async fn check(shared: &Shared, replica: &Replica) {
    let answered = timeout(shared.options.check_timeout, ask(shared, replica)).await;
    let problem = answered.unwrap_or(Some("no answer in time".to_owned()));
    let serves = problem.is_none();
    if replica.checked(serves) {
        let (upstream, address) = (shared.options.name, replica.address);
        if let Some(problem) = problem {
            tracing::warn!(upstream, %address, problem, "a replica cannot serve");
        } else {
            tracing::info!(upstream, %address, "a replica can serve again");
        }
    }
}

/// What is wrong with the replica, if anything is.
async fn ask(shared: &Shared, replica: &Replica) -> Option<String> {
    let path = PathAndQuery::from_static(shared.options.check_path);
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri(replica, Some(&path)).ok()?;
    let host: HeaderValue = replica.host.clone();
    request.headers_mut().insert(HOST, host);
    let answer = match shared.client.request(request).await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return Some("no connection".to_owned()),
        Err(_) => return Some("the connection was lost".to_owned()),
    };
    let status = answer.status();
    // Read to its end, so that the connection can be used again.
    let rest = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    match rest {
        Ok(_) if status.is_success() => None,
        Ok(_) => Some(format!("it answers {status}")),
        Err(_) => Some("its answer was cut".to_owned()),
    }
}
