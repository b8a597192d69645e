//! What is stored with an image that was made here.

use crate::Settings;
use crate::parameters::{ImageParameters, PARAMETERS_KEYWORD};
use mm_core::Precision;
use serde::Serialize;
use serde_json::Value;

/// The keyword of [`ImageRecord`]'s JSON in a PNG.
pub const RECORD_KEYWORD: &str = "mm";

/// How an image was made, completely: with the same model the same image comes from it.
#[derive(Clone, Debug, Serialize)]
pub struct ImageRecord {
    /// The program and its version.
    pub program: String,
    /// The model's name.
    pub model: String,
    /// See [`ImageRequest`](crate::ImageRequest).
    pub prompt: String,
    /// See [`ImageRequest`](crate::ImageRequest).
    pub negative_prompt: Option<String>,
    /// See [`ImageRequest`](crate::ImageRequest).
    pub seed: u64,
    /// The LoRA files with their weights.
    pub loras: Vec<LoraRecord>,
    /// The textual inversions.
    pub embeddings: Vec<EmbeddingRecord>,
    /// Of the model's products.
    pub precision: Precision,
    /// The edited image, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<EditRecord>,
    /// Whether the safety checker found the image unsafe, which is then black; none where none was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flagged: Option<bool>,
    /// Everything else.
    pub settings: Settings,
}

/// A LoRA of an image.
#[derive(Clone, Debug, Serialize)]
pub struct LoraRecord {
    /// The file's name.
    pub file: String,
    /// Its weight.
    pub weight: f64,
}

/// A textual inversion of an image.
#[derive(Clone, Debug, Serialize)]
pub struct EmbeddingRecord {
    /// The file's name.
    pub file: String,
    /// The token in prompts.
    pub token: String,
}

/// What an edit began with.
#[derive(Clone, Debug, Serialize)]
pub struct EditRecord {
    /// The image's name.
    pub image: String,
    /// The mask's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// See [`EditKind::ImageToImage`](crate::EditKind::ImageToImage).
    pub exact_steps: bool,
}

