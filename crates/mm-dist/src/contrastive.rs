use crate::{Group, Result};
use mm_core::loss;
use mm_core::loss::tiles::{EmbedGradients, ImageSums, LogitTiles, PairSums, no_log_sum_exps};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// `[loss]`: how the logits of a contrastive loss are held. The numbers are the same whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastiveConfig {
    /// What a process holds of the logits of the whole batch.
    pub logits: Logits,
    /// Rows and columns that are held at once, with `logits = "tiled"`.
    pub tile: i64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self { logits: Logits::Local, tile: loss::DEFAULT_TILE }
    }
}

/// What each of N processes holds of the B x B logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Logits {
    /// All of them, as open_clip does by default: N times the work.
    Gathered,
    /// Those of its own images and texts, B x B/N, as open_clip does with `--local-loss`. SigLIP's are held B/N x B/N at a time, while texts go
    /// round a ring (Zhai et al. 2023, section 3.3).
    Local,
    /// A tile at a time, computed again for the gradients, while texts go round a ring (Cheng et al. 2025, "Breaking the memory barrier of
    /// contrastive loss via tile-based strategy"): memory grows with B/N. The same for one process.
    Tiled,
}

/// The contrastive losses of a batch that is spread over processes. Each process gives its share: the mean over the processes is the loss of the
/// whole batch, and with gradients averaged over the processes its gradient.
#[derive(Clone, Debug)]
pub struct Contrastive {
    group: Group,
    config: ContrastiveConfig,
}

impl Contrastive {
    /// Among the samples of all processes of `group`.
    pub fn new(group: &Group, config: ContrastiveConfig) -> Self {
        Self { group: group.clone(), config }
    }

    /// InfoNCE, as [`mm_core::loss::info_nce`]: this process's share, of paired unit rows `[B/N, D]` and the scalar log of the inverse
    /// temperature.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn info_nce(&self, image_embeds: &Tensor, text_embeds: &Tensor, logit_scale: &Tensor) -> Result<Tensor> {
        let (images, texts) = (f32_rows(image_embeds), f32_rows(text_embeds));
        if self.config.logits == Logits::Tiled {
            return self.info_nce_in_ring(&images, &texts, logit_scale);
        }
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

