use super::activation::QUICK_GELU_SLOPE;
use super::attention::take_positions;
use super::{Activation, Attention, AttentionMask, LayerNorm, Linear};
use crate::Precision;
use mm_sys::PostOp;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::Tensor;
use tch::nn::Path;

/// Where a block normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOrder {
    /// Before each sub-layer (GPT-2, ViT, CLIP).
    Pre,
    /// After each residual sum (the original transformer, BERT).
    Post,
}

/// The sizes of a transformer block.
#[derive(Clone, Copy, Debug)]
pub struct BlockConfig {
    /// Width of the residual stream.
    pub width: i64,
    /// Attention heads; divides `width`.
    pub heads: i64,
    /// Width between the MLP's two linear layers.
    pub mlp_width: i64,
    /// The MLP's activation.
    pub activation: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Where the block normalises.
    pub norm_order: NormOrder,
    /// Number of blocks in the stack, which scales the initial weights of the projections back into the
    /// residual stream.
    pub layers: i64,
}

/// Two linear layers with an activation between: `fc1` `[mlp_width, width]`, `fc2` `[width, mlp_width]`.
#[derive(Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl Mlp {
    /// Creates `fc1` and `fc2` below `path`, with the initial standard deviations given.
    pub fn new(path: &Path, config: &BlockConfig, fc1_std: f64, fc2_std: f64) -> Self {
        let fc1 = Linear::new(&(path / "fc1"), config.width, config.mlp_width, fc1_std);
        let fc2 = Linear::new(&(path / "fc2"), config.mlp_width, config.width, fc2_std);
        Self { fc1, fc2, activation: config.activation }
    }

    /// Uses layers made elsewhere, for checkpoints that name them otherwise.
    pub fn from_parts(fc1: Linear, fc2: Linear, activation: Activation) -> Self {
        Self { fc1, fc2, activation }
    }

    /// Maps `x` `[..., width]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if !self.fc1.is_packed() {
            return self.fc2.forward(&self.activation.forward(&self.fc1.forward(x)));
        }
        let post = match self.activation {
            Activation::QuickGelu => PostOp::Swish, // its slope sits in the packed weights
            Activation::Gelu => PostOp::Gelu,
            Activation::GeluPytorchTanh => PostOp::GeluTanh,
            Activation::Relu => PostOp::Relu,
        };
        self.fc2.forward(&self.fc1.forward_then(x, post))
    }

    /// Readies for inference in `precision`. oneDNN fuses `x sigmoid(x)` but not quick GELU's
    /// `x sigmoid(a x)`, so `a` moves into the weights: `fc1` is scaled by `a` and `fc2`'s weight by `1 / a`.
    pub fn pack(&mut self, precision: Precision) {
        let slope = if self.activation == Activation::QuickGelu { QUICK_GELU_SLOPE } else { 1.0 };
        self.fc1.pack_scaled(precision, slope, slope);
        self.fc2.pack_scaled(precision, slope.recip(), 1.0);
    }
}

/// A transformer block: attention and an MLP, each with a residual connection and a layer norm. Names are
/// those of CLIP's encoder layers: `self_attn`, `layer_norm1`, `mlp`, `layer_norm2`.
#[derive(Debug)]
pub struct Block {
    attention: Attention,
    norm1: LayerNorm,
    mlp: Mlp,
    norm2: LayerNorm,
    norm_order: NormOrder,
}

impl Block {
    /// Creates the block's parameters below `path`, initialised as OpenAI's CLIP does.
    pub fn new(path: &Path, config: &BlockConfig) -> Self {
        let (width, eps) = (config.width as f64, config.layer_norm_eps);
        let in_std = width.powf(-0.5);
        let out_std = in_std * (2.0 * config.layers as f64).powf(-0.5);
        let fc1_std = (2.0 * width).powf(-0.5);
        Self {
            attention: Attention::new(&(path / "self_attn"), config.width, config.heads, in_std, out_std),
            norm1: LayerNorm::new(&(path / "layer_norm1"), config.width, eps),
            mlp: Mlp::new(&(path / "mlp"), config, fc1_std, out_std),
            norm2: LayerNorm::new(&(path / "layer_norm2"), config.width, eps),
            norm_order: config.norm_order,
        }
    }

    /// Uses layers made elsewhere, for checkpoints that name them otherwise. `norm1` belongs to the
    /// attention, `norm2` to the MLP.
    pub fn from_parts(
        attention: Attention,
        norm1: LayerNorm,
        mlp: Mlp,
        norm2: LayerNorm,
        norm_order: NormOrder,
    ) -> Self {
        Self { attention, norm1, mlp, norm2, norm_order }
    }

