//! The adapters of a run: the layers that have them, and the LoRA file.

use crate::lora::{Component, DIFFUSERS_FILE, LoraLayers, LoraPair, write_peft};
use crate::{Error, Result};
use mm_core::lora::{Lora, LoraConfig};
use std::path::Path;

/// The folder beside the merged model.
const FOLDER: &str = "adapter";

/// `config` with targets that mean layers of the part `part` alone, whose names are among `layers`. The
/// attention of text encoders has layers of the same names.
pub(super) fn within(config: &LoraConfig, part: &str, layers: &[String]) -> LoraConfig {
    let root = format!("{part}.");
    let within = |target: &String| match target.as_str() {
        "all-linear" => format!("{root}*"),
        target if target.starts_with(&root) => target.to_owned(),
        target if target.contains('*') || layers.contains(&format!("{root}{target}")) => {
            format!("{root}{target}")
        }
        target => format!("{root}*.{target}"),
    };
    LoraConfig { targets: config.targets.iter().map(within).collect(), ..config.clone() }
}

/// Writes the adapters of `lora` into the folder `adapter` of `folder`, as the file that diffusers'
/// `load_lora_weights` and `mm generate --lora` find there.
///
/// # Errors
/// A number is not finite, or the file cannot be written.
pub(super) fn save(lora: &Lora, folder: &Path) -> Result<()> {
    let config = lora.config();
    // The scale times the rank: LoraPair knows no other form of it.
    let alpha = if config.rslora { config.alpha * (config.rank as f64).sqrt() } else { config.alpha };
    let mut variables = lora.variables().variables();
    let mut layers = LoraLayers::new();
    for module in lora.modules() {
        let mut matrix = |name: &str| variables.remove(&format!("{module}.{name}.weight"));
        let (Some(down), Some(up)) = (matrix("lora_A"), matrix("lora_B")) else {
            return Err(Error::Model(format!("the adapter of {module} is incomplete")));
        };
        let part = module.split_once('.').and_then(|(part, layer)| {
            let component = Component::ALL.into_iter().find(|component| component.name() == part)?;
            Some((component, layer.to_owned()))
        });
        let unknown = || Error::Model(format!("{module} is in no part that a LoRA file names"));
        let (component, layer) = part.ok_or_else(unknown)?;
        layers.entry(component).or_default().insert(layer, LoraPair { down, up, alpha: Some(alpha) });
    }
    let adapter = folder.join(FOLDER);
    std::fs::create_dir_all(&adapter).map_err(|source| mm_core::Error::io("make", &adapter, source))?;
    write_peft(&adapter.join(DIFFUSERS_FILE), &layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_mean_layers_of_the_denoiser_alone() {
        let layers = ["text_encoder.layers.0.to_q", "unet.mid.to_q", "unet.down.0.to_k"].map(str::to_owned);
        let given = ["to_q", "down.0.to_k", "down*", "all-linear", "unet.mid.to_q"];
        let config = LoraConfig { targets: given.map(str::to_owned).to_vec(), ..LoraConfig::default() };
        let expected = ["unet.*.to_q", "unet.down.0.to_k", "unet.down*", "unet.*", "unet.mid.to_q"];
        assert_eq!(within(&config, "unet", &layers).targets, expected);
    }
}
