//! The tokenizer in an open_clip `text_cfg`.

use crate::{Error, Result};
use mm_text::{TextClean, Tokenizer};
use serde_json::{Value, json};

/// The settings of the tokenizer in a `text_cfg`.
#[derive(Debug, PartialEq)]
pub(in crate::folder) struct TokenizerSettings<'a> {
    /// Its name, if it is not OpenAI's.
    pub name: Option<&'a str>,
    /// The cleaning of texts, if it is set.
    pub clean: Option<TextClean>,
}

impl TokenizerSettings<'_> {
    /// The cleaning of texts that open_clip uses by default.
    pub fn default_clean(&self) -> TextClean {
        if self.name.is_some() { TextClean::Whitespace } else { TextClean::Lower }
    }
}

/// The settings of the tokenizer in `text_cfg`.
///
/// # Errors
/// A setting is not supported.
pub(in crate::folder) fn tokenizer_settings(text_cfg: &Value) -> Result<TokenizerSettings<'_>> {
    let refuse =
        |name: &str| Err(Error::Model(format!("text_cfg.{name} = {} is not supported", text_cfg[name])));
    if !(text_cfg["tokenizer_mode"].is_null() || text_cfg["tokenizer_mode"] == json!("")) {
        return refuse("tokenizer_mode");
    }
    let mut clean = None;
    match &text_cfg["tokenizer_kwargs"] {
        Value::Null => {}
        Value::Object(settings) => {
            for (name, value) in settings {
                let known =
                    value.as_str().and_then(TextClean::from_name).filter(|&known| known != TextClean::None);
                let is_off = name == "strip_sep_token" && *value == json!(false);
                match (name.as_str(), known) {
                    ("clean", Some(known)) => clean = Some(known),
                    _ if is_off => {}
                    _ => return refuse("tokenizer_kwargs"),
                }
            }
        }
        _ => return refuse("tokenizer_kwargs"),
    }
    let name = text_cfg["hf_tokenizer_name"].as_str().filter(|name| !name.is_empty());
    Ok(TokenizerSettings { name, clean })
}

/// Writes the settings of `tokenizer` to `text_cfg`.
pub(in crate::folder) fn set_tokenizer(text_cfg: &mut Value, tokenizer: &Tokenizer) {
    if !text_cfg["hf_model_name"].is_null() {
        // A BERT may have more positions than its texts have tokens.
        text_cfg["context_length"] = tokenizer.context_length().into();
    }
    if !tokenizer.is_openai_clip() {
        // open_clip then reads the files beside its config; in a folder, any name stands for them.
        text_cfg["hf_tokenizer_name"] = "local-dir".into();
    }
    let name = text_cfg["hf_tokenizer_name"].as_str();
    let default = TokenizerSettings { name, clean: None }.default_clean();
    let clean = tokenizer.text_clean();
    // open_clip has no name for no cleaning; it is read from tokenizer_config.json here.
    if ![TextClean::None, default].contains(&clean) {
        text_cfg["tokenizer_kwargs"] = json!({ "clean": clean });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_is_named_with_its_cleaning_and_other_settings_are_refused() {
        let settings = |config: Value| {
            tokenizer_settings(&config).map(|found| (found.name.map(str::to_owned), found.clean))
        };
        let named = json!({ "hf_tokenizer_name": "org/name", "tokenizer_kwargs": {} });
        assert_eq!(settings(named).unwrap(), (Some("org/name".to_owned()), None));
        let kwargs = json!({ "clean": "canonicalize", "strip_sep_token": false });
        let own = json!({ "hf_tokenizer_name": "", "tokenizer_kwargs": kwargs });
        assert_eq!(settings(own).unwrap(), (None, Some(TextClean::Canonicalize)));
        for (setting, value) in [
            ("tokenizer_mode", json!("clips")),
            ("tokenizer_kwargs", json!({ "strip_sep_token": true })),
            ("tokenizer_kwargs", json!({ "clean": "none" })),
            ("tokenizer_kwargs", json!({ "reduction_mask": "simple" })),
        ] {
            let error = settings(json!({ setting: value })).unwrap_err().to_string();
            assert!(error.contains(&format!("text_cfg.{setting} = {value}")), "{error}");
        }
    }
}
