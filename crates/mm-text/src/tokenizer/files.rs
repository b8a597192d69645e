//! The files of a tokenizer.

use super::guard::guarded;
use super::{added, bert, clip, format_error, gpt2, siglip, token_named};
use crate::{Error, Result};
use mm_core::checkpoint::refuse_lfs_pointer;
use mm_core::read_json;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tokenizers::models::bpe::Vocab;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{PostProcessorWrapper, Tokenizer};

/// The files of a tokenizer, in all of its forms.
pub const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
];

/// The classes of transformers that pad on the left by default.
const LEFT_PADDERS: [&str; 3] = ["Siglip2Tokenizer", "GemmaTokenizer", "GemmaTokenizerFast"];

/// The tokenizer in `dir`, and its `tokenizer_config.json` (null where it has none).
pub(super) fn read(dir: &Path) -> Result<(Tokenizer, Value)> {
    let config_file = dir.join("tokenizer_config.json");
    let config = read_json_if_there(&config_file)?;
    let mut config = added::with_roles(config, &read_json_if_there(&dir.join("special_tokens_map.json"))?);
    let class = config["tokenizer_class"].as_str().unwrap_or_default().to_owned();
    let (json, spiece) = (dir.join("tokenizer.json"), dir.join("spiece.model"));
    let (vocab, merges, words) = (dir.join("vocab.json"), dir.join("merges.txt"), dir.join("vocab.txt"));
    // A tokenizer.json beside SigLIP's model does not contain the cleaning of texts.
    let tokenizer = if json.exists() && !(class == "SiglipTokenizer" && spiece.exists()) {
        let bytes = read_bytes(&json)?;
        guarded(|| configured(Tokenizer::from_bytes(bytes)?, &config))
            .map_err(|reason| format_error(&json, reason))?
    } else if vocab.exists() && merges.exists() {
        let tokens: Vocab = serde_json::from_slice(&read_bytes(&vocab)?).map_err(|reason| {
            format_error(&vocab, format!("expected an object of tokens and their ids: {reason}"))
        })?;
        let pairs = clip::merges(&read_text(&merges)?).map_err(|reason| format_error(&merges, reason))?;
        let is_gpt2 = class.starts_with("GPT2Tokenizer");
        guarded(|| if is_gpt2 { gpt2::tokenizer(tokens, pairs) } else { clip::tokenizer(tokens, pairs) })
            .map_err(|reason| format_error(&vocab, reason))?
    } else if words.exists() {
        let text = read_text(&words)?;
        guarded(|| bert::tokenizer(&text, &config)).map_err(|reason| format_error(&words, reason))?
    } else if spiece.exists() {
        if !["", "SiglipTokenizer"].contains(&class.as_str()) {
            let reason = format!("with {class} it is not offered: save it as tokenizer.json (use_fast=True)");
            return Err(format_error(&spiece, reason));
        }
        let bytes = read_bytes(&spiece)?;
        guarded(|| siglip::tokenizer(&bytes, &config)).map_err(|reason| format_error(&spiece, reason))?
    } else {
        return Err(Error::NoTokenizer(dir.to_owned()));
    };
    let older = read_json_if_there(&dir.join("added_tokens.json"))?;
    let tokenizer = guarded(|| added::add(tokenizer, &config, &older))
        .map_err(|reason| format_error(&config_file, reason))?;
    if class == "SiglipTokenizer" && config["model_max_length"].is_null() {
        config["model_max_length"] = siglip::CONTEXT_LENGTH.into();
    }
    if LEFT_PADDERS.contains(&class.as_str()) && config["padding_side"].is_null() {
        config["padding_side"] = "left".into();
    }
    let sentence = read_json_if_there(&dir.join("sentence_bert_config.json"))?;
    if let Some(length) = sentence["max_seq_length"].as_u64() {
        config["model_max_length"] = length.into();
    }
    Ok((tokenizer, config))
}

/// `tokenizer` with the changes of `tokenizer_config.json` to a `tokenizer.json`: SigLIP 2's lower case, and
/// the begin and end tokens that are to be added, if the file itself adds no tokens around a text. If it
/// does, transformers 5 ignores these too.
fn configured(mut tokenizer: Tokenizer, config: &Value) -> tokenizers::Result<Tokenizer> {
    if config["tokenizer_class"] == "Siglip2Tokenizer" {
        let own = tokenizer.get_normalizer().cloned();
        let steps = std::iter::once(NormalizerWrapper::Lowercase(Lowercase)).chain(own).collect();
        tokenizer.with_normalizer(Some(NormalizerWrapper::Sequence(Sequence::new(steps))));
    }
    let (begin, end) = (config["add_bos_token"].as_bool(), config["add_eos_token"].as_bool());
    if begin.is_none() && end.is_none() {
        return Ok(tokenizer);
    }
    let padding = tokenizer.get_padding().cloned();
    let adds_nothing = tokenizer.with_padding(None).encode_fast("", true)?.get_ids().is_empty();
    tokenizer.with_padding(padding);
    if !adds_nothing {
        return Ok(tokenizer);
    }
    let added =
        |role: &str, is_added: Option<bool>| token_named(config, role).filter(|_| is_added == Some(true));
    let tokens = [added("bos_token", begin), Some("$A"), added("eos_token", end)];
    let single: Vec<&str> = tokens.into_iter().flatten().collect();
    let mut specials = Vec::new();
    for token in single.iter().filter(|token| **token != "$A") {
        let id = tokenizer.token_to_id(token).ok_or_else(|| format!("no {token} in the vocabulary"))?;
        specials.push(((*token).to_owned(), id));
    }
    let template = TemplateProcessing::builder().try_single(single)?.special_tokens(specials).build()?;
    tokenizer.with_post_processor(Some(PostProcessorWrapper::Template(template)));
    Ok(tokenizer)
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    refuse_lfs_pointer(&bytes).map_err(|reason| format_error(path, reason))?;
    Ok(bytes)
}

/// Null if there is no file.
fn read_json_if_there(path: &Path) -> Result<Value> {
    if path.exists() { Ok(read_json(path)?) } else { Ok(Value::Null) }
}

fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|reason| format_error(path, reason))
}
