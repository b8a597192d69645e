//! The threads that read samples, and the queue that puts their results back in order.

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
    /// The source of the mix.
    pub part: usize,
    /// Its place among all tickets of that source.
    pub number: u64,
    /// What its randomness follows from.
    pub draw: u64,
    /// The epoch of the source and the place in it; of a stream, nothing.
    pub place: (u64, usize),
}

/// What became of a ticket.
pub(super) struct Outcome<T> {
    pub ticket: Ticket,
    /// The mapped sample with its key and number; none where it is bad and nothing stands in for it.
    pub item: Option<(T, String, usize)>,
    /// The warning of the mapped sample.
    pub warning: Option<String>,
    /// The bad samples met on the way; the first is the one of the place itself.
    pub bad: Vec<BadSample>,
    /// Whether the stream is at its end.
    pub ended: bool,
}

/// What the threads share.
pub(super) struct Shared<T> {
    pub feeds: Vec<Feed>,
    pub map: Map<T>,
    pub seed: u64,
    /// Whether another sample stands in for a bad one.
    pub replace: bool,
    /// Of each stream, the first sample that this loader takes.
    pub first: Vec<u64>,
    /// Bytes of encoded images so far.
    pub bytes: AtomicU64,
    /// What each thread is at.
    pub at: Vec<Mutex<Option<Ticket>>>,
}

/// Worker threads. Tickets of a source go in by number and outcomes come out by number.
pub(super) struct Workers<T> {
    shared: Arc<Shared<T>>,
    tickets: Option<Sender<Ticket>>,
    outcomes: Receiver<Outcome<T>>,
    early: BTreeMap<(usize, u64), Outcome<T>>,
    sent: Vec<u64>,
    taken: Vec<u64>,
    pub waiting: Duration,
    /// After this long without the next sample the loader says what it waits for.
    stall: Duration,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Item> Workers<T> {
    pub fn start(shared: Shared<T>, stall: Duration) -> Result<Self> {
        let (tickets, to_do) = unbounded::<Ticket>();
        let (done, outcomes) = unbounded();
        let (stop, shared) = (Arc::new(AtomicBool::new(false)), Arc::new(shared));
        let threads = (0..shared.at.len())
            .map(|number| {
                let shared = shared.clone();
                let (to_do, done, stop) = (to_do.clone(), done.clone(), stop.clone());
                let work = move || {
                    // What computes with the samples goes first: it is what takes the time where these
                    // threads are well fed.
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
        let (sent, taken) = (shared.first.clone(), shared.first.clone());
        let (tickets, early, waiting) = (Some(tickets), BTreeMap::new(), Duration::ZERO);
        Ok(Self { shared, tickets, outcomes, early, sent, taken, waiting, stall, stop, threads })
    }

    pub fn shared(&self) -> &Shared<T> {
        &self.shared
    }

    /// Hands in the next sample to read of a source.
    pub fn send(&mut self, part: usize, draw: u64, place: (u64, usize)) {
        let number = self.sent[part];
        self.sent[part] += 1;
        // The draws of a stream move up where one is bad: its randomness follows from the sample's own
        // number.
        let draw = if matches!(self.shared.feeds[part], Feed::Streamed(_)) { number } else { draw };
        // It fails only when all workers are gone, which the next `take` reports.
        let _ = self.tickets.as_ref().map(|tickets| tickets.send(Ticket { part, number, draw, place }));
    }

    /// The outcome of a source's oldest ticket. Waits for it, and says so when that takes long.
    pub fn take(&mut self, part: usize) -> Result<Outcome<T>> {
        let wanted = (part, self.taken[part]);
        let begun = Instant::now();
        let (mut said, bytes) = (0, self.bytes());
        while !self.early.contains_key(&wanted) {
            match self.outcomes.recv_timeout(self.stall) {
                Ok(outcome) => {
                    self.early.insert((outcome.ticket.part, outcome.ticket.number), outcome);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::WorkersGone),
            }
            // Others may arrive while the awaited one hangs: the clock counts, not the silence of the
            // channel.
            let stalls = (begun.elapsed().as_millis() / self.stall.as_millis().max(1)) as u64;
            if stalls > said && !self.early.contains_key(&wanted) {
                said = stalls;
                tracing::warn!("{}", self.stalled(wanted, begun.elapsed(), self.bytes() - bytes));
            }
        }
        self.waiting += begun.elapsed();
        self.taken[part] += 1;
        self.early.remove(&wanted).ok_or(Error::WorkersGone)
    }

    /// How many samples of a source were taken, those before this loader included.
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

    /// One line on what holds the loader up.
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
            "no sample for {:.0} s: waiting for {place}; {:.1} MB/s meanwhile, {} samples ready behind it, {busy} of {} workers busy, \
             {} of them alive: is the disk or network slow?",
            waited.as_secs_f64(),
            bytes as f64 / 1e6 / waited.as_secs_f64(),
            self.early.len(),
            self.shared.at.len(),
            self.threads.iter().filter(|thread| !thread.is_finished()).count(),
        )
    }
}

/// The loader's threads give way to all others.
const NICE: i32 = 19;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Drop for Workers<T> {
    /// Each worker ends after the sample it is at.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tickets = None;
        // A worker may wait for a stream that gives nothing.
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

/// What is wrong with a sample, and its key, if it got as far as having one.
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

    /// Reads and maps one sample. A panic inside (a decoder's bug, say) makes the sample bad and nothing
    /// worse.
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
