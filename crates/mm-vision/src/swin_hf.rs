//! Reads and writes transformers' config of a Swin that encodes documents.

use crate::error::{Error, Result};
use crate::swin_config::{SwinConfig, SwinStem};
use mm_core::hf::overlay;
use serde_json::{Value, json};

/// transformers' `model_type`.
const MODEL_TYPE: &str = "donut-swin";

impl SwinConfig {
    /// Reads the config of a `DonutSwinModel`. Absent and null fields have transformers' defaults.
    ///
    /// # Errors
    /// The `model_type` of another tower, a field of another type, a setting that is not supported, or those
    /// of [`SwinConfig::validate`].
    pub fn from_hf(config: &Value) -> Result<Self> {
        let wrong = |text: String| Err(Error::Config(text));
        match config["model_type"].as_str() {
            Some(given) if given != MODEL_TYPE => {
                return wrong(format!("model_type of the encoder is {given}: it must be {MODEL_TYPE}"));
            }
            _ => {}
        }
        for (name, offered) in [("num_channels", json!(3)), ("use_absolute_embeddings", json!(false))] {
            match &config[name] {
                Value::Null => {}
                given if *given == offered => {}
                given => return wrong(format!("{name} is {given}: only {offered} is offered")),
            }
        }
        let mut config = config.clone();
        // Both may be one number or height and width.
        if config["image_size"].is_number() {
            let side = config["image_size"].take();
            config["image_size"] = json!([side, side]);
        }
        match config["patch_size"].as_array().map(Vec::as_slice) {
            None => {}
            Some([height, width]) if height == width => config["patch_size"] = height.clone(),
            Some(_) => {
                return wrong(format!("patch_size is {}: only squares are offered", config["patch_size"]));
            }
        }
        let read: Self = overlay(&Self::transformers_default(), &config)
            .map_err(|error| Error::Config(format!("config of the encoder: {error}")))?;
        read.validate()?;
        Ok(read)
    }

    /// The fields of transformers' `DonutSwinConfig`.
    pub fn to_hf(&self) -> Value {
        let mut json = json!({
            "model_type": MODEL_TYPE,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "num_channels": 3,
            "embed_dim": self.embed_dim,
            "depths": self.depths,
            "num_heads": self.num_heads,
            "num_layers": self.depths.len(),
            "window_size": self.window_size,
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.qkv_bias,
            "hidden_act": self.hidden_act.name(),
            "layer_norm_eps": self.layer_norm_eps,
            "use_absolute_embeddings": false,
            "hidden_size": self.hidden_size(),
        });
        if self.stem != SwinStem::Patches {
            json["stem"] = json!(self.stem); // a key of this project
        }
        json
    }

    /// The defaults of transformers' `DonutSwinConfig`.
    fn transformers_default() -> Self {
        Self {
            image_size: [224, 224],
            embed_dim: 96,
            depths: vec![2, 2, 6, 2],
            num_heads: vec![3, 6, 12, 24],
            window_size: 7,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let small = SwinConfig {
            image_size: [60, 36],
            embed_dim: 8,
            depths: vec![2, 1],
            num_heads: vec![2, 4],
            window_size: 4,
            qkv_bias: false,
            ..SwinConfig::default()
        };
        for config in [small, SwinConfig::default()] {
            assert_eq!(SwinConfig::from_hf(&config.to_hf()).unwrap(), config);
        }
    }

    #[test]
    fn absent_fields_have_transformers_defaults_and_sides_come_in_both_forms() {
        let config = SwinConfig::from_hf(&json!({"patch_size": [4, 4], "drop_path_rate": 0.1})).unwrap();
        assert_eq!((config.image_size, config.embed_dim, config.window_size), ([224, 224], 96, 7));
        let config = SwinConfig::from_hf(&json!({"image_size": [448, 320], "window_size": null})).unwrap();
        assert_eq!((config.image_size, config.patch_size), ([448, 320], 4));
        assert_eq!(SwinConfig::from_hf(&json!({"image_size": 448})).unwrap().image_size, [448, 448]);
    }

    #[test]
    fn what_is_not_offered_is_refused_with_its_value() {
        for (config, expected) in [
            (json!({"model_type": "swin"}), "model_type of the encoder is swin: it must be donut-swin"),
            (json!({"use_absolute_embeddings": true}), "use_absolute_embeddings is true"),
            (json!({"num_channels": 1}), "num_channels is 1: only 3"),
            (json!({"patch_size": [4, 8]}), "patch_size is [4,8]: only squares"),
            (json!({"image_size": [224]}), "config of the encoder: "),
            (json!({"hidden_act": "mish"}), "unknown variant `mish`"),
            (json!({"window_size": 8}), "stage 3: its grid of 7 x 7 tokens"),
        ] {
            let message = SwinConfig::from_hf(&config).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
