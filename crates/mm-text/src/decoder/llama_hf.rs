//! Reads and writes transformers' configs of Llama and Qwen2, and drops what their files hold twice.

use super::{LlamaConfig, LlamaVariant, TextDecoderSpec};
use crate::config::{check_only, overlay};
use crate::{Error, Result};
use mm_core::checkpoint::Weights;
use mm_core::nn::RopeScaling;
use serde_json::{Map, Value, json};

/// The `max_window_layers` of a `Qwen2Config` that does not name it.
const MAX_WINDOW_LAYERS: i64 = 28;

impl LlamaConfig {
    /// Reads the config of a `LlamaForCausalLM` or a `Qwen2ForCausalLM`, or the `text_config` of a model with
    /// one inside. Absent and null fields have transformers' defaults. Rotary positions are read from
    /// `rope_parameters`, or from `rope_theta` and `rope_scaling` as before transformers 5.
    ///
    /// # Errors
    /// A field of another type, a setting that is not supported, or those of [`TextDecoderSpec::validate`].
    pub fn from_hf(config: &Value) -> Result<Self> {
        let defaults = match config["model_type"].as_str() {
            None | Some("llama") => Self::default(),
            Some("qwen2") => Self::qwen2(),
            Some(other) => {
                return Err(Error::Config(format!(
                    "model_type is {other}: decoders of this form are llama and qwen2"
                )));
            }
        };
        check_only(config, "hidden_act", "silu".into())?;
        check_only(config, "mlp_bias", false.into())?;
        if let Some(dropout) = config["attention_dropout"].as_f64().filter(|&dropout| dropout != 0.0) {
            let offered = "only 0 is offered: set it to 0, the model is the same";
            return Err(Error::Config(format!("attention_dropout is {dropout}: {offered}")));
        }
        let mut fields = config.as_object().cloned().unwrap_or_default();
        let (theta, scaling) = read_rope(config, defaults.max_position_embeddings)?;
        fields.insert("rope_theta".to_owned(), theta.unwrap_or_else(|| defaults.rope_theta.into()));
        fields.insert("rope_scaling".to_owned(), json!(scaling));
        let mut read = overlay(&defaults, &Value::Object(fields))?;
        // In a file null is not the same as absent here.
        if config.get("num_key_value_heads").is_some_and(Value::is_null) {
            read.num_key_value_heads = None;
        }
        read.validate()?;
        if read.model_type == LlamaVariant::Qwen2 {
            refuse_sliding_window(config, read.num_hidden_layers)?;
        }
        Ok(read)
    }

    /// The fields of transformers' `LlamaConfig` or `Qwen2Config`: rotary positions in the form of
    /// transformers 5 and in that before it.
    pub fn to_hf(&self) -> Value {
        let (class, model_type) = match self.model_type {
            LlamaVariant::Llama => ("LlamaForCausalLM", "llama"),
            LlamaVariant::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        };
        let scaling = json!(self.rope_scaling);
        let mut rope_parameters = scaling.clone();
        rope_parameters["rope_theta"] = self.rope_theta.into();
        let mut config = json!({
            "architectures": [class],
            "model_type": model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.kv_heads(),
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope_parameters,
            "rope_theta": self.rope_theta,
            "rope_scaling": if self.rope_scaling == RopeScaling::Default { Value::Null } else { scaling },
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
        });
        if let Some(head_dim) = self.head_dim {
            config["head_dim"] = head_dim.into();
        }
        if self.model_type == LlamaVariant::Llama {
            config["attention_bias"] = self.attention_bias.into();
        }
        config
    }

    /// Removes from `weights` the buffers of old files that are no weights, and the copy of the embeddings
    /// `embeddings` that savers write as the tied output layer `head` (names of tensors). As in transformers,
    /// a config that ties two tensors of different values is taken to be wrong, and one of them alone is
    /// both.
    ///
    /// # Errors
    /// Tensors cannot be read.
    pub fn drop_copies(&mut self, weights: &mut Weights, embeddings: &str, head: &str) -> Result<()> {
        weights.retain(|name| !name.ends_with("rotary_emb.inv_freq"));
        if !self.tie_word_embeddings || weights.shape(head).is_none() {
            return Ok(());
        }
        if weights.shape(embeddings).is_none() {
            weights.rename(|name| if name == head { embeddings } else { name }.to_owned());
        } else if weights.shape(embeddings) == weights.shape(head)
            && weights.tensor(embeddings)? == weights.tensor(head)?
        {
            weights.retain(|name| name != head);
        } else {
            self.tie_word_embeddings = false;
        }
        Ok(())
    }
}

