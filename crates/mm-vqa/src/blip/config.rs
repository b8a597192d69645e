//! The config of a BLIP that answers questions.

use crate::{Error, Result};
use mm_core::nn::TowerSpec;
use mm_text::decoder::{BertDecoderConfig, SpecialTokens, TextDecoderSpec};
use mm_vision::VitConfig;
use serde::{Deserialize, Serialize};

/// The first token of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionToken {
    /// BERT's `[CLS]`, as in transformers.
    #[default]
    Cls,
    /// `[ENC]`, the token after the decoder's begin token, as in the authors' own code (LAVIS), with which
    /// published checkpoints were trained.
    Enc,
}

/// The parts of a [`BlipVqa`](crate::BlipVqa).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlipVqaConfig {
    /// The image tower, of [`VitVariant::Blip`](mm_vision::VitVariant::Blip).
    pub image: VitConfig,
    /// The sizes of the question encoder and of the answer decoder, which are the same.
    pub text: BertDecoderConfig,
    /// The tokens that answers begin and end with.
    pub tokens: SpecialTokens,
    /// The first token of a question.
    pub question_token: QuestionToken,
}

impl BlipVqaConfig {
    /// Checks that a model can be built.
    ///
    /// # Errors
    /// The tower or the texts' sizes are out of range, their widths differ, or a special token has no
    /// embedding.
    pub fn validate(&self) -> Result<()> {
        self.image.validate()?;
        TextDecoderSpec::validate(&self.text)?;
        let (image, text) = (self.image.hidden_size, self.text.hidden_size);
        if image != text {
            // transformers builds both cross-attentions for the image's width.
            return Err(Error::Model(format!(
                "images have width {image} and questions {text}: BLIP's answer decoder reads questions \
                 through matrices of the image's width, so they must be equal"
            )));
        }
        let tokens = [self.start(), self.tokens.end].into_iter().chain(self.enc_token());
        for token in tokens {
            if i64::from(token) >= self.text.vocab_size {
                return Err(Error::Model(format!(
                    "special token {token} has no embedding: vocab_size is {}",
                    self.text.vocab_size
                )));
            }
        }
        Ok(())
    }

    /// The token before each answer.
    pub fn start(&self) -> u32 {
        self.tokens.start.unwrap_or(self.tokens.end)
    }

    /// The token that takes the place of a question's `[CLS]`, if any.
    pub fn enc_token(&self) -> Option<u32> {
        match self.question_token {
            QuestionToken::Cls => None,
            QuestionToken::Enc => Some(self.start() + 1),
        }
    }

    /// The largest number of tokens of a question.
    pub fn max_question_length(&self) -> usize {
        self.text.max_position_embeddings as usize
    }

    /// The model in a few words.
    pub fn describe(&self) -> String {
        let token = match self.question_token {
            QuestionToken::Cls => "[CLS]",
            QuestionToken::Enc => "[ENC]",
        };
        format!(
            "BLIP for questions: {}; questions begin with {token} and read the image; answers: {}",
            self.image.describe(),
            self.text.describe()
        )
    }

    /// Whether the optimizer's weight decay applies to the parameter `name`, given that it is a matrix; see
    /// [`TowerSpec::has_weight_decay`].
    pub fn has_weight_decay(&self, name: &str) -> bool {
        match name.strip_prefix("vision_model.") {
            Some(name) => self.image.has_weight_decay(name),
            None => !name.ends_with(".embeddings.position_embeddings.weight"),
        }
    }

    /// Whether training recomputes the activations of blocks in the backward pass.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        self.image.gradient_checkpointing = on;
        self.text.gradient_checkpointing = on;
    }
}
