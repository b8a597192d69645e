//! `mm train` and `mm eval` as one of several processes.

use anyhow::Result;
use mm_core::DeviceConfig;
use mm_dist::{Launch, ProcessGroup};
use mm_train::{RunConfig, changed_keys};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::time::Duration;
use tch::Device;

/// The exit code of a process that ended only because another one did, so that a launcher knows whose error
/// to show.
pub const LOST: u8 = 75;

/// Joins the process group and checks that all ranks have the same `resolved` configuration.
pub fn join(run: &RunConfig, resolved: &str) -> Result<(ProcessGroup, Device)> {
    join_on(&run.device, run.timeout(), resolved)
}

/// As [`join`], without the configuration of a run: `timeout` bounds the rendezvous and every collective.
pub fn join_on(device: &DeviceConfig, timeout: Duration, resolved: &str) -> Result<(ProcessGroup, Device)> {
    follow_launcher();
    let launch = Launch::from_env()?;
    let device = device.resolve_for(launch.local_rank)?;
    let group = ProcessGroup::join(&launch, device, timeout)?;
    group.assert_same_on_all_ranks("configuration", resolved, |main, own| {
        changed_keys(main, own).join(" and ")
    })?;
    Ok((group, device))
}

/// Sends this process an interrupt, as Ctrl-C does, when its launcher is killed: `cargo xtask` passes its
/// process id in `MM_LAUNCHER`. Nothing else would end the process.
fn follow_launcher() {
    let launcher = std::env::var("MM_LAUNCHER").ok().and_then(|number| Pid::from_raw(number.parse().ok()?));
    if launcher.is_some() && launcher == getppid() {
        let followed = set_parent_process_death_signal(Some(Signal::INT));
        followed.unwrap_or_else(|error| tracing::warn!("the process may outlive its launcher: {error}"));
    }
}

/// Whether another process failed, and this one only lost it.
pub fn is_lost(error: &anyhow::Error) -> bool {
    let is_stopped = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(mm_train::Error::Stopped))
    };
    mm_dist::is_lost(error.as_ref()) || error.chain().any(is_stopped)
}