/// The base and the scaling of the frequencies of rotary positions. `max_positions` is the default of
/// `max_position_embeddings`.
fn read_rope(config: &Value, max_positions: i64) -> Result<(Option<Value>, RopeScaling)> {
    let is_set = |value: &Value| value.as_object().is_some_and(|fields| !fields.is_empty());
    let parameters = ["rope_scaling", "rope_parameters"].map(|name| (name, &config[name]));
    if let Some((name, value)) = parameters.iter().find(|(_, value)| !value.is_null() && !value.is_object()) {
        return Err(Error::Config(format!("{name} is {value}: expected an object with rope_type")));
    }
    // In this order in transformers too.
    let found = parameters.into_iter().find(|(_, value)| is_set(value));
    let (name, fields) = found.unwrap_or(("rope_parameters", &Value::Null));
    for partial in [&fields["partial_rotary_factor"], &config["partial_rotary_factor"]] {
        if let Some(factor) = partial.as_f64().filter(|&factor| factor != 1.0) {
            return Err(Error::Config(format!("partial_rotary_factor is {factor}: only 1 is offered")));
        }
    }
    let theta = [&fields["rope_theta"], &config["rope_theta"]].into_iter().find(|theta| !theta.is_null());
    let number = |field: &str| {
        let value = &fields[field];
        let wrong = || Error::Config(format!("{name}: {field} is {value}: expected a number"));
        value.as_f64().ok_or_else(wrong)
    };
    let rope_type = [&fields["rope_type"], &fields["type"]].into_iter().find(|kind| !kind.is_null());
    let scaling = match rope_type.map(|kind| kind.as_str().unwrap_or_default()) {
        None | Some("default") => RopeScaling::Default,
        Some("linear") => RopeScaling::Linear { factor: number("factor")? },
        Some("llama3") => {
            let named =
                [&config["original_max_position_embeddings"], &fields["original_max_position_embeddings"]];
            let original = named.into_iter().chain([&config["max_position_embeddings"]]);
            RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: original
                    .filter_map(Value::as_i64)
                    .next()
                    .unwrap_or(max_positions),
            }
        }
        Some(_) => {
            let given = rope_type.unwrap_or(&Value::Null);
            return Err(Error::Config(format!(
                "{name}: rope_type is {given}: offered are default, linear and llama3"
            )));
        }
    };
    Ok((theta.cloned(), scaling))
}

