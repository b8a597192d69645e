//! What the benchmarks share.

/// The most memory that this process has had, in MB.
pub fn peak_mb() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    Ok(line.trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}
