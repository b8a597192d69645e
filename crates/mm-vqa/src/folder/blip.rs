//! transformers' config of a `BlipForQuestionAnswering`.

use crate::blip::{BlipVqaConfig, QuestionToken};
use crate::{Error, Result};
use mm_text::decoder::{BertDecoderConfig, SpecialTokens};
use mm_vision::{VitConfig, VitVariant};
use serde_json::{Value, json};

/// The `model_type`, which transformers' other BLIPs have too.
pub(super) const MODEL_TYPE: &str = "blip";

/// A key of this project, which transformers ignores: `cls` or `enc`.
const QUESTION_TOKEN: &str = "question_token";

/// Reads the config.
pub(super) fn read(config: &Value) -> Result<BlipVqaConfig> {
    let wrong = |problem: String| Error::Model(problem);
    if let Some(class) = config["architectures"][0].as_str().filter(|class| !is_for_questions(class)) {
        return Err(wrong(format!("architectures names {class}: questions need BlipForQuestionAnswering")));
    }
    let (text, vision) = (&config["text_config"], &config["vision_config"]);
    let question_token = match &config[QUESTION_TOKEN] {
        Value::Null => QuestionToken::default(),
        given => serde_json::from_value(given.clone())
            .map_err(|_| wrong(format!("{QUESTION_TOKEN} is {given}: it must be cls or enc")))?,
    };
    let read = BlipVqaConfig {
        image: VitConfig::from_hf(vision, VitVariant::Blip)?,
        text: BertDecoderConfig::from_blip(text)?,
        tokens: SpecialTokens::from_blip(text),
        question_token,
    };
    read.validate()?;
    Ok(read)
}

/// Writes the config.
pub(super) fn write(config: &BlipVqaConfig) -> Value {
    let BlipVqaConfig { image, text, tokens, question_token } = config;
    let mut json = json!({
        "architectures": ["BlipForQuestionAnswering"],
        "model_type": MODEL_TYPE,
        "text_config": text.to_blip(image.hidden_size, tokens),
        "vision_config": image.to_hf(),
        "tie_word_embeddings": true,
    });
    if *question_token != QuestionToken::default() {
        json[QUESTION_TOKEN] = json!(question_token);
    }
    json
}

/// Whether `class`, of `architectures`, is a model that answers questions.
pub(super) fn is_for_questions(class: &str) -> bool {
    class.ends_with("QuestionAnswering")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(config: Value) -> String {
        read(&config).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let text = BertDecoderConfig { hidden_size: 96, vocab_size: 100, ..BertDecoderConfig::default() };
        let image =
            VitConfig { hidden_size: 96, ..VitConfig::from_hf(&json!({}), VitVariant::Blip).unwrap() };
        let tokens = SpecialTokens { start: Some(98), end: 3, pad: 0 };
        for question_token in [QuestionToken::Cls, QuestionToken::Enc] {
            let config = BlipVqaConfig {
                image: image.clone(),
                text: text.clone(),
                tokens: tokens.clone(),
                question_token,
            };
            assert_eq!(read(&write(&config)).unwrap(), config);
        }
    }

    #[test]
    fn what_cannot_answer_questions_is_refused_with_its_value() {
        let vision = json!({"hidden_size": 1024, "num_attention_heads": 16});
        for (config, expected) in [
            (json!({"architectures": ["BlipForConditionalGeneration"]}), "BlipForConditionalGeneration"),
            (json!({"question_token": "sep"}), "question_token is \"sep\""),
            (json!({"vision_config": vision}), "images have width 1024 and questions 768"),
            (json!({"text_config": {"vocab_size": 30522}}), "special token 30522 has no embedding"),
            (
                json!({"question_token": "enc", "text_config": {"vocab_size": 30523}}),
                "special token 30523 has no embedding",
            ),
        ] {
            let message = message(config);
            assert!(message.contains(expected), "{message}");
        }
    }
}
