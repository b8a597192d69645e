//! Tokenizers, with a file for each form that they are read from.

mod added;
mod bert;
mod characters;
mod chat;
mod clean;
mod clip;
mod decode;
mod difference;
mod files;
mod gpt2;
mod guard;
mod protobuf;
mod save;
mod siglip;
mod train;
mod word_level;
mod words;

pub use characters::character_tokenizer;
pub use chat::{CHAT_TOKENS, chat_tokenizer, train_chat_bpe};
pub use clean::TextClean;
pub use files::TOKENIZER_FILES;
pub use train::train_bpe;
pub use word_level::train_word_level;

use crate::{Error, Padding, Result, TokenBatch};
use clip::END_OF_WORD;
use guard::guarded;
use serde_json::Value;
use std::borrow::Cow;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

/// The merges of OpenAI's CLIP, as `merges.txt`, compressed; their license is beside them.
const OPENAI_MERGES: &[u8] = include_bytes!("openai/merges.txt.gz");

/// CLIP's context length, the default.
const DEFAULT_CONTEXT_LENGTH: usize = 77;
/// The roles of tokens in `tokenizer_config.json`, except padding, which always has one.
const ROLES: [&str; 6] = ["bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token"];
/// A key of this project in `tokenizer_config.json`.
const TEXT_CLEAN: &str = "text_clean";
/// transformers writes 1e30 for "no limit"; larger values than this mean the same.
const LONGEST_CONTEXT: u64 = 1 << 20;

/// Maps texts to token ids: begin token, text, end token, at most the context length.
///
/// It can be shared between threads. [`Tokenizer::encode`] creates no tensors, so loader workers can call it.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: u32,
    pad: u32,
    vocab_size: usize,
    context_length: usize,
    /// Whether the files contain the context length.
    states_length: bool,
    /// Whether a batch of fixed length is padded on the left.
    pads_left: bool,
    /// The tokens that have a role in the files, by the role's name in `tokenizer_config.json`.
    roles: Vec<(&'static str, String)>,
    /// The cleaning of texts that the files or [`Tokenizer::with_text_clean`] set.
    text_clean: Option<TextClean>,
    /// The steps of the files that cleaning replaces.
    replaced: Option<(Option<NormalizerWrapper>, Option<PreTokenizerWrapper>)>,
    over_long: AtomicU64,
}

