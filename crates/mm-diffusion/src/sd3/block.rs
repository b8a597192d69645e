//! A block of both streams, and the modulation of its norms.

use super::attention::{AttentionContext, JointAttention, SelfAttention};
use super::{EPS, Sd3Config, xavier};
use mm_core::Precision;
use mm_core::nn::{Activation, Linear, Mlp};
use tch::Tensor;
use tch::nn::Path;

/// The width of the hidden layer of an MLP over that of a stream.
const MLP_RATIO: i64 = 4;

/// `N` vectors that shift, scale or gate a stream, from the vector that conditions the model. All are zero at
/// first, so that every block begins as the identity (adaLN-Zero).
#[derive(Debug)]
pub(super) struct Modulation<const N: usize>(Linear);

impl<const N: usize> Modulation<N> {
    pub fn new(path: &Path, width: i64) -> Self {
        Self(Linear::new(&(path / "linear"), width, N as i64 * width, 0.0))
    }

    /// Maps `condition` `[B, 1, width]` to vectors of the same shape.
    pub fn forward(&self, condition: &Tensor) -> [Tensor; N] {
        let vectors = self.0.forward(condition).chunk(N as i64, -1);
        vectors.try_into().expect("the layer is N vectors wide")
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.0.pack(precision);
    }
}

/// `x` `[B, L, width]`, normalized without weights.
pub(super) fn normalize(x: &Tensor) -> Tensor {
    x.layer_norm(&x.size()[2..], None::<Tensor>, None::<Tensor>, EPS, false)
}

/// `normalized * (1 + scale) + shift` in one pass.
pub(super) fn modulate(normalized: &Tensor, shift: &Tensor, scale: &Tensor) -> Tensor {
    shift.addcmul(normalized, &(scale + 1.0))
}

/// The modulation of the patches, and their attention to themselves in the blocks that have it.
#[derive(Debug)]
enum ImageNorm {
    Single(Modulation<6>),
    Dual(Modulation<9>, SelfAttention),
}

/// The text's layers around the attention.
#[derive(Debug)]
enum TextLayers {
    Full {
        norm1: Modulation<6>,
        ff: Mlp,
    },
    /// The last block's text is read as keys and values alone.
    Last(Modulation<2>),
}

/// A block (Esser et al. 2024, figure 2b).
#[derive(Debug)]
pub(super) struct Block {
    norm1: ImageNorm,
    attn: JointAttention,
    ff: Mlp,
    text: TextLayers,
}

impl Block {
    /// The block `index` of the model, below `path`.
    pub fn new(path: &Path, config: &Sd3Config, index: i64) -> Self {
        let (width, is_last) = (config.width(), index == config.num_layers - 1);
        let (norm1, norm1_context) = (path / "norm1", path / "norm1_context");
        Self {
            norm1: match config.dual_attention_layers.contains(&index) {
                true => {
                    let attn2 = SelfAttention::new(&(path / "attn2"), config);
                    ImageNorm::Dual(Modulation::new(&norm1, width), attn2)
                }
                false => ImageNorm::Single(Modulation::new(&norm1, width)),
            },
            attn: JointAttention::new(&(path / "attn"), config, is_last),
            ff: mlp(&(path / "ff"), width),
            text: match is_last {
                true => TextLayers::Last(Modulation::new(&norm1_context, width)),
                false => TextLayers::Full {
                    norm1: Modulation::new(&norm1_context, width),
                    ff: mlp(&(path / "ff_context"), width),
                },
            },
        }
    }

    /// Maps `image` `[B, N, width]` and `text` `[B, L, width]` to the same shapes; the last block gives no
    /// text. `condition` is `[B, 1, width]`.
    pub fn forward(
        &self,
        image: &Tensor,
        text: &Tensor,
        condition: &Tensor,
        context: &mut AttentionContext,
    ) -> (Tensor, Option<Tensor>) {
        let normalized = normalize(image);
        let ([shift, scale, gate, shift_mlp, scale_mlp, gate_mlp], dual) = match &self.norm1 {
            ImageNorm::Single(modulation) => (modulation.forward(condition), None),
            ImageNorm::Dual(modulation, attn2) => {
                let [a, b, c, d, e, f, shift, scale, gate] = modulation.forward(condition);
                let attended = attn2.forward(&modulate(&normalized, &shift, &scale));
                ([a, b, c, d, e, f], Some((attended, gate)))
            }
        };
        let text_normalized = normalize(text);
        let (text_input, text_rest) = match &self.text {
            TextLayers::Full { norm1, ff } => {
                let [shift, scale, rest @ ..] = norm1.forward(condition);
                (modulate(&text_normalized, &shift, &scale), Some((rest, ff)))
            }
            TextLayers::Last(norm1) => {
                let [scale, shift] = norm1.forward(condition);
                (modulate(&text_normalized, &shift, &scale), None)
            }
        };

        let (attended, text_attended) =
            self.attn.forward(&modulate(&normalized, &shift, &scale), &text_input, context);
        let mut image = image.addcmul(&gate, &attended);
        if let Some((attended, gate)) = dual {
            image = image.addcmul(&gate, &attended);
        }
        let image = add_mlp(&image, &self.ff, &shift_mlp, &scale_mlp, &gate_mlp);
        let text = text_rest.zip(text_attended).map(|(([gate, shift, scale, gate_mlp], ff), attended)| {
            add_mlp(&text.addcmul(&gate, &attended), ff, &shift, &scale, &gate_mlp)
        });
        (image, text)
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        match &mut self.norm1 {
            ImageNorm::Single(modulation) => modulation.pack(precision),
            ImageNorm::Dual(modulation, attn2) => {
                modulation.pack(precision);
                attn2.pack(precision);
            }
        }
        match &mut self.text {
            TextLayers::Full { norm1, ff } => {
                norm1.pack(precision);
                ff.pack(precision);
            }
            TextLayers::Last(norm1) => norm1.pack(precision),
        }
        self.attn.pack(precision);
        self.ff.pack(precision);
    }
}

/// `x` plus the gated MLP of its modulated norm.
fn add_mlp(x: &Tensor, ff: &Mlp, shift: &Tensor, scale: &Tensor, gate: &Tensor) -> Tensor {
    x.addcmul(gate, &ff.forward(&modulate(&normalize(x), shift, scale)))
}

fn mlp(path: &Path, width: i64) -> Mlp {
    let (net, hidden) = (path / "net", MLP_RATIO * width);
    let fc1 = Linear::new(&(&net / "0" / "proj"), width, hidden, xavier(width, hidden));
    let fc2 = Linear::new(&(&net / "2"), hidden, width, xavier(hidden, width));
    Mlp::new(fc1, fc2, Activation::GeluPytorchTanh)
}
