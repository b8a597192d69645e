//! The vision transformer.

use crate::bucketed_positions::bucketed_positions;
use crate::error::Result;
use crate::tower::{HeatMapTaps, ImageTower};
use crate::vit_config::{VitConfig, VitVariant};
use crate::vit_parts::{Pooling, block_config, class_token_and_pooling, patch_embedding, position_embedding};
use mm_core::Precision;
use mm_core::nn::{AttentionMask, BlockNames, LayerNorm, PatchEmbedding, Transformer};
use tch::nn::Path;
use tch::{Kind, Tensor};

/// A vision transformer (Dosovitskiy et al. 2021): CLIP's, SigLIP's, BLIP's or that of the original paper.
///
/// Parameter names are those in the files of Hugging Face's `CLIPVisionModel` (`pre_layrnorm` is spelled so
/// there), `SiglipVisionModel`, `BlipVisionModel` and `ViTModel`.
#[derive(Debug)]
pub struct Vit {
    patch_embedding: PatchEmbedding,
    /// `[width]` or `[1, 1, width]`.
    class_token: Option<Tensor>,
    /// `[L, width]` or `[1, L, width]`.
    position_embedding: Tensor,
    /// Whether images may have other sizes than that of the positions.
    has_bucketed_positions: bool,
    pre_norm: Option<LayerNorm>,
    encoder: Transformer,
    post_norm: LayerNorm,
    pooling: Pooling,
    config: VitConfig,
}

/// The output of a forward pass and its attention weights, in one graph.
#[derive(Debug)]
pub struct VitAttention {
    /// The output of [`Vit::forward`], `[B, hidden]`.
    pub pooled: Tensor,
    /// Of each layer, `[B, heads, L, L]`, rows are queries. L counts the class token, which comes first, and
    /// the patches.
    pub layers: Vec<Tensor>,
    /// Of SigLIP's pooling head, `[B, heads, L]`.
    pub pool: Option<Tensor>,
}

impl Vit {
    /// Creates the tower's parameters below `path`, initialized as OpenAI's CLIP does; those of
    /// [`VitVariant::Vit`] as transformers does.
    ///
    /// # Errors
    /// As [`VitConfig::validate`].
    pub fn new(path: &Path, config: VitConfig) -> Result<Self> {
        Self::build(path, config, true)
    }

    /// As [`Vit::new`] for SigLIP without its head, the attention pooling, as language models read it. The
    /// pooled output is the mean of the tokens.
    ///
    /// # Errors
    /// As [`VitConfig::validate`].
    pub fn without_head(path: &Path, config: VitConfig) -> Result<Self> {
        Self::build(path, config, false)
    }

    /// The same tower for images of any whole number of patches, if it has no class token: a patch has the
    /// position of the table that is at its place in the unit square, as in Idefics3. Of images of
    /// `image_size` the outputs are the same.
    pub fn with_bucketed_positions(self) -> Self {
        Self { has_bucketed_positions: self.class_token.is_none(), ..self }
    }

