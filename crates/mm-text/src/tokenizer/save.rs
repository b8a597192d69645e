//! Writes a tokenizer for this crate and for transformers.

use super::{TEXT_CLEAN, Tokenizer, format_error};
use crate::{Error, Result};
use serde_json::json;
use std::borrow::Cow;
use std::fs;
use std::path::Path;

impl Tokenizer {
    /// Writes `tokenizer.json` and `tokenizer_config.json` into `dir`, for `from_dir` and transformers'
    /// `AutoTokenizer`. `inputs` are the tensors that it creates there:
    /// [`TextTowerSpec::input_names`](crate::TextTowerSpec::input_names).
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path, inputs: &[&str]) -> Result<()> {
        let file = dir.join("tokenizer.json");
        let mut inner = Cow::Borrowed(&self.inner);
        if let Some((normalizer, pre_tokenizer)) = &self.replaced {
            inner.to_mut().with_normalizer(normalizer.clone()).with_pre_tokenizer(pre_tokenizer.clone());
        }
        let json = inner.to_string(true).map_err(|reason| format_error(&file, reason))?;
        write(&file, &json)?;
        let token = |id: Option<u32>| id.and_then(|id| self.inner.id_to_token(id));
        let (bos, eos) = (token(self.bos), token(Some(self.eos)));
        let class = if self.is_clip() { "CLIPTokenizer" } else { "PreTrainedTokenizerFast" };
        let mut config = json!({ "tokenizer_class": class });
        let roles = if self.is_clip() {
            vec![("bos_token", bos), ("eos_token", eos.clone()), ("unk_token", eos)]
        } else if self.roles.is_empty() {
            vec![("cls_token", bos), ("sep_token", eos)]
        } else {
            Vec::new()
        };
        for (role, token) in roles {
            config[role] = json!(token);
        }
        for (role, named) in &self.roles {
            config[*role] = named.as_str().into();
        }
        config["pad_token"] = token(Some(self.pad)).into();
        config["padding_side"] = if self.pads_left { "left" } else { "right" }.into();
        config["model_max_length"] = self.context_length.into();
        config["model_input_names"] = json!(inputs);
        config[TEXT_CLEAN] = self.text_clean().name().into();
        write(&dir.join("tokenizer_config.json"), &format!("{config:#}\n"))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| Error::Io { path: path.to_owned(), source })
}
