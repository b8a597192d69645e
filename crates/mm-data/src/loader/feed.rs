//! The inputs of the workers: a data set by index in its order, or a stream.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::groups::BatchGroups;
use super::order::Order;
use crate::{BadSample, Dataset, Sample, StreamHandle, StreamReader};

/// The number of samples that are tried for one place. More bad samples in a row are a systematic error.
pub(super) const TRIES: usize = 100;

/// One data set of the mix.
pub(super) enum Feed {
    Numbered(Numbered),
    Streamed(Streamed),
}

/// A data set that is read by index.
pub(super) struct Numbered {
    pub source: Arc<dyn Dataset>,
    pub order: Order,
    /// The number of samples of the data sets before it in the mix.
    pub offset: usize,
    /// The groups of all samples of the mix, where batches are of one group each.
    pub groups: Option<BatchGroups>,
}

impl Numbered {
    /// The samples for a place: its own, then its replacements of the same group. These come from the other
    /// half of the epoch, so that no batch has a sample twice, and depend on the place alone.
    pub fn candidates(&self, epoch: u64, place: usize, replace: bool) -> impl Iterator<Item = usize> {
        let len = self.source.len();
        let count = if replace { TRIES.min(len) } else { 1 };
        let own = self.order.at(epoch, place);
        let group = move |index: usize| self.groups.as_ref().map(|groups| groups[self.offset + index]);
        let replacements =
            (0..len - 1).map(move |number| self.order.at(epoch, (place + len / 2 + number) % len));
        std::iter::once(own).chain(replacements.filter(move |&index| group(index) == group(own))).take(count)
    }
}

/// A stream that several workers read. Each takes the sample of its number in turn, so that the result does
/// not depend on their speed.
pub(super) struct Streamed {
    pub name: String,
    pub handle: Arc<StreamHandle>,
    state: Mutex<State>,
    turn: Condvar,
}

struct State {
    reading: Box<dyn StreamReader>,
    /// The number of the next sample.
    next: u64,
    stopped: bool,
}

impl Streamed {
    pub fn new(name: String, reading: Box<dyn StreamReader>) -> Self {
        let handle = reading.handle();
        let state = Mutex::new(State { reading, next: 0, stopped: false });
        Self { name, handle, state, turn: Condvar::new() }
    }

    /// The sample of this number; `None` at the end. Each number from `first` on must be taken by some
    /// worker; each call waits for its turn. Samples before `first` are read and skipped.
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

    /// Stops reading and wakes all waiting workers.
    pub fn stop(&self) {
        self.handle.stop();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.turn.notify_all();
    }

    /// The state of the stream, for messages about a stalled loader.
    pub fn status(&self) -> String {
        let shard = self.handle.shard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        format!("{shard}, {} samples in the shuffle buffer", self.handle.buffered.load(Ordering::Relaxed))
    }
}
