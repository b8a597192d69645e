//! The samples of a training step.

use mm_image::RgbImage;
use mm_text::TokenBatch;
use tch::Tensor;

/// An image and a caption, ready to be batched.
pub struct ClipItem {
    pub(crate) image: RgbImage,
    pub(crate) token_ids: Vec<u32>,
    /// Whether the caption was longer than the tower's context.
    pub(crate) is_cut: bool,
}

impl mm_data::Item for ClipItem {
    fn bytes(&self) -> usize {
        self.image.bytes() + 4 * self.token_ids.len()
    }
}

/// Paired images and texts on the model's device.
pub struct ClipBatch {
    /// `[B, 3, S, S]`.
    pub pixel_values: Tensor,
    /// B texts.
    pub texts: TextInput,
    /// The share of texts that were longer than the tower's context and were cut.
    pub cut_captions: f64,
}

/// The texts of a batch.
pub enum TextInput {
    /// Token ids.
    Tokens(TokenBatch),
    /// The outputs of a locked tower, `[B, W]`.
    Pooled(Tensor),
}

impl ClipBatch {
    /// The same samples, `count` in a batch.
    pub(crate) fn chunks(&self, count: i64) -> Vec<Self> {
        let all = self.pixel_values.size()[0];
        let chunk = |start: i64| {
            let part = |x: &Tensor| x.narrow(0, start, count.min(all - start));
            let texts = match &self.texts {
                TextInput::Tokens(tokens) => TextInput::Tokens(TokenBatch {
                    input_ids: part(&tokens.input_ids),
                    attention_mask: part(&tokens.attention_mask),
                }),
                TextInput::Pooled(pooled) => TextInput::Pooled(part(pooled)),
            };
            Self { pixel_values: part(&self.pixel_values), texts, cut_captions: self.cut_captions }
        };
        (0..all).step_by(count as usize).map(chunk).collect()
    }
}
