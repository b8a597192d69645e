//! The parts that the benchmarks share.

use mm_core::Precision;

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
        "peak_mb": peak_mb()?,
        "gflop_per_iteration": gflop,
    });
    println!("{result}");
    Ok(())
}

/// The peak resident memory of this process, in MB.
fn peak_mb() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    Ok(line.trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}
