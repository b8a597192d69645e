//! The groups of a tower's parameters, from its input to its output: what is locked and what learns slower
//! counts in them.

use crate::ClipConfig;
use mm_text::TextTowerConfig;
use mm_vision::ImageTowerConfig;

/// Where a parameter of a tower stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerGroup {
    /// Whether it is the image side's.
    pub is_image: bool,
    /// How many groups come after it: 0 for the projection.
    pub behind: usize,
}

/// The group of the parameter `name` of a [`Clip`](crate::Clip); none for the temperature and the bias.
///
/// LayerGroup 0 are the embeddings or a ResNet's stem, group n the n-th block or stage, the last with the norm and
/// head behind it; then comes the projection, or what pools a modified ResNet.
pub(crate) fn group_of(name: &str, config: &ClipConfig) -> Option<LayerGroup> {
    let (root, rest) = name.split_once('.')?;
    let (is_image, blocks) = match root {
        "vision_model" | "visual" | "visual_projection" => (true, image_blocks(&config.image)),
        "text_model" | "text_projection" => (false, text_blocks(&config.text)),
        _ => return None,
    };
    let group = match rest {
        _ if root.ends_with("_projection") || rest.starts_with("attnpool.") => blocks + 1,
        _ => {
            block_of(rest).map_or_else(|| if is_input(rest) { 0 } else { blocks }, |block| block.min(blocks))
        }
    };
    Some(LayerGroup { is_image, behind: blocks + 1 - group })
}

/// The block of a parameter, counted from 1.
fn block_of(name: &str) -> Option<usize> {
    let number = |text: &str| text.split('.').next()?.parse::<usize>().ok();
    let block =
        ["encoder.layers.", "encoder.layer."].iter().find_map(|prefix| number(name.strip_prefix(prefix)?));
    block.map(|block| block + 1).or_else(|| number(name.strip_prefix("layer")?))
}

fn is_input(name: &str) -> bool {
    ["embeddings.", "pre_layrnorm.", "conv", "bn"].iter().any(|prefix| name.starts_with(prefix))
}

/// A ResNet has four stages.
const STAGES: usize = 4;

fn image_blocks(config: &ImageTowerConfig) -> usize {
    match config {
        ImageTowerConfig::Vit(vit) => vit.num_hidden_layers as usize,
        ImageTowerConfig::ResNet(_) | ImageTowerConfig::ModifiedResNet(_) => STAGES,
    }
}

fn text_blocks(config: &TextTowerConfig) -> usize {
    match config {
        TextTowerConfig::Clip(text) => text.num_hidden_layers as usize,
        TextTowerConfig::Bert(bert) => bert.num_hidden_layers as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_text::{BertConfig, ClipTextConfig};
    use mm_vision::{ModifiedResNetConfig, VitConfig};

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
}
