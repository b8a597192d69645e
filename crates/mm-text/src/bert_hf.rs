//! Reads and writes transformers' config of BERT, and reads sentence-transformers' pooling beside it.

use crate::config::{check_only, overlay};
use crate::{BertConfig, BertPooling, Error, Result};
use mm_core::read_json;
use serde_json::{Value, json};
use std::path::Path;

impl BertConfig {
    /// Reads a Hugging Face `config.json`, which does not contain the pooling. Absent and null fields have
    /// transformers' defaults.
    ///
    /// # Errors
    /// A field of another type, a setting that is not supported, or those of [`BertConfig::validate`].
    pub fn from_hf(config: &Value, pooling: BertPooling) -> Result<Self> {
        check_only(config, "position_embedding_type", "absolute".into())?;
        check_only(config, "is_decoder", false.into())?;
        check_only(config, "add_cross_attention", false.into())?;
        let read = Self { pooling, ..overlay(&Self::default(), config)? };
        read.validate()?;
        Ok(read)
    }

    /// The fields of transformers' `BertConfig`, which has none for the pooling.
    pub fn to_hf(&self) -> Value {
        json!({
            "model_type": "bert",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
        })
    }
}

impl BertPooling {
    /// The pooling of the sentence-transformers model in `dir`, from `1_Pooling/config.json` (or the folder
    /// that `modules.json` names); none if there is no such file.
    ///
    /// # Errors
    /// A damaged file, or a pooling or module that is not supported.
    pub fn from_sentence_transformers(dir: &Path) -> Result<Option<Self>> {
        let modules = dir.join("modules.json");
        let mut folder = "1_Pooling".to_owned();
        if modules.exists() {
            let json: Value = read_json(&modules)?;
            for module in json.as_array().into_iter().flatten() {
                let path = module["path"].as_str().unwrap_or_default();
                match module["type"].as_str().and_then(|name| name.rsplit('.').next()) {
                    Some("Transformer" | "Normalize") => {}
                    Some("Pooling") => folder = path.to_owned(),
                    other => {
                        let reason = format!(
                            "module {} is not offered: Transformer, Pooling and Normalize are",
                            other.unwrap_or("?")
                        );
                        return Err(Error::Format { path: modules, reason });
                    }
                }
            }
        }
        let file = dir.join(folder).join("config.json");
        if !file.exists() {
            return Ok(None);
        }
        let config: Value = read_json(&file)?;
        let wrong = |modes: &str| {
            let reason = format!("pooling {modes} is not offered: cls and mean are");
            Err(Error::Format { path: file.clone(), reason })
        };
        match modes(&config).as_slice() {
            ["cls"] => Ok(Some(Self::Cls)),
            ["mean"] => Ok(Some(Self::Mean)),
            others => wrong(&others.join(" with ")),
        }
    }
}

/// The modes that are on in a pooling's config, in either of its forms.
fn modes(config: &Value) -> Vec<&str> {
    match &config["pooling_mode"] {
        Value::String(mode) => vec![mode],
        Value::Array(modes) => modes.iter().filter_map(Value::as_str).collect(),
        _ => {
            let flags = config.as_object().into_iter().flatten().filter(|(_, value)| **value == json!(true));
            flags
                .filter_map(|(name, _)| name.strip_prefix("pooling_mode_"))
                .map(|mode| mode.strip_suffix("_tokens").or(mode.strip_suffix("_token")).unwrap_or(mode))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn pooling(files: &[(&str, Value)]) -> Result<Option<BertPooling>> {
        let dir = tempfile::tempdir().unwrap();
        for (name, json) in files {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, json.to_string()).unwrap();
        }
        BertPooling::from_sentence_transformers(dir.path())
    }

    #[test]
    fn the_pooling_of_sentence_transformers_is_read_in_both_forms() {
        let old = json!({"word_embedding_dimension": 384, "pooling_mode_cls_token": false,
                         "pooling_mode_mean_tokens": true, "include_prompt": true});
        assert_eq!(pooling(&[("1_Pooling/config.json", old)]).unwrap(), Some(BertPooling::Mean));
        let new = json!({"embedding_dimension": 384, "pooling_mode": "cls"});
        let modules = json!([{"path": "", "type": "sentence_transformers.models.Transformer"},
                             {"path": "pool", "type": "sentence_transformers.models.Pooling"}]);
        let files = [("modules.json", modules), ("pool/config.json", new)];
        assert_eq!(pooling(&files).unwrap(), Some(BertPooling::Cls));
        assert_eq!(pooling(&[]).unwrap(), None);
    }

    #[test]
    fn a_pooling_or_module_that_is_not_offered_is_refused() {
        let max = json!({"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true});
        let message = pooling(&[("1_Pooling/config.json", max)]).unwrap_err().to_string();
        assert!(message.contains("max with mean is not offered"), "{message}");
        let dense = json!([{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]);
        assert!(
            pooling(&[("modules.json", dense)])
                .unwrap_err()
                .to_string()
                .contains("module Dense is not offered")
        );
    }

    #[test]
    fn what_is_written_reads_back_the_same_and_what_is_not_offered_is_refused() {
        let config = BertConfig { hidden_size: 96, pooling: BertPooling::Mean, ..BertConfig::default() };
        assert_eq!(BertConfig::from_hf(&config.to_hf(), BertPooling::Mean).unwrap(), config);
        let relative = json!({"position_embedding_type": "relative_key"});
        let message = BertConfig::from_hf(&relative, BertPooling::Cls).unwrap_err().to_string();
        assert!(message.contains("position_embedding_type is \"relative_key\""), "{message}");
    }
}
