//! The parts of an image that a model attends to for its answer.

use crate::model::by_question;
use crate::rollout::attention_rollout;
use crate::{Error, ImageStates, QuestionBatch, Result, VqaConfig, VqaModel, VqaPipeline};
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
    /// its values row by row from the top left; they add up to 1 less the attention to tokens that are no
    /// part of the image, such as a ViT's class token or, of a ViLT, the question.
    pub maps: Vec<(String, Vec<f32>)>,
}

/// The maps of a model, `[N]` each, over the tokens of the image.
struct Maps {
    layers: Vec<Tensor>,
    rolled_out: Tensor,
    /// The first token that is a region of the image.
    first: i64,
    rows: i64,
    columns: i64,
}

impl AnswerAttention {
    /// As heat maps to draw.
    pub fn heat_maps(&self) -> Vec<HeatMap<'_>> {
        let map = |(label, values)| HeatMap { label, columns: self.columns, values };
        self.maps.iter().map(|(label, values)| map((&**label, &**values))).collect()
    }
}

/// The attention over `image`, as the processor resizes and crops it, for the answer to `question`: the mean
/// over the heads of each layer, and all layers rolled out.
///
/// - Of a co-attention model these are the attentions of its fusion.
/// - Of a BLIP they are the attentions of the question's tokens over the image, averaged over the tokens but
///   for the first and the last; rolled out is their mean over layers, since the image's own tokens are not
///   mixed there.
/// - Of a ViLT they are the attentions of the token that the answer is read from.
///
/// # Errors
/// The image has no pixels, or the tokenizer does not cover the question.
pub fn answer_attention(pipeline: &VqaPipeline, image: &RgbImage, question: &str) -> Result<AnswerAttention> {
    let states = pipeline.encode(std::slice::from_ref(image))?;
    let questions = pipeline.questions(&[question], vec![0])?;
    let maps = mm_sys::inference_mode(|| maps(pipeline, &states, &questions))?;
    let regions = |map: &Tensor| -> Result<Vec<f32>> {
        let map = map.view(-1).f_narrow(0, maps.first, maps.rows * maps.columns)?;
        Ok(Vec::try_from(map.to_kind(Kind::Float).contiguous())?)
    };
    let mut named = Vec::with_capacity(maps.layers.len() + 1);
    for (number, layer) in (1..).zip(&maps.layers) {
        named.push((format!("layer {number}"), regions(layer)?));
    }
    named.push(("rolled out".to_owned(), regions(&maps.rolled_out)?));
    Ok(AnswerAttention { columns: maps.columns as usize, maps: named })
}

fn maps(pipeline: &VqaPipeline, states: &ImageStates, questions: &QuestionBatch) -> Result<Maps> {
    let mean = |tensor: &Tensor| tensor.mean_dim([1i64].as_slice(), false, Kind::Float); // over heads
    match (&pipeline.model, &pipeline.config, states) {
        (VqaModel::CoAttention(model), VqaConfig::CoAttention(config), ImageStates::Tokens(tokens)) => {
            let TokenGrid { extra_tokens, side } = config.model.image.token_grid();
            let (index, ids) = (questions.image_index_on(tokens.device()), &questions.tokens.input_ids);
            let (_, attention) = model.forward_with_weights(tokens, &index, ids, &questions.lengths());
            let layers = attention.layers.iter().map(mean).collect();
            let rolled_out = attention.rolled_out;
            Ok(Maps { layers, rolled_out, first: extra_tokens, rows: side, columns: side })
        }
        (VqaModel::Blip(model), VqaConfig::Blip(config), ImageStates::Tokens(tokens)) => {
            use mm_vision::ImageTowerSpec;
            let TokenGrid { extra_tokens, side } = config.image.token_grid();
            let words = |weights: Tensor| -> Result<Tensor> {
                let mean = mean(&weights).squeeze_dim(0); // [L, S]
                // Not the tokens around the question, unless there are no others.
                let length = mean.size()[0];
                let (first, count) = if length > 2 { (1, length - 2) } else { (0, length) };
                Ok(mean.f_narrow(0, first, count)?.mean_dim([0i64].as_slice(), false, Kind::Float))
            };
            let layers = model.question_weights(tokens, &questions.tokens).into_iter().map(words);
            let layers: Vec<Tensor> = layers.collect::<Result<_>>()?;
            let rolled_out = Tensor::f_stack(&layers, 0)?.mean_dim([0i64].as_slice(), false, Kind::Float);
            Ok(Maps { layers, rolled_out, first: extra_tokens, rows: side, columns: side })
        }
        (VqaModel::Vilt(model), VqaConfig::Vilt(config), ImageStates::Images(images)) => {
            let images = by_question(images, questions);
            let (_, weights) = model.forward_with_weights(&images, &questions.tokens)?;
            // The answer is read from the first token; the image follows the question and its class token.
            let first = questions.tokens.input_ids.size()[1] + 1;
            let (height, width) = images.sizes.first().copied().unwrap_or_default();
            let layers = weights.iter().map(|layer| mean(layer).select(1, 0)).collect();
            let rolled_out = attention_rollout(&weights)
                .ok_or_else(|| Error::Model("the model has no layers".to_owned()))?
                .select(1, 0);
            let (rows, columns) = (height / config.patch_size, width / config.patch_size);
            Ok(Maps { layers, rolled_out, first, rows, columns })
        }
        _ => Err(Error::Model("the states are of another model".to_owned())),
    }
}
