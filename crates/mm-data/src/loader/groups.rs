//! Batches whose samples are of one group each, such as images of one size.

use std::sync::Arc;

use super::config::{LoaderConfig, Places};
use super::feed::Feed;
use super::{Item, Loader, order};
use crate::{Dataset, Error, Result};

/// The group of each sample by its index in the data set. A batch has samples of one group alone.
pub type BatchGroups = Arc<[u16]>;

/// The batches of the last computed epoch.
///
/// Samples are drawn in the order that they have without groups. A batch begins as soon as the draws so far
/// have enough samples of one group that no batch has yet; at the end of an epoch, what does not fill a batch
/// is left out. So the batches of an epoch follow from the order of its draws alone.
#[derive(Default)]
pub(super) struct GroupedEpoch {
    /// The epoch, and its places in the order of their batches.
    computed: Option<(u64, Arc<Vec<u32>>)>,
}

impl GroupedEpoch {
    /// The places of `epoch` in the order of their batches of `batch_size`; `group` gives the group of each
    /// of the `len` places.
    pub fn places(
        &mut self,
        epoch: u64,
        len: usize,
        batch_size: usize,
        mut group: impl FnMut(usize) -> u16,
    ) -> Arc<Vec<u32>> {
        if let Some((known, places)) = &self.computed
            && *known == epoch
        {
            return places.clone();
        }
        let mut waiting: Vec<Vec<u32>> = Vec::new();
        let mut places = Vec::with_capacity(len);
        for place in 0..len {
            let group = usize::from(group(place));
            if waiting.len() <= group {
                waiting.resize_with(group + 1, Vec::new);
            }
            waiting[group].push(place as u32);
            if waiting[group].len() == batch_size {
                places.append(&mut waiting[group]);
            }
        }
        let places = Arc::new(places);
        self.computed = Some((epoch, places.clone()));
        places
    }
}

impl<T: Item> Loader<T> {
    /// The places of the batch to prefetch next: those of an epoch of `len` samples, or of its grouped order.
    pub(super) fn next_places(&mut self, len: usize) -> Result<Places> {
        if self.groups.is_none() {
            return Ok(self.config.batch_at(self.ahead, len));
        }
        let (ahead, name) = (self.ahead, self.source.name().to_owned());
        batch_at(ahead, self.config.batch_size, &name, |epoch| self.grouped(epoch, len).len())
    }

    /// The places of `epoch` in the order of batches of one group each.
    pub(super) fn grouped(&mut self, epoch: u64, len: usize) -> Arc<Vec<u32>> {
        let Self { groups, shuffled, weights, workers, config, .. } = self;
        let Some((groups, computed)) = groups else { return Arc::default() };
        let feeds = &workers.shared().feeds;
        computed.places(epoch, len, config.batch_size, |place| {
            let draw = epoch * len as u64 + place as u64;
            let drawn = shuffled.as_mut().map_or(draw, |shuffled| shuffled.at(draw));
            let (part, number) = order::mix(weights, drawn);
            let Feed::Numbered(feed) = &feeds[part] else { return 0 };
            let own = feed.source.len() as u64;
            groups[feed.offset + feed.order.at(number / own, (number % own) as usize)]
        })
    }
}

/// # Errors
/// `groups` are of other samples, the data set is a stream, or the loader is not for training.
pub(super) fn check(groups: &BatchGroups, source: &dyn Dataset, config: &LoaderConfig) -> Result<()> {
    let (name, count, len) = (source.name(), groups.len(), source.len());
    if count != len || !config.drop_last {
        return Err(Error::Setting(format!(
            "`{name}`: {count} groups for {len} samples: batches of groups are for training, with one group \
             for each sample"
        )));
    }
    let parts = source.mixture().unwrap_or_default().iter().map(|part| &*part.dataset);
    match std::iter::once(source).chain(parts).find(|part| part.stream().is_some()) {
        Some(stream) => Err(Error::Setting(format!(
            "`{}` is a stream, whose samples have no number to group them by: use plain local tars",
            stream.name()
        ))),
        None => Ok(()),
    }
}

/// The batch of `batch_size` that starts at `start` of an epoch, given the number of places in its batches
/// and in those of the next epoch. A run that had another batch size may have stopped within a batch, which
/// is then read again.
///
/// # Errors
/// Neither epoch has a batch.
pub(super) fn batch_at(
    (epoch, start): (u64, usize),
    batch_size: usize,
    name: &str,
    mut grouped: impl FnMut(u64) -> usize,
) -> Result<Places> {
    let mut at = (epoch, start - start % batch_size);
    if at.1 + batch_size > grouped(epoch) {
        at = (epoch + 1, 0);
    }
    let len = grouped(at.0);
    if at.1 + batch_size > len {
        return Err(Error::Setting(format!(
            "`{name}`: no group of samples, such as images of one size, has {batch_size} samples, so that \
             no batch is ever full: make the batch smaller or the data set larger"
        )));
    }
    let end = at.1 + batch_size;
    let next = if end + batch_size > len { (at.0 + 1, 0) } else { (at.0, end) };
    Ok(Places { epoch: at.0, all: at.1..end, next })
}
