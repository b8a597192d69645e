use crate::error::{first_line, seconds};
use crate::{Error, Launch, Result};
use mm_sys::TcpStore;
use std::time::{Duration, Instant};

/// Whoever waits says so this often: a run that begins with silence looks broken.
const WORD_EVERY: Duration = Duration::from_secs(10);

/// Opens the store where all processes of `launch` meet and waits until they are there.
///
/// # Errors
/// The place cannot be held or reached, a process does not come within `timeout`, or two claim one rank.
pub(crate) fn rendezvous(launch: &Launch, timeout: Duration) -> Result<TcpStore> {
    let Launch { rank, world, .. } = *launch;
    let place = format!("{}:{}", launch.host, launch.port);
    let deadline = Instant::now() + timeout;
    let store = open(launch, &place, timeout)?;
    let lost = |error: mm_sys::Error| {
        let reason = first_line(&error.0);
        Error::rendezvous(format!("the meeting place {place} is gone, with rank 0 or the launcher: {reason}"))
    };
    if store.add(&format!("claimed/{rank}"), 1).map_err(lost)? > 1 {
        return Err(Error::rendezvous(format!(
            "two processes call themselves rank {rank}: give each a RANK of its own"
        )));
    }
    store.set(&joined(rank), b"").map_err(lost)?;
    // Rank 0 waits for each; the others wait for its word, a little longer than it does.
    let (awaited, deadline) = match rank {
        0 => ((0..world).map(joined).collect(), deadline),
        _ => (vec!["all here".to_owned()], deadline + Duration::from_secs(5)),
    };
    for key in awaited {
        let begun = Instant::now();
        while let Err(error) =
            store.get(&key, WORD_EVERY.min(deadline.saturating_duration_since(Instant::now())))
        {
            let missing = missing(&store, world).map_err(|_| lost(error))?;
            if Instant::now() >= deadline {
                let timeout = seconds(timeout);
                return Err(Error::rendezvous(format!(
                    "of {world} processes, rank {missing} did not come to {place} within {timeout}: start all of them, with the same WORLD_SIZE"
                )));
            }
            tracing::warn!(
                "rank {rank} has waited {} for rank {missing} to come to {place}",
                seconds(begun.elapsed())
            );
        }
    }
    if rank == 0 {
        store.set("all here", b"").map_err(lost)?;
    }
    Ok(store)
}

/// Holds the store, or connects to who does.
fn open(launch: &Launch, place: &str, timeout: Duration) -> Result<TcpStore> {
    let Launch { rank, host, port, prefix, .. } = launch;
    let begun = Instant::now();
    if *rank == 0 && !launch.is_held_by_launcher {
        return TcpStore::open(host, *port, true, timeout, prefix).map_err(|error| {
            let reason = first_line(&error.0);
            Error::rendezvous(match reason.contains("EADDRINUSE") {
                true => format!(
                    "port {port} is in use on this machine: end what uses it, or set another MASTER_PORT for all processes"
                ),
                false => format!("rank 0 cannot listen on port {port}: {reason}"),
            })
        });
    }
    loop {
        let left = timeout.saturating_sub(begun.elapsed());
        match TcpStore::open(host, *port, false, WORD_EVERY.min(left), prefix) {
            Ok(store) => return Ok(store),
            Err(error) if left <= WORD_EVERY => {
                let (timeout, reason) = (seconds(timeout), first_line(&error.0));
                return Err(Error::rendezvous(format!(
                    "rank {rank} cannot reach rank 0 at {place} within {timeout}: check MASTER_ADDR and MASTER_PORT, that rank 0 runs, and that no firewall is between ({reason})"
                )));
            }
            Err(_) => {
                tracing::warn!("rank {rank} has waited {} for rank 0 at {place}", seconds(begun.elapsed()));
            }
        }
    }
}

fn joined(rank: usize) -> String {
    format!("joined/{rank}")
}

/// Who is not there yet: `1, 3`.
fn missing(store: &TcpStore, world: usize) -> mm_sys::Result<String> {
    let mut absent = Vec::new();
    for rank in 0..world {
        if !store.has(&joined(rank))? {
            absent.push(rank.to_string());
        }
    }
    Ok(absent.join(", "))
}
