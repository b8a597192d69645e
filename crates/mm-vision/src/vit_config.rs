use crate::error::{Error, Result, check_sizes};
use mm_core::nn::Activation;
use serde::{Deserialize, Serialize};

/// Which of the two families a ViT belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VitForm {
    /// A class token, a layer norm before the encoder, no bias in the patch embedding; the pooled output is the normalised
    /// class token (Radford et al. 2021, section 2.4).
    #[default]
    Clip,
    /// No class token; all tokens are normalised and pooled by a learned query with attention and an MLP (Zhai et al. 2022,
    /// section 3.4; Zhai et al. 2023).
    Siglip,
}

/// The sizes of a [`Vit`](crate::Vit), with the field names of Hugging Face's `vision_config`. The defaults are CLIP's ViT-B/32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VitConfig {
    /// The family.
    pub form: VitForm,
    /// Width of the residual stream and of the pooled output.
    pub hidden_size: i64,
    /// Width between the two linear layers of an MLP.
    pub intermediate_size: i64,
    /// Transformer blocks.
    pub num_hidden_layers: i64,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: i64,
    /// Side of the square input, in pixels.
    pub image_size: i64,
    /// Side of a patch, in pixels. What is left over at the right and the bottom is not seen.
    pub patch_size: i64,
    /// The MLPs' activation.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Share of the patches dropped at random in training (FLIP, Li et al. 2023), 0 for none. As in open_clip.
    pub patch_dropout: f64,
}

impl Default for VitConfig {
    fn default() -> Self {
        Self {
            form: VitForm::Clip,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            patch_dropout: 0.0,
        }
    }
}

impl VitConfig {
    /// SigLIP's ViT-B/16, whose defaults differ from CLIP's.
    fn siglip() -> Self {
        Self {
            form: VitForm::Siglip,
            patch_size: 16,
            hidden_act: Activation::GeluPytorchTanh,
            layer_norm_eps: 1e-6,
            ..Self::default()
        }
    }

    /// Reads a `vision_config` as transformers writes it: the family is in `model_type`, absent fields have that family's
    /// defaults, and fields of no consequence here are passed over.
    ///
    /// # Errors
    /// Another `model_type`, a field of another type, a model without the pooling head, or [`VitConfig::validate`]'s.
    pub fn from_hf(config: &serde_json::Value) -> Result<Self> {
        let base = match config.get("model_type").and_then(|kind| kind.as_str()) {
            Some("clip_vision_model") => Self::default(),
            Some("siglip_vision_model") => Self::siglip(),
            other => {
                let other = other.unwrap_or("missing");
                let known = "clip_vision_model or siglip_vision_model";
                return Err(Error::Config(format!("model_type of the vision_config is {other}: it must be {known}")));
            }
        };
        if config.get("vision_use_head").and_then(|head| head.as_bool()) == Some(false) {
            return Err(Error::Config(
                "vision_use_head is false: a tower without a pooled output has no use here".into(),
            ));
        }
        let wrong = |error: serde_json::Error| Error::Config(format!("vision_config: {error}"));
        let mut merged = serde_json::to_value(base).map_err(wrong)?;
        if let Some(fields) = merged.as_object_mut() {
            for (name, value) in fields.iter_mut().filter(|(name, _)| *name != "form") {
                if let Some(given) = config.get(name.as_str()) {
                    *value = given.clone();
                }
            }
        }
        let config: Self = serde_json::from_value(merged).map_err(wrong)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks that a tower can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
        ])?;
        let wrong = |text: String| Err(Error::Config(text));
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if width % heads != 0 {
            return wrong(format!("hidden_size {width} is no multiple of num_attention_heads {heads}"));
        }
        if self.patch_size > self.image_size {
            let (patch, image) = (self.patch_size, self.image_size);
            return wrong(format!("patch_size {patch} is larger than image_size {image}: there would be no patch"));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return wrong(format!("layer_norm_eps is {}: it must lie between 0 and 1", self.layer_norm_eps));
        }
        if !(0.0..1.0).contains(&self.patch_dropout) {
            return wrong(format!("patch_dropout is {}: it must be at least 0 and below 1", self.patch_dropout));
        }
        Ok(())
    }

    /// Patches along a side of the image.
    pub fn patch_grid(&self) -> i64 {
        self.image_size / self.patch_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn config_errors_name_the_field_and_its_value() {
        let message = |config: VitConfig| config.validate().unwrap_err().to_string();
        let heads = VitConfig { num_attention_heads: 7, ..Default::default() };
        assert!(message(heads).contains("hidden_size 768 is no multiple of num_attention_heads 7"));
        assert!(message(VitConfig { patch_size: 225, ..Default::default() }).contains("patch_size 225"));
        assert!(message(VitConfig { num_hidden_layers: -1, ..Default::default() }).contains("num_hidden_layers is -1"));
        assert!(
            message(VitConfig { num_attention_heads: 0, ..Default::default() }).contains("num_attention_heads is 0")
        );
        assert!(message(VitConfig { layer_norm_eps: f64::NAN, ..Default::default() }).contains("NaN"));
        assert!(message(VitConfig { patch_dropout: 1.0, ..Default::default() }).contains("patch_dropout is 1"));
    }

    #[test]
    fn a_hugging_face_config_is_read_with_the_defaults_of_its_family() {
        let clip = json!({"model_type": "clip_vision_model", "hidden_size": 1024, "num_attention_heads": 16, "dtype": "float32"});
        let clip = VitConfig::from_hf(&clip).unwrap();
        assert_eq!((clip.hidden_size, clip.patch_size, clip.layer_norm_eps), (1024, 32, 1e-5));
        let siglip = VitConfig::from_hf(&json!({"model_type": "siglip_vision_model"})).unwrap();
        assert_eq!((siglip.form, siglip.patch_size, siglip.layer_norm_eps), (VitForm::Siglip, 16, 1e-6));
        let other = VitConfig::from_hf(&json!({"model_type": "dinov2"})).unwrap_err().to_string();
        assert!(other.contains("model_type of the vision_config is dinov2"), "{other}");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = toml::from_str::<VitConfig>("hidden_sise = 64").unwrap_err().to_string();
        assert!(error.contains("hidden_sise"), "{error}");
    }
}
