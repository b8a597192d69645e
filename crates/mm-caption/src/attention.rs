//! The parts of an image that a captioner attends to at each word of a caption.

use crate::{CaptionPipeline, Error, Result};
use mm_image::{RgbImage, WordAttention};
use mm_vision::TokenGrid;
use tch::{Kind, Tensor};

/// The cross-attention of each generated word of a caption of `image`, whose tokens after `prompt` are
/// `caption`: the mean over layers and heads of the weights with which its tokens are predicted, averaged
/// over the tokens of the word. They add up to 1 less the attention to tokens that are no part of the image,
/// such as a ViT's class token. The parts cover the image as the processor resizes and crops it.
///
/// # Errors
/// The captioner reads the image as a prefix, the image has no pixels, or the tokenizer cannot decode the
/// caption.
pub fn word_attention(
    pipeline: &CaptionPipeline,
    image: &RgbImage,
    prompt: &str,
    caption: &[u32],
) -> Result<Vec<WordAttention>> {
    let prompt = pipeline.prompt(prompt, 0)?.tokens;
    let Some((_, seen)) = caption.split_last() else { return Ok(Vec::new()) };
    let states = pipeline.encode(std::slice::from_ref(image))?;
    let ids: Vec<i64> = prompt.iter().chain(seen).map(|&id| i64::from(id)).collect();
    let input_ids = Tensor::from_slice(&ids).unsqueeze(0).to_device(pipeline.device);
    let weights = mm_sys::inference_mode(|| pipeline.captioner.context_weights(&states, &input_ids));
    let weights = weights.ok_or_else(|| {
        Error::Model(
            "the captioner has no cross-attention: it reads the image as a prefix, of which there is no \
             heat map"
                .to_owned(),
        )
    })?;
    let TokenGrid { extra_tokens, side } = pipeline.description.model.image.token_grid();
    let rows: Vec<Vec<f32>> = mm_sys::inference_mode(|| -> Result<_> {
        let weights = Tensor::f_stack(&weights, 0)?; // [layers, 1, heads, L, S]
        let mean = weights.f_mean_dim([0i64, 1, 2].as_slice(), false, Kind::Float)?; // [L, S]
        // The token after a position is predicted there, so the first one at the end of the prompt.
        let rows = mean.f_narrow(0, prompt.len() as i64 - 1, caption.len() as i64)?;
        Ok(Vec::try_from(rows.f_narrow(1, extra_tokens, side * side)?.contiguous())?)
    })?;
    let words = pipeline.tokenizer.words(&prompt, caption)?;
    let attention = words.into_iter().map(|(word, tokens)| {
        let mean = |part: usize| tokens.iter().map(|&token| rows[token][part]).sum::<f32>();
        let values = (0..(side * side) as usize).map(|part| mean(part) / tokens.len() as f32).collect();
        WordAttention { word, columns: side as usize, values }
    });
    Ok(attention.collect())
}
