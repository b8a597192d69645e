//! The parts of an image that a model attends to for its answer.

use crate::{Result, VqaModel, VqaModelConfig, VqaPipeline};
use mm_image::{HeatMap, RgbImage};
use mm_vision::TokenGrid;
use serde::Serialize;
use tch::{Kind, Tensor};

/// The attention of an answer over the image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerAttention {
    /// The number of columns of each map.
    pub columns: usize,
    /// The maps by name: one for each layer, and last the layers rolled out (Abnar & Zuidema 2020). Each has
    /// its values row by row from the top left; they add up to 1 less the attention to tokens that are no part
    /// of the image, such as a ViT's class token.
    pub maps: Vec<(String, Vec<f32>)>,
}

impl AnswerAttention {
    /// As heat maps to draw.
    pub fn heat_maps(&self) -> Vec<HeatMap<'_>> {
        let map = |(label, values)| HeatMap { label, columns: self.columns, values };
        self.maps.iter().map(|(label, values)| map((&**label, &**values))).collect()
    }

    /// The map rolled out over all layers.
    pub fn rolled_out(&self) -> Option<HeatMap<'_>> {
        self.heat_maps().pop()
    }
}

/// The attention over `image`, as the processor resizes and crops it, for the answer to `question`: the mean
/// over the heads of each layer.
///
/// # Errors
/// The image has no pixels, or the tokenizer does not cover the question.
pub fn answer_attention(pipeline: &VqaPipeline, image: &RgbImage, question: &str) -> Result<AnswerAttention> {
    let states = pipeline.encode(std::slice::from_ref(image))?;
    let questions = pipeline.questions(&[question], &[0])?;
    let (VqaModel::CoAttention(model), VqaModelConfig::CoAttention(config)) =
        (&pipeline.model, &pipeline.description.model);
    let TokenGrid { extra_tokens, side } = config.image.token_grid();
    let attention = mm_sys::inference_mode(|| {
        let (index, ids) = (&questions.image_index, &questions.tokens.input_ids);
        model.forward_with_weights(&states, index, ids, &questions.lengths()).1
    });
    let regions = |map: &Tensor| -> Result<Vec<f32>> {
        let map = map.view(-1).f_narrow(0, extra_tokens, side * side)?;
        Ok(Vec::try_from(map.to_kind(Kind::Float).contiguous())?)
    };
    let mut maps = Vec::with_capacity(attention.layers.len() + 1);
    for (number, layer) in (1..).zip(&attention.layers) {
        let mean = layer.mean_dim([1i64].as_slice(), false, Kind::Float); // [1, N]
        maps.push((format!("layer {number}"), regions(&mean)?));
    }
    maps.push(("rolled out".to_owned(), regions(&attention.rolled_out)?));
    Ok(AnswerAttention { columns: side as usize, maps })
}
