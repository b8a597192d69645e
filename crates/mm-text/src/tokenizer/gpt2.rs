//! GPT-2's tokenizer (Radford et al. 2019, section 2.2) from `vocab.json` and `merges.txt`: byte-level BPE,
//! without begin and end tokens.

use super::assemble;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, Tokenizer};

/// The end token, which is also that of padding and of unknown words.
const END: &str = "<|endoftext|>";

/// The whole tokenizer, as transformers' `GPT2Tokenizer` builds it.
///
/// # Errors
/// A merge is of tokens that the vocabulary does not have.
pub(super) fn tokenizer(vocabulary: Vocab, merges: Merges) -> tokenizers::Result<Tokenizer> {
    let has_end = vocabulary.contains_key(END);
    let mut tokenizer = Tokenizer::new(BPE::builder().vocab_and_merges(vocabulary, merges).build()?);
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    assemble(&mut tokenizer, Value::Null, byte_level.clone(), byte_level.clone(), byte_level)?;
    if has_end {
        tokenizer.add_special_tokens(&[AddedToken::from(END, true)]);
    }
    Ok(tokenizer)
}
