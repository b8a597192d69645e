//! What kind of processor this is.

use std::fs;

/// Its name and cores, for tables.
pub fn name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    format!("{} ({cores} cores)", name.map_or("an unnamed processor", |(_, name)| name.trim()))
}

/// Whether it multiplies bf16. Others emulate it, which takes many times as long as f32. mm-core asks the same, out of reach of a
/// program that links no libtorch.
pub fn has_bf16_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}
