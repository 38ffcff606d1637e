//! What the gateway counts, in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::routes::Target;

/// Upper bounds of the latency buckets, in microseconds.
const BUCKETS_MICROS: [u64; 11] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000,
];

const SERVICES: [&str; 4] = ["command", "query", "identity", "gateway"];

/// Counters of one gateway. Nothing a client sends becomes a label.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    services: [ServiceMetrics; SERVICES.len()],
    connections: AtomicUsize,
    connections_refused: AtomicU64,
}

#[derive(Debug, Default)]
struct ServiceMetrics {
    /// By the first digit of the status, 1 to 5.
    by_class: [AtomicU64; 5],
    limited: AtomicU64,
    shed: AtomicU64,
    buckets: [AtomicU64; BUCKETS_MICROS.len()],
    micros: AtomicU64,
    count: AtomicU64,
}

impl Metrics {
    pub(crate) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_refused(&self) {
        self.connections_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer; `target` is none where no route matched.
    pub(crate) fn answered(&self, target: Option<Target>, status: StatusCode, took: Duration) {
        let name = target.map_or("gateway", Target::name);
        let Some(index) = SERVICES.iter().position(|service| *service == name) else {
            return;
        };
        let service = &self.services[index];
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        service.by_class[class].fetch_add(1, Ordering::Relaxed);
        match status {
            StatusCode::TOO_MANY_REQUESTS => service.limited.fetch_add(1, Ordering::Relaxed),
            StatusCode::SERVICE_UNAVAILABLE => service.shed.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = BUCKETS_MICROS.iter().position(|bound| micros <= *bound) {
            service.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        service.micros.fetch_add(micros, Ordering::Relaxed);
        service.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The text of `/metrics`.
    pub(crate) fn render(&self, in_flight: usize, streams: usize) -> String {
        let mut text = String::with_capacity(4_096);
        // Writing to a String does not fail.
        let _ = self.write(&mut text, in_flight, streams);
        text
    }

    fn write(&self, out: &mut String, in_flight: usize, streams: usize) -> std::fmt::Result {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let all = || SERVICES.iter().zip(&self.services);
        writeln!(out, "# TYPE omisys_http_requests_total counter")?;
        for (name, service) in all() {
            for (class, counter) in (1..).zip(&service.by_class) {
                writeln!(
                    out,
                    "omisys_http_requests_total{{service=\"{name}\",class=\"{class}xx\"}} {}",
                    read(counter)
                )?;
            }
        }
        writeln!(out, "# TYPE omisys_http_refused_total counter")?;
        for (name, service) in all() {
            for (reason, counter) in [("limited", &service.limited), ("unavailable", &service.shed)] {
                let count = read(counter);
                writeln!(
                    out,
                    "omisys_http_refused_total{{service=\"{name}\",reason=\"{reason}\"}} {count}"
                )?;
            }
        }
        writeln!(out, "# TYPE omisys_http_request_seconds histogram")?;
        for (name, service) in all() {
            let mut cumulative = 0;
            for (bound, counter) in BUCKETS_MICROS.iter().zip(&service.buckets) {
                cumulative += read(counter);
                let seconds = Duration::from_micros(*bound).as_secs_f64();
                writeln!(
                    out,
                    "omisys_http_request_seconds_bucket{{service=\"{name}\",le=\"{seconds}\"}} {cumulative}"
                )?;
            }
            let (count, sum) = (
                read(&service.count),
                Duration::from_micros(read(&service.micros)).as_secs_f64(),
            );
            writeln!(
                out,
                "omisys_http_request_seconds_bucket{{service=\"{name}\",le=\"+Inf\"}} {count}"
            )?;
            writeln!(out, "omisys_http_request_seconds_sum{{service=\"{name}\"}} {sum}")?;
            writeln!(
                out,
                "omisys_http_request_seconds_count{{service=\"{name}\"}} {count}"
            )?;
        }
        let connections = self.connections.load(Ordering::Relaxed);
        for (name, value) in [
            ("omisys_http_connections", connections),
            ("omisys_http_requests_in_flight", in_flight),
            ("omisys_http_streams", streams),
        ] {
            writeln!(out, "# TYPE {name} gauge\n{name} {value}")?;
        }
        let refused = read(&self.connections_refused);
        writeln!(out, "# TYPE omisys_http_connections_refused_total counter")?;
        writeln!(out, "omisys_http_connections_refused_total {refused}")
    }
}
