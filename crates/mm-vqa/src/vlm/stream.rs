//! Answers in pieces, while they are generated.

use super::pipeline::{VlmAnswer, VlmInputs, VlmPipeline};
use crate::Result;
use mm_text::generate::{GenerationConfig, Prompt, TextPieces};
use std::ops::ControlFlow;

impl VlmPipeline {
    /// The answer that [`VlmPipeline::generate`] gives to `inputs` alone. `on_piece` is called after each
    /// token with the text that has become final, which may be empty; the pieces together are the answer.
    /// [`ControlFlow::Break`] ends the answer there.
    ///
    /// # Errors
    /// As [`VlmPipeline::generate`] and [`mm_text::generate::generate_stream`].
    pub fn generate_stream(
        &self,
        inputs: &VlmInputs,
        config: &GenerationConfig,
        on_piece: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<VlmAnswer> {
        self.check(inputs)?;
        let prompt = Prompt { tokens: inputs.input_ids.clone(), seed: 0 };
        let features = self.features(std::slice::from_ref(inputs))?;
        let mut pieces = TextPieces::new(&self.tokenizer, Vec::new());
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
        let text = self.model.generate_stream(features, &prompt, config, &self.eos, &mut on_token)?;
        failed.map_or(Ok(()), Err)?;
        let answer = self.answer(text)?;
        if !is_stopped {
            let _ = on_piece(pieces.rest(&answer.text)); // the last one
        }
        Ok(answer)
    }
}
