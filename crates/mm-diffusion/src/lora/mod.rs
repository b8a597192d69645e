//! LoRA files in the spellings that are in use, applied to the weights of a model before it is built.
//!
//! A LoRA (Hu et al. 2021) adds `scale * up @ down` to the weights of some layers, with `down` `[rank, in]`
//! and `up` `[out, rank]`; of a convolution `down` is a convolution to `rank` channels and `up` one of 1 x 1.
//! Files name the layers in five ways, and one file may mix them:
//!
//! | spelling | example |
//! |---|---|
//! | PEFT | `unet.mid_block.attentions.0.proj_in.lora_A.weight` |
//! | diffusers | `unet.….to_q.lora.down.weight`, `text_encoder.….q_proj.lora_linear_layer.down.weight` |
//! | attention processors | `unet.….attn1.processor.to_q_lora.down.weight` |
//! | kohya | `lora_unet_mid_block_….lora_down.weight`, `lora_te1_….alpha`; SDXL also `lora_unet_middle_…` |
//! | a folder of PEFT | `base_model.model.mid_block.….lora_A.weight` |
//!
//! The scale is alpha / rank where the file has an alpha (kohya's tensors, the entry `lora_adapter_metadata`
//! of the header, `adapter_config.json`) and 1 elsewhere, whatever it was in training. A tensor that belongs
//! to no layer of the model is an error: peers pass over such files and compute with the base model.
//!
//! ```no_run
//! use mm_core::checkpoint::Weights;
//! use mm_diffusion::lora::{Component, ComponentModules, LoraFile};
//!
//! let mut unet = Weights::open("unet/diffusion_pytorch_model.safetensors".as_ref())?;
//! let modules = ComponentModules::new().with(Component::Unet, &unet);
//! for (file, scale) in [("style.safetensors", 0.8), ("subject.safetensors", 1.0)] {
//!     LoraFile::open(file.as_ref(), &modules)?.apply(Component::Unet, &mut unet, scale)?;
//! }
//! # Ok::<(), mm_diffusion::Error>(())
//! ```

mod file;
mod keys;
mod metadata;
mod modules;
mod pair;
mod report;
mod write;

pub(crate) use file::DIFFUSERS_FILE;
pub use file::LoraFile;
pub use modules::ComponentModules;
pub use pair::LoraPair;
pub use report::{ComponentReport, LoraReport};
pub use write::{write_kohya, write_peft};

use std::collections::BTreeMap;

/// A part of a pipeline that a LoRA changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// The U-Net.
    Unet,
    /// The transformer of SD3.
    Transformer,
    /// The first text encoder.
    TextEncoder,
    /// The second text encoder.
    TextEncoder2,
}

impl Component {
    /// All components, the denoisers first.
    pub const ALL: [Self; 4] = [Self::Unet, Self::Transformer, Self::TextEncoder, Self::TextEncoder2];

    /// The name of the part in a diffusers folder, and in the keys of a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::Transformer => "transformer",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        }
    }

    /// Whether this is a text encoder, whose layers transformers names.
    pub fn is_text_encoder(self) -> bool {
        matches!(self, Self::TextEncoder | Self::TextEncoder2)
    }
}

/// The layers of a LoRA: of each component the module's name and its pair of matrices.
pub type LoraLayers = BTreeMap<Component, BTreeMap<String, LoraPair>>;
