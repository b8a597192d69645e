//! A stack of transformer blocks.

use super::attention::take_positions;
use super::block::BlockCache;
use super::{AttentionMask, Block, BlockConfig, BlockNames, Context, Rotary};
use crate::Precision;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::Tensor;
use tch::nn::Path;

/// A stack of [`Block`]s, named by their index.
///
/// ```
/// use mm_core::nn::{AttentionMask, BlockConfig, BlockNames, Context, Transformer};
/// use tch::{Device, Kind, Tensor, nn::VarStore};
///
/// // A decoder of captions that reads the 49 features of an image.
/// let (width, heads, mlp_width, layers) = (32, 4, 128, 2);
/// let config =
///     BlockConfig { width, heads, mlp_width, layers, context_width: Some(48), ..BlockConfig::default() };
/// let vs = VarStore::new(Device::Cpu);
/// let decoder = Transformer::new(&(vs.root() / "layers"), &config, &BlockNames::CLIP);
/// let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
/// let context = Context { states: random(&[1, 49, 48]), mask: AttentionMask::none() };
///
/// // Three beams of one image: a prompt of four tokens, then one token a step.
/// let mut cache = decoder.new_cache(20, Some(&context));
/// let y = decoder.forward_cached(random(&[3, 4, 32]), &AttentionMask::causal(), &mut cache);
/// assert_eq!(y.size(), [3, 4, 32]);
/// cache.select_rows(&Tensor::from_slice(&[0i64, 0, 2])); // the second beam goes on from the first
/// let y = decoder.forward_cached(random(&[3, 1, 32]), &AttentionMask::causal(), &mut cache);
/// assert_eq!((y.size(), cache.length()), (vec![3, 1, 32], 5));
/// ```
#[derive(Debug)]
pub struct Transformer {
    /// Shared with the graphs of checkpointed blocks, which may run on one of libtorch's threads. Tensors may
    /// be moved to another thread but not be used from two: hence the lock, which is never contended.
    blocks: Vec<Arc<Mutex<Block>>>,
    /// The rotary positions of grouped attention.
    rotary: Option<Rotary>,
    gradient_checkpointing: bool,
}

/// The keys and values of a decoder, by block: of its own positions so far, and of the context that
/// cross-attention reads. See [`Transformer::new_cache`].
#[derive(Debug)]
pub struct KeyValueCache {
    blocks: Vec<BlockCache>,
    context_mask: AttentionMask,
}

impl KeyValueCache {
    /// Positions held.
    pub fn length(&self) -> i64 {
        self.blocks.first().map_or(0, |block| block.positions.length())
    }

    /// Makes row `i` what row `rows[i]` was, `rows` `[B']` (i64): for beams that go on from other beams, and
    /// for prompts of which several continuations are drawn. Rows stay with their context. Memory is
    /// allocated anew only where the number of rows changes.
    pub fn select_rows(&mut self, rows: &Tensor) {
        self.blocks.iter_mut().for_each(|block| block.positions.select_rows(rows));
    }

    /// Drops all contexts but those in `order`, of which `order[i]` becomes context `i`: for images whose
    /// captions are done. Their rows are dropped by [`KeyValueCache::select_rows`]. Only contexts that move
    /// are copied.
    ///
    /// # Panics
    /// `order[i] < i`: a context moves to the front only, into the place of one that is dropped.
    pub fn keep_contexts(&mut self, order: &[i64]) {
        assert!((0..).zip(order).all(|(to, &from)| to <= from), "contexts move to the front: {order:?}");
        let contexts = self.blocks.iter_mut().filter_map(|block| block.context.as_mut());
        contexts.for_each(|context| context.keep(order));
        self.context_mask.keep_rows(order);
    }
}

impl Transformer {
    /// Creates `config.layers` blocks below `path`: `path.0`, `path.1`, ..., each under the `names` of its
    /// family.
    pub fn new(path: &Path, config: &BlockConfig, names: &BlockNames) -> Self {
        let block = |layer: i64| Arc::new(Mutex::new(Block::new(&(path / layer), config, names)));
        let rotary =
            config.grouped.map(|queries| Rotary::new(&queries.rope, queries.head_width, path.device()));
        let gradient_checkpointing = config.gradient_checkpointing;
        Self { blocks: (0..config.layers).map(block).collect(), rotary, gradient_checkpointing }
    }

    /// Maps `x` `[B, L, width]` to the same shape.
    pub fn forward(&self, x: Tensor, mask: &AttentionMask) -> Tensor {
        self.forward_blocks(x, mask, None, None)
    }

    /// As [`Transformer::forward`], for blocks with cross-attention.
    pub fn forward_with_context(&self, x: Tensor, mask: &AttentionMask, context: &Context) -> Tensor {
        self.forward_blocks(x, mask, Some(context), None)
    }

