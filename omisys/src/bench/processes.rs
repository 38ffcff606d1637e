//! What processes use while a load runs, as Linux counts it; elsewhere nothing is told.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Ticks a second of `/proc/PID/stat`: `USER_HZ`, which is 100 on every architecture that Rust has Linux for, see proc(5).
const TICKS: f64 = 100.0;
const EVERY: Duration = Duration::from_secs(1);

/// What one process used.
#[derive(Debug, Clone)]
pub struct Use {
    pub name: String,
    /// Seconds of processor a second.
    pub cpu: f64,
    /// Resident bytes, of which the peak is the most that was seen once a second.
    pub rss_start: u64,
    pub rss_peak: u64,
    pub rss_end: u64,
}

struct Seen {
    name: String,
    pid: u32,
    cpu_start: f64,
    cpu_end: f64,
    rss: [u64; 3],
}

/// Watches these processes, and this one, until the load is over.
pub async fn watch(pids: Vec<(String, u32)>, over: CancellationToken) -> Vec<Use> {
    let own = (OWN.to_owned(), std::process::id());
    let began = Instant::now();
    let mut all: Vec<Seen> = [own]
        .into_iter()
        .chain(pids)
        .filter_map(|(name, pid)| {
            let (cpu, rss) = (cpu_seconds(pid)?, rss_bytes(pid)?);
            Some(Seen {
                name,
                pid,
                cpu_start: cpu,
                cpu_end: cpu,
                rss: [rss; 3],
            })
        })
        .collect();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = over.cancelled() => true,
        };
        for seen in &mut all {
            // One that is gone keeps what was seen of it.
            if let (Some(cpu), Some(rss)) = (cpu_seconds(seen.pid), rss_bytes(seen.pid)) {
                seen.cpu_end = cpu;
                seen.rss[1] = seen.rss[1].max(rss);
                seen.rss[2] = rss;
            }
        }
        if last {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64().max(0.001);
    let used = all.into_iter().map(|seen| Use {
        name: seen.name,
        cpu: (seen.cpu_end - seen.cpu_start) / seconds,
        rss_start: seen.rss[0],
        rss_peak: seen.rss[1],
        rss_end: seen.rss[2],
    });
    used.collect()
}

/// The name of this process, which makes the load.
pub const OWN: &str = "bench";

/// User and system time of all threads. The name, which may hold anything, ends with the last `)`.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

fn rss_bytes(pid: u32) -> Option<u64> {
    kib(
        &std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?,
        "VmRSS:",
    )
}

/// A line such as `VmRSS:  1234 kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

/// What it ran on.
pub fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, model)| model.trim());
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map(std::num::NonZero::get).ok(),
        "memory_bytes": kib(&read("/proc/meminfo"), "MemTotal:"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_average": read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse::<f64>().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_process_is_watched_where_there_is_proc() {
        if !std::path::Path::new("/proc/self/stat").exists() {
            return;
        }
        let over = CancellationToken::new();
        over.cancel();
        let used = watch(vec![("gone".to_owned(), u32::MAX)], over).await;
        assert_eq!(used.len(), 1, "a process that is not there is left out");
        assert_eq!(used[0].name, OWN);
        assert!(used[0].rss_peak >= used[0].rss_start && used[0].rss_start > 0);
    }
}
