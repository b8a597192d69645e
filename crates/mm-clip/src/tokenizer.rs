//! The tokenizer of a run: one that exists, or one that is trained on the texts of the training set.

use crate::{Error, Result, TokenizerConfig};
use mm_text::{TextClean, Tokenizer, train_bpe, train_word_level};
use mm_train::TaskContext;

/// The tokenizer that `config` (`[tokenizer]`) names or trains on `texts`, for texts of up to `max_length`
/// tokens; of a resumed run, the checkpoint's. It is opened by [`Tokenizer::for_decoder`]. `texts` are read
/// on rank 0, and only for training.
///
/// # Errors
/// It is missing or cannot be opened; or the training set is a stream, or has too few words.
pub fn run_tokenizer(
    config: Option<&TokenizerConfig>,
    context: &TaskContext,
    texts: impl Iterator<Item = String>,
    max_length: usize,
) -> Result<Tokenizer> {
    let TokenizerConfig { from, vocab_size, min_word_count, text_clean } =
        config.cloned().unwrap_or_default();
    let trained = vocab_size.map(Vocabulary::Pieces).or(min_word_count.map(Vocabulary::Words));
    let tokenizer = match (from, trained, context.checkpoint) {
        (_, Some(_), Some(checkpoint)) => Tokenizer::for_decoder(checkpoint)?,
        (Some(from), _, Some(checkpoint)) if !from.exists() => {
            let (from, shown) = (from.display(), checkpoint.display());
            tracing::warn!("{from} is missing: the run continues with the tokenizer in {shown}");
            Tokenizer::for_decoder(checkpoint)?
        }
        (Some(from), _, _) => Tokenizer::for_decoder(&from)?,
        (None, Some(vocabulary), None) => {
            train_tokenizer(context, texts, text_clean.unwrap_or_default(), vocabulary, max_length)?
        }
        (None, None, _) => return Err(Error::Model("[tokenizer] is missing".to_owned())),
    };
    Ok(match text_clean {
        Some(clean) => tokenizer.with_text_clean(clean)?,
        None => tokenizer,
    })
}

/// The vocabulary of a tokenizer that is trained.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Vocabulary {
    /// Byte-pair encoding of at most this many tokens.
    Pieces(usize),
    /// The words that the texts have at least this often.
    Words(u64),
}

/// Trains a tokenizer of this `vocabulary` on `texts` of the training set, cleaned by `clean`, for
/// texts of up to `context_length` tokens. Rank 0 reads the texts and broadcasts the result.
///
/// # Errors
/// The training set is a stream, or has too few words.
pub(crate) fn train_tokenizer(
    context: &TaskContext,
    texts: impl Iterator<Item = String>,
    clean: TextClean,
    vocabulary: Vocabulary,
    context_length: usize,
) -> Result<Tokenizer> {
    let dataset = context.dataset;
    if dataset.stream().is_some() {
        let reason = "is a stream, which is read once: a tokenizer cannot be trained on its texts first";
        let problem = format!("`{}` {reason}; name one with [tokenizer] from = \"DIR\"", dataset.name());
        return Err(Error::Model(problem));
    }
    let mut json = String::new();
    if context.group.is_main() {
        let texts = texts.map(|text| clean.clean(&text).into_owned()).collect::<Vec<_>>().into_iter();
        let trained = match vocabulary {
            Vocabulary::Pieces(vocab_size) => train_bpe(texts, vocab_size, context_length)?,
            Vocabulary::Words(min_count) => train_word_level(texts, min_count, context_length)?,
        };
        json = trained.to_json()?;
    }
    let json = String::from_utf8_lossy(&context.group.broadcast_bytes(json.as_bytes())?).into_owned();
    Ok(Tokenizer::from_json(&json, context_length)?)
}