impl Tokenizer {
    /// Opens a folder with a tokenizer in any form that transformers saves: `tokenizer.json`, CLIP's
    /// `vocab.json` and `merges.txt`, BERT's `vocab.txt` or SigLIP's `spiece.model`. Padding token and
    /// context length are those of `tokenizer_config.json` (or the context length of
    /// `sentence_bert_config.json`), if it exists; else the padding token is `[PAD]`, `<pad>` or the end
    /// token, whichever is first in the vocabulary, and the context length is 77. The cleaning of texts is
    /// its `text_clean`, which [`Tokenizer::save`] writes and transformers ignores.
    ///
    /// # Errors
    /// Missing or malformed files, and tokenizers that add no end token to a text, which no tower here can
    /// pool.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let (inner, config) = files::read(dir)?;
        Self::new(inner, &config, false).map_err(|error| match error {
            Error::Tokenizer(reason) | Error::Config(reason) => format_error(dir, reason),
            error => error,
        })
    }

    /// OpenAI's own tokenizer, the default of open_clip's models. Both clean texts by [`TextClean::Lower`]
    /// first, which [`Tokenizer::with_text_clean`] turns on.
    ///
    /// # Errors
    /// Never in practice: the vocabulary is part of the program.
    pub fn openai_clip() -> Result<Self> {
        let mut text = String::new();
        flate2::read::GzDecoder::new(OPENAI_MERGES)
            .read_to_string(&mut text)
            .map_err(|error| Error::Tokenizer(error.to_string()))?;
        let merges = clip::merges(&text).map_err(Error::Tokenizer)?;
        let tokenizer = clip::tokenizer(clip::vocabulary(&merges), merges).map_err(library_error)?;
        Self::new(tokenizer, &Value::Null, false)
    }

    /// Where the tokenizer is `of_decoder` it need not add tokens around a text.
    fn new(mut inner: tokenizers::Tokenizer, config: &Value, of_decoder: bool) -> Result<Self> {
        let stored_pad = inner.get_padding().map(|padding| padding.pad_id);
        inner.with_padding(None).with_truncation(None).map_err(library_error)?;
        let token_id = |role: &str| token_named(config, role).and_then(|token| inner.token_to_id(token));
        let named_eos = token_id("eos_token").filter(|_| of_decoder);
        // The ids of an empty text are its begin and end tokens.
        let (bos, eos) = match guarded(|| inner.encode_fast("", true)).map_err(library_error)?.get_ids() {
            &[eos] => (None, eos),
            &[bos, eos] => (Some(bos), eos),
            [] if named_eos.is_some() => (token_id("bos_token"), named_eos.unwrap_or_default()),
            ids => {
                let reason = format!(
                    "it encodes an empty text as {ids:?}; expected [begin token, end token] or [end token]"
                );
                return Err(Error::Tokenizer(reason));
            }
        };
        let named = token_named(config, "pad_token").and_then(|token| inner.token_to_id(token));
        let usual = || ["[PAD]", "<pad>"].iter().find_map(|token| inner.token_to_id(token));
        let pad = named.or(stored_pad).or_else(usual).unwrap_or(eos);
        let stated = config["model_max_length"].as_u64().filter(|&length| length <= LONGEST_CONTEXT);
        let context_length = stated.map_or(DEFAULT_CONTEXT_LENGTH, |length| length as usize);
        // The tokens around a text may be outside the vocabulary.
        let around = bos.into_iter().chain([eos, pad]);
        let vocab_size =
            inner.get_vocab(true).into_values().chain(around).max().map_or(0, |id| id as usize + 1);
        let role = |role: &'static str| Some((role, token_named(config, role)?.to_owned()));
        let text_clean = match &config[TEXT_CLEAN] {
            Value::Null => None,
            name => Some(name.as_str().and_then(TextClean::from_name).ok_or_else(|| {
                let known = "none, whitespace, lower and canonicalize";
                Error::Config(format!("tokenizer_config.json: {TEXT_CLEAN} is {name}: known are {known}"))
            })?),
        };
        let tokenizer = Self {
            bos,
            eos,
            pad,
            vocab_size,
            context_length,
            states_length: stated.is_some(),
            pads_left: config["padding_side"] == "left",
            roles: ROLES.into_iter().filter_map(role).collect(),
            text_clean: None,
            replaced: None,
            over_long: AtomicU64::new(0),
            inner,
        }
        .with_context_length(context_length)?;
        match text_clean {
            Some(clean) => tokenizer.with_text_clean(clean),
            None => Ok(tokenizer),
        }
    }

    /// The same tokenizer for texts that are cleaned by `clean` first.
    ///
    /// CLIP's tokenizer then works as open_clip's `SimpleTokenizer` under [`TextClean::Lower`] and
    /// [`TextClean::Canonicalize`]: nothing is normalized after the cleaning, and a special token that
    /// is written out in a text is text.
    ///
    /// # Errors
    /// The tokenizers library refuses the parts.
    pub fn with_text_clean(mut self, clean: TextClean) -> Result<Self> {
        self.restore();
        if self.is_clip() && matches!(clean, TextClean::Lower | TextClean::Canonicalize) {
            let own = (self.inner.get_normalizer().cloned(), self.inner.get_pre_tokenizer().cloned());
            self.inner.with_normalizer(None::<NormalizerWrapper>);
            self.inner
                .with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(clip::pre_tokenizer_of_any_case())?));
            self.inner.set_encode_special_tokens(true);
            self.replaced = Some(own);
        }
        self.text_clean = Some(clean);
        Ok(self)
    }

    /// The same tokenizer with `clean` as the default cleaning of texts.
    ///
    /// # Errors
    /// As [`Tokenizer::with_text_clean`].
    pub fn or_text_clean(self, clean: TextClean) -> Result<Self> {
        if self.text_clean.is_some() { Ok(self) } else { self.with_text_clean(clean) }
    }

    /// The same tokenizer, if it is CLIP's, with case kept, as open_clip's `SimpleTokenizer` with
    /// `clean = "whitespace"`.
    ///
    /// # Errors
    /// As [`Tokenizer::with_text_clean`].
    pub fn with_case_kept(mut self) -> Result<Self> {
        if self.is_clip() {
            self.restore();
            self.inner.with_normalizer(None::<NormalizerWrapper>);
            self.inner
                .with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(clip::pre_tokenizer_of_any_case())?));
        }
        Ok(self)
    }

    /// Restores the steps of the files.
    fn restore(&mut self) {
        if let Some((normalizer, pre_tokenizer)) = self.replaced.take() {
            self.inner.with_normalizer(normalizer);
            self.inner.with_pre_tokenizer(pre_tokenizer);
            self.inner.set_encode_special_tokens(false);
        }
    }

    /// The same tokenizer for a tower of `positions`, or with the context length of its files if that is
    /// shorter.
    ///
    /// # Errors
    /// As [`Tokenizer::with_context_length`].
    pub fn within(self, positions: usize) -> Result<Self> {
        let length = if self.states_length { self.context_length.min(positions) } else { positions };
        self.with_context_length(length)
    }

    /// The same tokenizer for texts of at most `length` tokens, begin and end included.
    ///
    /// # Errors
    /// A length that is too short for both.
    pub fn with_context_length(mut self, length: usize) -> Result<Self> {
        if length < 2 {
            return Err(Error::Config(format!(
                "context length {length} has no room for the begin and end tokens"
            )));
        }
        self.context_length = length;
        Ok(self)
    }

    /// The same tokenizer with `token` for padding.
    ///
    /// # Errors
    /// The vocabulary does not have it.
    pub fn with_pad_token(mut self, token: &str) -> Result<Self> {
        let missing = || Error::Tokenizer(format!("the vocabulary has no {token:?} for padding"));
        self.pad = self.inner.token_to_id(token).ok_or_else(missing)?;
        Ok(self)
    }

    /// The same tokenizer with the new `tokens`, which take the next ids: transformers' `add_tokens`.
    ///
    /// # Errors
    /// A token is in the vocabulary already.
    pub fn with_new_tokens(mut self, tokens: &[String]) -> Result<Self> {
        for token in tokens {
            if self.inner.token_to_id(token).is_some() {
                return Err(Error::Tokenizer(format!("the token {token:?} is in the vocabulary already")));
            }
            self.inner.add_tokens(&[tokenizers::AddedToken::from(token.clone(), false)]);
            let id = self.inner.token_to_id(token).map_or(0, |id| id as usize + 1);
            self.vocab_size = self.vocab_size.max(id);
        }
        Ok(self)
    }

    /// Token ids of `text`, from begin to end token. A text over the context length is cut, keeps the end
    /// token and is counted in [`Tokenizer::over_long`].
    ///
    /// # Errors
    /// A vocabulary that does not cover the text and has no unknown token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_and_tell(text)?.0)
    }

    /// [`Tokenizer::encode`], and whether the text was cut.
    pub fn encode_and_tell(&self, text: &str) -> Result<(Vec<u32>, bool)> {
        let text = self.text_clean().clean(text);
        let encoding = guarded(|| self.inner.encode_fast(text.as_ref(), true)).map_err(library_error)?;
        let ids = encoding.get_ids();
        Ok((self.cut(ids.to_vec()), ids.len() > self.context_length))
    }

    /// [`Tokenizer::encode`] of each text, on all cores.
    pub fn encode_all(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>> {
        let cleaned: Vec<Cow<str>> = texts.iter().map(|text| self.text_clean().clean(text)).collect();
        let cleaned: Vec<&str> = cleaned.iter().map(Cow::as_ref).collect();
        let encodings = guarded(|| self.inner.encode_batch_fast(cleaned, true)).map_err(library_error)?;
        Ok(encodings.iter().map(|encoding| self.cut(encoding.get_ids().to_vec())).collect())
    }

    /// [`Tokenizer::encode_all`] as a batch.
    pub fn encode_batch(&self, texts: &[&str], padding: Padding) -> Result<TokenBatch> {
        Ok(self.collate(&self.encode_all(texts)?, padding))
    }

    /// A batch of encoded texts. It is padded on the right; of fixed length, where a tower attends to
    /// padding, on the side that the files set.
    pub fn collate(&self, rows: &[Vec<u32>], padding: Padding) -> TokenBatch {
        match padding {
            Padding::Longest => TokenBatch::from_rows(rows, 0, self.pad),
            Padding::Fixed => TokenBatch::padded(rows, self.context_length, self.pad, self.pads_left),
        }
    }

    fn cut(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if ids.len() > self.context_length {
            ids.truncate(self.context_length - 1);
            ids.push(self.eos);
            self.over_long.fetch_add(1, Ordering::Relaxed);
        }
        ids
    }

    /// The largest id plus one: the rows that an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The largest id of the vocabulary without added tokens.
    pub fn largest_word_id(&self) -> u32 {
        self.inner.get_vocab(false).into_values().max().unwrap_or(0)
    }

    /// Whether no text can have a larger id than its end token.
    pub fn eos_is_largest(&self) -> bool {
        self.inner.get_vocab(true).into_values().all(|id| id <= self.eos)
    }

    /// The token before each text, if any.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The token after each text.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }

    /// The padding token.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// The largest number of tokens of a text.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// The cleaning of texts.
    pub fn text_clean(&self) -> TextClean {
        self.text_clean.unwrap_or_default()
    }

    /// The number of texts cut to the context length so far.
    pub fn over_long(&self) -> u64 {
        self.over_long.load(Ordering::Relaxed)
    }

    /// Whether this equals [`Tokenizer::openai_clip`], from any files: the same tokens have the same ids.
    pub fn is_openai_clip(&self) -> bool {
        self.is_clip()
            && Self::openai_clip().is_ok_and(|own| own.inner.get_vocab(true) == self.inner.get_vocab(true))
    }

    /// Whether it is a CLIP tokenizer.
    fn is_clip(&self) -> bool {
        let model = self.inner.get_model();
        matches!(model, ModelWrapper::BPE(bpe) if bpe.end_of_word_suffix.as_deref() == Some(END_OF_WORD))
    }

    /// The tokenizer as the text of a `tokenizer.json`, for [`Tokenizer::from_json`].
    ///
    /// # Errors
    /// The tokenizers library cannot write one of its parts.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(false).map_err(library_error)
    }

    /// A tokenizer from the text of a `tokenizer.json`, with the default roles of its tokens.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`].
    pub fn from_json(json: &str, context_length: usize) -> Result<Self> {
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(json)).map_err(library_error)?;
        Self::new(inner, &Value::Null, false)?.with_context_length(context_length)
    }
}

