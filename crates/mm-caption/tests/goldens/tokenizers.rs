//! Ids of captions, and captions of ids.

use crate::{golden, json};
use mm_text::Tokenizer;
use serde_json::Value;

/// Compares `texts.json` of `folder`; transformers' ids have `around` tokens at both ends.
fn assert_texts_equal(folder: &str, around: usize) {
    let tokenizer = Tokenizer::for_decoder(&golden(folder)).unwrap();
    let texts: Value = json(&golden(folder).join("texts.json"));
    let ids = |row: &Value| -> Vec<u32> { serde_json::from_value(row["ids"].clone()).unwrap() };
    for row in texts["encode"].as_array().unwrap() {
        let (text, expected) = (row["text"].as_str().unwrap(), ids(row));
        let words = &expected[around..expected.len() - around];
        assert_eq!(tokenizer.encode_words(text).unwrap(), words, "{folder}: {text:?}");
    }
    for row in texts["decode"].as_array().unwrap() {
        let expected = row["text"].as_str().unwrap().trim();
        assert_eq!(tokenizer.decode(&ids(row)).unwrap(), expected, "{folder}: {:?}", ids(row));
    }
}

#[test]
fn blips_tokenizer_equals_transformers() {
    assert_texts_equal("blip", 1);
    assert_texts_equal("blip-large", 1);
}

#[test]
fn gpt2s_tokenizer_equals_transformers_from_either_of_its_files() {
    assert_texts_equal("gpt2", 0);
    assert_texts_equal("vit-gpt2", 0);
    let folder = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        std::fs::copy(golden("gpt2").join(name), folder.path().join(name)).unwrap();
    }
    let (from_json, from_merges) =
        (Tokenizer::for_decoder(&golden("gpt2")).unwrap(), Tokenizer::for_decoder(folder.path()).unwrap());
    for text in ["a picture of two red circles", " It's  3 stars!\n", "é😀"] {
        let ids = from_json.encode_words(text).unwrap();
        assert_eq!(from_merges.encode_words(text).unwrap(), ids, "{text:?}");
        assert_eq!(from_merges.decode(&ids).unwrap(), from_json.decode(&ids).unwrap());
    }
    assert_eq!(from_merges.eos_id(), from_json.eos_id());
}
