//! Contrastive losses over the samples of all processes.

use crate::{ProcessGroup, Result};
use mm_core::loss;
use mm_core::loss::tiles::{
    EmbedGradients, ImageSums, LogitTiles, PairSums, no_log_sum_exps, with_gradients,
};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// `[loss]`: how the logits of a contrastive loss are computed. The loss is the same with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastiveConfig {
    /// The part of the global batch's logits that a process computes.
    pub logits: Logits,
    /// Rows and columns of a tile, with `logits = "tiled"`.
    pub tile: i64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self { logits: Logits::Local, tile: loss::DEFAULT_TILE }
    }
}

/// The part of the B x B logits that each of N processes computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Logits {
    /// All of them, as open_clip does by default: N times the work.
    Gathered,
    /// Those of its own images and texts, B x B/N, as open_clip does with `--local-loss`. SigLIP's are
    /// computed B/N x B/N at a time, with texts exchanged in a ring (Zhai et al. 2023, section 3.3).
    Local,
    /// A tile at a time, recomputed for the gradients, with texts exchanged in a ring (Cheng et al. 2025,
    /// "Breaking the memory barrier of contrastive loss via tile-based strategy"): memory grows with B/N.
    /// Also for a single process.
    Tiled,
}

/// The contrastive losses of a batch that is spread over processes. Each process returns its part: the mean
/// over the processes is the loss of the global batch, and gradients averaged over the processes are its
/// gradients.
#[derive(Clone, Debug)]
pub struct Contrastive {
    group: ProcessGroup,
    config: ContrastiveConfig,
}

impl Contrastive {
    /// Losses over the samples of all processes of `group`.
    pub fn new(group: &ProcessGroup, config: ContrastiveConfig) -> Self {
        Self { group: group.clone(), config }
    }

    /// InfoNCE, as [`mm_core::loss::info_nce`]: this process's part, of paired unit rows `[B/N, D]` and the
    /// scalar log of the inverse temperature.
    ///
    /// # Errors
    /// Another process fails.
    pub fn info_nce(
        &self,
        image_embeds: &Tensor,
        text_embeds: &Tensor,
        logit_scale: &Tensor,
    ) -> Result<Tensor> {
        if self.config.logits == Logits::Tiled {
            return self.info_nce_in_ring(image_embeds, text_embeds, logit_scale);
        }
        let (images, texts) = (image_embeds.to_kind(Kind::Float), text_embeds.to_kind(Kind::Float));
        let all_images = self.group.all_gather_with_gradient(&images)?;
        let all_texts = self.group.all_gather_with_gradient(&texts)?;
        if self.config.logits == Logits::Gathered || self.group.is_alone() {
            return Ok(loss::info_nce(&all_images, &all_texts, logit_scale));
        }
        let first = self.group.rank() as i64 * images.size()[0];
        let one_way = |rows: &Tensor, all: &Tensor| {
            let logits = loss::logits(rows, all, logit_scale); // [B/N, B]
            logits.logsumexp([1i64].as_slice(), false) - logits.diagonal(first, 0, 1)
        };
        Ok((one_way(&images, &all_texts) + one_way(&texts, &all_images)).mean(Kind::Float) * 0.5)
    }

    /// The pairwise sigmoid loss, as [`mm_core::loss::siglip`]: this process's part.
    ///
    /// # Errors
    /// Another process fails.
    pub fn siglip(
        &self,
        image_embeds: &Tensor,
        text_embeds: &Tensor,
        logit_scale: &Tensor,
        logit_bias: &Tensor,
    ) -> Result<Tensor> {
        let (count, rank) = (image_embeds.size()[0], self.group.rank() as i64);
        let in_ring = |tile| self.siglip_in_ring(image_embeds, text_embeds, logit_scale, logit_bias, tile);
        match self.config.logits {
            Logits::Tiled => in_ring(self.config.tile),
            Logits::Local if !self.group.is_alone() => in_ring(count),
            Logits::Local | Logits::Gathered => {
                let all_texts = self.group.all_gather_with_gradient(&text_embeds.to_kind(Kind::Float))?;
                Ok(loss::siglip_at(image_embeds, &all_texts, rank * count, logit_scale, logit_bias))
            }
        }
    }

