//! The time that libtorch's OpenMP threads spin at a barrier.
//!
//! They spin for milliseconds by default, which is free on idle cores. Beside another busy process a spinning
//! thread keeps the core from the thread that it waits for, and a step takes ten times as long.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Rounds of libgomp's waiting loop before a thread sleeps, some microseconds: as fast as spinning on quiet
/// cores, and near a fair share of busy ones.
const SPIN_COUNT: &str = "1000";

/// Re-executes the program with a short spin, unless the user has set one: libgomp reads its settings before
/// `main`.
pub fn shorten_spin() {
    if ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"].iter().any(|name| env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    let error = again.args(arguments).env("GOMP_SPINCOUNT", SPIN_COUNT).exec();
    tracing::warn!("cannot re-execute with GOMP_SPINCOUNT={SPIN_COUNT}: {error}");
}