impl ImageRecord {
    /// The part that has a place in the form of other programs.
    pub fn parameters(&self) -> ImageParameters {
        let settings = &self.settings;
        let mut fields =
            vec![("Steps", settings.steps.to_string()), ("Sampler", sampler(&settings.scheduler))];
        let is_set = |key: &str| settings.scheduler[key] == Value::Bool(true);
        if is_set("use_karras_sigmas") {
            fields.push(("Schedule type", "Karras".to_owned()));
        } else if is_set("use_exponential_sigmas") {
            fields.push(("Schedule type", "Exponential".to_owned()));
        }
        fields.push(("CFG scale", settings.guidance_scale.to_string()));
        fields.extend(settings.image_guidance_scale.map(|scale| ("Image CFG scale", scale.to_string())));
        fields.push(("Seed", self.seed.to_string()));
        fields.push(("Size", format!("{}x{}", settings.width, settings.height)));
        fields.push(("Model", self.model.clone()));
        fields.extend(settings.strength.map(|strength| ("Denoising strength", strength.to_string())));
        if settings.clip_skip > 0 {
            // There, 1 is the last layer.
            fields.push(("Clip skip", (settings.clip_skip + 1).to_string()));
        }
        if !self.loras.is_empty() {
            let loras: Vec<String> =
                self.loras.iter().map(|lora| format!("{}: {}", lora.file, lora.weight)).collect();
            fields.push(("Loras", loras.join(", ")));
        }
        if !self.embeddings.is_empty() {
            let embeddings: Vec<String> = self
                .embeddings
                .iter()
                .map(|embedding| format!("{}: {}", embedding.file, embedding.token))
                .collect();
            fields.push(("Embeddings", embeddings.join(", ")));
        }
        fields.push(("Version", self.program.clone()));
        ImageParameters {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone().unwrap_or_default(),
            fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    /// The texts of the image's PNG, by keyword.
    pub fn texts(&self) -> [(&'static str, String); 2] {
        let json = serde_json::to_string(self).expect("a record has only texts and numbers");
        [(PARAMETERS_KEYWORD, self.parameters().to_string()), (RECORD_KEYWORD, json)]
    }
}

/// The name of a scheduler in AUTOMATIC1111's web UI, or of its class where it has none there.
fn sampler(scheduler: &Value) -> String {
    let word = |key: &str| scheduler[key].as_str().unwrap_or_default();
    let name = match word("_class_name") {
        "DDPMScheduler" => "DDPM",
        "DDIMScheduler" => "DDIM",
        "PNDMScheduler" if scheduler["skip_prk_steps"] == Value::Bool(true) => "PLMS",
        "PNDMScheduler" => "PNDM",
        "LMSDiscreteScheduler" => "LMS",
        "EulerDiscreteScheduler" | "FlowMatchEulerDiscreteScheduler" => "Euler",
        "EulerAncestralDiscreteScheduler" => "Euler a",
        "HeunDiscreteScheduler" => "Heun",
        "UniPCMultistepScheduler" => "UniPC",
        "LCMScheduler" => "LCM",
        "DPMSolverMultistepScheduler" => {
            let plus = if word("algorithm_type").ends_with("++") { "++" } else { "" };
            let noise = if word("algorithm_type").starts_with("sde") { " SDE" } else { "" };
            return format!("DPM{plus} {}M{noise}", scheduler["solver_order"].as_u64().unwrap_or(2));
        }
        other => other,
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedulers::{SchedulerConfig, SchedulerKind};
    use serde_json::json;

    fn record(scheduler: Value) -> ImageRecord {
        ImageRecord {
            program: "mm 0.1.0".to_owned(),
            model: "sd1".to_owned(),
            prompt: "a red star,\non a blue sky".to_owned(),
            negative_prompt: Some("blurry".to_owned()),
            seed: u64::MAX,
            loras: vec![LoraRecord { file: "style.safetensors".to_owned(), weight: 0.8 }],
            embeddings: vec![EmbeddingRecord {
                file: "cat.safetensors".to_owned(),
                token: "<cat>".to_owned(),
            }],
            precision: Precision::F32,
            flagged: None,
            edit: Some(EditRecord { image: "a.png".to_owned(), mask: None, exact_steps: false }),
            settings: Settings {
                width: 512,
                height: 768,
                steps: 20,
                calls: 12,
                guidance_scale: 7.5,
                image_guidance_scale: None,
                guidance_rescale: 0.0,
                guidance_interval: [0.0, 1.0],
                strength: Some(0.6),
                clip_skip: 1,
                eta: 0.0,
                scheduler,
            },
        }
    }

    #[test]
    fn a_record_has_the_form_of_other_programs() {
        let config = json!({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": true});
        let record = record(SchedulerConfig::new(config).unwrap().effective());
        let [(_, parameters), (_, json)] = record.texts();
        let expected = "a red star,\non a blue sky\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, \
            Schedule type: Karras, CFG scale: 7.5, Seed: 18446744073709551615, Size: 512x768, Model: sd1, \
            Denoising strength: 0.6, Clip skip: 2, Loras: \"style.safetensors: 0.8\", \
            Embeddings: \"cat.safetensors: <cat>\", Version: mm 0.1.0";
        assert_eq!(parameters, expected);
        assert_eq!(ImageParameters::parse(&parameters), record.parameters());
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["settings"]["scheduler"]["use_karras_sigmas"], true);
        assert_eq!((&json["precision"], &json["seed"]), (&json!("f32"), &json!(u64::MAX)));
    }

    #[test]
    fn every_scheduler_has_a_name() {
        for kind in SchedulerKind::ALL {
            let config = SchedulerConfig::new(json!({"_class_name": kind.class_name()})).unwrap();
            let name = sampler(&config.effective());
            assert!(!name.is_empty() && !name.contains("Scheduler"), "{kind}: {name}");
        }
    }
}
