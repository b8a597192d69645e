//! The threads that read samples, and the queue that restores the order of their results.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::feed::Feed;
use super::{Item, Map};
use crate::rng::{Domain, rng};
use crate::{BadSample, Error, Fault, Result, Sample};

/// One sample to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    /// The index of the data set in the mix.
    pub part: usize,
    /// The number of the ticket among those of this data set.
    pub number: u64,
    /// The number of the draw, which seeds its random numbers.
    pub draw: u64,
    /// The epoch and place in the data set; unused for a stream.
    pub place: (u64, usize),
}

/// The result of a ticket.
pub(super) struct Outcome<T> {
    pub ticket: Ticket,
    /// The mapped sample with its key and index; `None` where it is bad and not replaced.
    pub item: Option<(T, String, usize)>,
    /// The warning of the sample.
    pub warning: Option<String>,
    /// The bad samples that were tried; the first is the sample of the place itself.
    pub bad: Vec<BadSample>,
    /// Whether the stream has ended.
    pub ended: bool,
}

/// The state that the threads share.
pub(super) struct Shared<T> {
    pub feeds: Vec<Feed>,
    pub map: Map<T>,
    pub seed: u64,
    /// Whether bad samples are replaced.
    pub replace: bool,
    /// For each stream, the number of its first sample in this loader.
    pub first: Vec<u64>,
    /// The encoded bytes read so far.
    pub bytes: AtomicU64,
    /// The current ticket of each thread.
    pub at: Vec<Mutex<Option<Ticket>>>,
}

