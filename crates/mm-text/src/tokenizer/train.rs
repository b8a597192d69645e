//! Training of tokenizers.

use super::clip::{self, END, END_OF_WORD, START, normalizer, pre_tokenizer};
use crate::{Error, Result, Tokenizer};
use serde_json::Value;
use tokenizers::models::bpe::{BPE, BpeTrainer, Merges, Vocab};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

type Trainee =
    TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Trains CLIP's tokenizer on `captions`: byte-pair encoding (Sennrich et al. 2016) of at most `vocab_size`
/// tokens, numbered as CLIP numbers its own: 256 bytes, 256 bytes that end a word, the merges, then
/// `<|startoftext|>` and `<|endoftext|>`.
///
/// The result depends on the captions alone, not on their order or the number of cores. Training stops early
/// once every word is one token.
///
/// # Errors
/// No captions, or a `vocab_size` below the 514 tokens that every text needs.
pub fn train_bpe(
    captions: impl Iterator<Item = String> + Send,
    vocab_size: usize,
    context_length: usize,
) -> Result<Tokenizer> {
    let pieces = Pieces {
        base: clip::letters().collect(),
        reserved: 2,
        end_of_word: Some(END_OF_WORD),
        normalizer: Some(normalizer()),
        pre_tokenizer: pre_tokenizer(),
    };
    let (mut vocab, merges) = pieces.merged(captions, vocab_size)?;
    for token in [START, END] {
        vocab.insert(token.to_owned(), vocab.len() as u32);
    }
    let inner = clip::tokenizer(vocab, merges).map_err(|reason| Error::Training(reason.to_string()))?;
    Tokenizer::new(inner, &Value::Null, false)?.with_context_length(context_length)
}

/// What merges start from.
pub(super) struct Pieces {
    /// The tokens that are there in any case, in the order of their ids.
    pub base: Vec<String>,
    /// The number of tokens that follow the merges.
    pub reserved: usize,
    /// The mark of a token that ends a word.
    pub end_of_word: Option<&'static str>,
    /// How texts are changed first, as in `tokenizer.json`.
    pub normalizer: Option<Value>,
    /// How they are split into words, as in `tokenizer.json`.
    pub pre_tokenizer: Value,
}

impl Pieces {
    /// The vocabulary and the merges of `texts`, with at most `vocab_size` tokens, reserved ones included.
    ///
    /// # Errors
    /// No texts, or a `vocab_size` below the tokens that are there in any case.
    pub fn merged(
        self,
        texts: impl Iterator<Item = String> + Send,
        vocab_size: usize,
    ) -> Result<(Vocab, Merges)> {
        let smallest = self.base.len() + self.reserved;
        if vocab_size < smallest {
            return Err(Error::Training(format!(
                "a vocabulary of {vocab_size} is below the {smallest} tokens for bytes"
            )));
        }
        let mut texts = texts.peekable();
        if texts.peek().is_none() {
            return Err(Error::Training("no captions".to_owned()));
        }
        // The trainer numbers letters in the order of its hash map; as special tokens they keep this order.
        let base = self.base.into_iter().map(|token| AddedToken::from(token, false)).collect();
        let builder = BpeTrainer::builder().show_progress(false).vocab_size(vocab_size - self.reserved);
        let builder = builder.special_tokens(base);
        let mut trainer = match self.end_of_word {
            Some(suffix) => builder.end_of_word_suffix(suffix.to_owned()).build(),
            None => builder.build(),
        };
        let mut trainee = Trainee::new(BPE::default());
        if let Some(normalizer) = self.normalizer {
            trainee.with_normalizer(Some(part::<NormalizerWrapper>(normalizer)?));
        }
        trainee.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(self.pre_tokenizer)?));
        trainee.train(&mut trainer, texts).map_err(|reason| Error::Training(reason.to_string()))?;
        let model = serde_json::to_value(trainee.get_model())
            .map_err(|reason| Error::Training(reason.to_string()))?;
        Ok((part(model["vocab"].clone())?, part(model["merges"].clone())?))
    }
}

fn part<T: serde::de::DeserializeOwned>(json: Value) -> Result<T> {
    serde_json::from_value(json).map_err(|reason| Error::Training(reason.to_string()))
}
