//! Tokenizers of whole words.

use super::clip::normalizer;
use super::part;
use crate::{Error, Result, Tokenizer};
use serde_json::{Value, json};
use tokenizers::models::wordlevel::{WordLevel, WordLevelTrainer};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

/// Padding, words that are not in the vocabulary, and the token after each text, with the ids 0, 1 and 2.
const SPECIAL: [&str; 3] = ["[PAD]", "[UNK]", "[SEP]"];

type Trainee =
    TokenizerImpl<WordLevel, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// A tokenizer of the words that occur at least `min_count` times in `texts`, the most frequent first, as the
/// embeddings of a VQA's questions have them: in lower case, each punctuation mark a word of its own, other
/// words `[UNK]`, and `[SEP]` after each text. It depends on the texts alone, not on their order.
///
/// # Errors
/// No texts, or no word is frequent enough.
pub fn train_word_level(
    texts: impl Iterator<Item = String> + Send,
    min_count: u64,
    context_length: usize,
) -> Result<Tokenizer> {
    let special: Vec<AddedToken> = SPECIAL.iter().map(|&token| AddedToken::from(token, true)).collect();
    let mut trainer = WordLevelTrainer::builder()
        .show_progress(false)
        .min_frequency(min_count)
        .vocab_size(usize::MAX)
        .special_tokens(special)
        .build()
        .map_err(|reason| Error::Training(reason.to_string()))?;
    let pre_tokenizer = json!({ "type": "BertPreTokenizer" });
    let mut trainee = Trainee::new(WordLevel::default());
    trainee.with_normalizer(Some(part::<NormalizerWrapper>(normalizer())?));
    trainee.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(pre_tokenizer.clone())?));
    trainee.train(&mut trainer, texts).map_err(|reason| Error::Training(reason.to_string()))?;
    let model =
        serde_json::to_value(trainee.get_model()).map_err(|reason| Error::Training(reason.to_string()))?;
    let vocab = &model["vocab"];
    if vocab.as_object().is_none_or(|words| words.len() <= SPECIAL.len()) {
        return Err(Error::Training(format!("no word occurs {min_count} times")));
    }
    Tokenizer::from_json(&description(vocab, &pre_tokenizer).to_string(), context_length)
}

/// The `tokenizer.json`.
fn description(vocab: &Value, pre_tokenizer: &Value) -> Value {
    let [_, unknown, end] = SPECIAL;
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true })
        })
        .collect();
    let piece = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let sequence = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer(),
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [sequence("A"), piece(end)],
            "pair": [sequence("A"), piece(end), sequence("B"), piece(end)],
            "special_tokens": { end: { "id": end, "ids": [vocab[end]], "tokens": [end] } },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": unknown },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained(min_count: u64) -> Result<Tokenizer> {
        let texts = ["What color is the circle?", "Is the circle RED?", "what's left of it?"];
        train_word_level(texts.into_iter().map(str::to_owned), min_count, 8)
    }

    #[test]
    fn frequent_words_have_small_ids_and_rare_ones_none() {
        let tokenizer = trained(2).unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.pad_id(), tokenizer.eos_id()), (8, 0, 2));
        let ids: Vec<_> = ["?", "circle", "is", "the", "what"].map(|word| tokenizer.token_id(word)).to_vec();
        assert_eq!(ids, [3, 4, 5, 6, 7].map(Some));
        assert_eq!(tokenizer.encode("WHAT is the red  circle?").unwrap(), [7, 5, 6, 1, 4, 3, 2]);
        assert_eq!(tokenizer.encode("").unwrap(), [2]);
    }

    #[test]
    fn a_long_text_is_cut_and_counted() {
        let tokenizer = trained(1).unwrap();
        let ids = tokenizer.encode("is the circle left of the red circle?").unwrap();
        assert_eq!((ids.len(), ids.last(), tokenizer.over_long()), (8, Some(&2), 1));
    }

    #[test]
    fn it_is_saved_and_opened_unchanged() {
        let (tokenizer, folder) = (trained(1).unwrap(), tempfile::tempdir().unwrap());
        tokenizer.save(folder.path(), &["input_ids", "attention_mask"]).unwrap();
        let opened = Tokenizer::from_dir(folder.path()).unwrap();
        let text = "What's left of the purple circle?";
        assert_eq!(opened.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        assert_eq!(opened.context_length(), 8);
        assert_eq!(
            opened.decode(&opened.encode("is the circle red?").unwrap()).unwrap(),
            "is the circle red ?"
        );
    }

    #[test]
    fn a_vocabulary_without_words_is_an_error() {
        let error = trained(9).unwrap_err().to_string();
        assert!(error.contains("no word occurs 9 times"), "{error}");
    }
}
