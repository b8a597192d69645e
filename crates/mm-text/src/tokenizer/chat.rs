//! Training of tokenizers of chats with images.

use super::train::Pieces;
use super::{Tokenizer, clip, guarded, library_error};
use crate::{Error, Result};
use serde_json::{Value, json};

/// The tokens with a role, in SmolVLM's form (Marafioti et al. 2025): padding, the beginning of a
/// conversation, the end of a message, what is around an image, the mark of a whole image, and the
/// placeholder of its vectors. Their ids are their places here.
pub const CHAT_TOKENS: [&str; 6] = [
    "<|im_end|>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<global-img>",
    "<image>",
];

/// Trains a tokenizer of chats on `texts`: byte-pair encoding (Sennrich et al. 2016) of at most `vocab_size`
/// tokens over bytes, as GPT-2's, so that every text is covered and none is changed: [`CHAT_TOKENS`], 256
/// bytes, then the merges. It adds no tokens to a text, which a chat template does.
///
/// The result depends on the texts alone, not on their order or the number of cores. Training stops early
/// once every word is one token.
///
/// # Errors
/// No texts, or a `vocab_size` below the 262 tokens that every text needs.
pub fn train_chat_bpe(
    texts: impl Iterator<Item = String> + Send,
    vocab_size: usize,
    context_length: usize,
) -> Result<Tokenizer> {
    let letters = clip::byte_letters().into_iter().map(String::from);
    let base = CHAT_TOKENS.map(str::to_owned).into_iter().chain(letters).collect();
    let pieces =
        Pieces { base, reserved: 0, end_of_word: None, normalizer: None, pre_tokenizer: pre_tokenizer() };
    let (vocab, merges) = pieces.merged(texts, vocab_size)?;
    let added = |(id, content): (usize, &&str)| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let added: Vec<Value> = CHAT_TOKENS.iter().enumerate().map(added).collect();
    let description = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer(),
        "post_processor": null,
        "decoder": pre_tokenizer(),
        "model": { "type": "BPE", "vocab": vocab, "merges": merges },
    });
    chat_tokenizer(&description.to_string(), context_length)
}

/// A tokenizer of [`train_chat_bpe`] from the text of its `tokenizer.json`.
///
/// # Errors
/// The text is not such a file.
pub fn chat_tokenizer(json: &str, context_length: usize) -> Result<Tokenizer> {
    let inner = guarded(|| tokenizers::Tokenizer::from_bytes(json)).map_err(library_error)?;
    if let Some(missing) = CHAT_TOKENS.iter().find(|token| inner.token_to_id(token).is_none()) {
        return Err(Error::Tokenizer(format!("the vocabulary has no {missing}")));
    }
    let [pad, begin, end, ..] = CHAT_TOKENS;
    let roles = json!({ "bos_token": begin, "eos_token": end, "pad_token": pad });
    Tokenizer::new(inner, &roles, true)?.with_context_length(context_length)
}

/// GPT-2's: words with the space before them, each spelled with one letter a byte.
fn pre_tokenizer() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        let texts = ["User What colour is it?", "Assistant Red.", "{\"total\": \"9.50\"}"].map(str::to_owned);
        train_chat_bpe(texts.into_iter().cycle().take(30), 300, 512).unwrap()
    }

    #[test]
    fn roles_come_first_and_every_text_is_covered_unchanged() {
        let tokenizer = tokenizer();
        assert_eq!((tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id()), (0, Some(1), 2));
        assert!(tokenizer.vocab_size() <= 300 && tokenizer.vocab_size() > 262);
        let text = "What colour\n  is Ärger?\n{\"total\": \"1\"}";
        let ids = tokenizer.encode_words(text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert_eq!(tokenizer.encode("Red.").unwrap(), tokenizer.encode_words("Red.").unwrap());
        let marked = tokenizer.encode_words("<|im_start|>User:<image><image> a<end_of_utterance>\n").unwrap();
        let special: Vec<u32> = marked.into_iter().filter(|&id| id < 6).collect();
        assert_eq!(special, [1, 5, 5, 2]);
    }

    #[test]
    fn it_is_saved_and_opened_unchanged() {
        let (tokenizer, folder) = (tokenizer(), tempfile::tempdir().unwrap());
        tokenizer.save(folder.path(), &["input_ids", "attention_mask"]).unwrap();
        let opened = Tokenizer::for_decoder(folder.path()).unwrap();
        let other = chat_tokenizer(&tokenizer.to_json().unwrap(), 512).unwrap();
        let text = "<|im_start|>User:<image>What colour?<end_of_utterance>\nAssistant:";
        for copy in [opened, other] {
            assert_eq!(copy.encode_words(text).unwrap(), tokenizer.encode_words(text).unwrap());
            assert_eq!((copy.eos_id(), copy.pad_id(), copy.bos_id()), (2, 0, Some(1)));
            assert_eq!(copy.context_length(), 512);
        }
    }

    #[test]
    fn a_vocabulary_below_the_bytes_or_no_text_is_refused() {
        let error = train_chat_bpe(["a".to_owned()].into_iter(), 261, 8).unwrap_err().to_string();
        assert!(error.contains("a vocabulary of 261 is below the 262 tokens"), "{error}");
        assert!(train_chat_bpe(std::iter::empty(), 300, 8).is_err());
    }
}