/// Worker threads. Tickets of a data set are sent in order, and outcomes are taken in the same order.
pub(super) struct Workers<T> {
    shared: Arc<Shared<T>>,
    tickets: Option<Sender<Ticket>>,
    outcomes: Receiver<Outcome<T>>,
    early: BTreeMap<(usize, u64), Outcome<T>>,
    sent: Vec<u64>,
    taken: Vec<u64>,
    pub waiting: Duration,
    /// The time without the next sample after which the cause is logged.
    stall: Duration,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Item> Workers<T> {
    pub fn start(shared: Shared<T>, stall: Duration) -> Result<Self> {
        let (tickets, to_do) = unbounded::<Ticket>();
        let (done, outcomes) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(shared);
        let threads = (0..shared.at.len())
            .map(|number| {
                let shared = shared.clone();
                let to_do = to_do.clone();
                let done = done.clone();
                let stop = stop.clone();
                let work = move || {
                    // Computation on the samples has priority: it is the bottleneck where the loader keeps
                    // up.
                    let _ = rustix::process::nice(NICE);
                    for ticket in to_do {
                        *lock(&shared.at[number]) = Some(ticket);
                        if stop.load(Ordering::Relaxed) || done.send(shared.read(ticket)).is_err() {
                            return;
                        }
                        *lock(&shared.at[number]) = None;
                    }
                };
                let name = format!("mm-data-{number}");
                std::thread::Builder::new().name(name.clone()).spawn(work).map_err(Error::io(name))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            sent: shared.first.clone(),
            taken: shared.first.clone(),
            shared,
            tickets: Some(tickets),
            outcomes,
            early: BTreeMap::new(),
            waiting: Duration::ZERO,
            stall,
            stop,
            threads,
        })
    }

    pub fn shared(&self) -> &Shared<T> {
        &self.shared
    }

    /// Sends the next ticket of a data set.
    pub fn send(&mut self, part: usize, draw: u64, place: (u64, usize)) {
        let number = self.sent[part];
        self.sent[part] += 1;
        // In a stream, draws shift after a bad sample: its random numbers depend on the sample's own number.
        let draw = if matches!(self.shared.feeds[part], Feed::Streamed(_)) { number } else { draw };
        // It fails only when all workers have ended, which the next `take` reports.
        let _ = self.tickets.as_ref().map(|tickets| tickets.send(Ticket { part, number, draw, place }));
    }

    /// The outcome of the oldest ticket of a data set. Waits for it, and logs a long wait.
    pub fn take(&mut self, part: usize) -> Result<Outcome<T>> {
        let wanted = (part, self.taken[part]);
        let begun = Instant::now();
        let mut logged = 0;
        let bytes = self.bytes();
        while !self.early.contains_key(&wanted) {
            match self.outcomes.recv_timeout(self.stall) {
                Ok(outcome) => {
                    self.early.insert((outcome.ticket.part, outcome.ticket.number), outcome);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::WorkersLost),
            }
            // Other outcomes may arrive while the awaited one hangs, so the time is measured here.
            let stalls = (begun.elapsed().as_millis() / self.stall.as_millis().max(1)) as u64;
            if stalls > logged && !self.early.contains_key(&wanted) {
                logged = stalls;
                tracing::warn!("{}", self.stalled(wanted, begun.elapsed(), self.bytes() - bytes));
            }
        }
        self.waiting += begun.elapsed();
        self.taken[part] += 1;
        self.early.remove(&wanted).ok_or(Error::WorkersLost)
    }

    /// The number of samples taken from a data set, including those before this loader.
    pub fn taken(&self, part: usize) -> u64 {
        self.taken[part]
    }

    fn bytes(&self) -> u64 {
        let streams = self.shared.feeds.iter().map(|feed| match feed {
            Feed::Numbered(_) => 0,
            Feed::Streamed(stream) => stream.handle.bytes.load(Ordering::Relaxed),
        });
        self.shared.bytes.load(Ordering::Relaxed) + streams.sum::<u64>()
    }

    /// The message about a stalled loader.
    fn stalled(&self, wanted: (usize, u64), waited: Duration, bytes: u64) -> String {
        let mut at = self.shared.at.iter().filter_map(|at| *lock(at));
        let busy = self.shared.at.iter().filter(|at| lock(at).is_some()).count();
        let place =
            match (&self.shared.feeds[wanted.0], at.find(|ticket| (ticket.part, ticket.number) == wanted)) {
                (Feed::Streamed(stream), _) => stream.status(),
                (Feed::Numbered(feed), Some(ticket)) => {
                    feed.source.location(feed.order.at(ticket.place.0, ticket.place.1))
                }
                (Feed::Numbered(feed), None) => feed.source.name().to_owned(),
            };
        format!(
            "no sample for {:.0} s: waiting for {place}; {:.1} MB/s meanwhile, {} samples ready behind it, \
             {busy} of {} workers busy, {} of them alive: is the disk or network slow?",
            waited.as_secs_f64(),
            bytes as f64 / 1e6 / waited.as_secs_f64(),
            self.early.len(),
            self.shared.at.len(),
            self.threads.iter().filter(|thread| !thread.is_finished()).count(),
        )
    }
}

/// The niceness of the loader's threads: the lowest priority.
const NICE: i32 = 19;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Drop for Workers<T> {
    /// Each worker ends after its current sample.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tickets = None;
        // A worker may be waiting for a stalled stream.
        for feed in &self.shared.feeds {
            if let Feed::Streamed(stream) = feed {
                stream.stop();
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A bad sample, with its key if it is known.
struct Bad {
    key: Option<String>,
    fault: Fault,
    reason: String,
}

impl<T> Shared<T> {
    fn read(&self, ticket: Ticket) -> Outcome<T> {
        let mut outcome = Outcome { ticket, item: None, warning: None, bad: Vec::new(), ended: false };
        let (epoch, place) = ticket.place;
        match &self.feeds[ticket.part] {
            Feed::Numbered(feed) => {
                for index in feed.candidates(epoch, place, self.replace) {
                    match self.guarded(|| feed.source.sample(index), ticket) {
                        Ok((item, key, warning)) => {
                            outcome.item = Some((item, key, feed.offset + index));
                            outcome.warning = warning;
                            break;
                        }
                        Err(Bad { key, fault, reason }) => {
                            let (source, key) = (
                                feed.source.name().to_owned(),
                                key.unwrap_or_else(|| feed.source.key(index)),
                            );
                            outcome.bad.push(BadSample { source, key, fault, reason });
                        }
                    }
                }
            }
            Feed::Streamed(feed) => match feed.take(ticket.number, self.first[ticket.part]) {
                None => outcome.ended = true,
                Some(Err(bad)) => outcome.bad.push(bad),
                Some(Ok(sample)) => {
                    let key = sample.key.clone();
                    match self.guarded(|| Ok(sample), ticket) {
                        Ok((item, key, warning)) => {
                            outcome.item = Some((item, key, ticket.number as usize));
                            outcome.warning = warning;
                        }
                        Err(Bad { fault, reason, .. }) => {
                            outcome.bad.push(BadSample { source: feed.name.clone(), key, fault, reason });
                        }
                    }
                }
            },
        }
        outcome
    }

    /// Reads and maps one sample. A panic inside, such as a decoder's bug, makes the sample bad.
    fn guarded(
        &self,
        sample: impl FnOnce() -> Result<Sample>,
        ticket: Ticket,
    ) -> std::result::Result<(T, String, Option<String>), Bad> {
        let mut key = None;
        let done = Error::guarded(|| {
            let sample = sample()?;
            key = Some(sample.key.clone());
            self.bytes.fetch_add(sample.stored_bytes(), Ordering::Relaxed);
            let item =
                (self.map)(&sample, &mut rng(self.seed, ticket.part as u64, ticket.draw, Domain::Sample))?;
            Ok((item, sample.key, sample.warning))
        });
        done.map_err(|error| Bad { key, fault: error.fault(), reason: error.to_string() })
    }
}
