//! Counts of requests and batches, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Seconds; a request of an embedding takes milliseconds, one of an image minutes.
const LATENCY_BOUNDS: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

/// Texts and images of a batch.
const BATCH_BOUNDS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// A histogram with fixed bounds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: [f64; N],
    /// Of each bound alone, then above the last.
    counts: [AtomicU64; N],
    above: AtomicU64,
    /// In millionths.
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [f64; N]) -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, counts, above: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    fn record(&self, value: f64) {
        let bucket = self.bounds.iter().position(|&bound| value <= bound);
        let count = bucket.and_then(|bucket| self.counts.get(bucket)).unwrap_or(&self.above);
        count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    /// The lines of the histogram `name` with the label `label`.
    fn write(&self, to: &mut String, name: &str, label: &str) {
        let mut total = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            total += count.load(Ordering::Relaxed);
            let _ = writeln!(to, "{name}_bucket{{{label},le=\"{bound}\"}} {total}");
        }
        total += self.above.load(Ordering::Relaxed);
        let sum = self.sum.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(to, "{name}_bucket{{{label},le=\"+Inf\"}} {total}");
        let _ = writeln!(to, "{name}_sum{{{label}}} {sum}\n{name}_count{{{label}}} {total}");
    }
}

/// The batches of a model.
#[derive(Debug)]
pub struct BatchSizes(Histogram<9>);

impl Default for BatchSizes {
    fn default() -> Self {
        Self(Histogram::new(BATCH_BOUNDS))
    }
}

impl BatchSizes {
    /// Counts a batch of `items` texts and images.
    pub fn record(&self, items: usize) {
        self.0.record(items as f64);
    }
}

/// The requests of the server.
#[derive(Debug, Default)]
pub struct Metrics {
    in_flight: AtomicI64,
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    latencies: Mutex<BTreeMap<&'static str, Histogram<12>>>,
}

/// A model, as [`Metrics::text`] shows it.
#[derive(Debug)]
pub struct ModelMetrics<'a> {
    /// Its name.
    pub name: &'a str,
    /// The requests that wait for it.
    pub queued: usize,
    /// Its batches.
    pub batches: &'a BatchSizes,
}

/// A request that is being handled, until it is dropped.
#[derive(Debug)]
pub struct InFlight<'a>(&'a AtomicI64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request as in flight.
    pub fn begin(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(&self.in_flight)
    }

    /// Counts a request of `route` that was answered with `status` after `elapsed`.
    pub fn record(&self, route: &'static str, status: u16, elapsed: Duration) {
        *lock(&self.requests).entry((route, status)).or_default() += 1;
        let mut latencies = lock(&self.latencies);
        let latency = latencies.entry(route).or_insert_with(|| Histogram::new(LATENCY_BOUNDS));
        latency.record(elapsed.as_secs_f64());
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    pub fn text<'a>(&self, models: impl Iterator<Item = ModelMetrics<'a>>) -> String {
        let mut to = String::new();
        head(&mut to, "mm_requests_total", "counter", "Requests by route and status.");
        for ((route, status), count) in lock(&self.requests).iter() {
            let _ = writeln!(to, "mm_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}");
        }
        head(&mut to, "mm_request_seconds", "histogram", "Time to the answer; of a stream to its head.");
        for (route, latency) in lock(&self.latencies).iter() {
            latency.write(&mut to, "mm_request_seconds", &format!("route=\"{route}\""));
        }
        head(&mut to, "mm_requests_in_flight", "gauge", "Requests without an answer yet.");
        let _ = writeln!(to, "mm_requests_in_flight {}", self.in_flight.load(Ordering::Relaxed));
        let models: Vec<_> = models.collect();
        head(&mut to, "mm_queue_depth", "gauge", "Requests that wait for a model.");
        for model in &models {
            let _ = writeln!(to, "mm_queue_depth{{model=\"{}\"}} {}", model.name, model.queued);
        }
        head(&mut to, "mm_batch_items", "histogram", "Texts and images of a model's batches.");
        for model in &models {
            model.batches.0.write(&mut to, "mm_batch_items", &format!("model=\"{}\"", model.name));
        }
        if let Some(bytes) = resident_memory() {
            head(&mut to, "process_resident_memory_bytes", "gauge", "Resident memory.");
            let _ = writeln!(to, "process_resident_memory_bytes {bytes}");
        }
        to
    }
}

fn head(to: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(to, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The resident memory of this process in bytes, where the system reports it.
fn resident_memory() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_requests_are_counted_by_route_and_status() {
        let metrics = Metrics::default();
        let in_flight = metrics.begin();
        for milliseconds in [1, 3, 3, 200_000] {
            metrics.record("/v1/embeddings", 200, Duration::from_millis(milliseconds));
        }
        metrics.record("/v1/embeddings", 429, Duration::from_millis(1));
        let batches = BatchSizes::default();
        batches.record(3);
        let model = ModelMetrics { name: "clip", queued: 7, batches: &batches };
        let text = metrics.text([model].into_iter());
        for line in [
            "mm_requests_total{route=\"/v1/embeddings\",status=\"200\"} 4",
            "mm_requests_total{route=\"/v1/embeddings\",status=\"429\"} 1",
            "mm_request_seconds_bucket{route=\"/v1/embeddings\",le=\"0.002\"} 2",
            "mm_request_seconds_bucket{route=\"/v1/embeddings\",le=\"0.005\"} 4",
            "mm_request_seconds_bucket{route=\"/v1/embeddings\",le=\"+Inf\"} 5",
            "mm_request_seconds_count{route=\"/v1/embeddings\"} 5",
            "mm_requests_in_flight 1",
            "mm_queue_depth{model=\"clip\"} 7",
            "mm_batch_items_bucket{model=\"clip\",le=\"2\"} 0",
            "mm_batch_items_bucket{model=\"clip\",le=\"4\"} 1",
            "mm_batch_items_sum{model=\"clip\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        drop(in_flight);
        assert!(metrics.text([].into_iter()).contains("mm_requests_in_flight 0"));
    }
}
