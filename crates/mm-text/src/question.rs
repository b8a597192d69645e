//! Question encoders: texts to one state a token.

use crate::{Bert, BertConfig, Error, LstmConfig, Result, TextTowerSpec, Tokenizer};
use mm_core::Precision;
use mm_core::nn::{Embedding, TowerSpec};
use std::fmt::Debug;
use tch::nn::Path;
use tch::{Kind, Tensor};

mm_core::tower_configs! {
    /// The config of any question encoder; in TOML, `kind = "lstm"` or `kind = "bert"` beside the fields of
    /// the encoder's own config.
    pub enum QuestionEncoderConfig: dyn QuestionEncoderSpec {
        /// Word embeddings and an LSTM.
        Lstm(LstmConfig) = "lstm",
        /// BERT, without its pooling.
        Bert(BertConfig) = "bert",
    }
}

/// The config of a question encoder.
pub trait QuestionEncoderSpec: TowerSpec {
    /// Creates the encoder below `path`.
    ///
    /// # Errors
    /// As [`QuestionEncoderSpec::validate`].
    fn build(&self, path: &Path) -> Result<Box<dyn QuestionEncoder>>;

    /// Checks that the encoder can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    fn validate(&self) -> Result<()>;

    /// Width of the embeddings of tokens.
    fn embedding_width(&self) -> i64;

    /// Width of the states.
    fn output_width(&self) -> i64;

    /// The largest number of tokens in a question; none: of any number.
    fn context_length(&self) -> Option<i64>;

    /// Rows of the token embedding.
    fn vocab_size(&self) -> i64;

    /// Takes the sizes that depend on the vocabulary from `tokenizer`, for an encoder trained with it.
    fn set_vocabulary(&mut self, tokenizer: &Tokenizer);

    /// Whether the encoder reads any sequence of vectors, such as those of phrases, in place of its own
    /// embeddings of tokens.
    fn is_recurrent(&self) -> bool;
}

impl QuestionEncoderConfig {
    /// Checks that this encoder can take the batches of `tokenizer`.
    ///
    /// # Errors
    /// Ids outside the embedding, or questions over the context length.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (ids, rows) = (tokenizer.vocab_size(), self.vocab_size());
        if ids as i64 > rows {
            return Err(Error::Mismatch(format!(
                "its vocabulary has {ids} tokens, the question encoder's embedding {rows} rows"
            )));
        }
        let length = tokenizer.context_length();
        match self.context_length() {
            Some(limit) if length as i64 > limit => Err(Error::Mismatch(format!(
                "it makes up to {length} tokens a question, the encoder has {limit} positions"
            ))),
            _ => Ok(()),
        }
    }
}

/// A question encoder: token ids in, one state a token out.
pub trait QuestionEncoder: Debug + Send {
    /// The vectors `[Q, L, embedding_width]` of `input_ids` `[Q, L]` (i64).
    fn embed(&self, input_ids: &Tensor) -> Tensor;

    /// The states of questions that are `embedded` `[Q, L, embedding_width]`, the first `lengths` `[Q]` (i64,
    /// at least 1) vectors of each; the rest is padding, which changes nothing.
    fn encode(&self, embedded: &Tensor, lengths: &Tensor) -> QuestionStates;

    /// The table of word vectors.
    fn word_embedding(&self) -> &Embedding;

    /// Prepares for inference in `precision`. A packed encoder cannot be trained.
    fn pack(&mut self, precision: Precision);
}

/// The states of a batch of questions.
#[derive(Debug)]
pub struct QuestionStates {
    /// `[Q, L, output_width]`, zero at padding.
    pub tokens: Tensor,
    /// The state of the whole question `[Q, output_width]`: an LSTM's last, of both directions where there
    /// are two, or BERT's first token.
    pub last: Tensor,
}

/// A mask `[Q, length]` (i64) that is 1 for the first `lengths` `[Q]` (i64) tokens of each question.
pub fn length_mask(lengths: &Tensor, length: i64) -> Tensor {
    let positions = Tensor::arange(length, (Kind::Int64, lengths.device()));
    positions.unsqueeze(0).lt_tensor(&lengths.unsqueeze(1)).to_kind(Kind::Int64)
}

impl QuestionEncoderSpec for BertConfig {
    fn build(&self, path: &Path) -> Result<Box<dyn QuestionEncoder>> {
        Ok(Box::new(Bert::new(path, self)?))
    }

    fn validate(&self) -> Result<()> {
        self.validate()
    }

    fn embedding_width(&self) -> i64 {
        self.hidden_size
    }

    fn output_width(&self) -> i64 {
        self.hidden_size
    }

    fn context_length(&self) -> Option<i64> {
        Some(self.max_position_embeddings)
    }

    fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    fn set_vocabulary(&mut self, tokenizer: &Tokenizer) {
        TextTowerSpec::set_vocabulary(self, tokenizer);
    }

    fn is_recurrent(&self) -> bool {
        false
    }
}

impl QuestionEncoder for Bert {
    fn embed(&self, input_ids: &Tensor) -> Tensor {
        self.embed(input_ids)
    }

    fn encode(&self, embedded: &Tensor, lengths: &Tensor) -> QuestionStates {
        let mask = length_mask(lengths, embedded.size()[1]);
        let states = self.encode(embedded, &mask);
        let tokens = &states * mask.unsqueeze(-1).to_kind(states.kind());
        QuestionStates { last: states.select(1, 0), tokens }
    }

    fn word_embedding(&self) -> &Embedding {
        self.word_embeddings()
    }

    fn pack(&mut self, precision: Precision) {
        self.pack(precision);
    }
}
