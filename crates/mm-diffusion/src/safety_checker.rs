//! The safety checker of Stable Diffusion 1: diffusers' `StableDiffusionSafetyChecker`.
//!
//! A CLIP maps an image to a vector, which is compared with stored vectors of concepts. An image is flagged
//! where its cosine with one of them is above the concept's threshold. Three more concepts ask for special
//! care: where one of them is found, the thresholds are lower by 0.01.

use crate::{Error, Result};
use mm_core::checkpoint::TensorLayout;
use mm_core::hf::HfFolder;
use mm_core::nn::{Linear, parameter};
use mm_image::RgbImage;
use mm_sys::inference_mode;
use mm_vision::{ImageProcessor, Vit, VitConfig, VitVariant};
use serde_json::Value;
use std::path::Path;
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

/// What the thresholds are lowered by, after a concept of special care is found.
const ADJUSTMENT: f32 = 0.01;

/// The part of a pipeline, and of its image processor.
pub(crate) const PART: &str = "safety_checker";
const PROCESSOR: &str = "feature_extractor";

/// A classifier of unsafe images.
#[derive(Debug)]
pub struct SafetyChecker {
    vision: Vit,
    projection: Linear,
    concepts: Concepts,
    special_care: Concepts,
    processor: ImageProcessor,
    device: Device,
}

/// Vectors `[n, d]` with their thresholds `[n]`.
#[derive(Debug)]
struct Concepts {
    embeds: Tensor,
    thresholds: Tensor,
}

/// What a checker says of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct SafetyVerdict {
    /// By how much the cosine with each concept is above its threshold, rounded to 0.001 as in diffusers.
    pub concept_scores: Vec<f32>,
    /// The same of the concepts of special care.
    pub special_scores: Vec<f32>,
}

impl SafetyVerdict {
    /// Whether a concept was found.
    pub fn is_flagged(&self) -> bool {
        self.concept_scores.iter().any(|&score| score > 0.0)
    }
}

impl SafetyChecker {
    /// Opens the parts `safety_checker` and `feature_extractor` of the pipeline in `folder`.
    ///
    /// # Errors
    /// A file is missing, damaged or of another model.
    pub fn open(folder: &Path, device: Device) -> Result<Self> {
        let files = HfFolder::at(folder.join(PART));
        let config = VitConfig::from_hf(&files.config::<Value>()?["vision_config"], VitVariant::Clip)?;
        let (_, processor) = ImageProcessor::from_folder(&folder.join(PROCESSOR), "CLIPImageProcessor")?;
        if processor.output_size() != (config.image_size as u32, config.image_size as u32) {
            let ((width, height), side) = (processor.output_size(), config.image_size);
            let problem =
                format!("it makes images of {width} x {height}, and the checker reads {side} x {side}");
            return Err(Error::folder(&folder.join(PROCESSOR), problem));
        }
        let mut weights = files.weights("model")?;
        weights.retain(|name| !name.ends_with("position_ids"));
        // Before transformers 5 a vision model was named once more.
        weights.rename(|name| name.replacen("vision_model.vision_model.", "vision_model.", 1));
        let count = |name: &str| weights.shape(name).and_then(|shape| shape.first()).map_or(0, |&n| n as i64);
        let (count_concepts, count_special) = (count("concept_embeds"), count("special_care_embeds"));
        let width = count("visual_projection.weight");
        let vs = VarStore::new(device);
        let made = weights.build(&vs, &TensorLayout::HF, |path| -> Result<_> {
            let concepts = |name: &str, count: i64| Concepts {
                embeds: parameter(path, name, &[count, width], Init::Const(0.0)),
                thresholds: parameter(path, &format!("{name}_weights"), &[count], Init::Const(0.0)),
            };
            Ok((
                Vit::new(&(path / "vision_model"), config.clone())?,
                Linear::without_bias(&(path / "visual_projection"), config.hidden_size, width, 0.02),
                concepts("concept_embeds", count_concepts),
                concepts("special_care_embeds", count_special),
            ))
        });
        let (vision, projection, concepts, special_care) = made?;
        Ok(Self { vision, projection, concepts, special_care, processor, device })
    }

    /// The verdict on each image.
    ///
    /// # Errors
    /// An image has no pixels.
    pub fn check(&self, images: &[RgbImage]) -> Result<Vec<SafetyVerdict>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let pixels = self.processor.process_batch(images)?.to_device(self.device);
        let (special, concepts) = inference_mode(|| {
            let embeds = self.projection.forward(&self.vision.forward(&pixels));
            (self.special_care.above_threshold(&embeds), self.concepts.above_threshold(&embeds))
        });
        let verdict = |(special, concepts): (Vec<f32>, Vec<f32>)| {
            let mut adjustment = 0.0;
            let mut special_scores = Vec::with_capacity(special.len());
            for score in special {
                let score = rounded(score + adjustment);
                if score > 0.0 {
                    adjustment = ADJUSTMENT;
                }
                special_scores.push(score);
            }
            let concept_scores = concepts.into_iter().map(|score| rounded(score + adjustment)).collect();
            SafetyVerdict { concept_scores, special_scores }
        };
        let rows = |scores: Tensor| Vec::<Vec<f32>>::try_from(scores.to_device(Device::Cpu));
        Ok(rows(special)?.into_iter().zip(rows(concepts)?).map(verdict).collect())
    }
}

impl Concepts {
    /// The cosines of `embeds` `[N, d]` less the thresholds, `[N, n]`.
    fn above_threshold(&self, embeds: &Tensor) -> Tensor {
        let unit = |x: &Tensor| x / x.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true).clamp_min(1e-12);
        let cosines = unit(&embeds.to_kind(Kind::Float)).matmul(&unit(&self.embeds).transpose(0, 1));
        cosines - &self.thresholds
    }
}

fn rounded(score: f32) -> f32 {
    (score * 1000.0).round_ties_even() / 1000.0
}