    /// [`Transformer::forward`] where a pooled model reads it: at one position a row, `positions` `[B]`
    /// (i64), giving `[B, width]`. Same numbers, less work: of the last block, only what these positions need
    /// is computed.
    pub fn forward_at(&self, x: Tensor, mask: &AttentionMask, positions: &Tensor) -> Tensor {
        self.forward_blocks(x, mask, None, Some(positions))
    }

    /// An empty cache for decoding up to `max_length` positions. The keys and values of `context`, which
    /// blocks with cross-attention need, are computed here, once for all steps and for all rows that read
    /// them.
    pub fn new_cache(&self, max_length: i64, context: Option<&Context>) -> KeyValueCache {
        let context = context.map(Context::prepared);
        let context_mask =
            context.as_ref().map_or_else(AttentionMask::none, |context| context.mask.shallow_clone());
        let new_cache = |block: &Arc<Mutex<Block>>| lock(block).new_cache(max_length, context.as_ref());
        KeyValueCache { blocks: self.blocks.iter().map(new_cache).collect(), context_mask }
    }

    /// As [`Transformer::forward`] or [`Transformer::forward_with_context`], at the L positions after those
    /// in `cache`, which it appends: `x` `[B, L, width]` to the same shape. A decoder's prompt is one call,
    /// each token after it another; with a causal mask the result equals that of one call over all positions.
    /// `mask` covers all keys, those in the cache first: for prompts of different lengths,
    /// [`AttentionMask::padding`] of `[B, cache.length() + L]`, made causal. For inference: no gradient
    /// reaches what is in the cache.
    ///
    /// # Panics
    /// The positions exceed the cache's `max_length`, or the batch is not that of the last call.
    pub fn forward_cached(&self, x: Tensor, mask: &AttentionMask, cache: &mut KeyValueCache) -> Tensor {
        let mask = self.prepared(mask, &x, cache.length());
        let KeyValueCache { blocks, context_mask } = cache;
        self.blocks
            .iter()
            .zip(blocks)
            .fold(x, |x, (block, cache)| lock(block).forward_cached(&x, &mask, context_mask, cache))
    }

    /// As [`Transformer::forward`], giving the input and the output of each block, `[B, L, width]`.
    pub fn forward_states(&self, x: Tensor, mask: &AttentionMask) -> Vec<Tensor> {
        let inputs = BlockInputs { mask: self.prepared(mask, &x, 0), context: None, positions: None };
        let mut states = vec![x];
        for block in &self.blocks {
            states.push(self.run(block, &states[states.len() - 1], &inputs));
        }
        states
    }

    /// As [`Transformer::forward`], also giving each layer's attention weights `[B, heads, L, L]`.
    pub fn forward_with_weights(&self, x: Tensor, mask: &AttentionMask) -> (Tensor, Vec<Tensor>) {
        self.forward_blocks_with_weights(x, mask, None)
    }

    /// As [`Transformer::forward_with_context`], also giving each layer's self-attention weights
    /// `[B, heads, L, L]`. Slower; for analysis.
    pub fn forward_with_context_and_self_weights(
        &self,
        x: Tensor,
        mask: &AttentionMask,
        context: &Context,
    ) -> (Tensor, Vec<Tensor>) {
        self.forward_blocks_with_weights(x, mask, Some(&context.prepared()))
    }

    fn forward_blocks_with_weights(
        &self,
        x: Tensor,
        mask: &AttentionMask,
        context: Option<&Context>,
    ) -> (Tensor, Vec<Tensor>) {
        let mask = self.prepared(mask, &x, 0);
        let mut all = Vec::with_capacity(self.blocks.len());
        let x = self.blocks.iter().fold(x, |x, block| {
            let (x, weights) = lock(block).forward_with_weights(&x, &mask, context);
            all.push(weights);
            x
        });
        (x, all)
    }

    /// As [`Transformer::forward_with_context`], also giving each layer's cross-attention weights
    /// `[B, heads, L, S]`. Slower; for analysis.
    pub fn forward_with_context_weights(
        &self,
        x: Tensor,
        mask: &AttentionMask,
        context: &Context,
    ) -> (Tensor, Vec<Tensor>) {
        let (mask, context) = (self.prepared(mask, &x, 0), context.prepared());
        let mut all = Vec::with_capacity(self.blocks.len());
        let x = self.blocks.iter().fold(x, |x, block| {
            let (x, weights) = lock(block).forward_with_context_weights(&x, &mask, &context);
            all.push(weights);
            x
        });
        (x, all)
    }

