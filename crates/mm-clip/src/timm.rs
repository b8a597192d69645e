//! A pretrained ResNet of timm as an image tower.
//!
//! timm's folders on the hub (`timm/resnet50.a1_in1k`) have torchvision's names, and a `config.json` with the
//! architecture and the preprocessing.

use crate::{Error, Result};
use mm_core::checkpoint::{TensorLayout, Weights};
use mm_core::hf::{CONFIG_FILE, HfFolder};
use mm_vision::{ImageProcessor, ImageTowerConfig, ResNetConfig};
use serde_json::{Value, json};
use tch::Tensor;

/// The image tower in a folder of timm, without its classifier.
#[derive(Debug)]
pub(crate) struct TimmTower {
    /// The tower.
    pub config: ImageTowerConfig,
    /// Images as the weights were trained on them, but whole instead of cropped.
    pub processor: ImageProcessor,
    weights: Weights,
}

impl TimmTower {
    /// Opens the folder or hub name `model`; none where it has no config of timm.
    ///
    /// # Errors
    /// The architecture is not offered, or a file is missing or damaged.
    pub fn open(model: &str) -> Result<Option<Self>> {
        let folder = HfFolder::open(model)?;
        if !folder.has(CONFIG_FILE) {
            return Ok(None);
        }
        let config: Value = folder.config()?;
        let Some(architecture) = config["architecture"].as_str() else { return Ok(None) };
        let depth = architecture.strip_prefix("resnet").and_then(|depth| depth.parse().ok());
        let file = folder.file(CONFIG_FILE);
        let depth = depth.ok_or_else(|| {
            let problem = format!("architecture {architecture} is not offered: resnet18, 34, 50 and 101 are");
            Error::Model(problem).at(&file)
        })?;
        let pretrained = &config["pretrained_cfg"];
        let image_size = pretrained["input_size"][2].as_i64().unwrap_or(224);
        let tower = ImageTowerConfig::ResNet(ResNetConfig { depth, image_size, ..ResNetConfig::default() });
        tower.validate().map_err(|error| Error::from(error).at(&file))?;
        let processor = ImageProcessor::from_json(&json!({
            "image_processor_type": "BlipImageProcessor",
            "size": { "height": image_size, "width": image_size },
            "image_mean": pretrained["mean"],
            "image_std": pretrained["std"],
        }))
        .map_err(|error| Error::from(error).at(&file))?;
        let mut weights = folder.weights("model")?;
        weights.retain(|name| !name.starts_with("fc."));
        Ok(Some(Self { config: tower, processor, weights }))
    }

    /// Copies the weights to `variables`, named below the tower's path.
    ///
    /// # Errors
    /// They do not fit.
    pub fn fill(&self, variables: Vec<(String, Tensor)>) -> Result<()> {
        Ok(self.weights.fill(variables, &TensorLayout::AS_IS)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::checkpoint::write;
    use mm_testing::{initialize, normal};
    use tch::Device;
    use tch::nn::VarStore;

    #[test]
    fn a_resnet_of_timm_is_opened_without_its_classifier() {
        let folder = tempfile::tempdir().unwrap();
        let config = ImageTowerConfig::ResNet(ResNetConfig { depth: 18, ..ResNetConfig::default() });
        let vs = VarStore::new(Device::Cpu);
        let tower = config.build(&vs.root()).unwrap();
        initialize(&vs, 1);
        let mut tensors: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
        tensors.push(("fc.weight".to_owned(), normal(1, &[5, 512])));
        write(&folder.path().join("model.safetensors"), &tensors).unwrap();
        let describe = |architecture: &str| {
            let pretrained = json!({ "input_size": [3, 96, 96], "mean": [0.485, 0.456, 0.406],
                                     "std": [0.229, 0.224, 0.225] });
            let config = json!({ "architecture": architecture, "pretrained_cfg": pretrained });
            std::fs::write(folder.path().join(CONFIG_FILE), config.to_string()).unwrap();
            TimmTower::open(folder.path().to_str().unwrap())
        };
        let opened = describe("resnet18").unwrap().unwrap();
        assert_eq!(opened.processor.output_size(), (96, 96));
        let copy = VarStore::new(Device::Cpu);
        let again = opened.config.build(&copy.root()).unwrap();
        opened.fill(copy.variables().into_iter().collect()).unwrap();
        let pixel_values = normal(2, &[1, 3, 96, 96]);
        let difference =
            tower.forward_tokens(&pixel_values, false) - again.forward_tokens(&pixel_values, false);
        assert_eq!(difference.abs().max().double_value(&[]), 0.0);

        assert!(describe("vit_base").unwrap_err().to_string().contains("architecture vit_base"));
        assert!(describe("resnet7").unwrap_err().to_string().contains("depth is 7"));
    }
}
