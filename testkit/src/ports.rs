//! Ports for processes that are to listen on addresses that others know beforehand.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that systems give to outgoing connections (Linux from 32,768, others from 49,152): one of those may be
/// taken between being chosen and being listened on, and between two lives of a process.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// So many different ports of the loopback address on which nobody listens. No port is given twice in one process.
pub(crate) fn free(count: usize) -> std::io::Result<Vec<u16>> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes that run side by side begin at different places.
    let start = std::process::id().wrapping_mul(1_009);
    let mut ports = Vec::with_capacity(count);
    let mut refused = 0;
    while ports.len() < count {
        let next = start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % u32::from(COUNT);
        let port = FIRST + u16::try_from(next).unwrap_or_default();
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => ports.push(port),
            Err(error) if refused >= COUNT => return Err(error),
            Err(_) => refused += 1,
        }
    }
    Ok(ports)
}
