//! CLIP's tokenizer (Radford et al. 2021, section 2.4): lower-cased, split by CLIP's expression, bytes as
//! letters, byte pairs merged with `</w>` at word ends, `<|startoftext|>` before and `<|endoftext|>` after.

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, Tokenizer};

/// The token before each text.
pub(super) const START: &str = "<|startoftext|>";
/// The token after each text, and CLIP's padding.
pub(super) const END: &str = "<|endoftext|>";
/// The mark of a token that ends a word.
pub(super) const END_OF_WORD: &str = "</w>";

/// The pieces that a text is split into.
const PIECES: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Canonical composition, runs of white space as one space, lower case.
pub(super) fn normalizer() -> Value {
    json!({ "type": "Sequence", "normalizers": [
        { "type": "NFC" },
        { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
        { "type": "Lowercase" },
    ]})
}

/// Words, single digits and runs of punctuation, each spelled with one letter a byte.
pub(super) fn pre_tokenizer() -> Value {
    json!({ "type": "Sequence", "pretokenizers": [
        split(format!(r"<\|startoftext\|>|<\|endoftext\|>|{PIECES}")),
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
    ]})
}

/// The step that keeps the pieces that `regex` matches.
fn split(regex: String) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Removed", "invert": true })
}

/// [`pre_tokenizer`] for texts of any case, as open_clip splits its own.
pub(super) fn pre_tokenizer_of_any_case() -> Value {
    json!({ "type": "Sequence", "pretokenizers": [
        split(format!("(?i){PIECES}")),
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
    ]})
}

/// The whole tokenizer, as transformers' `CLIPTokenizer` builds it from `vocab` (token to id) and `merges`
/// (pairs, best first).
///
/// # Errors
/// The vocabulary has no start or end token, or not the result of a merge.
pub(super) fn tokenizer(vocab: Vocab, merges: Merges) -> tokenizers::Result<Tokenizer> {
    let (Some(&start), Some(&end)) = (vocab.get(START), vocab.get(END)) else {
        return Err(format!("no {START} or no {END} in the vocabulary").into());
    };
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(END.to_owned())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(END_OF_WORD.to_owned())
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    let post_processor = json!({ "type": "RobertaProcessing", "cls": [START, start], "sep": [END, end],
                                 "trim_offsets": false, "add_prefix_space": false });
    let decoder =
        json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    super::assemble(&mut tokenizer, normalizer(), pre_tokenizer(), post_processor, decoder)?;
    tokenizer.add_special_tokens(&[AddedToken::from(START, true), AddedToken::from(END, true)]);
    Ok(tokenizer)
}

/// The pairs of `text`, one a line, best first, as `merges.txt` holds them.
///
/// # Errors
/// Names the line that is not a pair.
pub(super) fn merges(text: &str) -> Result<Merges, String> {
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.trim().is_empty());
    let pairs = lines.map(|(number, line)| match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.trim_end().to_owned())),
        _ => Err(format!("line {}: expected two tokens, got {line:?}", number + 1)),
    });
    pairs.collect()
}

/// The vocabulary that `merges` make, numbered as CLIP numbers its own: 256 bytes, 256 bytes that end a word,
/// the merges, then [`START`] and [`END`].
pub(super) fn vocabulary(merges: &Merges) -> Vocab {
    let joined = merges.iter().map(|(left, right)| format!("{left}{right}"));
    letters().chain(joined).chain([START.to_owned(), END.to_owned()]).zip(0..).collect()
}

/// The tokens of single bytes, within a word and at its end.
pub(super) fn letters() -> impl Iterator<Item = String> {
    let inside = byte_letters().into_iter().map(String::from);
    inside.chain(byte_letters().into_iter().map(|letter| format!("{letter}{END_OF_WORD}")))
}

/// The letter that stands for each byte, in the order in which CLIP numbers them: printable bytes stand for
/// themselves and come first, the others are shifted above them.
pub(super) fn byte_letters() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let plain = (0..256).filter(printable);
    let hidden = (0..256).filter(|byte| !printable(byte)).count() as u32;
    plain.chain(256..256 + hidden).filter_map(char::from_u32).collect()
}
