use crate::{ClipConfig, ContrastiveLoss, Error, Result};
use mm_core::Precision;
use mm_core::loss::{self, INITIAL_LOGIT_SCALE, MAX_LOGIT_SCALE};
use mm_core::nn::{Linear, parameter};
use mm_text::{TextTower, TextTowerConfig, TokenBatch};
use mm_vision::{HeatMapTaps, ImageTower, ImageTowerConfig, VitForm};
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// Two towers whose outputs are compared in one space (Radford et al. 2021). Parameter names are Hugging Face's `CLIPModel`'s
/// and `SiglipModel`'s; a modified ResNet bears open_clip's, below `visual`.
#[derive(Debug)]
pub struct Clip {
    image: ImageTower,
    image_projection: Option<Linear>,
    text: TextTower,
    text_projection: Option<Linear>,
    loss: ContrastiveLoss,
    /// The log of the inverse temperature, a scalar.
    logit_scale: Tensor,
    /// SigLIP's bias.
    logit_bias: Option<Tensor>,
}

impl Clip {
    /// Creates the model's parameters below `path`.
    ///
    /// # Errors
    /// A tower cannot be built, or its width is not `embed_dim` where nothing projects it.
    pub fn new(path: &Path, config: &ClipConfig) -> Result<Self> {
        let image_path = match config.image {
            ImageTowerConfig::ModifiedResNet(_) => path / "visual",
            _ => path / "vision_model",
        };
        let image = config.image.build(&image_path)?;
        let text = config.text.build(&(path / "text_model"))?;
        // SigLIP's towers and the attention pool of the modified ResNet end in the shared space themselves.
        let projects_itself = matches!(&config.image, ImageTowerConfig::ModifiedResNet(_))
            || matches!(&config.image, ImageTowerConfig::Vit(vit) if vit.form == VitForm::Siglip);
        let image_projection =
            projection(path, "visual_projection", image.output_width(), config.embed_dim, projects_itself)?;
        let projects_itself =
            matches!(&config.text, TextTowerConfig::Clip(text) if text.form == mm_text::ClipTextForm::Siglip);
        let text_projection =
            projection(path, "text_projection", config.text.output_width(), config.embed_dim, projects_itself)?;
        let (logit_scale, logit_bias) = match config.loss {
            ContrastiveLoss::InfoNce => (parameter(path, "logit_scale", &[], Init::Const(INITIAL_LOGIT_SCALE)), None),
            ContrastiveLoss::Siglip => {
                let bias = parameter(path, "logit_bias", &[1], Init::Const(-10.0));
                (parameter(path, "logit_scale", &[1], Init::Const(10f64.ln())), Some(bias))
            }
        };
        Ok(Self { image, image_projection, text, text_projection, loss: config.loss, logit_scale, logit_bias })
    }

    /// Maps `pixel_values` `[B, 3, S, S]` to unit rows `[B, embed_dim]`, f32. `train` turns on what differs in training.
    pub fn encode_image(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.finish_image(&self.image.forward(pixel_values, train))
    }

    /// As [`Clip::encode_image`], with what a heat map is made from, in one graph.
    pub fn encode_image_with_taps(&self, pixel_values: &Tensor) -> (Tensor, HeatMapTaps) {
        let taps = self.image.forward_with_taps(pixel_values);
        let pooled = match &taps {
            HeatMapTaps::Attention(vit) => &vit.pooled,
            HeatMapTaps::Features { pooled, .. } => pooled,
        };
        (self.finish_image(pooled), taps)
    }

    fn finish_image(&self, pooled: &Tensor) -> Tensor {
        unit_rows(
            self.image_projection.as_ref().map_or(pooled.shallow_clone(), |projection| projection.forward(pooled)),
        )
    }

    /// Maps `tokens` to unit rows `[B, embed_dim]`, f32.
    pub fn encode_text(&self, tokens: &TokenBatch) -> Tensor {
        let pooled = self.text.forward(tokens);
        unit_rows(
            self.text_projection.as_ref().map_or(pooled.shallow_clone(), |projection| projection.forward(&pooled)),
        )
    }

    /// The contrastive loss of paired unit rows `[B, embed_dim]`.
    pub fn loss(&self, image_embeds: &Tensor, text_embeds: &Tensor) -> Tensor {
        match &self.logit_bias {
            Some(bias) => loss::siglip(image_embeds, text_embeds, &self.logit_scale, bias),
            None => loss::info_nce(image_embeds, text_embeds, &self.logit_scale),
        }
    }

    /// The similarities `[N, M]` of unit rows `[N, D]` and `[M, D]` as the model's loss reads them, before softmax or sigmoid.
    pub fn logits(&self, image_embeds: &Tensor, text_embeds: &Tensor) -> Tensor {
        let logits = image_embeds.matmul(&text_embeds.transpose(0, 1)) * self.logit_scale.exp();
        self.logit_bias.as_ref().map_or(logits.shallow_clone(), |bias| &logits + bias)
    }

    /// The log of the inverse temperature.
    pub fn logit_scale(&self) -> &Tensor {
        &self.logit_scale
    }

    /// Clamps the temperature after an optimiser step (Radford et al. 2021, section 2.5). SigLIP's is free.
    pub fn clamp_logit_scale(&mut self) {
        if self.loss == ContrastiveLoss::InfoNce {
            let _ = tch::no_grad(|| self.logit_scale.clamp_(0.0, MAX_LOGIT_SCALE));
        }
    }

    /// Readies for inference in `precision`, with weights laid out once. A packed model cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.image.pack(precision);
        self.text.pack(precision);
        for projection in [&mut self.image_projection, &mut self.text_projection].into_iter().flatten() {
            projection.pack(precision);
        }
    }
}

/// The linear map of a tower's output to the shared space, where the tower does not end there itself.
fn projection(path: &Path, name: &str, width: i64, embed_dim: i64, projects_itself: bool) -> Result<Option<Linear>> {
    if !projects_itself {
        return Ok(Some(Linear::without_bias(&(path / name), width, embed_dim, (width as f64).powf(-0.5))));
    }
    match width == embed_dim {
        true => Ok(None),
        false => Err(Error::Model(format!(
            "embed_dim is {embed_dim}, but the tower that ends in the shared space is {width} wide: set embed_dim = {width}"
        ))),
    }
}

/// Unit rows in f32, whatever the towers computed in.
fn unit_rows(x: Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let norm = x.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true);
    x / norm.clamp_min(1e-12)
}