/// Refuses a Qwen2 some of whose layers see the last tokens alone.
fn refuse_sliding_window(config: &Value, layers: i64) -> Result<()> {
    let is_sliding = match config["layer_types"].as_array() {
        Some(types) => types.iter().any(|kind| kind != "full_attention"),
        None => {
            let first = config["max_window_layers"].as_i64().unwrap_or(MAX_WINDOW_LAYERS);
            let window = config.as_object().and_then(|fields: &Map<_, _>| fields.get("sliding_window"));
            config["use_sliding_window"] == true
                && window.is_none_or(|window| !window.is_null())
                && first < layers
        }
    };
    if is_sliding {
        let offered = "only full attention in all layers is offered";
        return Err(Error::Config(format!("layers have sliding windows: {offered}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of a small decoder, with `more` fields.
    fn small(more: Value) -> Value {
        let mut config = json!({
            "vocab_size": 50,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        });
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        config
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        };
        for scaling in [RopeScaling::Default, RopeScaling::Linear { factor: 2.5 }, llama3] {
            for defaults in [LlamaConfig::default(), LlamaConfig::qwen2()] {
                let config = LlamaConfig {
                    num_key_value_heads: Some(8),
                    head_dim: Some(64),
                    rope_theta: 1e6,
                    rope_scaling: scaling,
                    tie_word_embeddings: true,
                    ..defaults
                };
                assert_eq!(LlamaConfig::from_hf(&config.to_hf()).unwrap(), config);
                let mut old = config.to_hf();
                old.as_object_mut().unwrap().remove("rope_parameters");
                assert_eq!(LlamaConfig::from_hf(&old).unwrap(), config);
                let mut new = config.to_hf();
                new.as_object_mut()
                    .unwrap()
                    .retain(|name, _| !["rope_theta", "rope_scaling"].contains(&name.as_str()));
                assert_eq!(LlamaConfig::from_hf(&new).unwrap(), config);
            }
        }
    }

    #[test]
    fn rotary_positions_are_read_from_every_form_of_config() {
        let read = |config: Value| {
            let read = LlamaConfig::from_hf(&small(config)).unwrap();
            (read.rope_theta, read.rope_scaling)
        };
        let linear = RopeScaling::Linear { factor: 4.0 };
        assert_eq!(read(json!({})), (10_000.0, RopeScaling::Default));
        assert_eq!(read(json!({"rope_theta": 5e5, "rope_scaling": null})), (5e5, RopeScaling::Default));
        assert_eq!(read(json!({"rope_scaling": {"type": "linear", "factor": 4}})), (10_000.0, linear));
        let new = json!({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100}});
        assert_eq!(read(new), (100.0, linear));
        let llama3 = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4});
        let (_, scaling) = read(json!({"rope_scaling": llama3, "max_position_embeddings": 512}));
        let expected = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 512,
        };
        assert_eq!(scaling, expected);
    }

    #[test]
    fn each_family_has_its_defaults_and_a_null_its_meaning() {
        let llama = LlamaConfig::from_hf(&json!({"model_type": "llama", "vocab_size": 32_064})).unwrap();
        assert_eq!((llama.hidden_size, llama.kv_heads(), llama.head_width()), (4096, 32, 128));
        let qwen2 = |more| LlamaConfig::from_hf(&small(more)).unwrap();
        let named =
            qwen2(json!({"model_type": "qwen2", "num_key_value_heads": 2, "use_sliding_window": true}));
        assert_eq!((named.kv_heads(), named.max_position_embeddings), (2, 32_768));
        assert_eq!(qwen2(json!({"model_type": "qwen2", "num_key_value_heads": null})).kv_heads(), 4);
        assert_eq!(LlamaConfig::from_hf(&Value::Null).unwrap(), LlamaConfig::default());
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_value() {
        let qwen2 = |more: Value| {
            let mut config = json!({"model_type": "qwen2", "num_key_value_heads": 2});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            config
        };
        let cases = [
            (json!({"model_type": "mistral"}), "model_type is mistral: decoders of this form are llama and"),
            (json!({"hidden_act": "gelu"}), "hidden_act is \"gelu\": only \"silu\" is offered"),
            (json!({"mlp_bias": true}), "mlp_bias is true"),
            (json!({"attention_dropout": 0.1}), "attention_dropout is 0.1: only 0 is offered"),
            (json!({"rope_scaling": {"type": "yarn"}}), "rope_type is \"yarn\": offered are default, linear"),
            (json!({"rope_scaling": {"type": "linear"}}), "rope_scaling: factor is null: expected a number"),
            (json!({"rope_scaling": [1]}), "rope_scaling is [1]: expected an object"),
            (json!({"rope_parameters": {"rope_type": 3}}), "rope_type is 3"),
            (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor is 0.5"),
            (json!({"rope_theta": -1.0}), "rope_theta is -1"),
            (json!({"hidden_size": "wide"}), "invalid type"),
            (json!({"num_attention_heads": 0}), "num_attention_heads is 0"),
            (json!({"num_attention_heads": 5}), "hidden_size 32 is no multiple of num_attention_heads 5"),
            (
                json!({"num_key_value_heads": 3}),
                "num_attention_heads 4 is no multiple of num_key_value_heads 3",
            ),
            (json!({"head_dim": 7}), "head_dim is 7"),
            (json!({"head_dim": 524_288}), "num_attention_heads times head_dim is 2097152"),
            (json!({"num_hidden_layers": 5000}), "num_hidden_layers is 5000"),
            (json!({"rms_norm_eps": 0}), "rms_norm_eps is 0"),
            (qwen2(json!({"layer_types": ["full_attention", "sliding_attention"]})), "sliding windows"),
            (qwen2(json!({"use_sliding_window": true, "max_window_layers": 1})), "sliding windows"),
        ];
        for (config, expected) in cases {
            let message = LlamaConfig::from_hf(&small(config)).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