    fn info_nce_in_ring(&self, images: &Tensor, texts: &Tensor, logit_scale: &Tensor) -> Result<Tensor> {
        let (group, tile, weight) = (&self.group, self.config.tile, 0.5 / images.size()[0] as f64);
        with_gradients(images, texts, logit_scale, None, |images, texts, gradients| {
            let (mut image_sums, mut text_sums) = (ImageSums::new(images), no_log_sum_exps(texts));
            let mut passing = texts.detach();
            for hop in 0..group.world() {
                let tiles = tiles(images, &passing, logit_scale, tile, hop);
                tiles.add_log_sum_exps(&mut image_sums, &mut text_sums);
                text_sums = group.ring_exchange(&text_sums)?;
                passing = self.exchange_unless_last(passing, hop)?;
            }
            let value = image_sums.info_nce(&text_sums, weight);
            let Some(gradients) = gradients else { return Ok((value, None)) };
            // A second round of the ring: texts travel with their sums and accumulate their gradients.
            let mut passing = texts.detach();
            for hop in 0..group.world() {
                let tiles = tiles(images, &passing, logit_scale, tile, hop);
                tiles.add_info_nce_gradients(&image_sums.log_sum_exp, &text_sums, weight, gradients);
                self.exchange_gradients(gradients)?;
                passing = self.exchange_unless_last(passing, hop)?;
                text_sums = self.exchange_unless_last(text_sums, hop)?;
            }
            Ok((value, None))
        })
    }

    fn siglip_in_ring(
        &self,
        images: &Tensor,
        texts: &Tensor,
        logit_scale: &Tensor,
        logit_bias: &Tensor,
        tile: i64,
    ) -> Result<Tensor> {
        let weight = 1.0 / images.size()[0] as f64;
        with_gradients(images, texts, logit_scale, Some(logit_bias), |images, texts, mut gradients| {
            let (mut passing, mut sums) = (texts.detach(), PairSums::new(images));
            for hop in 0..self.group.world() {
                let tiles = tiles(images, &passing, logit_scale, tile, hop);
                tiles.add_siglip(logit_bias, weight, &mut sums, gradients.as_deref_mut());
                if let Some(gradients) = &mut gradients {
                    self.exchange_gradients(gradients)?;
                }
                passing = self.exchange_unless_last(passing, hop)?;
            }
            Ok((sums.loss.to_kind(Kind::Float), Some(sums.logit_bias.to_kind(Kind::Float))))
        })
    }

    /// Exchanges `passing` in the ring, except after the last hop.
    fn exchange_unless_last(&self, passing: Tensor, hop: usize) -> Result<Tensor> {
        if hop + 1 < self.group.world() { self.group.ring_exchange(&passing) } else { Ok(passing) }
    }

    /// Exchanges the gradients of texts in the ring: they travel with the texts, and after the last hop are
    /// back at the process of their texts.
    fn exchange_gradients(&self, gradients: &mut EmbedGradients) -> Result<()> {
        if let Some(of_texts) = &mut gradients.texts {
            *of_texts = self.group.ring_exchange(of_texts)?;
        }
        Ok(())
    }
}

/// The logits of `images` against the texts of the process `hop` hops away.
fn tiles<'a>(
    images: &'a Tensor,
    texts: &'a Tensor,
    logit_scale: &'a Tensor,
    tile: i64,
    hop: usize,
) -> LogitTiles<'a> {
    LogitTiles { image_embeds: images, text_embeds: texts, logit_scale, tile, is_paired: hop == 0 }
}
