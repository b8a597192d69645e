//! The features of a locked text tower, computed once.

use crate::{Result, TextEmbedder};
use mm_train::TaskContext;
use std::collections::{BTreeSet, HashMap};
use tch::Tensor;

/// The outputs of a locked text tower for all captions of the training set. They depend on the data only, not
/// on the batch that a caption is drawn into, so that a resumed run has the same numbers.
#[derive(Debug)]
pub(crate) struct CachedTextFeatures {
    /// `[texts, W]`.
    pooled: Tensor,
    rows: HashMap<Vec<u32>, i64>,
}

/// The largest number of texts that is cached: 200 MB of rows of 384 numbers.
const MOST: usize = 1 << 17;

/// Texts that are computed at once.
const BATCH_SIZE: usize = 64;

impl CachedTextFeatures {
    /// The features of the training captions; none where there are too many to cache or the training set is a
    /// stream, and the tower runs at every step instead. Rank 0 reads the captions; all ranks share the
    /// computation.
    ///
    /// # Errors
    /// A caption has no tokens, or another process is lost.
    pub fn new(model: &TextEmbedder, context: &TaskContext) -> Result<Option<Self>> {
        if context.dataset.stream().is_some() {
            return Ok(None);
        }
        let mut own = Vec::new();
        if context.group.is_main() {
            let mut texts: BTreeSet<Vec<u32>> = BTreeSet::new();
            for caption in context.captions_by_sample("captions read for the locked text tower").flatten() {
                texts.insert(model.tokenizer.encode(&caption)?);
                if texts.len() > MOST {
                    tracing::warn!(
                        "more than {MOST} different captions: the locked text tower runs at every step"
                    );
                    texts.clear();
                    break;
                }
            }
            own = serde_json::to_vec(&texts).expect("token ids are JSON");
        }
        let texts = context.group.broadcast_bytes(&own)?;
        let texts: Vec<Vec<u32>> = serde_json::from_slice(&texts).expect("rank 0 sent JSON");
        if texts.is_empty() {
            return Ok(None);
        }
        if context.group.is_main() {
            tracing::info!("the locked text tower computes the features of {} captions once", texts.len());
        }
        let pooled =
            model.map_rows(&texts, BATCH_SIZE, context.group, |tokens| model.encoder.pool(tokens))?;
        // A tensor of inference mode cannot take part in training.
        let pooled = pooled.to_device(model.device).copy();
        let rows = texts.into_iter().zip(0..).collect();
        Ok(Some(Self { pooled, rows }))
    }

    /// The features `[B, W]` of these texts; none if one of them is not cached.
    pub fn pooled(&self, texts: &[Vec<u32>]) -> Option<Tensor> {
        let rows: Option<Vec<i64>> = texts.iter().map(|text| self.rows.get(text).copied()).collect();
        Some(self.pooled.index_select(0, &Tensor::from_slice(&rows?).to_device(self.pooled.device())))
    }
}
