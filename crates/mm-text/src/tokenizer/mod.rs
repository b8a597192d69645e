//! Tokenizers: what they are opened from, a file each, and how texts go through them.

mod added;
mod bert;
mod clean;
mod clip;
mod files;
mod guard;
mod protobuf;
mod siglip;
mod train;

pub use clean::TextClean;
pub use files::TOKENIZER_FILES;
pub use train::train_bpe;

use crate::{Error, Padding, Result, TokenBatch};
use clip::END_OF_WORD;
use guard::guarded;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

/// The merges of OpenAI's CLIP, as `merges.txt`, compressed; their licence is beside them.
const OPENAI_MERGES: &[u8] = include_bytes!("openai/merges.txt.gz");

/// CLIP's context length, where the folder does not say another.
const DEFAULT_CONTEXT_LENGTH: usize = 77;
/// The roles that `tokenizer_config.json` gives to tokens, but for the padding's, which always has one.
const ROLES: [&str; 6] = ["bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token"];
/// Our own key of `tokenizer_config.json`.
const TEXT_CLEAN: &str = "text_clean";
/// transformers writes 1e30 for "no limit"; anything above this is taken as that.
const LONGEST_CONTEXT: u64 = 1 << 20;

/// Texts in which tokenizers differ that clean, case, split or normalise otherwise.
const PROBES: [&str; 6] = [
    "A photo of a CAT, and (two) dogs' tails!",
    "  runs\tof   white\nspace ",
    "Caf\u{e9} cafe\u{301} na\u{ef}ve \u{df} \u{130}",
    "\u{201c}curly\u{201d} \u{fb01}ne \u{ff21}\u{ff22} &amp;amp; 10\u{b2}",
    "\u{732b}\u{3068}\u{72ac} \u{1f34f}\u{1f3fd} 3.14 x_y #tag",
    "",
];

/// Text to token ids: begin token, text, end token, never more than the context length.
///
/// It can be shared between threads; [`Tokenizer::encode`] makes no tensors, so that loader workers can call
/// it.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: u32,
    pad: u32,
    vocab_size: usize,
    context_length: usize,
    /// Whether the context length is the files' own.
    states_length: bool,
    /// Whether a batch of fixed length is filled up on the left.
    pads_left: bool,
    /// The tokens that the files give a role, as `tokenizer_config.json` names the roles.
    roles: Vec<(&'static str, String)>,
    /// How texts are cleaned first, where the files or [`Tokenizer::with_text_clean`] say it.
    text_clean: Option<TextClean>,
    /// The steps of the files that cleaning takes the place of.
    replaced: Option<(Option<NormalizerWrapper>, Option<PreTokenizerWrapper>)>,
    over_long: AtomicU64,
}

