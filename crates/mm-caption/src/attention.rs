//! The parts of an image that a captioner attends to at each word of a caption.

use crate::{CaptionPipeline, Error, Result};
use mm_image::image::imageops;
use mm_image::{GLYPH_SIDE, RgbImage, draw_text, overlay_heat_map};
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

/// Pixels between the pictures of a strip.
const GAP: u32 = 4;
/// The height of the words below them.
const LABEL: u32 = 24;

/// Pictures in a row of a strip.
const PER_ROW: u32 = 10;

/// Draws the square `image`, as the captioner sees it, and beside it one heat map for each of `words` with
/// the word below: a strip of pictures of `side` pixels, of which a row has up to ten. The colors of a map
/// are from blue at its smallest value to red at its largest.
pub fn draw_strip(image: &RgbImage, words: &[WordAttention], side: u32) -> RgbImage {
    let count = words.len() as u32 + 1;
    let (columns, rows) = (count.min(PER_ROW), count.div_ceil(PER_ROW));
    let size = (columns * (side + GAP) - GAP, rows * (side + LABEL));
    let mut strip = RgbImage::from_pixel(size.0, size.1, [255; 3].into());
    let picture = imageops::resize(image, side, side, imageops::FilterType::Triangle);
    imageops::replace(&mut strip, &picture, 0, 0);
    for (place, word) in (1..).zip(words) {
        let (left, top) = (place % PER_ROW * (side + GAP), place / PER_ROW * (side + LABEL));
        let map = overlay_heat_map(image, &scaled(&word.values), word.columns, side);
        imageops::replace(&mut strip, &map, i64::from(left), i64::from(top));
        draw_label(&mut strip, &word.word, (left, top + side), side);
    }
    strip
}

/// Values from 0 for the smallest to 1 for the largest.
fn scaled(values: &[f32]) -> Vec<f32> {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = if most > least { most - least } else { 1.0 };
    values.iter().map(|value| (value - least) / range).collect()
}

/// Draws `word` in the middle of the space of `side` pixels whose upper left corner is given: large, or small
/// where it is long, or its beginning where it is longer yet.
fn draw_label(strip: &mut RgbImage, word: &str, (left, top): (u32, u32), side: u32) {
    let fitting = (side / GLYPH_SIDE) as usize;
    let length = word.chars().count();
    let scale = if 2 * length <= fitting { 2 } else { 1 };
    let text = if length <= fitting {
        word.to_owned()
    } else {
        word.chars().take(fitting.saturating_sub(3)).chain("...".chars()).collect()
    };
    let width = GLYPH_SIDE * scale * text.chars().count() as u32;
    let top = top + (LABEL - GLYPH_SIDE * scale) / 2;
    draw_text(strip, &text, (left + side.saturating_sub(width) / 2, top), scale, [0; 3]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(word: &str, values: &[f32]) -> WordAttention {
        WordAttention { word: word.to_owned(), columns: 2, values: values.to_vec() }
    }

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

    #[test]
    fn a_strip_has_the_picture_and_a_map_a_word_with_the_word_below() {
        let image = RgbImage::from_pixel(8, 8, [128; 3].into());
        let words = [word("dog", &[0.01, 0.03, 0.01, 0.01]), word("very-long-words-are-small", &[0.0; 4])];
        let strip = draw_strip(&image, &words, 64);
        assert_eq!(strip.dimensions(), (3 * 64 + 2 * GAP, 64 + LABEL));
        assert_eq!(strip[(32, 32)].0, [128; 3]);
        let (hot, cold) = (strip[(64 + GAP + 60, 4)], strip[(64 + GAP + 4, 60)]);
        assert!(hot[0] > hot[2] && cold[2] > cold[0], "{hot:?} {cold:?}");
        let is_black = |&(x, y): &(u32, u32)| strip[(x, y)].0 == [0; 3];
        let black = |from: u32| {
            (from..from + 64).flat_map(|x| (64..64 + LABEL).map(move |y| (x, y))).filter(is_black).count()
        };
        assert_eq!(black(0), 0);
        assert!(black(64 + GAP) > 50 && black(2 * (64 + GAP)) > 50);
        assert_eq!(draw_strip(&image, &[], 64).dimensions(), (64, 64 + LABEL));
    }
}
