//! The tensors of a training step.

use super::{RewardItem, RewardModel};
use crate::Result;
use mm_core::upload;
use mm_text::TokenBatch;
use tch::{Device, Kind, Tensor};

/// B items with M images together, on the model's device.
pub struct RewardBatch {
    /// `[M, 3, S, S]`, the images of an item behind each other.
    pub pixel_values: Tensor,
    /// The prompts of the B items; none for a model that reads none.
    pub prompts: Option<TokenBatch>,
    /// The item of each image, `[M]`, i64.
    pub items: Tensor,
    /// The image at each place of an item's list, `[B, L]`, i64; 0 at the places behind its end.
    pub places: Tensor,
    /// Whether an item has the place, `[B, L]`, bool.
    pub mask: Tensor,
    /// The ratings, or the probabilities that the first image is preferred, `[B]`, f32.
    pub targets: Tensor,
    /// How often each of K members has the item in its bootstrap sample, `[K, B]`, f32.
    pub weights: Tensor,
}

impl RewardBatch {
    /// The batch of `items`, which were made for `model`.
    ///
    /// # Errors
    /// Images differ in size.
    pub(super) fn new(items: Vec<RewardItem>, model: &RewardModel) -> Result<Self> {
        let longest = items.iter().map(|item| item.images.len()).max().unwrap_or(0);
        let (mut images, mut owners, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        let (mut places, mut mask) = (Vec::new(), Vec::new());
        let (mut targets, mut weights) = (Vec::new(), Vec::new());
        for (index, item) in items.into_iter().enumerate() {
            for place in 0..longest {
                let is_there = place < item.images.len();
                places.push(if is_there { (images.len() + place) as i64 } else { 0 });
                mask.push(is_there);
            }
            owners.extend(std::iter::repeat_n(index as i64, item.images.len()));
            images.extend(item.images);
            tokens.extend(item.token_ids);
            targets.push(item.target);
            weights.extend(item.weights);
        }
        let device = model.device();
        let count = targets.len() as i64;
        let lists = [count, longest as i64];
        let pixel_values = model.processor().normalize_batch(&images)?;
        let prompts = model.collate(&tokens);
        Ok(Self {
            pixel_values: upload(&pixel_values, device),
            prompts: prompts.map(|prompts| prompts.to_device(device)),
            items: Tensor::from_slice(&owners).to_device(device),
            places: Tensor::from_slice(&places).view(lists).to_device(device),
            mask: Tensor::from_slice(&mask).view(lists).to_device(device),
            targets: Tensor::from_slice(&targets).to_device(device),
            weights: Tensor::from_slice(&weights).view([count, -1]).tr().to_device(device),
        })
    }

    /// The scores `[K, B, L]` of each item's images, from those of all images `[K, M]`.
    pub(super) fn by_item(&self, scores: &Tensor) -> Tensor {
        let size = self.places.size();
        scores.index_select(1, &self.places.flatten(0, -1)).view([-1, size[0], size[1]])
    }

    /// The scores `[K, M]` of the batch, by items: for each the scores of each member, for its images.
    ///
    /// # Errors
    /// libtorch cannot copy them.
    pub(super) fn listed(&self, scores: &Tensor) -> Result<Vec<Vec<Vec<f32>>>> {
        let scores = Vec::<Vec<f32>>::try_from(scores.to_kind(Kind::Float).to_device(Device::Cpu))?;
        let owners = Vec::<i64>::try_from(self.items.to_device(Device::Cpu))?;
        let lists = owners.chunk_by(|one, other| one == other);
        let mut start = 0;
        let of_list = |list: &[i64]| {
            let range = start..start + list.len();
            start = range.end;
            scores.iter().map(|of_member| of_member[range.clone()].to_vec()).collect()
        };
        Ok(lists.map(of_list).collect())
    }
}