/// Sets the parts of `tokenizer`, as in `tokenizer.json`; null parts stay.
fn assemble(
    tokenizer: &mut tokenizers::Tokenizer,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
) -> tokenizers::Result<()> {
    if !normalizer.is_null() {
        tokenizer.with_normalizer(Some(serde_json::from_value::<NormalizerWrapper>(normalizer)?));
    }
    tokenizer.with_pre_tokenizer(Some(serde_json::from_value::<PreTokenizerWrapper>(pre_tokenizer)?));
    tokenizer.with_post_processor(Some(serde_json::from_value::<PostProcessorWrapper>(post_processor)?));
    tokenizer.with_decoder(Some(serde_json::from_value::<DecoderWrapper>(decoder)?));
    Ok(())
}

/// A part of a tokenizer, from `tokenizer.json`.
fn part<T: serde::de::DeserializeOwned>(json: Value) -> Result<T> {
    serde_json::from_value(json).map_err(|reason| library_error(reason.into()))
}

/// The token of `role` in `tokenizer_config.json`, which has a string or an object.
fn token_named<'a>(config: &'a Value, role: &str) -> Option<&'a str> {
    config[role].as_str().or_else(|| config[role]["content"].as_str())
}

fn format_error(path: &Path, reason: impl ToString) -> Error {
    Error::Format { path: path.to_owned(), reason: reason.to_string() }
}

fn library_error(reason: tokenizers::Error) -> Error {
    Error::Tokenizer(reason.to_string())
}
