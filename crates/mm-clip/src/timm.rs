//! A pretrained ResNet or ViT of timm as an image tower.
//!
//! timm's folders on the hub (`timm/resnet50.a1_in1k`) have a `config.json` with the architecture and the
//! preprocessing. The names of a ResNet are torchvision's.

use crate::checkpoint::TIMM_VIT;
use crate::{Error, Result};
use mm_core::checkpoint::{TensorLayout, Weights};
use mm_core::hf::{CONFIG_FILE, HfFolder};
use mm_vision::{ImageProcessor, ImageTowerConfig, ResNetConfig, VitConfig};
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
    layout: TensorLayout,
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
        let file = folder.file(CONFIG_FILE);
        let (tower, layout, classifier) = tower(architecture, &config).map_err(|error| error.at(&file))?;
        let processor =
            processor(tower.image_size(), &config["pretrained_cfg"]).map_err(|error| error.at(&file))?;
        let mut weights = folder.weights("model")?;
        weights.retain(|name| !name.starts_with(classifier));
        Ok(Some(Self { config: tower, processor, weights, layout }))
    }

    /// Copies the weights to `variables`, named below the tower's path.
    ///
    /// # Errors
    /// They do not fit.
    pub fn fill(&self, variables: Vec<(String, Tensor)>) -> Result<()> {
        Ok(self.weights.fill(variables, &self.layout)?)
    }
}

/// The tower of an `architecture`, with the names of its tensors and the prefix of its classifier's.
fn tower(architecture: &str, config: &Value) -> Result<(ImageTowerConfig, TensorLayout, &'static str)> {
    let changed = config["model_args"].as_object().is_some_and(|args| !args.is_empty());
    if changed {
        let problem =
            format!("model_args is {}: only {architecture} as it is is offered", config["model_args"]);
        return Err(Error::Model(problem));
    }
    let (tower, layout, classifier) = if let Some(depth) = architecture.strip_prefix("resnet") {
        let depth = depth.parse().map_err(|_| {
            let problem = format!("architecture {architecture} is not offered: resnet18, 34, 50 and 101 are");
            Error::Model(problem)
        })?;
        let image_size = config["pretrained_cfg"]["input_size"][2].as_i64().unwrap_or(224);
        let resnet = ResNetConfig { depth, image_size, ..ResNetConfig::default() };
        (ImageTowerConfig::ResNet(resnet), TensorLayout::AS_IS, "fc.")
    } else {
        let pooling = &config["global_pool"];
        if !(pooling.is_null() || pooling == "token") {
            return Err(Error::Model(format!("global_pool is {pooling}: only \"token\" is offered")));
        }
        let vit = VitConfig::from_timm(architecture)
            .map_err(|error| Error::Model(format!("architecture {error}; and resnet18, 34, 50 and 101")))?;
        (ImageTowerConfig::Vit(vit), TIMM_VIT, "head.")
    };
    tower.validate()?;
    Ok((tower, layout, classifier))
}

/// The preprocessing of `pretrained_cfg` for images of `size` pixels, without its crop.
fn processor(size: i64, pretrained_cfg: &Value) -> Result<ImageProcessor> {
    Ok(ImageProcessor::from_json(&json!({
        "image_processor_type": "BlipImageProcessor",
        "size": { "height": size, "width": size },
        "image_mean": pretrained_cfg["mean"],
        "image_std": pretrained_cfg["std"],
    }))?)
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

        assert!(describe("vit_base").unwrap_err().to_string().contains("vit_base of timm is not offered"));
        assert!(describe("resnet7").unwrap_err().to_string().contains("depth is 7"));
    }
}
