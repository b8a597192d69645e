//! Texts to vectors and vectors to texts: tokenizers, the text towers of CLIP, SigLIP and BERT, and decoders.
//!
//! A [`Tokenizer`] turns a text into token ids. It reads the files of Hugging Face models (`tokenizer.json`,
//! CLIP's `vocab.json` and `merges.txt`, BERT's `vocab.txt`, SigLIP's `spiece.model`), is OpenAI's own, or is
//! trained on captions ([`train_bpe`]). A [`TextTower`] turns a batch of ids into one vector a text.
//!
//! The towers skip the padding after the longest text of a batch, with the same result. CLIP's attention is
//! causal, and the text's vector is read at its end token (Radford et al. 2021, section 2.4); BERT (Devlin et
//! al. 2019) masks padding. Captions are short and CLIP's context is 77, so this saves most of the work.
//! SigLIP's tower (Zhai et al. 2023) attends to padding and needs it ([`TextTowerSpec::padding`]).
//!
//! ```
//! use mm_text::{ClipTextConfig, TextTowerConfig, train_bpe};
//! use tch::{Device, nn};
//!
//! # fn main() -> mm_text::Result<()> {
//! let captions = ["a red apple", "a green apple", "a red car"];
//! let tokenizer = train_bpe(captions.iter().map(|caption| caption.to_string()), 1000, 16)?;
//! assert_eq!(tokenizer.encode("a red apple")?.len(), 5); // three words, a begin and an end token
//!
//! let config = TextTowerConfig::Clip(ClipTextConfig {
//!     vocab_size: tokenizer.vocab_size() as i64,
//!     eos_token_id: i64::from(tokenizer.eos_id()),
//!     max_position_embeddings: 16,
//!     hidden_size: 32,
//!     intermediate_size: 64,
//!     num_hidden_layers: 2,
//!     num_attention_heads: 2,
//!     ..ClipTextConfig::default()
//! });
//! config.check_tokenizer(&tokenizer)?;
//! let vs = nn::VarStore::new(Device::Cpu);
//! let tower = config.build(&(vs.root() / "text_model"))?;
//! let vectors = tower.forward(&tokenizer.encode_batch(&captions, config.padding())?);
//! assert_eq!(vectors.size(), [3, 32]);
//! # Ok(())
//! # }
//! ```
//!
//! # Token ids of transformers and of open_clip
//!
//! By default token ids are those of transformers' `CLIPTokenizer`, with which CLIP checkpoints on the hub
//! are used: it composes texts (NFC), joins white space and lowers case. open_clip and OpenAI's own code
//! clean texts first, as [`TextClean`] does: ftfy repairs broken Unicode and replaces curly quotation marks,
//! ligatures and full-width letters, and HTML's character references are resolved (`&amp;` is an ampersand
//! there; in transformers it is punctuation and letters). It is turned on by [`Tokenizer::with_text_clean`],
//! or by `text_clean` in `tokenizer_config.json`. The repair is a port of ftfy; it equals ftfy 6.3.1 on all
//! of the golden texts. open_clip also pads with 0 where transformers pads with the end token; the vectors
//! are the same.
//!
//! # Texts from vectors
//!
//! A decoder ([`decoder`]: BERT with cross-attention, GPT-2, Llama's form) predicts the next token;
//! [`generate`] searches for texts with it, greedily, with beams or by drawing, and [`rank`] orders a list of
//! texts by their likelihood. A [`LanguageModel`] is a Llama or a Qwen2 with its tokenizer.
//!
//! # Questions
//!
//! A [`QuestionEncoder`] gives one state a token instead of one vector a text: an LSTM ([`LstmEncoder`]) over
//! the words of a tokenizer of whole words ([`train_word_level`]), whose vectors may come from a GloVe file
//! ([`read_glove`]), or BERT without its pooling.
//!
//! # To extend
//!
//! A new tower is one file and one line:
//!
//! 1. a file with a config that implements [`TowerSpec`](mm_core::nn::TowerSpec) and [`TextTowerSpec`], and a
//!    struct made of [`mm_core::nn`]'s layers that implements [`TextTower`];
//! 2. its line in the enum [`TextTowerConfig`] in `tower.rs`;
//! 3. a golden in `xtask/goldens/text.py` and `tests/goldens.rs`.
//!
//! A new tokenizer is a `tokenizer.json`: nothing changes here.

mod batch;
mod bert;
mod bert_hf;
mod chat_template;
mod clip_text;
mod clip_text_hf;
mod config;
pub mod decoder;
mod error;
pub mod generate;
mod glove;
mod language_model;
mod lstm;
mod question;
pub mod rank;
mod t5;
mod t5_hf;
mod tokenizer;
mod tower;

pub use batch::{Padding, TokenBatch};
pub use bert::{Bert, BertConfig, BertPooling};
pub use chat_template::{ChatMessage, ChatPart, ChatTemplate};
pub use clip_text::{ClipText, ClipTextConfig, ClipTextVariant};
pub use error::{Error, Result};
pub use glove::{GloveReport, read_glove};
pub use language_model::LanguageModel;
pub use lstm::{LstmConfig, LstmEncoder};
pub use question::{
    QuestionEncoder, QuestionEncoderConfig, QuestionEncoderSpec, QuestionStates, length_mask,
};
pub use t5::{T5Config, T5Encoder, T5FeedForward};
pub use tokenizer::{
    CHAT_TOKENS, TOKENIZER_FILES, TextClean, Tokenizer, character_tokenizer, chat_tokenizer, train_bpe,
    train_chat_bpe, train_word_level,
};
pub use tower::{PooledToken, TextTower, TextTowerConfig, TextTowerSpec};
