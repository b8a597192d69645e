//! Batches whose samples are of one group each, such as images of one size.

use std::sync::Arc;

use super::config::Places;
use crate::{Error, Result};

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