    /// Maps `x` `[B, L, width]` to the same shape.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Tensor {
        self.run(x, x, |x| self.attention.forward(x, mask))
    }

    /// [`Block::forward`] at one position a row, `positions` `[B]` (i64): `[B, width]`.
    fn forward_at(&self, x: &Tensor, mask: &AttentionMask, positions: &Tensor) -> Tensor {
        self.run(x, &take_positions(x, positions), |x| self.attention.forward_at(x, mask, positions))
    }

    /// As [`Block::forward`], also giving the attention weights `[B, heads, L, L]`.
    pub fn forward_with_weights(&self, x: &Tensor, mask: &AttentionMask) -> (Tensor, Tensor) {
        let mut weights = None;
        let y = self.run(x, x, |x| {
            let (y, attention) = self.attention.forward_with_weights(x, mask);
            weights = Some(attention);
            y
        });
        (y, weights.expect("a block attends once"))
    }

    /// Runs the block on `x`; `residual` is `x` where the output is wanted, which is where `attend` gives its
    /// own.
    fn run(&self, x: &Tensor, residual: &Tensor, attend: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        match self.norm_order {
            NormOrder::Pre => {
                let x = residual + attend(&self.norm1.forward(x));
                &x + self.mlp.forward(&self.norm2.forward(&x))
            }
            NormOrder::Post => {
                let x = self.norm1.forward(&(residual + attend(x)));
                self.norm2.forward(&(&x + self.mlp.forward(&x)))
            }
        }
    }

    /// Readies for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.attention.pack(precision);
        self.norm1.pack(precision);
        self.mlp.pack(precision);
        self.norm2.pack(precision);
    }
}

/// A stack of [`Block`]s, named by their index.
#[derive(Debug)]
pub struct Transformer {
    /// Shared with the graphs of checkpointed blocks. Those may be run on a thread of libtorch's, and tensors
    /// may be moved to another thread but not be used from two: hence the lock, which nobody waits for.
    blocks: Vec<Arc<Mutex<Block>>>,
    gradient_checkpointing: bool,
}

impl Transformer {
    /// Creates `config.layers` blocks below `path`: `path.0`, `path.1`, ...
    pub fn new(path: &Path, config: &BlockConfig) -> Self {
        Self::from_blocks((0..config.layers).map(|layer| Block::new(&(path / layer), config)).collect())
    }

    /// Uses blocks made elsewhere.
    pub fn from_blocks(blocks: Vec<Block>) -> Self {
        let blocks = blocks.into_iter().map(|block| Arc::new(Mutex::new(block))).collect();
        Self { blocks, gradient_checkpointing: false }
    }

    /// Whether training keeps each block's input alone and computes the rest again in the backward pass (Chen
    /// et al. 2016): the same gradients, a third more time, a fraction of the memory. Off at first, and
    /// without effect where nothing needs a gradient.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        self.gradient_checkpointing = on;
    }

    /// Maps `x` `[B, L, width]` to the same shape.
    pub fn forward(&self, x: Tensor, mask: &AttentionMask) -> Tensor {
        self.blocks.iter().fold(x, |x, block| self.run(block, &x, mask, None))
    }

    /// [`Transformer::forward`] where a pooled model reads it: at one position a row, `positions` `[B]`
    /// (i64), giving `[B, width]`. Same numbers, less work: of the last block, only what these positions need
    /// is computed.
    pub fn forward_at(&self, x: Tensor, mask: &AttentionMask, positions: &Tensor) -> Tensor {
        match self.blocks.split_last() {
            None => take_positions(&x, positions),
            Some((last, blocks)) => {
                let x = blocks.iter().fold(x, |x, block| self.run(block, &x, mask, None));
                self.run(last, &x, mask, Some(positions))
            }
        }
    }

    /// One block's output for `x`, at all positions or at those given.
    fn run(
        &self,
        block: &Arc<Mutex<Block>>,
        x: &Tensor,
        mask: &AttentionMask,
        positions: Option<&Tensor>,
    ) -> Tensor {
        let forward = |block: &Mutex<Block>, x: &Tensor, mask: &AttentionMask, positions: Option<&Tensor>| {
            let block = lock(block);
            match positions {
                None => block.forward(x, mask),
                Some(positions) => block.forward_at(x, mask, positions),
            }
        };
        if !self.gradient_checkpointing {
            return forward(block, x, mask, positions);
        }
        let (block, mask, positions) =
            (Arc::clone(block), mask.shallow_clone(), positions.map(Tensor::shallow_clone));
        mm_sys::checkpointed(x, move |x| forward(&block, x, &mask, positions.as_ref()))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Transformer::forward`], also giving each layer's attention weights `[B, heads, L, L]`.
    pub fn forward_with_weights(&self, x: Tensor, mask: &AttentionMask) -> (Tensor, Vec<Tensor>) {
        let mut all = Vec::with_capacity(self.blocks.len());
        let x = self.blocks.iter().fold(x, |x, block| {
            let (x, weights) = lock(block).forward_with_weights(&x, mask);
            all.push(weights);
            x
        });
        (x, all)
    }

    /// Readies for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.blocks.iter().for_each(|block| lock(block).pack(precision));
    }
}

/// A block's state is its parameters, which a panic in a forward pass leaves as they are.
fn lock(block: &Mutex<Block>) -> MutexGuard<'_, Block> {
    block.lock().unwrap_or_else(PoisonError::into_inner)
}
