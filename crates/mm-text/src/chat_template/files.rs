//! Where a folder has its template and special tokens.

use crate::{Error, Result};
use mm_core::checkpoint::refuse_lfs_pointer;
use mm_core::read_json;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The file of transformers 5.
pub(super) const JINJA: &str = "chat_template.jinja";
/// The files with a key `chat_template`, in the order in which they are read.
const WITH_KEY: [&str; 3] = ["chat_template.json", "processor_config.json", "tokenizer_config.json"];
/// The special tokens that templates may name.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The file that has the template of `folder`, and the template.
pub(super) fn template(folder: &Path) -> Result<Option<(PathBuf, String)>> {
    let file = folder.join(JINJA);
    if file.exists() {
        let bytes = std::fs::read(&file).map_err(|source| Error::Io { path: file.clone(), source })?;
        let text = refuse_lfs_pointer(&bytes)
            .and_then(|()| String::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}")));
        return text.map_err(|reason| format_error(&file, reason)).map(|text| Some((file, text)));
    }
    for file in WITH_KEY.map(|name| folder.join(name)) {
        if file.exists() {
            let config: Value = read_json(&file)?;
            if let Some(source) = template_of(&config["chat_template"], &file)? {
                return Ok(Some((file, source.to_owned())));
            }
        }
    }
    Ok(None)
}

/// The template of the key `chat_template`: a text, or the one named `default` of several.
fn template_of<'a>(value: &'a Value, file: &Path) -> Result<Option<&'a str>> {
    let layout = "chat_template is neither a text nor a list of {\"name\", \"template\"}";
    match value {
        Value::Null => Ok(None),
        Value::String(source) => Ok(Some(source)),
        Value::Array(named) => {
            let name = |entry: &'a Value| entry["name"].as_str().zip(entry["template"].as_str());
            let named: Option<Vec<(&str, &str)>> = named.iter().map(name).collect();
            let named = named.ok_or_else(|| format_error(file, layout))?;
            if let Some((_, source)) = named.iter().find(|(name, _)| *name == "default") {
                return Ok(Some(source));
            }
            let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
            Err(format_error(file, format!("no chat template is named default, only {}", names.join(", "))))
        }
        _ => Err(format_error(file, layout)),
    }
}

/// The special tokens of `tokenizer_config.json`. Those of `special_tokens_map.json` have precedence if the
/// config lists no added tokens, as in older folders.
pub(super) fn special_tokens(folder: &Path) -> Result<Vec<(&'static str, String)>> {
    let read = |name: &str| -> Result<Value> {
        let file = folder.join(name);
        if file.exists() { Ok(read_json(&file)?) } else { Ok(Value::Null) }
    };
    let (config, map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
    let is_older = config["added_tokens_decoder"].is_null();
    let sources = if is_older { [&map, &config] } else { [&config, &map] };
    let token = |role: &'static str| {
        let named = |file: &Value| file[role].as_str().or(file[role]["content"].as_str()).map(str::to_owned);
        sources.into_iter().find_map(named).map(|token| (role, token))
    };
    Ok(ROLES.into_iter().filter_map(token).collect())
}

fn format_error(file: &Path, reason: impl ToString) -> Error {
    Error::Format { path: file.to_owned(), reason: reason.to_string() }
}
