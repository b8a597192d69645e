use crate::attention_pool::AttentionPool;
use crate::error::Result;
use crate::vit_config::{VitConfig, VitForm};
use mm_core::Precision;
use mm_core::nn::{
    AttentionMask, BlockConfig, Embedding, LayerNorm, Mlp, NormOrder, PatchEmbedding, Transformer, parameter,
};
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// A vision transformer (Dosovitskiy et al. 2021) in CLIP's or SigLIP's form.
///
/// Parameter names are those of Hugging Face's `CLIPVisionModel` and `SiglipVisionModel` (`pre_layrnorm` is spelt so there).
#[derive(Debug)]
pub struct Vit {
    patch_embedding: PatchEmbedding,
    position_embedding: Embedding,
    encoder: Transformer,
    post_norm: LayerNorm,
    form: Form,
    config: VitConfig,
}

/// What only one of the families has.
#[derive(Debug)]
enum Form {
    Clip { class_embedding: Tensor, pre_norm: LayerNorm },
    Siglip { head: MapHead },
}

/// A forward pass with the attention weights that led to it, all in one graph.
#[derive(Debug)]
pub struct VitAttention {
    /// As [`Vit::forward`] gives it, `[B, hidden]`.
    pub pooled: Tensor,
    /// Of each layer, `[B, heads, L, L]`, rows are queries. L counts the class token, which comes first, and the patches.
    pub layers: Vec<Tensor>,
    /// Of SigLIP's pooling head, `[B, heads, L]`.
    pub pool: Option<Tensor>,
}

impl Vit {
    /// Creates the tower's parameters below `path`, initialised as OpenAI's CLIP does.
    ///
    /// # Errors
    /// As [`VitConfig::validate`].
    pub fn new(path: &Path, config: VitConfig) -> Result<Self> {
        config.validate()?;
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let std = (width as f64).powf(-0.5);
        let fan_in = (3 * config.patch_size * config.patch_size) as f64;
        let block = BlockConfig {
            width,
            heads: config.num_attention_heads,
            mlp_width: config.intermediate_size,
            activation: config.hidden_act,
            layer_norm_eps: eps,
            norm_order: NormOrder::Pre,
            layers: config.num_hidden_layers,
        };
        // CLIP keeps PyTorch's default for convolutions (a third of the variance), SigLIP is made with LeCun's.
        let (class_tokens, patch_std) = match config.form {
            VitForm::Clip => (1, (3.0 * fan_in).powf(-0.5)),
            VitForm::Siglip => (0, fan_in.powf(-0.5)),
        };
        let embeddings = path / "embeddings";
        let positions = config.patch_grid() * config.patch_grid() + class_tokens;
        let form = match config.form {
            VitForm::Clip => Form::Clip {
                class_embedding: parameter(
                    &embeddings,
                    "class_embedding",
                    &[width],
                    Init::Randn { mean: 0.0, stdev: std },
                ),
                pre_norm: LayerNorm::new(&(path / "pre_layrnorm"), width, eps),
            },
            VitForm::Siglip => Form::Siglip { head: MapHead::new(&(path / "head"), &block) },
        };
        Ok(Self {
            patch_embedding: PatchEmbedding::new(
                &(&embeddings / "patch_embedding"),
                config.patch_size,
                width,
                config.form == VitForm::Siglip,
                patch_std,
            ),
            position_embedding: Embedding::new(&(&embeddings / "position_embedding"), positions, width, std),
            encoder: Transformer::new(&(path / "encoder" / "layers"), &block),
            post_norm: LayerNorm::new(&(path / "post_layernorm"), width, eps),
            form,
            config,
        })
    }

    /// Maps `pixel_values` `[B, 3, image_size, image_size]` to `[B, hidden]`.
    ///
    /// # Panics
    /// `pixel_values` has another shape.
    pub fn forward(&self, pixel_values: &Tensor) -> Tensor {
        self.forward_train(pixel_values, 1.0)
    }

    /// As [`Vit::forward`], on a random share `keep` of each image's patches, at least one (FLIP, Li et al. 2023). The choice
    /// comes from torch's generator, so `tch::manual_seed` fixes it; 1 keeps all and draws nothing.
    pub fn forward_train(&self, pixel_values: &Tensor, keep: f64) -> Tensor {
        let x = self.embed(pixel_values, keep);
        match &self.form {
            Form::Clip { .. } => {
                let class = Tensor::zeros([x.size()[0]], (Kind::Int64, x.device()));
                self.post_norm.forward(&self.encoder.forward_at(x, &AttentionMask::None, &class))
            }
            Form::Siglip { head } => {
                head.forward(&self.post_norm.forward(&self.encoder.forward(x, &AttentionMask::None))).0
            }
        }
    }

    /// As [`Vit::forward`], with the attention weights. Slower: for looking at a model.
    pub fn forward_with_attention(&self, pixel_values: &Tensor) -> VitAttention {
        let (x, layers) = self.encoder.forward_with_weights(self.embed(pixel_values, 1.0), &AttentionMask::None);
        match &self.form {
            Form::Clip { .. } => VitAttention { pooled: self.post_norm.forward(&x.select(1, 0)), layers, pool: None },
            Form::Siglip { head } => {
                let (pooled, pool) = head.forward(&self.post_norm.forward(&x));
                VitAttention { pooled, layers, pool: Some(pool) }
            }
        }
    }

