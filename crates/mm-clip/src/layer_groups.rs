//! The layer groups of a model's parameters, counted from its output: locks and layer-wise learning rates
//! are set by them.

use crate::ClipConfig;
use crate::encoder::TEXT_ROOT;
use mm_core::nn::TowerSpec;

/// The layer group of a tower's parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerGroup {
    /// Whether it is on the image side.
    pub is_image: bool,
    /// The number of groups after it: 0 for the projection to the shared space.
    pub behind: usize,
}

/// A parameter of one of the towers.
struct TowerParameter<'a> {
    is_image: bool,
    tower: &'a dyn TowerSpec,
    /// Its name below the tower's path; none: it is the projection after the tower.
    name: Option<&'a str>,
}

impl<'a> TowerParameter<'a> {
    /// The tower's parameter with this name in a [`Clip`](crate::Clip); none for the temperature and the
    /// bias.
    fn find(name: &'a str, config: &'a ClipConfig) -> Option<Self> {
        let (root, rest) = name.split_once('.')?;
        let (image, text): (&dyn TowerSpec, &dyn TowerSpec) = (&*config.image, &*config.text);
        let (is_image, tower, name) = match root {
            "visual_projection" => (true, image, None),
            "text_projection" => (false, text, None),
            TEXT_ROOT => (false, text, Some(rest)),
            root if root == config.image.root() => (true, image, Some(rest)),
            _ => return None,
        };
        Some(Self { is_image, tower, name })
    }
}

/// The layer group of the parameter `name` of a [`Clip`](crate::Clip); none for the temperature and the bias.
/// The groups are those of [`TowerSpec::depth`], and the projection after them.
pub(crate) fn group_of(name: &str, config: &ClipConfig) -> Option<LayerGroup> {
    let TowerParameter { is_image, tower, name } = TowerParameter::find(name, config)?;
    let last = tower.blocks() + 1;
    Some(LayerGroup { is_image, behind: last - name.map_or(last, |name| tower.depth(name)) })
}

/// Whether weight decay applies to the parameter `name` of a [`Clip`](crate::Clip), given that it is a
/// matrix.
pub(crate) fn has_weight_decay(name: &str, config: &ClipConfig) -> bool {
    let parameter = TowerParameter::find(name, config);
    parameter
        .is_none_or(|TowerParameter { tower, name, .. }| name.is_none_or(|name| tower.has_weight_decay(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_text::{BertConfig, ClipTextConfig, TextTowerConfig};
    use mm_vision::{ImageTowerConfig, ModifiedResNetConfig, VitConfig, VitVariant};

    fn behind(config: &ClipConfig, name: &str) -> Option<usize> {
        group_of(name, config).map(|group| group.behind)
    }

    #[test]
    fn groups_run_from_the_embeddings_to_the_projection() {
        let image = ImageTowerConfig::Vit(VitConfig::default());
        let clip = ClipConfig::new(512, image, TextTowerConfig::Clip(ClipTextConfig::default()));
        for (name, expected) in [
            ("vision_model.embeddings.class_embedding", 13),
            ("vision_model.pre_layrnorm.weight", 13),
            ("vision_model.encoder.layers.0.mlp.fc1.weight", 12),
            ("vision_model.encoder.layers.11.mlp.fc1.weight", 1),
            ("vision_model.post_layernorm.bias", 1),
            ("visual_projection.weight", 0),
            ("text_model.final_layer_norm.bias", 1),
            ("text_projection.weight", 0),
        ] {
            assert_eq!(behind(&clip, name), Some(expected), "{name}");
        }
        assert_eq!(behind(&clip, "logit_scale"), None);
    }

    #[test]
    fn stages_of_a_resnet_and_layers_of_a_bert_are_groups() {
        let image = ImageTowerConfig::ModifiedResNet(ModifiedResNetConfig::default());
        let clip = ClipConfig::new(1024, image, TextTowerConfig::Bert(BertConfig::default()));
        for (name, expected) in [
            ("visual.conv1.weight", 5),
            ("visual.bn3.running_mean", 5),
            ("visual.layer1.0.conv1.weight", 4),
            ("visual.layer4.2.bn1.weight", 1),
            ("visual.attnpool.c_proj.weight", 0),
            ("text_model.encoder.layer.0.output.dense.weight", 12),
            ("text_model.pooler.dense.weight", 1),
        ] {
            assert_eq!(behind(&clip, name), Some(expected), "{name}");
        }
    }

    #[test]
    fn class_and_position_embeddings_and_the_probe_do_not_decay() {
        let text = TextTowerConfig::Clip(ClipTextConfig::default());
        for (variant, exempt) in
            [(VitVariant::Siglip, "head.probe"), (VitVariant::Vit, "embeddings.cls_token")]
        {
            let image = ImageTowerConfig::Vit(VitConfig { variant, ..VitConfig::default() });
            let clip = ClipConfig::new(512, image, text.clone());
            assert!(!has_weight_decay(&format!("vision_model.{exempt}"), &clip));
            assert!(!has_weight_decay("text_model.embeddings.position_embedding.weight", &clip));
            for name in ["visual_projection.weight", "text_model.embeddings.token_embedding.weight"] {
                assert!(has_weight_decay(name, &clip), "{name}");
            }
        }
    }
}