    /// The output at all positions, or at one a row, where these are given.
    fn forward_blocks(
        &self,
        x: Tensor,
        mask: &AttentionMask,
        context: Option<&Context>,
        positions: Option<&Tensor>,
    ) -> Tensor {
        let mut inputs = BlockInputs {
            mask: self.prepared(mask, &x, 0),
            context: context.map(Context::prepared),
            positions: None,
        };
        let Some((last, blocks)) = self.blocks.split_last() else {
            return positions.map_or_else(|| x.shallow_clone(), |positions| take_positions(&x, positions));
        };
        let x = blocks.iter().fold(x, |x, block| self.run(block, &x, &inputs));
        inputs.positions = positions.map(Tensor::shallow_clone);
        self.run(last, &x, &inputs)
    }

    /// `mask` for self-attention of `x` `[B, L, width]` after `cached` positions, with the rotations of the L
    /// positions, computed once for all blocks.
    fn prepared(&self, mask: &AttentionMask, x: &Tensor, cached: i64) -> AttentionMask {
        let (queries, device) = (x.size()[1], x.device());
        let keys = cached + queries;
        let prepared = mask.prepared(queries, keys, device);
        match &self.rotary {
            Some(rotary) => prepared.with_rotary(rotary.table(&mask.query_positions(queries, keys, device))),
            None => prepared,
        }
    }

    /// One block's output for `x`.
    fn run(&self, block: &Arc<Mutex<Block>>, x: &Tensor, inputs: &BlockInputs) -> Tensor {
        if self.gradient_checkpointing {
            inputs.checkpointed(block, x)
        } else {
            inputs.forward(&lock(block), x)
        }
    }

    /// Turns dropout on or off. It is off at first.
    pub fn set_training(&self, on: bool) {
        self.blocks.iter().for_each(|block| lock(block).set_training(on));
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.blocks.iter().for_each(|block| lock(block).pack(precision));
    }
}

/// The inputs of a block beside the residual stream.
struct BlockInputs {
    /// Prepared.
    mask: AttentionMask,
    context: Option<Context>,
    /// `[B]` (i64): the positions at which the output is wanted; none: all.
    positions: Option<Tensor>,
}

impl BlockInputs {
    fn forward(&self, block: &Block, x: &Tensor) -> Tensor {
        match &self.positions {
            None => block.forward(x, &self.mask, self.context.as_ref()),
            Some(positions) => block.forward_at(x, &self.mask, self.context.as_ref(), positions),
        }
    }

    /// [`BlockInputs::forward`], of which the graph keeps the inputs only.
    fn checkpointed(&self, block: &Arc<Mutex<Block>>, x: &Tensor) -> Tensor {
        let mut inputs = self.shallow_clone();
        let mut with_gradient = vec![x.shallow_clone()];
        with_gradient.extend(inputs.gradient_slots().into_iter().map(|tensor| tensor.shallow_clone()));
        let block = Arc::clone(block);
        let output = if with_gradient.len() == 1 {
            mm_sys::checkpointed(x, move |x| inputs.forward(&lock(&block), x))
        } else {
            // The graph of a checkpoint has one input: all that need a gradient go in as one tensor.
            let parts: Vec<(Vec<i64>, tch::Kind)> =
                with_gradient.iter().map(|tensor| (tensor.size(), tensor.kind())).collect();
            let flat: Vec<Tensor> = with_gradient.iter().map(|tensor| tensor.flatten(0, -1)).collect();
            mm_sys::checkpointed(&Tensor::cat(&flat, 0), move |flat| {
                let sizes: Vec<i64> = parts.iter().map(|(size, _)| size.iter().product()).collect();
                let mut parts = flat
                    .split_with_sizes(&sizes, 0)
                    .into_iter()
                    .zip(&parts)
                    .map(|(part, (size, kind))| part.view(size.as_slice()).to_kind(*kind));
                let x = parts.next().expect("x comes first");
                let mut inputs = inputs.shallow_clone();
                inputs.gradient_slots().into_iter().zip(parts).for_each(|(slot, part)| *slot = part);
                inputs.forward(&lock(&block), &x)
            })
        };
        output.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The tensors that need a gradient.
    fn gradient_slots(&mut self) -> Vec<&mut Tensor> {
        let bias = self.mask.bias_mut();
        let context = self.context.as_mut();
        let context =
            context.into_iter().flat_map(|Context { states, mask }| [Some(states), mask.bias_mut()]);
        std::iter::once(bias).chain(context).flatten().filter(|tensor| tensor.requires_grad()).collect()
    }

    fn shallow_clone(&self) -> Self {
        Self {
            mask: self.mask.shallow_clone(),
            context: self.context.as_ref().map(Context::shallow_clone),
            positions: self.positions.as_ref().map(Tensor::shallow_clone),
        }
    }
}

/// A block's state is its parameters, which a panic in a forward pass leaves as they are.
fn lock(block: &Mutex<Block>) -> MutexGuard<'_, Block> {
    block.lock().unwrap_or_else(PoisonError::into_inner)
}
