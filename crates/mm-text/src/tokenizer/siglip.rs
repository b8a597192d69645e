//! SigLIP's tokenizer from its `spiece.model`: lower case without punctuation, split into the likeliest
//! pieces of a unigram model (Kudo 2018), `</s>` after.

use super::protobuf::{Field, fields};
use serde_json::{Value, json};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Sequence};
use tokenizers::{AddedToken, Tokenizer};

/// The default context length.
pub(super) const CONTEXT_LENGTH: u64 = 64;

const END: &str = "</s>";
/// The mark before a word.
const WORD: &str = "\u{2581}";
/// Python's `string.punctuation`.
const PUNCTUATION: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"##;
/// `UNIGRAM` of `model_type` in sentencepiece_model.proto.
const UNIGRAM: u64 = 1;

/// The parts of a sentencepiece `ModelProto` that are used.
#[derive(Default)]
struct Model {
    /// The pieces and their log probabilities.
    pieces: Vec<(String, f64)>,
    /// The rules of Unicode normalization, compiled.
    charsmap: Vec<u8>,
    model_type: Option<u64>,
    unknown: Option<u64>,
    byte_fallback: bool,
}

/// The whole tokenizer, as transformers' `SiglipTokenizer` works with the sentencepiece model in `bytes`;
/// `config` is `tokenizer_config.json`, whose `do_lower_case` is true where absent.
///
/// # Errors
/// The bytes are not a sentencepiece model, or one of another type.
pub(super) fn tokenizer(bytes: &[u8], config: &Value) -> tokenizers::Result<Tokenizer> {
    let model = read(bytes).ok_or("it is no sentencepiece model, or it is cut off")?;
    if model.model_type.unwrap_or(UNIGRAM) != UNIGRAM {
        return Err(
            "it is a sentencepiece model of another kind than unigram: save it as tokenizer.json".into()
        );
    }
    let Some(end) = model.pieces.iter().position(|(piece, _)| piece == END) else {
        return Err(format!("no {END} in the vocabulary").into());
    };
    let unknown = model.unknown.unwrap_or(0) as usize;
    let unknown_piece = model.pieces.get(unknown).map(|(piece, _)| piece.clone());

    let step = |normalizer: Value| serde_json::from_value::<NormalizerWrapper>(normalizer);
    let replace = |pattern: &str, by: &str| {
        step(json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": by }))
    };
    let strip = || step(json!({ "type": "Strip", "strip_left": true, "strip_right": true }));
    let mut steps = Vec::new();
    if config["do_lower_case"].as_bool().unwrap_or(true) {
        steps.push(step(json!({ "type": "Lowercase" }))?);
    }
    steps.extend([replace(PUNCTUATION, "")?, replace(WORD, " ")?, replace(r"\s+", " ")?]);
    if !model.charsmap.is_empty() {
        steps.push(Precompiled::from(&model.charsmap).map_err(|error| error.to_string())?.into());
    }
    steps.extend([replace(" {2,}", " ")?, strip()?]);

    let mut tokenizer = Tokenizer::new(Unigram::from(model.pieces, Some(unknown), model.byte_fallback)?);
    tokenizer.with_normalizer(Some(NormalizerWrapper::Sequence(Sequence::new(steps))));
    let words =
        json!({ "type": "Metaspace", "replacement": WORD, "prepend_scheme": "always", "split": true });
    let sequence = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let end_token = json!({ "SpecialToken": { "id": END, "type_id": 0 } });
    let post_processor = json!({
        "type": "TemplateProcessing",
        "single": [sequence("A"), end_token],
        "pair": [sequence("A"), end_token, sequence("B"), end_token],
        "special_tokens": { END: { "id": END, "ids": [end], "tokens": [END] } },
    });
    super::assemble(&mut tokenizer, Value::Null, words.clone(), post_processor, words)?;
    let special = |token: String| AddedToken { lstrip: true, rstrip: true, ..AddedToken::from(token, true) };
    let specials: Vec<AddedToken> = unknown_piece.into_iter().chain([END.to_owned()]).map(special).collect();
    tokenizer.add_special_tokens(&specials);
    Ok(tokenizer)
}

/// Reads a `ModelProto` of sentencepiece_model.proto.
fn read(bytes: &[u8]) -> Option<Model> {
    let mut model = Model::default();
    for (number, field) in fields(bytes)? {
        match (number, field) {
            (1, Field::Bytes(piece)) => {
                let (mut text, mut score) = (String::new(), 0.0);
                for (number, field) in fields(piece)? {
                    match (number, field) {
                        (1, Field::Bytes(bytes)) => text = String::from_utf8(bytes.to_vec()).ok()?,
                        (2, Field::Fixed32(bits)) => score = f64::from(f32::from_bits(bits)),
                        _ => {}
                    }
                }
                model.pieces.push((text, score));
            }
            (2, Field::Bytes(trainer)) => {
                for (number, field) in fields(trainer)? {
                    match (number, field) {
                        (3, Field::Number(model_type)) => model.model_type = Some(model_type),
                        (35, Field::Number(byte_fallback)) => model.byte_fallback = byte_fallback != 0,
                        (40, Field::Number(unknown)) => model.unknown = Some(unknown),
                        _ => {}
                    }
                }
            }
            (3, Field::Bytes(normalizer)) => {
                for (number, field) in fields(normalizer)? {
                    if let (2, Field::Bytes(charsmap)) = (number, field) {
                        model.charsmap = charsmap.to_vec();
                    }
                }
            }
            _ => {}
        }
    }
    (!model.pieces.is_empty()).then_some(model)
}
