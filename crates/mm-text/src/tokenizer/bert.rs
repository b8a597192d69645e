//! BERT's tokenizer (Devlin et al. 2019) from the original `vocab.txt`: WordPiece of words and punctuation,
//! `[CLS]` before and `[SEP]` after.

use serde_json::{Value, json};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{AddedToken, Tokenizer};

/// The whole tokenizer, as transformers' `BertTokenizer` builds it from the lines of `vocabulary`, a token
/// each, and the fields of `tokenizer_config.json`: `do_lower_case` (true where absent), `strip_accents` and
/// `tokenize_chinese_chars`.
///
/// # Errors
/// The vocabulary has no unknown, begin or end token.
pub(super) fn tokenizer(vocabulary: &str, config: &Value) -> tokenizers::Result<Tokenizer> {
    let vocab: tokenizers::models::bpe::Vocab =
        vocabulary.lines().map(|line| line.trim_end().to_owned()).zip(0..).collect();
    let id = |token: &str| vocab.get(token).copied().ok_or_else(|| format!("no {token} in the vocabulary"));
    let (cls, sep, _unknown) = (id("[CLS]")?, id("[SEP]")?, id("[UNK]")?);
    let normalizer = json!({
        "type": "BertNormalizer",
        "clean_text": true,
        "handle_chinese_chars": config["tokenize_chinese_chars"].as_bool().unwrap_or(true),
        "strip_accents": config["strip_accents"].as_bool(),
        "lowercase": config["do_lower_case"].as_bool().unwrap_or(true),
    });
    let special = |token: &str, id: u32| json!({ "id": token, "ids": [id], "tokens": [token] });
    let piece = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let post_processor = json!({
        "type": "TemplateProcessing",
        "single": [piece("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, piece("[SEP]")],
        "pair": [piece("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, piece("[SEP]"),
                 { "Sequence": { "id": "B", "type_id": 1 } },
                 { "SpecialToken": { "id": "[SEP]", "type_id": 1 } }],
        "special_tokens": { "[CLS]": special("[CLS]", cls), "[SEP]": special("[SEP]", sep) },
    });
    let added =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().filter(|token| vocab.contains_key(*token));
    let added: Vec<AddedToken> = added.map(|token| AddedToken::from(token, true)).collect();
    let mut tokenizer =
        Tokenizer::new(WordPiece::builder().vocab(vocab).unk_token("[UNK]".to_owned()).build()?);
    let decoder = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
    super::assemble(
        &mut tokenizer,
        normalizer,
        json!({ "type": "BertPreTokenizer" }),
        post_processor,
        decoder,
    )?;
    tokenizer.add_special_tokens(&added);
    Ok(tokenizer)
}
