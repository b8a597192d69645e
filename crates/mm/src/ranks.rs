//! What `mm train` and `mm eval` do as one of several processes.

use anyhow::Result;
use mm_dist::{Launch, ProcessGroup};
use mm_train::{RunConfig, changed_keys};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tch::Device;

/// The exit code of a process that ended only because another one did, so that a launcher knows whose error
/// to show.
pub const LOST: u8 = 75;

/// Meets the other processes that were started with this one, if any, and makes sure that all run the same
/// `resolved` configuration.
pub fn join(run: &RunConfig, resolved: &str) -> Result<(ProcessGroup, Device)> {
    follow_launcher();
    let launch = Launch::from_env()?;
    let device = run.device.resolve_for(launch.local_rank)?;
    let group = ProcessGroup::join(&launch, device, run.timeout())?;
    group.assert_same_on_all_ranks("configuration", resolved, |main, own| {
        changed_keys(main, own).join(" and ")
    })?;
    Ok((group, device))
}

/// Has this process interrupted, as by Ctrl-C, when its launcher is killed: `cargo xtask` gives its number in
/// `MM_LAUNCHER`. Nothing else would end it.
fn follow_launcher() {
    let launcher = std::env::var("MM_LAUNCHER").ok().and_then(|number| Pid::from_raw(number.parse().ok()?));
    if launcher.is_some() && launcher == getppid() {
        let followed = set_parent_process_death_signal(Some(Signal::INT));
        followed.unwrap_or_else(|error| tracing::warn!("the process would outlive its launcher: {error}"));
    }
}

/// Whether `error` says that another process failed, and nothing here did.
pub fn is_lost(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<mm_dist::Error>().is_some_and(mm_dist::Error::is_lost)
            || cause.downcast_ref::<mm_train::Error>().is_some_and(mm_train::Error::is_lost)
            || matches!(cause.downcast_ref(), Some(mm_clip::Error::Dist(error)) if error.is_lost())
    })
}
