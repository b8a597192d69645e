//! The comparison of images and texts: temperature and bias.

use crate::ContrastiveLoss;
use mm_core::loss::{INITIAL_LOGIT_SCALE, MAX_LOGIT_SCALE};
use mm_core::nn::parameter;
use mm_dist::Contrastive;
use serde::Serialize;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// The meaning of a model's probability of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Probability {
    /// A distribution over the labels: the probabilities sum to 1.
    Softmax,
    /// Each label on its own, independent of the others.
    Sigmoid,
}

/// The comparison of the unit rows of a CLIP's towers: a temperature and, for the sigmoid loss, a bias.
#[derive(Debug)]
pub struct ContrastiveHead {
    /// The log of the inverse temperature, `[]` or `[1]`.
    logit_scale: Tensor,
    /// The sigmoid loss's bias, `[1]`.
    logit_bias: Option<Tensor>,
}

impl ContrastiveHead {
    /// Creates `logit_scale` and, for the sigmoid loss, `logit_bias` below `path`, with the initial values of
    /// CLIP and SigLIP.
    pub fn new(path: &Path, loss: ContrastiveLoss) -> Self {
        match loss {
            ContrastiveLoss::InfoNce => {
                let logit_scale = parameter(path, "logit_scale", &[], Init::Const(INITIAL_LOGIT_SCALE));
                Self { logit_scale, logit_bias: None }
            }
            ContrastiveLoss::Siglip => {
                let logit_scale = parameter(path, "logit_scale", &[1], Init::Const(10f64.ln()));
                Self {
                    logit_scale,
                    logit_bias: Some(parameter(path, "logit_bias", &[1], Init::Const(-10.0))),
                }
            }
        }
    }

    /// The contrastive loss of this process's paired unit rows `[B, D]` over the samples of all processes.
    ///
    /// # Errors
    /// Another process fails.
    pub fn loss(
        &self,
        contrastive: &Contrastive,
        image_embeds: &Tensor,
        text_embeds: &Tensor,
    ) -> mm_dist::Result<Tensor> {
        match &self.logit_bias {
            Some(bias) => contrastive.siglip(image_embeds, text_embeds, &self.logit_scale, bias),
            None => contrastive.info_nce(image_embeds, text_embeds, &self.logit_scale),
        }
    }

    /// The logits `[N, M]` of unit rows `[N, D]` and `[M, D]`, before softmax or sigmoid.
    pub fn logits(&self, image_embeds: &Tensor, text_embeds: &Tensor) -> Tensor {
        let logits = image_embeds.matmul(&text_embeds.transpose(0, 1)) * self.logit_scale.exp();
        self.logit_bias.as_ref().map_or(logits.shallow_clone(), |bias| &logits + bias)
    }

    /// The probabilities for the logits of images and labels `[N, M]`: with CLIP's loss a distribution over
    /// the labels (softmax over M), with the sigmoid loss each pair on its own (Zhai et al. 2023, section
    /// 3.2).
    pub fn probabilities(&self, logits: &Tensor) -> Tensor {
        match self.probability() {
            Probability::Softmax => logits.softmax(-1, Kind::Float),
            Probability::Sigmoid => logits.to_kind(Kind::Float).sigmoid(),
        }
    }

    /// The kind of [`ContrastiveHead::probabilities`].
    pub fn probability(&self) -> Probability {
        if self.logit_bias.is_some() { Probability::Sigmoid } else { Probability::Softmax }
    }

    /// The log of the inverse temperature.
    pub fn logit_scale(&self) -> &Tensor {
        &self.logit_scale
    }

    /// Clamps the temperature after an optimizer step (Radford et al. 2021, section 2.5). The temperature of
    /// the sigmoid loss is not clamped.
    pub fn clamp_logit_scale(&mut self) {
        if self.logit_bias.is_none() {
            let _ = tch::no_grad(|| self.logit_scale.clamp_(0.0, MAX_LOGIT_SCALE));
        }
    }
}
