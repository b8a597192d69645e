//! Reads and writes transformers' config of T5, and the names of its tensors.

use crate::config::{check_only, overlay};
use crate::{Error, Result, T5Config, T5Encoder};
use mm_core::checkpoint::{TensorLayout, Weights};
use serde_json::{Value, json};
use tch::nn::VarStore;

/// The word embedding, under its own name and under that of the encoder, which some files also have.
const EMBEDDINGS: [&str; 2] = ["shared.weight", "encoder.embed_tokens.weight"];

impl T5Config {
    /// Reads a Hugging Face `config.json`. Absent and null fields have transformers' defaults.
    ///
    /// # Errors
    /// A field of another type, a setting that is not supported, or those of [`T5Config::validate`].
    pub fn from_hf(config: &Value) -> Result<Self> {
        check_only(config, "model_type", "t5".into())?;
        check_only(config, "is_decoder", false.into())?;
        if !matches!(config["feed_forward_proj"].as_str(), None | Some("relu" | "gated-gelu")) {
            let given = &config["feed_forward_proj"];
            let offered = "only \"relu\" and \"gated-gelu\" are offered";
            return Err(Error::Config(format!("feed_forward_proj is {given}: {offered}")));
        }
        let read = overlay(&Self::default(), config)?;
        read.validate()?;
        Ok(read)
    }

    /// The fields of transformers' `T5Config`, for a `T5EncoderModel`.
    pub fn to_hf(&self) -> Value {
        json!({
            "architectures": ["T5EncoderModel"],
            "model_type": "t5",
            "is_encoder_decoder": false,
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "d_kv": self.d_kv,
            "d_ff": self.d_ff,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "relative_attention_num_buckets": self.relative_attention_num_buckets,
            "relative_attention_max_distance": self.relative_attention_max_distance,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "feed_forward_proj": self.feed_forward_proj,
        })
    }
}

impl T5Encoder {
    /// The layout of transformers' checkpoints.
    pub const LAYOUT: TensorLayout = TensorLayout { names, is_transposed: |_| false };

    /// Makes the encoder on `vs` and fills it from `weights`, of a `T5EncoderModel` or of a whole T5, whose
    /// decoder is dropped.
    ///
    /// # Errors
    /// As [`T5Config::validate`] and [`Weights::build`].
    pub fn from_weights(vs: &VarStore, config: &T5Config, mut weights: Weights) -> Result<Self> {
        let [shared, copy] = EMBEDDINGS;
        match weights.shape(shared).is_some() {
            true => weights.retain(|name| name != copy),
            false => weights.rename(|name| if name == copy { shared } else { name }.to_owned()),
        }
        weights.retain(|name| !name.starts_with("decoder.") && name != "lm_head.weight");
        weights.build(vs, &Self::LAYOUT, |path| Self::new(path, config))
    }
}

fn names(name: &str) -> Vec<String> {
    let joined: [(&str, &[&str]); 2] =
        [(".qkv.", &[".q.", ".k.", ".v."]), (".wi_gated.", &[".wi_0.", ".wi_1."])];
    match joined.iter().find(|(joined, _)| name.contains(joined)) {
        Some((joined, parts)) => parts.iter().map(|part| name.replacen(joined, part, 1)).collect(),
        None => vec![name.to_owned()],
    }
}
