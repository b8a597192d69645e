//! Tokenizers of single characters.

use crate::{Error, Result, Tokenizer};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Padding, characters that are not in the vocabulary, and the token after each text, with the ids 0, 1 and
/// 2.
const SPECIAL: [&str; 3] = ["<pad>", "<unk>", "</s>"];

/// A tokenizer of the `characters`, each a token of its own, and of the `tags`, such as Donut's
/// `<s_total>` and `</s_total>`: the ids are those of padding, unknown characters, the end token, the tags in
/// their order, then the characters in the order of Unicode. It depends on nothing else, so that a model that
/// reads texts it has never seen, such as numbers, spells them.
///
/// # Errors
/// No characters, or a tag twice.
pub fn character_tokenizer(
    characters: impl IntoIterator<Item = char>,
    tags: &[String],
    context_length: usize,
) -> Result<Tokenizer> {
    let characters: BTreeSet<char> = characters.into_iter().collect();
    if characters.is_empty() {
        return Err(Error::Training("no characters".to_owned()));
    }
    let mut vocab = serde_json::Map::new();
    let named = SPECIAL.iter().map(|&token| token.to_owned()).chain(tags.iter().cloned());
    for token in named.chain(characters.iter().map(char::to_string)) {
        let id = vocab.len();
        if vocab.insert(token.clone(), id.into()).is_some() {
            return Err(Error::Training(format!("the token {token:?} is listed twice")));
        }
    }
    Tokenizer::from_json(&description(vocab.into(), tags).to_string(), context_length)
}

/// The `tokenizer.json`.
fn description(vocab: Value, tags: &[String]) -> Value {
    let [pad, unknown, end] = SPECIAL;
    let added = |token: &str, is_special: bool| {
        json!({ "id": vocab[token], "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": is_special })
    };
    let added: Vec<Value> = [pad, unknown, end]
        .into_iter()
        .map(|token| added(token, true))
        .chain(tags.iter().map(|tag| added(tag, false)))
        .collect();
    let piece = json!({ "SpecialToken": { "id": end, "type_id": 0 } });
    let sequence = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Split", "pattern": { "Regex": "[\\s\\S]" }, "behavior": "Isolated", "invert": false,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [sequence("A"), piece],
            "pair": [sequence("A"), piece, sequence("B"), piece],
            "special_tokens": { end: { "id": end, "ids": [vocab[end]], "tokens": [end] } },
        },
        "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": unknown },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        let tags = ["<s_total>", "</s_total>"].map(str::to_owned);
        character_tokenizer("0123456789. \nüA".chars(), &tags, 64).unwrap()
    }

    #[test]
    fn every_character_is_a_token_and_a_tag_is_one_token() {
        let tokenizer = tokenizer();
        assert_eq!((tokenizer.vocab_size(), tokenizer.pad_id(), tokenizer.eos_id()), (20, 0, 2));
        let text = "<s_total>A1.1 ü\n</s_total>";
        let ids = tokenizer.encode_words(text).unwrap();
        assert_eq!(ids.len(), 9);
        assert_eq!((ids[0], ids[8]), (3, 4));
        let tokens: String = ids.iter().filter_map(|&id| tokenizer.token(id)).collect();
        assert_eq!(tokens, text);
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert_eq!(tokenizer.unknown_id(), Some(1));
        assert_eq!(tokenizer.encode("1x").unwrap(), [tokenizer.token_id("1").unwrap(), 1, 2]);
    }

    #[test]
    fn it_is_saved_and_opened_unchanged() {
        let (tokenizer, folder) = (tokenizer(), tempfile::tempdir().unwrap());
        tokenizer.save(folder.path(), &["input_ids", "attention_mask"]).unwrap();
        let opened = Tokenizer::for_decoder(folder.path()).unwrap();
        let text = "<s_total>10 . A</s_total>";
        assert_eq!(opened.encode_words(text).unwrap(), tokenizer.encode_words(text).unwrap());
        assert_eq!((opened.eos_id(), opened.pad_id(), opened.context_length()), (2, 0, 64));
    }

    #[test]
    fn a_tag_that_is_listed_twice_or_no_character_is_an_error() {
        let tags = ["<s_a>", "<s_a>"].map(str::to_owned);
        assert!(character_tokenizer("a".chars(), &tags, 8).unwrap_err().to_string().contains("twice"));
        assert!(character_tokenizer([], &[], 8).is_err());
    }
}
