//! What the workers draw from: a source by number in its order, or a stream.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::order::Order;
use crate::{BadSample, Reading, Sample, Source, Watch};

/// How often a bad sample's place is offered to another one. More in a row are no accident.
pub(super) const TRIES: usize = 100;

/// One source of the mix.
pub(super) enum Feed {
    Numbered(Numbered),
    Streamed(Streamed),
}

/// A source whose samples are asked for by number.
pub(super) struct Numbered {
    pub source: Arc<dyn Source>,
    pub order: Order,
    /// What is added to a sample's number, for the sources before it.
    pub offset: usize,
}

impl Numbered {
    /// The samples for a place: its own, and then those that stand in for it. They come from the other half of the epoch, so
    /// that no batch has one twice; which they are depends on the place alone, not on who reads it.
    pub fn candidates(&self, epoch: u64, place: usize, replace: bool) -> impl Iterator<Item = usize> {
        let len = self.source.len();
        let count = if replace { TRIES.min(len) } else { 1 };
        let stand_in = move |number: usize| (place + len / 2 + number - 1) % len;
        (0..count).map(move |number| self.order.at(epoch, if number == 0 { place } else { stand_in(number) }))
    }

    /// A report of a sample that cannot be read.
    pub fn bad(&self, index: usize, fault: crate::Fault, reason: String) -> BadSample {
        BadSample { source: self.source.name().to_owned(), key: self.source.key(index), fault, reason }
    }
}

/// A stream, from which several workers take: each a sample by its number, so that their haste changes nothing.
pub(super) struct Streamed {
    pub name: String,
    pub watch: Arc<Watch>,
    state: Mutex<State>,
}

struct State {
    reading: Box<dyn Reading>,
    next: u64,
    early: BTreeMap<u64, Drawn>,
}

/// What a stream gives; none at its end.
type Drawn = Option<std::result::Result<Sample, BadSample>>;

impl Streamed {
    /// Goes on behind the first `taken` samples; they are read once more and passed over.
    pub fn new(name: String, reading: Box<dyn Reading>) -> Self {
        let watch = reading.watch();
        Self { name, watch, state: Mutex::new(State { reading, next: 0, early: BTreeMap::new() }) }
    }

    /// The sample of this number. Numbers are asked for nearly in order, each once, and none below the first one asked for.
    pub fn take(&self, number: u64, first: u64) -> Drawn {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.next <= number {
            let item = state.reading.next();
            let at = state.next;
            if at >= first {
                state.early.insert(at, item);
            }
            state.next += 1;
        }
        state.early.remove(&number).flatten()
    }

    /// What can be told while one waits.
    pub fn status(&self) -> String {
        let shard = self.watch.shard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        format!("{shard}, {} samples in the shuffle buffer", self.watch.buffered.load(Ordering::Relaxed))
    }
}
