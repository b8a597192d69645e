//! The threads that read samples, and the queue that puts their results back in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::position::rng;
use super::{Map, STALL};
use crate::{Error, Result, Source};

/// One sample to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    /// Its place in the order of all tickets.
    pub number: u64,
    pub epoch: u64,
    /// Its index in the data set.
    pub sample: usize,
}

/// What became of a ticket.
pub(super) struct Outcome<T> {
    pub ticket: Ticket,
    pub key: String,
    /// The mapped sample, or why it is bad.
    pub item: std::result::Result<T, String>,
}

/// Worker threads over one source. Tickets go in by number and outcomes come out by number.
pub(super) struct Workers<T> {
    source: Arc<dyn Source>,
    tickets: Option<Sender<Ticket>>,
    outcomes: Receiver<Outcome<T>>,
    early: BTreeMap<u64, Outcome<T>>,
    sent: u64,
    taken: u64,
    pub waiting: Duration,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Workers<T> {
    pub fn start(source: &Arc<dyn Source>, map: &Map<T>, seed: u64, count: usize) -> Result<Self> {
        let (tickets, to_do) = unbounded::<Ticket>();
        let (done, outcomes) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|number| {
                let (source, map) = (source.clone(), map.clone());
                let (to_do, done, stop) = (to_do.clone(), done.clone(), stop.clone());
                let work = move || {
                    for ticket in to_do {
                        if stop.load(Ordering::Relaxed) || done.send(read(&*source, &map, seed, ticket)).is_err() {
                            return;
                        }
                    }
                };
                let name = format!("mm-data-{number}");
                std::thread::Builder::new().name(name.clone()).spawn(work).map_err(Error::io(name))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            source: source.clone(),
            tickets: Some(tickets),
            outcomes,
            early: BTreeMap::new(),
            sent: 0,
            taken: 0,
            waiting: Duration::ZERO,
            stop,
            threads,
        })
    }

    /// Tickets whose outcome was not taken yet.
    pub fn in_flight(&self) -> usize {
        (self.sent - self.taken) as usize
    }

    /// Hands in the next sample to read.
    pub fn send(&mut self, epoch: u64, sample: usize) {
        let ticket = Ticket { number: self.sent, epoch, sample };
        self.sent += 1;
        // It fails only when all workers are gone, which the next `take` reports.
        let _ = self.tickets.as_ref().map(|tickets| tickets.send(ticket));
    }

    /// The outcome of the oldest ticket. Waits for it, and says so when that takes long.
    pub fn take(&mut self) -> Result<Outcome<T>> {
        let begun = Instant::now();
        let mut said = 0;
        while !self.early.contains_key(&self.taken) {
            match self.outcomes.recv_timeout(STALL) {
                Ok(outcome) => {
                    self.early.insert(outcome.ticket.number, outcome);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::WorkersGone { name: self.source.name().to_owned() });
                }
            }
            // Others may arrive while the awaited one hangs: the clock counts, not the silence of the channel.
            if begun.elapsed().as_secs() / STALL.as_secs() > said {
                said = begun.elapsed().as_secs() / STALL.as_secs();
                self.warn_of_stall(begun.elapsed());
            }
        }
        self.waiting += begun.elapsed();
        let outcome = self.early.remove(&self.taken);
        self.taken += 1;
        outcome.ok_or_else(|| Error::WorkersGone { name: self.source.name().to_owned() })
    }

    fn warn_of_stall(&self, waited: Duration) {
        tracing::warn!(
            source = self.source.name(),
            waited_s = waited.as_secs(),
            samples_done = self.taken,
            ready_behind_it = self.early.len(),
            in_flight = self.in_flight(),
            workers_alive = self.threads.iter().filter(|thread| !thread.is_finished()).count(),
            "the loader waits for one sample: is its disk or network slow?"
        );
    }
}

impl<T> Drop for Workers<T> {
    /// Each worker ends after the sample it is at.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tickets = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Reads and maps one sample. A panic inside (a decoder's bug, say) makes the sample bad and nothing worse.
fn read<T>(source: &dyn Source, map: &Map<T>, seed: u64, ticket: Ticket) -> Outcome<T> {
    let mut key = format!("#{}", ticket.sample);
    let item = catch_unwind(AssertUnwindSafe(|| {
        let sample = source.sample(ticket.sample)?;
        key.clone_from(&sample.key);
        map(&sample, &mut rng(seed, ticket.epoch, ticket.sample as u64))
    }));
    let item = match item {
        Ok(item) => item.map_err(|error| error.to_string()),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("panicked: {}", said.unwrap_or_default()))
        }
    };
    Outcome { ticket, key, item }
}
