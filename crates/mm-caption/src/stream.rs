//! Captions in pieces, while they are generated.

use crate::{Caption, CaptionPipeline, Error, Result};
use mm_text::generate::{GenerationConfig, Prompt, TextPieces};
use std::ops::ControlFlow;
use tch::Tensor;

impl CaptionPipeline {
    /// The caption that [`CaptionPipeline::generate`] gives for `states` `[1, ...]` of
    /// [`CaptionPipeline::encode`], one image, after `prompt`. `on_piece` is called after each token with the
    /// text that has become final, which may be empty; the pieces together are the caption.
    /// [`ControlFlow::Break`] ends the caption there.
    ///
    /// # Errors
    /// As [`mm_text::generate::generate_stream`], or the tokenizer cannot decode the tokens.
    pub fn caption_stream(
        &self,
        states: &Tensor,
        prompt: &Prompt,
        config: &GenerationConfig,
        on_piece: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Caption> {
        let mut pieces = TextPieces::new(&self.tokenizer, prompt.tokens.clone());
        let mut failed = None;
        let mut is_stopped = false;
        let mut on_token = |token| {
            let flow = match pieces.push(token) {
                Ok(piece) => on_piece(&piece),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            };
            is_stopped = flow.is_break();
            flow
        };
        let eos = [self.description.tokens.end];
        let hypothesis = self.captioner.generate_stream(states, prompt, config, &eos, &mut on_token)?;
        failed.map_or(Ok(()), Err)?;
        let caption = self.captions(prompt, &[hypothesis])?.pop();
        let caption = caption.ok_or_else(|| Error::Model("the decoder gives no caption".to_owned()))?;
        if !is_stopped {
            let _ = on_piece(pieces.rest(&caption.caption)); // the last one
        }
        Ok(caption)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::OpenOptions;
    use mm_testing::normal;
    use mm_text::Tokenizer;
    use std::path::{Path, PathBuf};

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/caption").join(name)
    }

    /// The pieces of `ids`, the last of which is what is left of the text.
    fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
        let mut pieces = TextPieces::new(tokenizer, Vec::new());
        let mut found: Vec<String> = ids.iter().map(|&id| pieces.push(id).unwrap()).collect();
        let text = tokenizer.decode(ids).unwrap();
        found.push(pieces.rest(&text).to_owned());
        assert_eq!(found.concat(), text);
        found
    }

    #[test]
    fn characters_of_several_tokens_come_whole_and_pieces_are_the_text() {
        let emoji = "a \u{1f600}\u{1f680} caf\u{e9} \u{732b}\u{5728} it.";
        let plain = "two red circles, and it's there!";
        for (folder, text) in [("gpt2", emoji), ("gpt2", plain), ("blip", plain)] {
            let tokenizer = Tokenizer::for_decoder(&golden(folder)).unwrap();
            let ids = tokenizer.encode_words(text).unwrap();
            let pieces = pieces(&tokenizer, &ids);
            assert!(pieces.iter().filter(|piece| !piece.is_empty()).count() > 2, "{pieces:?}");
            assert!(pieces.iter().all(|piece| !piece.contains(char::REPLACEMENT_CHARACTER)), "{pieces:?}");
        }
    }

    #[test]
    fn pieces_of_any_tokens_are_their_text() {
        for folder in ["gpt2", "blip"] {
            let tokenizer = Tokenizer::for_decoder(&golden(folder)).unwrap();
            let vocab = tokenizer.vocab_size() as u64;
            for seed in 0..100 {
                let id = |place: u64| (mm_core::seed::derive(seed, "token", place) % vocab) as u32;
                pieces(&tokenizer, &(0..20).map(id).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_stream_is_the_caption_and_ends_where_it_is_told_to() {
        for folder in ["blip", "vit-gpt2"] {
            let folder = golden(folder);
            let pipeline = CaptionPipeline::open(folder.to_str().unwrap(), &OpenOptions::default()).unwrap();
            let side = pipeline.processor.resize(&mm_image::RgbImage::new(40, 30)).unwrap().dimensions();
            let pixels = normal(5, &[1, 3, i64::from(side.1), i64::from(side.0)]);
            let states = tch::no_grad(|| pipeline.captioner.encode(&pixels, false));
            let greedy = GenerationConfig {
                num_beams: 1,
                num_return_sequences: 1,
                max_new_tokens: 12,
                ..pipeline.generation.clone()
            };
            let sampling = GenerationConfig { do_sample: true, temperature: 2.0, ..greedy.clone() };
            let prompt = pipeline.prompt("a picture of", 7).unwrap();
            for config in [&greedy, &sampling] {
                let texts = pipeline.generate(&states, std::slice::from_ref(&prompt), config).unwrap();
                let expected = pipeline.captions(&prompt, &texts[0]).unwrap().remove(0);
                let mut pieces = Vec::new();
                let found = pipeline.caption_stream(&states, &prompt, config, &mut |piece| {
                    pieces.push(piece.to_owned());
                    ControlFlow::Continue(())
                });
                assert_eq!(found.unwrap(), expected);
                assert_eq!((pieces.concat(), pieces.len()), (expected.caption, expected.tokens.len() + 1));
            }
            let mut calls = 0;
            let stopped = pipeline.caption_stream(&states, &prompt, &greedy, &mut |_| {
                calls += 1;
                if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!((stopped.unwrap().tokens.len(), calls), (3, 3));
            let beams = GenerationConfig { num_beams: 2, ..greedy };
            let error = pipeline.caption_stream(&states, &prompt, &beams, &mut |_| ControlFlow::Continue(()));
            assert!(error.unwrap_err().to_string().contains("num_beams is 2"));
        }
    }
}
