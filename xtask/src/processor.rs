//! The name of this machine's processor.

use std::fs;

/// Name and number of cores, for tables.
pub fn name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    format!("{} ({cores} cores)", name.map_or("unknown processor", |(_, name)| name.trim()))
}
