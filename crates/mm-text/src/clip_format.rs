//! CLIP's tokenizer (Radford et al. 2021, section 2.4) written down as a `tokenizer.json`: lower-cased, split by CLIP's
//! expression, bytes as letters, byte pairs merged with `</w>` at word ends, `<|startoftext|>` before and `<|endoftext|>` behind.

use serde_json::{Map, Value, json};

/// The token before each text.
pub(crate) const START: &str = "<|startoftext|>";
/// The token behind each text, and CLIP's padding.
pub(crate) const END: &str = "<|endoftext|>";
/// What marks a token that ends a word.
pub(crate) const END_OF_WORD: &str = "</w>";

const SPLIT: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Canonical composition, runs of white space as one space, lower case.
pub(crate) fn normalizer() -> Value {
    json!({ "type": "Sequence", "normalizers": [
        { "type": "NFC" },
        { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
        { "type": "Lowercase" },
    ]})
}

/// Words, single digits and runs of punctuation, each spelled with one letter a byte.
pub(crate) fn pre_tokenizer() -> Value {
    json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": SPLIT }, "behavior": "Removed", "invert": true },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
    ]})
}

/// The whole tokenizer, as transformers' `CLIPTokenizer` builds it from `vocab` (token to id) and `merges` (pairs, best first).
/// None if the vocabulary lacks the start or the end token.
pub(crate) fn tokenizer(vocab: Map<String, Value>, merges: Vec<(String, String)>) -> Option<Value> {
    let (start, end) = (vocab.get(START)?.clone(), vocab.get(END)?.clone());
    let special = |id: &Value, content: &str| {
        json!({ "id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false })
    };
    Some(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(&start, START), special(&end, END)],
        "normalizer": normalizer(),
        "pre_tokenizer": pre_tokenizer(),
        "post_processor": { "type": "RobertaProcessing", "cls": [START, start], "sep": [END, end],
                            "trim_offsets": false, "add_prefix_space": false },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
                   "end_of_word_suffix": END_OF_WORD, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                   "vocab": vocab, "merges": merges },
    }))
}

/// The letter that stands for each byte, in the order in which CLIP numbers them: printable bytes stand for themselves and
/// come first, the others are shifted above them.
pub(crate) fn byte_letters() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let plain = (0..256).filter(printable);
    let hidden = (0..256).filter(|byte| !printable(byte)).count() as u32;
    plain.chain(256..256 + hidden).filter_map(char::from_u32).collect()
}
