//! Heat maps: the parts of an image that are relevant for a text.

use crate::{ClipPipeline, Error, Result};
use mm_core::upload;
use mm_image::RgbImage;
use mm_vision::{HeatMapTaps, VitAttention};
use tch::{Kind, Tensor};

/// The relevance of each part of an image for a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Relevance {
    /// The number of columns.
    pub columns: usize,
    /// The cells, row by row from the top left, scaled to 0 to 1.
    pub values: Vec<f32>,
    /// The explained cosine similarity.
    pub similarity: f64,
}

/// Explains the similarity of `image` and `text`: for a ViT by gradient-weighted attention relevance through
/// all layers (Chefer et al. 2021, "Generic attention-model explainability", section 3.1), for a ResNet by
/// Grad-CAM (Selvaraju et al. 2017) on its last feature map. The cells cover the center crop of the
/// image by the processor.
///
/// # Errors
/// The image has no pixels, the text has no tokens, or the model is packed and has no gradients.
pub fn relevance(pipeline: &ClipPipeline, image: &RgbImage, text: &str) -> Result<Relevance> {
    let pixel_values =
        upload(&pipeline.image.processor.process_batch(std::slice::from_ref(image))?, pipeline.image.device);
    let text_embeds = pipeline.text.embed(&[text], 1)?.to_device(pipeline.image.device);
    let (image_embeds, taps) = tch::with_grad(|| pipeline.image.encoder.encode_with_taps(&pixel_values));
    let similarity = tch::with_grad(|| (image_embeds * text_embeds.copy()).sum(Kind::Float));
    let has_gradients = match &taps {
        HeatMapTaps::Attention(attention) => {
            attention.layers.iter().chain(&attention.pool).all(Tensor::requires_grad)
        }
        HeatMapTaps::Features { features, .. } => features.requires_grad(),
    };
    if !similarity.requires_grad() || !has_gradients {
        return Err(Error::NoGradients); // packed, or in locked layers
    }
    let map = match &taps {
        HeatMapTaps::Attention(attention) => attention_relevance(attention, &similarity)?,
        HeatMapTaps::Features { features, .. } => grad_cam(features, &similarity)?,
    };
    let columns = map.size()[1] as usize;
    let values = Vec::<f32>::try_from(scaled(&map).to_device(tch::Device::Cpu).contiguous().view(-1))?;
    Ok(Relevance { columns, values, similarity: similarity.double_value(&[]) })
}

/// The relevance `[grid, grid]` of each patch for the pooled output.
fn attention_relevance(attention: &VitAttention, score: &Tensor) -> Result<Tensor> {
    let taps: Vec<&Tensor> = attention.layers.iter().chain(&attention.pool).collect();
    let gradients = Tensor::f_run_backward(&[score], &taps, false, false)?;
    tch::no_grad(|| {
        // The positive part of attention times gradient, averaged over heads.
        let positive = |layer: &Tensor, gradient: &Tensor| {
            (layer * gradient).relu().mean_dim([1i64].as_slice(), false, Kind::Float).squeeze_dim(0)
        };
        let length = *attention.layers[0].size().last().expect("weights are [B, heads, L, L]");
        let mut relevance = Tensor::eye(length, (Kind::Float, score.device()));
        for (layer, gradient) in attention.layers.iter().zip(&gradients) {
            relevance = &relevance + positive(layer, gradient).matmul(&relevance); // [L, L]
        }
        let patches = match &attention.pool {
            Some(pool) => positive(pool, &gradients[attention.layers.len()])
                .unsqueeze(0)
                .matmul(&relevance)
                .squeeze_dim(0),
            None => relevance.get(0).narrow(0, 1, length - 1), // from the class token to the patches
        };
        let grid = (patches.size()[0] as f64).sqrt().round() as i64;
        Ok(patches.f_view([grid, grid])?)
    })
}

/// The sum of the last feature map's channels `[h, w]`, weighted by the mean gradient of the score.
fn grad_cam(features: &Tensor, score: &Tensor) -> Result<Tensor> {
    let gradient = Tensor::f_run_backward(&[score], &[features], false, false)?.remove(0);
    let weights = gradient.mean_dim([2i64, 3].as_slice(), true, Kind::Float); // [1, C, 1, 1]
    Ok(tch::no_grad(|| {
        (features * weights).sum_dim_intlist([1i64].as_slice(), false, Kind::Float).relu().squeeze_dim(0)
    }))
}

/// Scales the smallest value to 0 and the largest to 1; all zero if they are equal.
fn scaled(map: &Tensor) -> Tensor {
    tch::no_grad(|| {
        let low = map.min();
        (map - &low) / (map.max() - &low).clamp_min(1e-12)
    })
}
