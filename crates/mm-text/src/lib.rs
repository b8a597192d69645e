//! Texts to vectors: tokenizers, and the text towers of CLIP, SigLIP and BERT.
//!
//! A [`Tokenizer`] turns a text into token ids. It opens what Hugging Face models ship (`tokenizer.json`, CLIP's `vocab.json` and
//! `merges.txt`, BERT's `vocab.txt`, SigLIP's `spiece.model`), is OpenAI's own, or is trained on captions ([`train_bpe`]). A [`TextTower`] turns a batch of ids into one vector a text.
//!
//! The towers do less work than a padded batch asks for, with the same result. CLIP's is causal: a token sees only those before
//! it, and the text's vector is read at its end token (Radford et al. 2021, section 2.4), so whatever stands behind the longest
//! text of the batch is never computed. BERT (Devlin et al. 2019) masks padding out, so its batches are cut in the same place.
//! Captions are short and CLIP's context is 77: that is most of the work. SigLIP's tower (Zhai et al. 2023) sees its padding and
//! needs it ([`TextTowerConfig::padding`]).
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
//! # The same ids as whom?
//!
//! As transformers' `CLIPTokenizer`, which is what CLIP checkpoints on the hub are used with. open_clip cleans its texts first: it
//! resolves HTML entities (`&amp;` is an ampersand there; here, as in transformers, it is punctuation and letters), and ftfy mends
//! broken Unicode and makes curly quotes, ligatures and full-width letters plain. Captions scraped from web pages want that
//! cleaning before they come here; on others the ids are the same (of the 1,000 golden captions, which seek trouble, 21 differ).
//! open_clip also pads with 0 where transformers pads with the end token; the vectors are the same.
//!
//! # To extend
//!
//! A new tower is a file with a config and a struct made of [`mm_core::nn`]'s layers, a variant in [`TextTowerConfig`] and one in
//! [`TextTower`]; its golden is a function in `xtask/goldens/text.py` and a test in `tests/goldens.rs`. A new tokenizer is
//! a `tokenizer.json`: nothing changes here.

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
pub use clip_text::{ClipText, ClipTextConfig, ClipTextForm};
pub use error::{Error, Result};
pub use tokenizer::{TOKENIZER_FILES, Tokenizer, train_bpe};
pub use tower::{TextTower, TextTowerConfig};
