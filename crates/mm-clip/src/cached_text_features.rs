use crate::{Result, TextEmbedder};
use mm_data::Dataset;
use mm_dist::ProcessGroup;
use std::collections::{BTreeSet, HashMap};
use tch::Tensor;

/// The outputs of a text tower that is locked, each text of the training data computed once, before the first
/// step. What a text becomes then depends on the data alone, not on the batch that it is drawn into, so that
/// a resumed run sees the same numbers.
#[derive(Debug)]
pub(crate) struct CachedTextFeatures {
    /// `[texts, W]`.
    pooled: Tensor,
    places: HashMap<Vec<u32>, i64>,
}

/// Texts that are kept, at most: 200 MB of rows of 384 numbers.
const MOST: usize = 1 << 17;

/// Texts that are computed at once.
const BATCH_SIZE: usize = 64;

impl CachedTextFeatures {
    /// The texts of `source`; none where they are too many to keep or cannot be read beforehand, and are
    /// computed at every step instead.
    pub fn new(model: &TextEmbedder, source: &dyn Dataset, group: &ProcessGroup) -> Result<Option<Self>> {
        if source.stream().is_some() {
            return Ok(None);
        }
        let mut texts: BTreeSet<Vec<u32>> = BTreeSet::new();
        for index in 0..source.len() {
            // A sample that cannot be read here cannot be read in training either, where it is counted.
            let captions = source.sample(index).map(|sample| sample.captions).unwrap_or_default();
            for caption in captions {
                texts.insert(model.tokenizer.encode(&caption)?);
            }
            if texts.len() > MOST {
                tracing::warn!(
                    "more than {MOST} different captions: the locked text tower runs at every step"
                );
                return Ok(None);
            }
        }
        let texts: Vec<Vec<u32>> = texts.into_iter().collect();
        tracing::info!("the locked text tower reads the {} captions, once for the whole run", texts.len());
        let pooled = model.map_rows(&texts, BATCH_SIZE, group, |tokens| model.encoder.pool(tokens))?;
        // a tensor of inference mode could not take part in training
        let pooled = pooled.to_device(model.device).copy();
        let places = texts.into_iter().zip(0..).collect();
        Ok(Some(Self { pooled, places }))
    }

    /// The tower's output `[B, W]` for the texts `rows`; none if one of them is not kept.
    pub fn pooled(&self, rows: &[Vec<u32>]) -> Option<Tensor> {
        let places: Option<Vec<i64>> = rows.iter().map(|row| self.places.get(row).copied()).collect();
        Some(self.pooled.index_select(0, &Tensor::from_slice(&places?).to_device(self.pooled.device())))
    }
}
