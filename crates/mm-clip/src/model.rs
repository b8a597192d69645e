//! The two towers with their head.

use crate::{ClipConfig, ContrastiveHead, Error, ImageEncoder, Result, TextEncoder};
use mm_core::Precision;
use tch::nn::Path;

/// Two towers whose outputs are compared in one space (Radford et al. 2021). Parameter names are Hugging
/// Face's `CLIPModel`'s and `SiglipModel`'s; a modified ResNet bears open_clip's, below `visual`.
#[derive(Debug)]
pub struct Clip {
    /// Images to the shared space.
    pub image: ImageEncoder,
    /// Texts to the shared space.
    pub text: TextEncoder,
    /// How the two are compared.
    pub head: ContrastiveHead,
}

impl Clip {
    /// Creates the model's parameters below `path`.
    ///
    /// # Errors
    /// A tower cannot be built, or its width is not `embed_dim` where nothing projects it.
    pub fn new(path: &Path, config: &ClipConfig) -> Result<Self> {
        let image = ImageEncoder::new(path, &config.image, config.image_projection_to())?;
        let text = TextEncoder::new(path, &config.text, config.text_projection_to())?;
        let widths = [("image", image.output_width()), ("text", text.output_width())];
        match widths.iter().find(|(_, width)| *width != config.embed_dim) {
            Some((tower, width)) => Err(Error::Model(format!(
                "embed_dim is {}, but the {tower} tower, which ends in the shared space itself, is {width} \
                 wide: set embed_dim = {width}",
                config.embed_dim
            ))),
            None => Ok(Self { image, text, head: ContrastiveHead::new(path, config.loss) }),
        }
    }

    /// Readies for inference in `precision`, with weights laid out once. A packed model cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.image.pack(precision);
        self.text.pack(precision);
    }
}
