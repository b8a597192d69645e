//! How texts are generated.

use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// How texts are generated, with transformers' names. Limits are in new tokens: they do not count the prompt.
///
/// Beams and sampling exclude each other only where they do in transformers: with `num_beams` above 1 and
/// `do_sample`, beams are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// The largest number of new tokens, end token included. A text that reaches it without an end token is
    /// marked as not finished.
    pub max_new_tokens: usize,
    /// The smallest number of new tokens before the end token.
    pub min_new_tokens: usize,
    /// Beams of the search; 1 is greedy.
    pub num_beams: usize,
    /// Texts for each prompt, the best first: at most `num_beams`, or any number of samples.
    pub num_return_sequences: usize,
    /// A beam's score is the sum of its log-probabilities over its length to this power: above 0 longer texts
    /// are preferred, below 0 shorter ones.
    pub length_penalty: f64,
    /// When the search for more beams ends.
    pub early_stopping: EarlyStopping,
    /// Whether tokens are drawn from the distribution instead of being the most probable.
    pub do_sample: bool,
    /// Divides the logits before drawing.
    pub temperature: f64,
    /// Draws from this many most probable tokens only; 0 for all.
    pub top_k: usize,
    /// Draws from the smallest set of most probable tokens whose probabilities sum to this.
    pub top_p: f64,
    /// Lowers the scores of tokens that the prompt or the text has already (Keskar et al. 2019, section 4.1);
    /// 1 for none.
    pub repetition_penalty: f64,
    /// No sequence of this many tokens occurs twice, prompt included; 0 for no such rule.
    pub no_repeat_ngram_size: usize,
    /// The first token of a text whose prompt is a single token.
    pub forced_bos_token_id: Option<u32>,
    /// The token at the limit of `max_new_tokens`.
    pub forced_eos_token_id: Option<u32>,
    /// Tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not generated first.
    pub begin_suppress_tokens: Vec<u32>,
    /// Seed of the draws.
    pub seed: u64,
}

/// When beam search ends for a prompt whose `num_beams` best texts are found; transformers' values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// `true`: as soon as there are `num_beams` of them.
    Always,
    /// `false`: when the best running beam, at its present length, is below the worst of them.
    #[default]
    Heuristic,
    /// `"never"`: when no running beam can exceed the worst of them.
    Never,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 20,
            min_new_tokens: 0,
            num_beams: 1,
            num_return_sequences: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::default(),
            do_sample: false,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            forced_bos_token_id: None,
            forced_eos_token_id: None,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            seed: 0,
        }
    }
}

/// The most beams, samples and new tokens of a prompt: beyond it lies a slip of the keyboard.
const MAX_COUNT: usize = 1 << 16;

impl GenerationConfig {
    /// Checks that texts can be generated.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &str, value: &dyn std::fmt::Display, bounds: &str| {
            Err(Error::Generation(format!("{field} is {value}: it must be {bounds}")))
        };
        for (field, count) in [
            ("max_new_tokens", self.max_new_tokens),
            ("num_beams", self.num_beams),
            ("num_return_sequences", self.num_return_sequences),
        ] {
            if !(1..=MAX_COUNT).contains(&count) {
                return wrong(field, &count, &format!("from 1 to {MAX_COUNT}"));
            }
        }
        if self.min_new_tokens > self.max_new_tokens {
            let bounds = format!("at most max_new_tokens, {}", self.max_new_tokens);
            return wrong("min_new_tokens", &self.min_new_tokens, &bounds);
        }
        if !self.do_sample && self.num_return_sequences > self.num_beams {
            let bounds = format!("at most num_beams, {}, or do_sample set", self.num_beams);
            return wrong("num_return_sequences", &self.num_return_sequences, &bounds);
        }
        if self.num_beams > 1 && self.num_return_sequences > self.num_beams {
            let bounds = format!("at most num_beams, {}", self.num_beams);
            return wrong("num_return_sequences", &self.num_return_sequences, &bounds);
        }
        for (field, value) in
            [("temperature", self.temperature), ("repetition_penalty", self.repetition_penalty)]
        {
            if !(value.is_finite() && value > 0.0) {
                return wrong(field, &value, "above 0");
            }
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top_p", &self.top_p, "above 0 and at most 1");
        }
        if !self.length_penalty.is_finite() {
            return wrong("length_penalty", &self.length_penalty, "a finite number");
        }
        Ok(())
    }

    /// The settings of a model's `generation_config.json`, or of a `config.json` from before that file, for
    /// prompts of `prompt_length` tokens; absent and null fields have transformers' defaults. `max_length`
    /// and `min_length`, which count the prompt, become limits of new tokens.
    ///
    /// # Errors
    /// A field has another type, or the values are not valid.
    pub fn from_hf(config: &Value, prompt_length: usize) -> Result<Self> {
        let mut fields = config.clone();
        let length = |name: &str| config[name].as_u64().map(|length| length as usize);
        let new = |length: usize| length.saturating_sub(prompt_length);
        if let (true, Some(length)) = (config["max_new_tokens"].is_null(), length("max_length")) {
            // 20 is transformers' default, which it takes for new tokens.
            fields["max_new_tokens"] = if length == 20 { 20 } else { new(length).max(1) }.into();
        }
        if let (true, Some(length)) = (config["min_new_tokens"].is_null(), length("min_length")) {
            fields["min_new_tokens"] = new(length).into();
        }
        for field in ["forced_eos_token_id", "forced_bos_token_id"] {
            // A list of ids has one entry in practice.
            if let Some([id, ..]) = config[field].as_array().map(Vec::as_slice) {
                fields[field] = id.clone();
            }
        }
        let read: Self = mm_core::hf::overlay(&Self::default(), &fields)
            .map_err(|reason| Error::Generation(format!("generation_config: {reason}")))?;
        read.validate()?;
        Ok(read)
    }
}

impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Always => serializer.serialize_bool(true),
            Self::Heuristic => serializer.serialize_bool(false),
            Self::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected true, false or \"never\"")]
        enum Written {
            Bool(bool),
            Name(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bool(true) => Ok(Self::Always),
            Written::Bool(false) => Ok(Self::Heuristic),
            Written::Name(name) if name == "never" => Ok(Self::Never),
            Written::Name(name) => {
                Err(serde::de::Error::custom(format!("{name:?}: expected true, false or \"never\"")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_out_of_range_are_named_with_their_value() {
        let message = |config: GenerationConfig| config.validate().unwrap_err().to_string();
        let base = GenerationConfig::default;
        let cases = [
            (GenerationConfig { max_new_tokens: 0, ..base() }, "max_new_tokens is 0"),
            (GenerationConfig { min_new_tokens: 21, ..base() }, "min_new_tokens is 21"),
            (GenerationConfig { num_return_sequences: 2, ..base() }, "at most num_beams, 1"),
            (GenerationConfig { temperature: 0.0, ..base() }, "temperature is 0"),
            (GenerationConfig { top_p: 1.5, ..base() }, "top_p is 1.5"),
            (GenerationConfig { repetition_penalty: f64::NAN, ..base() }, "repetition_penalty is NaN"),
            (GenerationConfig { length_penalty: f64::INFINITY, ..base() }, "length_penalty is inf"),
        ];
        for (config, expected) in cases {
            assert!(message(config).contains(expected));
        }
        assert!(GenerationConfig { do_sample: true, num_return_sequences: 5, ..base() }.validate().is_ok());
    }

    #[test]
    fn limits_of_transformers_count_the_prompt_and_become_limits_of_new_tokens() {
        let read = |json: Value| GenerationConfig::from_hf(&json, 4).unwrap();
        let config = read(json!({"max_length": 24, "min_length": 9, "num_beams": 3, "eos_token_id": 2}));
        assert_eq!((config.max_new_tokens, config.min_new_tokens, config.num_beams), (20, 5, 3));
        assert_eq!(read(json!({"max_length": 20})).max_new_tokens, 20);
        assert_eq!(read(json!({"max_new_tokens": 7, "max_length": 50})).max_new_tokens, 7);
        assert_eq!(read(json!({"forced_eos_token_id": 2})).forced_eos_token_id, Some(2));
        assert_eq!(read(json!({})), GenerationConfig::default());
    }

    #[test]
    fn early_stopping_has_transformers_values() {
        for (json, expected) in [
            (json!(true), EarlyStopping::Always),
            (json!(false), EarlyStopping::Heuristic),
            (json!("never"), EarlyStopping::Never),
        ] {
            assert_eq!(serde_json::from_value::<EarlyStopping>(json.clone()).unwrap(), expected);
            assert_eq!(serde_json::to_value(expected).unwrap(), json);
        }
        let error = serde_json::from_value::<EarlyStopping>(json!("sometimes")).unwrap_err().to_string();
        assert!(error.contains("expected true, false or \"never\""), "{error}");
    }
}
