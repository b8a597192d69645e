//! transformers' config of a `ViltForQuestionAnswering`.

use super::labels::{answers, labels};
use crate::vilt::ViltConfig;
use crate::{Error, Result};
use mm_core::hf::overlay;
use serde_json::{Value, json};

/// The `model_type`, which transformers' other ViLTs have too.
pub(super) const MODEL_TYPE: &str = "vilt";

/// The layer with a row for each answer.
pub(super) const ANSWERS: &str = "classifier.3.";

/// Reads the config. Its answers are `id2label`.
pub(super) fn read(config: &Value) -> Result<ViltConfig> {
    let wrong = |problem: String| Err(Error::Model(problem));
    if let Some(class) =
        config["architectures"][0].as_str().filter(|class| *class != "ViltForQuestionAnswering")
    {
        return wrong(format!("architectures names {class}: questions need ViltForQuestionAnswering"));
    }
    for (name, offered) in
        [("num_channels", json!(3)), ("qkv_bias", json!(true)), ("max_image_length", json!(-1))]
    {
        let given = &config[name];
        if !given.is_null() && *given != offered {
            return wrong(format!("{name} is {given}: only {offered} is offered"));
        }
    }
    let read: ViltConfig = overlay(&ViltConfig::default(), config)
        .map_err(|error| Error::Model(format!("ViLT's config: {error}")))?;
    let read = ViltConfig { answers: answers(&config["id2label"])?, ..read };
    read.validate()?;
    Ok(read)
}

/// Writes the config.
pub(super) fn write(config: &ViltConfig) -> Value {
    let mut json = json!(config);
    json["architectures"] = json!(["ViltForQuestionAnswering"]);
    json["model_type"] = MODEL_TYPE.into();
    json["num_channels"] = 3.into();
    json["qkv_bias"] = true.into();
    json["max_image_length"] = (-1).into();
    json["id2label"] = labels(&config.answers);
    let numbered = config.answers.iter().enumerate();
    json["label2id"] = numbered.map(|(index, answer)| (answer.clone(), json!(index))).collect();
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(count: usize) -> Value {
        (0..count).map(|index| (index.to_string(), json!(format!("answer {index}")))).collect()
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let answers = (0..12).map(|index| format!("answer {index}")).collect();
        let config = ViltConfig { hidden_size: 96, patch_size: 16, answers, ..ViltConfig::default() };
        assert_eq!(read(&write(&config)).unwrap(), config);
        assert_eq!(read(&json!({"id2label": numbered(12)})).unwrap().answers, config.answers);
    }

    #[test]
    fn what_is_not_offered_is_refused_with_its_value() {
        for (config, expected) in [
            (json!({"architectures": ["ViltForMaskedLM"]}), "architectures names ViltForMaskedLM"),
            (json!({"max_image_length": 200}), "max_image_length is 200: only -1"),
            (json!({"qkv_bias": false}), "qkv_bias is false"),
            (json!({}), "id2label, the answers: it is missing"),
            (json!({"id2label": {"1": "yes"}}), "\"1\" is \"yes\": expected numbers from 0"),
            (json!({"id2label": {"0": "yes", "00": "no"}}), "number 1 is missing"),
            (json!({"id2label": {"0": 4}}), "\"0\" is 4"),
            (json!({"id2label": numbered(2), "hidden_size": "wide"}), "ViLT's config: invalid type"),
            (json!({"id2label": numbered(2), "num_hidden_layers": 0}), "num_hidden_layers is 0"),
        ] {
            let message = read(&config).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