    /// Images to the encoder's input, `[B, L, hidden]`.
    fn embed(&self, pixel_values: &Tensor, keep: f64) -> Tensor {
        let patches = self.patch_embedding.forward(pixel_values); // [B, N, hidden]
        let (batch, count, width) = patches.size3().expect("patches are [B, N, hidden]");
        let positions = self.position_embedding.weight();
        match &self.form {
            Form::Siglip { .. } => keep_patches(patches + positions, keep),
            Form::Clip { class_embedding, pre_norm } => {
                let patches = keep_patches(patches + positions.narrow(0, 1, count), keep);
                let class = (class_embedding + positions.get(0)).expand([batch, 1, width], false);
                pre_norm.forward(&Tensor::cat(&[class, patches], 1)) // [B, 1 + N, hidden]
            }
        }
    }

    /// The config that the tower was made from.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Readies for inference in `precision`; outputs are of its kind.
    pub fn pack(&mut self, precision: Precision) {
        self.patch_embedding.pack(precision);
        self.position_embedding.pack(precision);
        self.encoder.pack(precision);
        self.post_norm.pack(precision);
        match &mut self.form {
            Form::Clip { class_embedding, pre_norm } => {
                *class_embedding = class_embedding.detach().to_kind(precision.kind());
                pre_norm.pack(precision);
            }
            Form::Siglip { head } => head.pack(precision),
        }
    }
}

/// Keeps a random share of the patches `[B, N, width]`, each image its own.
fn keep_patches(patches: Tensor, keep: f64) -> Tensor {
    let (batch, count, width) = patches.size3().expect("patches are [B, N, width]");
    let kept = ((count as f64 * keep) as i64).clamp(1, count);
    if kept == count {
        return patches;
    }
    let order = Tensor::rand([batch, count], (Kind::Float, patches.device())).argsort(-1, false);
    let index = order.narrow(1, 0, kept).unsqueeze(-1).expand([batch, kept, width], false);
    patches.gather(1, &index, false) // [B, kept, width]
}

/// SigLIP's pooling: a learned query attends over all tokens, followed by an MLP with a residual connection.
#[derive(Debug)]
struct MapHead {
    probe: Tensor,
    attention: AttentionPool,
    norm: LayerNorm,
    mlp: Mlp,
}

impl MapHead {
    fn new(path: &Path, block: &BlockConfig) -> Self {
        let width = block.width as f64;
        Self {
            probe: parameter(path, "probe", &[1, 1, block.width], Init::Randn { mean: 0.0, stdev: width.powf(-0.5) }),
            attention: AttentionPool::multihead(&(path / "attention"), block.width, block.heads),
            norm: LayerNorm::new(&(path / "layernorm"), block.width, block.layer_norm_eps),
            mlp: Mlp::new(&(path / "mlp"), block, (2.0 * width).powf(-0.5), width.powf(-0.5)),
        }
    }

    /// Maps `x` `[B, L, width]` to `[B, width]`, with the weights `[B, heads, L]`.
    fn forward(&self, x: &Tensor) -> (Tensor, Tensor) {
        let (pooled, weights) = self.attention.forward(&self.probe.squeeze_dim(0), x);
        let normed = self.norm.forward(&pooled);
        (pooled + self.mlp.forward(&normed), weights)
    }

    fn pack(&mut self, precision: Precision) {
        self.probe = self.probe.detach().to_kind(precision.kind());
        self.attention.pack(precision);
        self.norm.pack(precision);
        self.mlp.pack(precision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tch::Device;
    use tch::nn::VarStore;

    /// libtorch's CPU generator is one a process: tests that draw from it take turns.
    static GENERATOR: Mutex<()> = Mutex::new(());

    fn tiny(form: VitForm) -> Vit {
        let sizes = VitConfig { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, ..Default::default() };
        let config = VitConfig { form, num_attention_heads: 2, image_size: 32, patch_size: 8, ..sizes };
        Vit::new(&VarStore::new(Device::Cpu).root(), config).unwrap()
    }

    #[test]
    fn patch_dropout_is_fixed_by_the_seed_and_draws_nothing_when_all_is_kept() {
        let _turn = GENERATOR.lock();
        for form in [VitForm::Clip, VitForm::Siglip] {
            let vit = tiny(form);
            let x = Tensor::randn([3, 3, 32, 32], (Kind::Float, Device::Cpu));
            let dropped = |seed: i64| {
                tch::manual_seed(seed);
                vit.forward_train(&x, 0.5)
            };
            assert_eq!(dropped(1), dropped(1));
            assert_ne!(dropped(1), dropped(2));
            assert_eq!(vit.forward_train(&x, 1.0), vit.forward(&x));
            assert_eq!(vit.forward_train(&x, 0.0).size(), [3, 16]);
        }
    }

    #[test]
    fn each_image_keeps_its_own_whole_patches() {
        let _turn = GENERATOR.lock();
        let patches = Tensor::arange(2 * 16, (Kind::Float, Device::Cpu)).view([2, 16, 1]).expand([2, 16, 5], false);
        let kept = keep_patches(patches, 0.25);
        assert_eq!(kept.size(), [2, 4, 5]);
        assert_eq!(kept, kept.narrow(2, 0, 1).expand([2, 4, 5], false));
        let image = kept.select(2, 0).divide_scalar_mode(16.0, "floor"); // which image each patch is of
        assert_eq!(image, Tensor::from_slice(&[0.0f32, 1.0]).view([2, 1]).expand([2, 4], false));
    }
}
