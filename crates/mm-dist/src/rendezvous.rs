//! The rendezvous: all processes of a launch join one TCPStore.

use crate::error::{first_line, seconds};
use crate::{Error, Launch, Result};
use mm_sys::TcpStore;
use std::time::{Duration, Instant};

/// The interval of log messages while processes are missing.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Added to the timeout of all ranks but 0, so that rank 0 reports missing ranks first.
const GRACE: Duration = Duration::from_secs(5);

/// The key that rank 0 sets once all have joined.
const COMPLETE: &str = "complete";

/// Opens the store of `launch` and waits until all processes have joined it.
///
/// # Errors
/// The store cannot be opened or reached, a process does not join within `timeout`, or two have the same
/// rank.
pub(crate) fn rendezvous(launch: &Launch, timeout: Duration) -> Result<TcpStore> {
    let Launch { rank, world, .. } = *launch;
    let address = format!("{}:{}", launch.host, launch.port);
    let started = Instant::now();
    let store = open(launch, &address, timeout)?;
    let closed = |error: mm_sys::Error| {
        let reason = first_line(&error.0);
        Error::rendezvous(format!("the store at {address} closed, with rank 0 or the launcher: {reason}"))
    };
    if store.add(&format!("count/{rank}"), 1).map_err(closed)? > 1 {
        let problem = format!("two processes have rank {rank}: give each its own RANK");
        return Err(Error::rendezvous(problem));
    }
    store.set(&joined(rank), b"").map_err(closed)?;
    // Rank 0 waits for each rank; the others wait for rank 0.
    let (keys, deadline) = if rank == 0 {
        ((0..world).map(joined).collect(), started + timeout)
    } else {
        (vec![COMPLETE.to_owned()], started + timeout + GRACE)
    };
    for key in keys {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Err(error) = store.get(&key, LOG_INTERVAL.min(left)) else { break };
            let missing = missing(&store, world).map_err(|_| closed(error))?;
            if Instant::now() >= deadline {
                let timeout = seconds(timeout);
                return Err(Error::rendezvous(format!(
                    "rendezvous at {address} timed out after {timeout}: {missing}; \
                     start every process, with the same WORLD_SIZE"
                )));
            }
            let waited = seconds(started.elapsed());
            tracing::warn!("rank {rank} has waited {waited} for the rendezvous at {address}: {missing}");
        }
    }
    if rank == 0 {
        store.set(COMPLETE, b"").map_err(closed)?;
    }
    Ok(store)
}

/// Opens the store as its server, or connects to it.
fn open(launch: &Launch, address: &str, timeout: Duration) -> Result<TcpStore> {
    let Launch { rank, host, port, prefix, .. } = launch;
    let started = Instant::now();
    if *rank == 0 && !launch.launcher_hosts_store {
        return TcpStore::open(host, *port, true, timeout, prefix).map_err(|error| {
            let reason = first_line(&error.0);
            Error::rendezvous(if reason.contains("EADDRINUSE") {
                format!(
                    "port {port} is in use on this machine: \
                     end what uses it, or set another MASTER_PORT for all processes"
                )
            } else {
                format!("rank 0 cannot listen on port {port}: {reason}")
            })
        });
    }
    loop {
        let left = timeout.saturating_sub(started.elapsed());
        match TcpStore::open(host, *port, false, LOG_INTERVAL.min(left), prefix) {
            Ok(store) => return Ok(store),
            Err(error) if left <= LOG_INTERVAL => {
                let (timeout, reason) = (seconds(timeout), first_line(&error.0));
                return Err(Error::rendezvous(format!(
                    "rank {rank} cannot reach rank 0 at {address} within {timeout}: check MASTER_ADDR and \
                     MASTER_PORT, that rank 0 runs, and that no firewall is between ({reason})"
                )));
            }
            Err(_) => {
                tracing::warn!(
                    "rank {rank} has waited {} for rank 0 at {address}",
                    seconds(started.elapsed())
                );
            }
        }
    }
}

/// The key that a rank sets.
fn joined(rank: usize) -> String {
    format!("joined/{rank}")
}

/// The ranks that have not joined: `rank 3 missing (3 of 4 joined)`.
fn missing(store: &TcpStore, world: usize) -> mm_sys::Result<String> {
    let mut missing = Vec::new();
    for rank in 0..world {
        if !store.has(&joined(rank))? {
            missing.push(rank.to_string());
        }
    }
    let ranks = if missing.len() == 1 { "rank" } else { "ranks" };
    Ok(format!("{ranks} {} missing ({} of {world} joined)", missing.join(", "), world - missing.len()))
}
