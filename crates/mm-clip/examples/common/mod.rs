//! The parts that the benchmarks share.

use mm_core::{Precision, peak_memory};

/// Prints one line of JSON, as `xtask/peers/` does for the peers: the seconds of each iteration, and its
/// items and work.
pub fn print_result(
    work: &str,
    precision: Precision,
    items: usize,
    seconds: &[f64],
    gflop: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let result = serde_json::json!({
        "work": work,
        "precision": precision,
        "items_per_iteration": items,
        "seconds": seconds,
        "peak_mb": peak_memory().ok_or("the system reports no peak memory")? as f64 / (1 << 20) as f64,
        "gflop_per_iteration": gflop,
    });
    println!("{result}");
    Ok(())
}
