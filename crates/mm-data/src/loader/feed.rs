//! What the workers draw from: a source by number in its order, or a stream.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::order::Order;
use crate::{BadSample, Dataset, Sample, StreamHandle, StreamReader};

/// How often a bad sample's place is offered to another one. More in a row are no accident.
pub(super) const TRIES: usize = 100;

/// One source of the mix.
pub(super) enum Feed {
    Numbered(Numbered),
    Streamed(Streamed),
}

/// A source whose samples are asked for by number.
pub(super) struct Numbered {
    pub source: Arc<dyn Dataset>,
    pub order: Order,
    /// What is added to a sample's number, for the sources before it.
    pub offset: usize,
}

impl Numbered {
    /// The samples for a place: its own, and then those that stand in for it. They come from the other half
    /// of the epoch, so that no batch has one twice; which they are depends on the place alone, not on who
    /// reads it.
    pub fn candidates(&self, epoch: u64, place: usize, replace: bool) -> impl Iterator<Item = usize> {
        let len = self.source.len();
        let count = if replace { TRIES.min(len) } else { 1 };
        let stand_in = move |number: usize| (place + len / 2 + number - 1) % len;
        (0..count).map(move |number| self.order.at(epoch, if number == 0 { place } else { stand_in(number) }))
    }
}

/// A stream, from which several workers take: each the sample of its number, in turn, so that their haste
/// changes nothing.
pub(super) struct Streamed {
    pub name: String,
    pub handle: Arc<StreamHandle>,
    state: Mutex<State>,
    turn: Condvar,
}

struct State {
    reading: Box<dyn StreamReader>,
    /// The number of the sample that comes next.
    next: u64,
    stopped: bool,
}

impl Streamed {
    pub fn new(name: String, reading: Box<dyn StreamReader>) -> Self {
        let handle = reading.handle();
        let state = Mutex::new(State { reading, next: 0, stopped: false });
        Self { name, handle, state, turn: Condvar::new() }
    }

    /// The sample of this number; none at the end. Every number from `first` on is asked for, by one worker
    /// or another, and each waits until it is its turn. What comes before `first` is read and passed over.
    pub fn take(&self, number: u64, first: u64) -> Option<std::result::Result<Sample, BadSample>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let not_yet = |state: &mut State| !state.stopped && number != state.next.max(first);
        let mut state = self.turn.wait_while(state, not_yet).unwrap_or_else(PoisonError::into_inner);
        while !state.stopped && state.next < number {
            drop(state.reading.next());
            state.next += 1;
        }
        let item = if state.stopped { None } else { state.reading.next() };
        state.next += 1;
        self.turn.notify_all();
        item
    }

    /// Ends the reading, and with it all waiting for it.
    pub fn stop(&self) {
        self.handle.stop();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.turn.notify_all();
    }

    /// What can be told while one waits.
    pub fn status(&self) -> String {
        let shard = self.handle.shard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        format!("{shard}, {} samples in the shuffle buffer", self.handle.buffered.load(Ordering::Relaxed))
    }
}