    /// The pairwise sigmoid loss, as [`mm_core::loss::siglip`]: this process's share.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn siglip(
        &self,
        image_embeds: &Tensor,
        text_embeds: &Tensor,
        logit_scale: &Tensor,
        logit_bias: &Tensor,
    ) -> Result<Tensor> {
        let (images, texts) = (f32_rows(image_embeds), f32_rows(text_embeds));
        let (count, rank) = (images.size()[0], self.group.rank() as i64);
        match self.config.logits {
            Logits::Tiled => self.siglip_in_ring(&images, &texts, logit_scale, logit_bias, self.config.tile),
            Logits::Local if !self.group.is_alone() => {
                self.siglip_in_ring(&images, &texts, logit_scale, logit_bias, count)
            }
            Logits::Local | Logits::Gathered => {
                let all_texts = self.group.all_gather_with_gradient(&texts)?;
                Ok(loss::siglip_at(&images, &all_texts, rank * count, logit_scale, logit_bias))
            }
        }
    }

    fn info_nce_in_ring(&self, images: &Tensor, texts: &Tensor, logit_scale: &Tensor) -> Result<Tensor> {
        let weight = 0.5 / images.size()[0] as f64;
        let (own_images, own_texts, scale) = (images.detach(), texts.detach(), logit_scale.detach());
        let world = self.group.world();
        let (mut image_sums, mut text_sums) = (ImageSums::new(&own_images), no_log_sum_exps(&own_texts));
        let mut passing = own_texts.shallow_clone();
        for hop in 0..world {
            tiles(&own_images, &passing, &scale, self.config.tile, hop == 0)
                .add_log_sum_exps(&mut image_sums, &mut text_sums);
            text_sums = self.group.pass_on(&text_sums)?;
            if hop + 1 < world {
                passing = self.group.pass_on(&passing)?;
            }
        }
        let value = image_sums.info_nce(&text_sums, weight);
        if !needs_gradients(&[images, texts, logit_scale]) {
            return Ok(value);
        }
        // Texts go round once more, with their sums and with what every process adds to their gradients.
        let mut gradients = EmbedGradients { images: Some(own_images.zeros_like()), texts: Some(own_texts.zeros_like()) };
        passing = own_texts.shallow_clone();
        for hop in 0..world {
            tiles(&own_images, &passing, &scale, self.config.tile, hop == 0).add_info_nce_gradients(
                &image_sums.log_sum_exp,
                &text_sums,
                weight,
                &mut gradients,
            );
            gradients.texts = pass_on(&self.group, gradients.texts)?;
            if hop + 1 < world {
                passing = self.group.pass_on(&passing)?;
                text_sums = self.group.pass_on(&text_sums)?;
            }
        }
        with_gradients(&value, (images, texts, logit_scale), gradients, vec![])
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
        let (own_images, scale, bias) = (images.detach(), logit_scale.detach(), logit_bias.detach());
        let mut passing = texts.detach();
        let mut sums = PairSums::new(&own_images);
        let mut gradients = needs_gradients(&[images, texts, logit_scale, logit_bias])
            .then(|| EmbedGradients { images: Some(own_images.zeros_like()), texts: Some(passing.zeros_like()) });
        for hop in 0..self.group.world() {
            let tiles = tiles(&own_images, &passing, &scale, tile, hop == 0);
            tiles.add_siglip(&bias, weight, &mut sums, gradients.as_mut());
            if let Some(gradients) = &mut gradients {
                gradients.texts = pass_on(&self.group, gradients.texts.take())?;
            }
            if hop + 1 < self.group.world() {
                passing = self.group.pass_on(&passing)?;
            }
        }
        let value = sums.loss.to_kind(Kind::Float);
        match gradients {
            None => Ok(value),
            Some(gradients) => {
                let of_bias = sums.logit_bias.to_kind(Kind::Float).view_as(logit_bias);
                with_gradients(&value, (images, texts, logit_scale), gradients, vec![(logit_bias, of_bias)])
            }
        }
    }
}

fn f32_rows(embeds: &Tensor) -> Tensor {
    embeds.to_kind(Kind::Float).contiguous()
}

fn tiles<'a>(images: &'a Tensor, texts: &'a Tensor, scale: &'a Tensor, tile: i64, is_paired: bool) -> LogitTiles<'a> {
    LogitTiles { image_embeds: images, text_embeds: texts, logit_scale: scale, tile, is_paired }
}

fn needs_gradients(inputs: &[&Tensor]) -> bool {
    mm_sys::grad_mode() && inputs.iter().any(|input| input.requires_grad())
}

fn pass_on(group: &Group, gradients: Option<Tensor>) -> Result<Option<Tensor>> {
    gradients.map(|gradients| group.pass_on(&gradients)).transpose()
}

/// `value` with the gradients of images, texts, temperature and what else there is.
fn with_gradients<'a>(
    value: &Tensor,
    (images, texts, logit_scale): (&'a Tensor, &'a Tensor, &'a Tensor),
    gradients: EmbedGradients,
    mut others: Vec<(&'a Tensor, Tensor)>,
) -> Result<Tensor> {
    let (Some(of_images), Some(of_texts)) = (gradients.images, gradients.texts) else { unreachable!("both are wanted") };
    let of_scale = EmbedGradients::of_logit_scale(&images.detach(), &of_images).view_as(logit_scale);
    others.extend([(images, of_images), (texts, of_texts), (logit_scale, of_scale)]);
    Ok(mm_sys::scalar_with_gradients(value, others).map_err(mm_core::Error::from)?)
}
