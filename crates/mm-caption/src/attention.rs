//! The parts of an image that a captioner attends to at each word of a caption.

use crate::{CaptionPipeline, Error, Result};
use mm_image::{HeatMap, RgbImage};
use mm_text::Tokenizer;
use mm_vision::TokenGrid;
use serde::Serialize;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// The cross-attention of a caption's word over the image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WordAttention {
    /// The word.
    pub word: String,
    /// The number of columns.
    pub columns: usize,
    /// The attention to each part of the image, row by row from the top left. They add up to 1 less the
    /// attention to tokens that are no part of the image, such as a ViT's class token.
    pub values: Vec<f32>,
}

impl WordAttention {
    /// As a heat map to draw.
    pub fn heat_map(&self) -> HeatMap<'_> {
        HeatMap { label: &self.word, columns: self.columns, values: &self.values }
    }
}

/// The cross-attention of each generated word of a caption of `image`, whose tokens after `prompt` are
/// `caption`: the mean over layers and heads of the weights with which its tokens are predicted, averaged
/// over the tokens of the word. The parts cover the image as the processor resizes and crops it.
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
    let words = words(&pipeline.tokenizer, &prompt, caption)?;
    let attention = words.into_iter().map(|(word, tokens)| {
        let mean = |part: usize| tokens.iter().map(|&token| rows[token][part]).sum::<f32>();
        let values = (0..(side * side) as usize).map(|part| mean(part) / tokens.len() as f32).collect();
        WordAttention { word, columns: side as usize, values }
    });
    Ok(attention.collect())
}

/// The words of the text that `tokens` add to `prompt`, each with the places of its tokens. A token without
/// text, such as the end token, is part of no word.
fn words(tokenizer: &Tokenizer, prompt: &[u32], tokens: &[u32]) -> Result<Vec<(String, Vec<usize>)>> {
    let mut ids = prompt.to_vec();
    let mut text = tokenizer.decode(&ids)?;
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, &token) in tokens.iter().enumerate() {
        ids.push(token);
        let longer = tokenizer.decode(&ids)?;
        if longer != text {
            let word = longer.split_whitespace().count().saturating_sub(1);
            places.entry(word).or_default().push(place);
        }
        text = longer;
    }
    let all: Vec<&str> = text.split_whitespace().collect();
    // A decoder may join a token to the word before it, so that there are fewer words in the end.
    let mut words: Vec<(usize, Vec<usize>)> = Vec::new();
    for (word, tokens) in places {
        let word = word.min(all.len().saturating_sub(1));
        match words.last_mut().filter(|(last, _)| *last == word) {
            Some((_, of_word)) => of_word.extend(tokens),
            None => words.push((word, tokens)),
        }
    }
    let named = |(word, tokens): (usize, Vec<usize>)| Some((all.get(word)?.to_string(), tokens));
    Ok(words.into_iter().filter_map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of `text` with the number of tokens of each, after `prompt`.
    fn counted(folder: &str, prompt: &str, text: &str) -> Vec<(String, usize)> {
        let folder = format!("{}/../../data/goldens/caption/{folder}", env!("CARGO_MANIFEST_DIR"));
        let tokenizer = Tokenizer::for_decoder(folder.as_ref()).unwrap();
        let mut tokens = tokenizer.encode_words(text).unwrap();
        tokens.push(tokenizer.eos_id());
        let prompt = tokenizer.encode_words(prompt).unwrap();
        let found = words(&tokenizer, &prompt, &tokens).unwrap();
        let all: Vec<usize> = found.iter().flat_map(|(_, tokens)| tokens.clone()).collect();
        assert!(all.is_sorted() && !all.contains(&(tokens.len() - 1)), "{all:?}");
        found.into_iter().map(|(word, tokens)| (word, tokens.len())).collect()
    }

    #[test]
    fn tokens_belong_to_the_words_that_they_spell_and_the_end_token_to_none() {
        let counts = |words: &[(&str, usize)]| -> Vec<(String, usize)> {
            words.iter().map(|&(word, count)| (word.to_owned(), count)).collect()
        };
        let found = counted("blip", "a picture of", "two red circles.");
        assert_eq!(found, counts(&[("two", 1), ("red", 1), ("circles.", 3)]));
        let found = counted("vit-gpt2", "", "a zebra");
        assert_eq!(found.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>(), ["a", "zebra"]);
        assert!(found[1].1 > 1, "{found:?}");
        // The generated tokens go on with the last word of the prompt.
        let found = counted("vit-gpt2", "a zeb", "ra");
        assert_eq!(found[0].0, "zebra");
        assert_eq!(counted("vit-gpt2", "", ""), []);
    }
}