impl Tokenizer {
    /// Opens a folder with a tokenizer in any form that transformers saves: `tokenizer.json`, CLIP's
    /// `vocab.json` and `merges.txt`, BERT's `vocab.txt` or SigLIP's `spiece.model`. Padding token and
    /// context length are `tokenizer_config.json`'s (or the context length `sentence_bert_config.json`'s), if
    /// it is there; else the padding token is `[PAD]`, `<pad>` or the end token, whichever is first in the
    /// vocabulary, and the context length is 77. Texts are cleaned as its `text_clean` says, which
    /// [`Tokenizer::save`] writes and transformers passes over.
    ///
    /// # Errors
    /// Missing or malformed files, and tokenizers that put no end token behind a text: no tower here could
    /// pool it.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let (inner, config) = files::read(dir)?;
        Self::new(inner, &config).map_err(|error| match error {
            Error::Tokenizer(reason) | Error::Config(reason) => format_error(dir, reason),
            error => error,
        })
    }

    /// OpenAI's own tokenizer, which open_clip's models use where they name no other: both clean texts by
    /// [`TextClean::Lower`] first, which is left to [`Tokenizer::with_text_clean`].
    ///
    /// # Errors
    /// None that can be helped: the vocabulary is part of the program.
    pub fn openai_clip() -> Result<Self> {
        let mut text = String::new();
        flate2::read::GzDecoder::new(OPENAI_MERGES)
            .read_to_string(&mut text)
            .map_err(|error| Error::Tokenizer(error.to_string()))?;
        let merges = clip::merges(&text).map_err(Error::Tokenizer)?;
        Self::new(clip::tokenizer(clip::vocabulary(&merges), merges).map_err(library_error)?, &Value::Null)
    }

    fn new(mut inner: tokenizers::Tokenizer, config: &Value) -> Result<Self> {
        let stored_pad = inner.get_padding().map(|padding| padding.pad_id);
        inner.with_padding(None).with_truncation(None).map_err(library_error)?;
        // What it adds to nothing are its begin and end tokens.
        let (bos, eos) = match guarded(|| inner.encode_fast("", true)).map_err(library_error)?.get_ids() {
            &[eos] => (None, eos),
            &[bos, eos] => (Some(bos), eos),
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
        // What is put around a text need not be in the vocabulary.
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
    /// CLIP's own kind then works as open_clip's `SimpleTokenizer` under [`TextClean::Lower`] and
    /// [`TextClean::Canonicalize`]: nothing is normalized after the cleaning, and a special token that is
    /// written out in a text is text.
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

    /// The same tokenizer, its texts cleaned by `clean` where nothing says another way yet.
    ///
    /// # Errors
    /// As [`Tokenizer::with_text_clean`].
    pub fn or_text_clean(self, clean: TextClean) -> Result<Self> {
        if self.text_clean.is_some() { Ok(self) } else { self.with_text_clean(clean) }
    }

    /// The same tokenizer of CLIP's kind with texts as they are, the case of letters kept, as open_clip's
    /// `SimpleTokenizer` takes them from `clean = "whitespace"`.
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

    /// Puts the files' own steps back.
    fn restore(&mut self) {
        if let Some((normalizer, pre_tokenizer)) = self.replaced.take() {
            self.inner.with_normalizer(normalizer);
            self.inner.with_pre_tokenizer(pre_tokenizer);
            self.inner.set_encode_special_tokens(false);
        }
    }

    /// The same tokenizer for a tower of `positions`: its own context length, if its files state a shorter
    /// one.
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
    /// A length without room for both.
    pub fn with_context_length(mut self, length: usize) -> Result<Self> {
        if length < 2 {
            return Err(Error::Config(format!(
                "context length {length} has no room for the begin and end tokens"
            )));
        }
        self.context_length = length;
        Ok(self)
    }

    /// Token ids of `text`, from begin to end token. A text over the context length loses its tail, keeps the
    /// end token and is counted in [`Tokenizer::over_long`].
    ///
    /// # Errors
    /// Only for a vocabulary that does not cover every text and has no token for the unknown.
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

    /// Lays encoded texts out as a batch. It is padded on the right; of fixed length, where a tower sees the
    /// padding, on the side that the files say.
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

    /// One more than the largest id: the rows that an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The largest id of the vocabulary itself, tokens that were added to it left out.
    pub fn largest_word_id(&self) -> u32 {
        self.inner.get_vocab(false).into_values().max().unwrap_or(0)
    }

    /// Whether no text can have a larger id than its end token.
    pub fn eos_is_largest(&self) -> bool {
        self.inner.get_vocab(true).into_values().all(|id| id <= self.eos)
    }

    /// In what texts become other ids, or batches other tensors, by this tokenizer than by `other`; none if
    /// in nothing. Beside what the two are made of, some texts are compared.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let facts = [
            ("begin token", self.bos, other.bos),
            ("end token", Some(self.eos), Some(other.eos)),
            ("padding token", Some(self.pad), Some(other.pad)),
            ("length", Some(self.context_length as u32), Some(other.context_length as u32)),
            ("side of the padding", Some(self.pads_left.into()), Some(other.pads_left.into())),
        ];
        if let Some((what, a, b)) = facts.into_iter().find(|(_, a, b)| a != b) {
            let shown = |id: Option<u32>| id.map_or("none".to_owned(), |id| id.to_string());
            return Some(format!("its {what} is {} and would be {}", shown(a), shown(b)));
        }
        if self.inner.get_vocab(true) != other.inner.get_vocab(true) {
            return Some("its vocabulary would be another".to_owned());
        }
        let added =
            self.inner.get_added_vocabulary().get_vocab().keys().map(|token| format!("a {token} b{token}c"));
        let long = "one word after another ".repeat(self.context_length);
        let texts = PROBES.iter().map(|&text| text.to_owned()).chain(added).chain([long]);
        let ids = |tokenizer: &Self, text: &str| tokenizer.encode(text).ok();
        let differs = texts.into_iter().find(|text| ids(self, text) != ids(other, text));
        differs.map(|text| format!("the text {text:?} would have other ids"))
    }

    /// The token before each text, if there is one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The token behind each text.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }

    /// The token that fills a batch's shorter rows.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// The most tokens that a text is given.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// How texts are cleaned first.
    pub fn text_clean(&self) -> TextClean {
        self.text_clean.unwrap_or_default()
    }

    /// How many texts were cut to the context length so far.
    pub fn over_long(&self) -> u64 {
        self.over_long.load(Ordering::Relaxed)
    }

    /// Whether this is [`Tokenizer::openai_clip`], whatever files it came from: the same tokens have the same
    /// ids.
    pub fn is_openai_clip(&self) -> bool {
        self.is_clip()
            && Self::openai_clip().is_ok_and(|own| own.inner.get_vocab(true) == self.inner.get_vocab(true))
    }

    /// Whether it is of CLIP's kind.
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
        Self::new(inner, &Value::Null)?.with_context_length(context_length)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into `dir`, which `from_dir` and transformers'
    /// `AutoTokenizer` open. `inputs` are the tensors that it is to make there:
    /// [`TextTowerConfig::input_names`](crate::TextTowerConfig::input_names).
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path, inputs: &[&str]) -> Result<()> {
        let file = dir.join("tokenizer.json");
        let mut inner = Cow::Borrowed(&self.inner);
        if let Some((normalizer, pre_tokenizer)) = &self.replaced {
            inner.to_mut().with_normalizer(normalizer.clone()).with_pre_tokenizer(pre_tokenizer.clone());
        }
        let json = inner.to_string(true).map_err(|reason| format_error(&file, reason))?;
        write(&file, &json)?;
        let token = |id: Option<u32>| id.and_then(|id| self.inner.id_to_token(id));
        let (bos, eos) = (token(self.bos), token(Some(self.eos)));
        let mut config = match self.is_clip() {
            true => {
                json!({ "tokenizer_class": "CLIPTokenizer", "bos_token": bos, "eos_token": eos, "unk_token": eos })
            }
            false if self.roles.is_empty() => {
                json!({ "tokenizer_class": "PreTrainedTokenizerFast", "cls_token": bos, "sep_token": eos })
            }
            false => json!({ "tokenizer_class": "PreTrainedTokenizerFast" }),
        };
        for (role, named) in &self.roles {
            config[*role] = named.as_str().into();
        }
        config["pad_token"] = token(Some(self.pad)).into();
        config["padding_side"] = if self.pads_left { "left" } else { "right" }.into();
        config["model_max_length"] = self.context_length.into();
        config["model_input_names"] = json!(inputs);
        config[TEXT_CLEAN] = self.text_clean().name().into();
        write(&dir.join("tokenizer_config.json"), &format!("{config:#}\n"))
    }
}

/// Gives `tokenizer` its parts, as `tokenizer.json` writes them; a null one is left as it is.
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

/// A part of a tokenizer, from how `tokenizer.json` writes it.
fn part<T: serde::de::DeserializeOwned>(json: Value) -> Result<T> {
    serde_json::from_value(json).map_err(|reason| library_error(reason.into()))
}

/// The token that `tokenizer_config.json` gives the role `role`, which it writes as a text or an object.
fn token_named<'a>(config: &'a Value, role: &str) -> Option<&'a str> {
    config[role].as_str().or_else(|| config[role]["content"].as_str())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn format_error(path: &Path, reason: impl ToString) -> Error {
    Error::Format { path: path.to_owned(), reason: reason.to_string() }
}

fn library_error(reason: tokenizers::Error) -> Error {
    Error::Tokenizer(reason.to_string())
}
