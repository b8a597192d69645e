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
    let base: Vec<String> = clip::letters().collect();
    let smallest = base.len() + 2;
    if vocab_size < smallest {
        return Err(Error::Training(format!(
            "a vocabulary of {vocab_size} is below the {smallest} tokens for bytes"
        )));
    }
    let mut captions = captions.peekable();
    if captions.peek().is_none() {
        return Err(Error::Training("no captions".to_owned()));
    }

    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab_size - 2)
        .end_of_word_suffix(END_OF_WORD.to_owned())
        // The trainer numbers letters in the order of its hash map; as special tokens they keep this order.
        .special_tokens(base.into_iter().map(|token| AddedToken::from(token, false)).collect())
        .build();
    let mut trainee = Trainee::new(BPE::default());
    trainee.with_normalizer(Some(part::<NormalizerWrapper>(normalizer())?));
    trainee.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(pre_tokenizer())?));
    trainee.train(&mut trainer, captions).map_err(|reason| Error::Training(reason.to_string()))?;

    let model =
        serde_json::to_value(trainee.get_model()).map_err(|reason| Error::Training(reason.to_string()))?;
    let (mut vocab, merges): (Vocab, Merges) =
        (part(model["vocab"].clone())?, part(model["merges"].clone())?);
    for token in [START, END] {
        vocab.insert(token.to_owned(), vocab.len() as u32);
    }
    let inner = clip::tokenizer(vocab, merges).map_err(|reason| Error::Training(reason.to_string()))?;
    Tokenizer::new(inner, &Value::Null, false)?.with_context_length(context_length)
}

fn part<T: serde::de::DeserializeOwned>(json: Value) -> Result<T> {
    serde_json::from_value(json).map_err(|reason| Error::Training(reason.to_string()))
}
