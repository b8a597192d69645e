//! Texts to vectors: tokenizers, and the text towers of CLIP, SigLIP and BERT.
//!
//! A [`Tokenizer`] turns a text into token ids. It opens what Hugging Face models ship (`tokenizer.json`,
//! CLIP's `vocab.json` and `merges.txt`, BERT's `vocab.txt`, SigLIP's `spiece.model`), is OpenAI's own, or is
//! trained on captions ([`train_bpe`]). A [`TextTower`] turns a batch of ids into one vector a text.
//!
//! The towers do less work than a padded batch asks for, with the same result. CLIP's is causal: a token sees
//! only those before it, and the text's vector is read at its end token (Radford et al. 2021, section 2.4),
//! so whatever stands behind the longest text of the batch is never computed. BERT (Devlin et al. 2019) masks
//! padding out, so its batches are cut in the same place. Captions are short and CLIP's context is 77: that
//! is most of the work. SigLIP's tower (Zhai et al. 2023) sees its padding and needs it
//! ([`TextTowerConfig::padding`]).
//!
//! ```
//! use mm_text::{ClipTextConfig, TextTowerConfig, train_bpe};
//! use tch::{Device, nn};
//!
//! # fn main() -> mm_text::Result<()> {
//! let captions = ["a red apple", "a green apple", "a red car"];
//! let tokenizer = train_bpe(captions.iter().map(|caption| caption.to_string()), 1000, 16)?;
//! assert_eq!(tokenizer.encode("a red apple")?.len(), 5); // a word is a token now; a begin and an end token stand around them
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
//! # Which ids, transformers' or open_clip's
//!
//! By default those of transformers' `CLIPTokenizer`, which is what CLIP checkpoints on the hub are used
//! with: it composes texts (NFC), makes one space of white space, and lower case. open_clip and OpenAI's own
//! code clean texts first, which [`TextClean`] does: ftfy mends broken Unicode and makes curly quotation
//! marks, ligatures and full-width letters plain, and HTML's character references are resolved (`&amp;` is an
//! ampersand there; in transformers it is punctuation and letters). [`Tokenizer::with_text_clean`] asks for
//! it, or `text_clean` in `tokenizer_config.json`. ftfy's repair is written anew here; it equals ftfy 6.3.1
//! on all of the golden texts. open_clip also pads with 0 where transformers pads with the end token; the
//! vectors are the same.
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
mod clip_text;
mod clip_text_hf;
mod config;
mod error;
mod tokenizer;
mod tower;

pub use batch::{Padding, TokenBatch};
pub use bert::{Bert, BertConfig, BertPooling};
pub use clip_text::{ClipText, ClipTextConfig, ClipTextVariant};
pub use error::{Error, Result};
pub use tokenizer::{TOKENIZER_FILES, TextClean, Tokenizer, train_bpe};
pub use tower::{PooledToken, TextTower, TextTowerConfig, TextTowerSpec};