    fn build(path: &Path, config: VitConfig, has_head: bool) -> Result<Self> {
        config.validate()?;
        let (width, eps, block) = (config.hidden_size, config.layer_norm_eps, block_config(&config));
        let embeddings = path / "embeddings";
        // libtorch draws the initial weights in the order of creation, which must stay as it is.
        let (class_token, pooling) = class_token_and_pooling(path, &config, &block, has_head);
        let patch_embedding = patch_embedding(&embeddings, &config);
        let position_embedding = position_embedding(&embeddings, &config);
        let (layers, names, post_norm) = match config.variant {
            VitVariant::Clip | VitVariant::Siglip => ("layers", BlockNames::CLIP, "post_layernorm"),
            VitVariant::Blip => ("layers", BlockNames::BLIP, "post_layernorm"),
            VitVariant::Vit => ("layer", BlockNames::VIT, "layernorm"),
        };
        let has_pre_norm = config.variant == VitVariant::Clip;
        Ok(Self {
            patch_embedding,
            class_token,
            position_embedding,
            has_bucketed_positions: false,
            pre_norm: has_pre_norm.then(|| LayerNorm::new(&(path / "pre_layrnorm"), width, eps)),
            encoder: Transformer::new(&(path / "encoder" / layers), &block, &names),
            post_norm: LayerNorm::new(&(path / post_norm), width, eps),
            pooling,
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

    /// As [`Vit::forward`], on a random share `keep` of each image's patches, at least one (FLIP, Li et al.
    /// 2023). The patches are drawn from torch's generator, which `tch::manual_seed` seeds; 1 keeps all and
    /// draws nothing.
    pub fn forward_train(&self, pixel_values: &Tensor, keep: f64) -> Tensor {
        let x = self.embed(pixel_values, keep);
        match &self.pooling {
            Pooling::Map(head) => {
                head.forward(&self.post_norm.forward(&self.encoder.forward(x, &AttentionMask::none()))).0
            }
            Pooling::Mean => mean(&self.post_norm.forward(&self.encoder.forward(x, &AttentionMask::none()))),
            Pooling::Class | Pooling::Pooler(_) => {
                let class = Tensor::zeros([x.size()[0]], (Kind::Int64, x.device()));
                self.pool_class(&self.encoder.forward_at(x, &AttentionMask::none(), &class))
            }
        }
    }

    /// Maps `pixel_values` to all tokens, `[B, L, hidden]`: the class token, where the variant has one, then
    /// the patches row by row. It is transformers' `last_hidden_state`: CLIP's before the last norm, the
    /// others' after it.
    pub fn forward_tokens(&self, pixel_values: &Tensor) -> Tensor {
        let x = self.encoder.forward(self.embed(pixel_values, 1.0), &AttentionMask::none());
        match self.config.variant {
            VitVariant::Clip => x,
            VitVariant::Siglip | VitVariant::Vit | VitVariant::Blip => self.post_norm.forward(&x),
        }
    }

    /// Maps `pixel_values` to all tokens after block `layer`, of which 0 is the input of the first, `[B, L,
    /// hidden]`: transformers' `hidden_states[layer]`, before the last norm. The class token, where the
    /// variant has one, comes first.
    ///
    /// # Panics
    /// The tower has fewer blocks.
    pub fn forward_hidden(&self, pixel_values: &Tensor, layer: usize) -> Tensor {
        let x = self.embed(pixel_values, 1.0);
        if layer == self.config.num_hidden_layers as usize {
            return self.encoder.forward(x, &AttentionMask::none());
        }
        self.encoder.forward_states(x, &AttentionMask::none()).swap_remove(layer)
    }

    /// Maps `pixel_values` to the patches after each block, row by row, `[B, N, hidden]` each.
    pub fn forward_blocks(&self, pixel_values: &Tensor) -> Vec<Tensor> {
        let states = self.encoder.forward_states(self.embed(pixel_values, 1.0), &AttentionMask::none());
        let class = i64::from(self.class_token.is_some());
        let patches = |state: &Tensor| state.narrow(1, class, state.size()[1] - class);
        states[1..].iter().map(patches).collect()
    }

    /// As [`Vit::forward`], also returning the attention weights. Slower; for analysis.
    pub fn forward_with_attention(&self, pixel_values: &Tensor) -> VitAttention {
        let (x, layers) =
            self.encoder.forward_with_weights(self.embed(pixel_values, 1.0), &AttentionMask::none());
        match &self.pooling {
            Pooling::Map(head) => {
                let (pooled, pool) = head.forward(&self.post_norm.forward(&x));
                VitAttention { pooled, layers, pool: Some(pool) }
            }
            Pooling::Mean => VitAttention { pooled: mean(&self.post_norm.forward(&x)), layers, pool: None },
            Pooling::Class | Pooling::Pooler(_) => {
                VitAttention { pooled: self.pool_class(&x.select(1, 0)), layers, pool: None }
            }
        }
    }

    /// Maps images to the encoder's input, `[B, L, hidden]`.
    fn embed(&self, pixel_values: &Tensor, keep: f64) -> Tensor {
        let patches = self.patch_embedding.forward(pixel_values); // [B, N, hidden]
        let (batch, count, width) = patches.size3().expect("patches are [B, N, hidden]");
        let positions = self.position_embedding.view([-1, width]); // [L, hidden]
        let Some(class) = &self.class_token else {
            let positions =
                if self.has_bucketed_positions { self.bucketed(&positions, pixel_values) } else { positions };
            return keep_patches(patches + positions, keep);
        };
        let patches = keep_patches(patches + positions.narrow(0, 1, count), keep);
        let class = (class + positions.get(0)).expand([batch, 1, width], false);
        let x = Tensor::cat(&[class, patches], 1); // [B, 1 + N, hidden]
        match &self.pre_norm {
            Some(norm) => norm.forward(&x),
            None => x,
        }
    }

    /// The rows of `positions` `[L, hidden]` for the patches of `pixel_values`.
    fn bucketed(&self, positions: &Tensor, pixel_values: &Tensor) -> Tensor {
        let [rows, columns] = [2, 3].map(|side| pixel_values.size()[side] / self.config.patch_size);
        let ids = bucketed_positions(self.config.patch_grid(), rows, columns);
        if (0..positions.size()[0]).eq(ids.iter().copied()) {
            return positions.shallow_clone();
        }
        positions.index_select(0, &Tensor::from_slice(&ids).to_device(positions.device()))
    }

    /// Maps the encoder's class tokens `[B, hidden]` to the pooled output.
    fn pool_class(&self, class: &Tensor) -> Tensor {
        let mut class = self.post_norm.forward(class);
        if self.config.variant == VitVariant::Blip {
            class = self.post_norm.forward(&class);
        }
        match &self.pooling {
            Pooling::Pooler(dense) => dense.forward(&class).tanh(),
            Pooling::Class | Pooling::Map(_) | Pooling::Mean => class,
        }
    }

    /// The config of the tower.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Prepares for inference in `precision`; outputs are of its kind.
    pub fn pack(&mut self, precision: Precision) {
        self.patch_embedding.pack(precision);
        for table in [&mut self.position_embedding].into_iter().chain(&mut self.class_token) {
            *table = table.detach().to_kind(precision.kind());
        }
        if let Some(norm) = &mut self.pre_norm {
            norm.pack(precision);
        }
        self.encoder.pack(precision);
        self.post_norm.pack(precision);
        match &mut self.pooling {
            Pooling::Class | Pooling::Mean => {}
            Pooling::Pooler(dense) => dense.pack(precision),
            Pooling::Map(head) => head.pack(precision),
        }
    }
}

impl ImageTower for Vit {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let dropout = if train { self.config.patch_dropout } else { 0.0 };
        self.forward_train(pixel_values, 1.0 - dropout)
    }

    fn forward_blocks(&self, pixel_values: &Tensor) -> Vec<Tensor> {
        self.forward_blocks(pixel_values)
    }

    fn forward_with_taps(&self, pixel_values: &Tensor) -> HeatMapTaps {
        HeatMapTaps::Attention(self.forward_with_attention(pixel_values))
    }

    fn forward_tokens(&self, pixel_values: &Tensor, _train: bool) -> Tensor {
        self.forward_tokens(pixel_values)
    }

    fn output_width(&self) -> i64 {
        self.config.hidden_size
    }

    fn pack(&mut self, precision: Precision) {
        self.pack(precision);
    }
}

/// The mean of `tokens` `[B, L, hidden]`, `[B, hidden]`.
fn mean(tokens: &Tensor) -> Tensor {
    tokens.mean_dim([1i64].as_slice(), false, tokens.kind())
}

/// Keeps a random share of the patches `[B, N, width]`, drawn for each image.
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

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;
    use std::sync::Mutex;
    use tch::Device;
    use tch::nn::VarStore;

    /// libtorch's CPU generator is shared by a process: tests that draw from it take turns.
    static GENERATOR: Mutex<()> = Mutex::new(());

    fn tiny(variant: VitVariant) -> Vit {
        let sizes =
            VitConfig { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, ..Default::default() };
        let config = VitConfig { variant, num_attention_heads: 2, image_size: 32, patch_size: 8, ..sizes };
        Vit::new(&VarStore::new(Device::Cpu).root(), config).unwrap()
    }

    #[test]
    fn patch_dropout_is_fixed_by_the_seed_and_draws_nothing_when_all_is_kept() {
        let _turn = GENERATOR.lock();
        for variant in [VitVariant::Clip, VitVariant::Siglip, VitVariant::Vit] {
            let vit = tiny(variant);
            let x = normal(1, &[3, 3, 32, 32]);
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
    fn the_states_end_in_the_tokens_and_a_tower_without_a_head_has_the_same() {
        let x = normal(2, &[2, 3, 32, 32]);
        let clip = tiny(VitVariant::Clip);
        assert_eq!(clip.forward_hidden(&x, 2), clip.forward_tokens(&x));
        assert_eq!(clip.forward_hidden(&x, 1).size(), [2, 17, 16]);
        let vs = VarStore::new(Device::Cpu);
        let tower = Vit::without_head(&vs.root(), tiny(VitVariant::Siglip).config).unwrap();
        assert!(vs.variables().keys().all(|name| !name.starts_with("head.")));
        let tokens = tower.forward_tokens(&x);
        let (pooled, expected) = (tower.forward(&x), tokens.mean_dim([1i64].as_slice(), false, Kind::Float));
        assert!((pooled - expected).abs().max().double_value(&[]) < 1e-6);
        let tower = tower.with_bucketed_positions();
        assert_eq!(tower.forward_tokens(&x), tokens);
        assert_eq!(tower.forward_tokens(&normal(3, &[1, 3, 16, 24])).size(), [1, 6, 16]);
    }

    #[test]
    fn each_image_keeps_its_own_whole_patches() {
        let _turn = GENERATOR.lock();
        let patches =
            Tensor::arange(2 * 16, (Kind::Float, Device::Cpu)).view([2, 16, 1]).expand([2, 16, 5], false);
        let kept = keep_patches(patches, 0.25);
        assert_eq!(kept.size(), [2, 4, 5]);
        assert_eq!(kept, kept.narrow(2, 0, 1).expand([2, 4, 5], false));
        let image = kept.select(2, 0).divide_scalar_mode(16.0, "floor"); // which image each patch is of
        assert_eq!(image, Tensor::from_slice(&[0.0f32, 1.0]).view([2, 1]).expand([2, 4], false));
    }
}
