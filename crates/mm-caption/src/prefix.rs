//! ClipCap's mapping networks and the decoder behind their prefix (Mokady et al. 2021).

use crate::config::{PrefixConfig, PrefixMapperConfig};
use mm_core::Precision;
use mm_core::nn::{Activation, Attention, AttentionMask, Context, LayerNorm, Linear, Mlp, parameter};
use mm_text::decoder::{Decoder, DecoderCache, TextDecoder};
use std::cell::RefCell;
use tch::Tensor;
use tch::nn::{Init, Path};

/// Heads of the mapping transformer.
pub(crate) const MAPPER_HEADS: i64 = 8;

/// From a CLIP embedding to the vectors before a caption. Parameter names are those of the authors' code.
#[derive(Debug)]
pub(crate) enum PrefixMapper {
    /// Two linear layers with tanh between (section 3.2).
    Mlp { first: Linear, second: Linear, length: i64, width: i64 },
    /// A transformer over vectors made from the embedding and as many learned ones (section 3.3), whose
    /// outputs at the learned ones are the prefix.
    Transformer { linear: Linear, prefix_const: Tensor, layers: Vec<MapperLayer>, clip_length: i64 },
}

impl PrefixMapper {
    /// Creates the parameters below `path`, from embeddings of `config.projection` numbers to vectors of
    /// `width`.
    pub fn new(path: &Path, config: &PrefixConfig, width: i64) -> Self {
        let PrefixConfig { length, projection, .. } = *config;
        match config.mapper {
            PrefixMapperConfig::Mlp => {
                let (inner, model) = (width * length / 2, path / "model");
                Self::Mlp {
                    first: Linear::new(&(&model / 0), projection, inner, linear_std(projection)),
                    second: Linear::new(&(&model / 2), inner, width * length, linear_std(inner)),
                    length,
                    width,
                }
            }
            PrefixMapperConfig::Transformer { clip_length, layers } => {
                let (outputs, std) = (clip_length * width, linear_std(projection));
                let normal = Init::Randn { mean: 0.0, stdev: 1.0 };
                let below = path / "transformer" / "layers";
                Self::Transformer {
                    linear: Linear::new(&(path / "linear"), projection, outputs, std),
                    prefix_const: parameter(path, "prefix_const", &[length, width], normal),
                    layers: (0..layers).map(|layer| MapperLayer::new(&(&below / layer), width)).collect(),
                    clip_length,
                }
            }
        }
    }

    /// Maps embeddings `[B, projection]` to prefixes `[B, length, width]`.
    pub fn forward(&self, embeddings: &Tensor) -> Tensor {
        match self {
            Self::Mlp { first, second, length, width } => {
                second.forward(&first.forward(embeddings).tanh()).view([-1, *length, *width])
            }
            Self::Transformer { linear, prefix_const, layers, clip_length } => {
                let (length, width) = prefix_const.size2().expect("the constant is [length, width]");
                let x = linear.forward(embeddings).view([-1, *clip_length, width]);
                let learned = prefix_const.unsqueeze(0).expand([x.size()[0], length, width], false);
                let x = Tensor::cat(&[x, learned], 1);
                layers.iter().fold(x, |x, layer| layer.forward(&x)).narrow(1, *clip_length, length)
            }
        }
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        match self {
            Self::Mlp { first, second, .. } => {
                first.pack(precision);
                second.pack(precision);
            }
            Self::Transformer { linear, prefix_const, layers, .. } => {
                linear.pack(precision);
                *prefix_const = prefix_const.detach().to_kind(precision.kind());
                layers.iter_mut().for_each(|layer| layer.pack(precision));
            }
        }
    }
}

/// A block of the transformer. Its projections have names and biases that no other family has.
#[derive(Debug)]
pub(crate) struct MapperLayer {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl MapperLayer {
    fn new(path: &Path, width: i64) -> Self {
        let std = linear_std(width);
        let (attention, mlp) = (path / "attn", path / "mlp");
        let queries = Linear::without_bias(&(&attention / "to_queries"), width, width, std);
        let keys_values = Linear::without_bias(&(&attention / "to_keys_values"), width, 2 * width, std);
        let project = Linear::new(&(&attention / "project"), width, width, std);
        let fc1 = Linear::new(&(&mlp / "fc1"), width, 2 * width, std);
        let fc2 = Linear::new(&(&mlp / "fc2"), 2 * width, width, linear_std(2 * width));
        Self {
            norm1: LayerNorm::new(&(path / "norm1"), width, 1e-5),
            attention: Attention::cross(queries, keys_values, project, MAPPER_HEADS),
            norm2: LayerNorm::new(&(path / "norm2"), width, 1e-5),
            mlp: Mlp::new(fc1, fc2, Activation::Relu),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let normed = self.norm1.forward(x);
        let x = x + self.attention.forward_context(&normed, &normed, &AttentionMask::none());
        &x + self.mlp.forward(&self.norm2.forward(&x))
    }

    fn pack(&mut self, precision: Precision) {
        self.norm1.pack(precision);
        self.attention.pack(precision);
        self.norm2.pack(precision);
        self.mlp.pack(precision);
    }
}

/// The standard deviation of PyTorch's initial weights of a linear layer.
pub(crate) fn linear_std(inputs: i64) -> f64 {
    (3.0 * inputs as f64).powf(-0.5)
}

/// A decoder that reads a prefix of vectors before each prompt.
pub(crate) struct PrefixedDecoder<'a> {
    decoder: &'a dyn TextDecoder,
    /// `[R, P, D]`; taken by the first step.
    prefix: RefCell<Option<Tensor>>,
    length: i64,
}

impl<'a> PrefixedDecoder<'a> {
    /// `decoder` after `prefix` `[R, P, D]`, a row for each prompt.
    pub fn new(decoder: &'a dyn TextDecoder, prefix: Tensor) -> Self {
        Self { decoder, length: prefix.size()[1], prefix: RefCell::new(Some(prefix)) }
    }
}

impl Decoder for PrefixedDecoder<'_> {
    fn vocab_size(&self) -> i64 {
        self.decoder.sizes().vocab_size
    }

    fn max_length(&self) -> i64 {
        self.decoder.sizes().max_length - self.length
    }

    fn has_prefix(&self) -> bool {
        true
    }

    fn new_cache(&self, capacity: i64, context: Option<&Context>) -> DecoderCache {
        self.decoder.new_cache(self.length + capacity, context)
    }

    fn start(&self, prompts: &[&[u32]], cache: &mut DecoderCache) -> Tensor {
        let prefix = self.prefix.take().expect("a prefix is read once");
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0) as i64;
        let mut padding = Vec::with_capacity(prompts.len());
        let mut rows = Vec::with_capacity(prompts.len());
        for (row, prompt) in (0..).zip(prompts) {
            // Padding comes first, then the prefix, then the prompt.
            let ids: Vec<i64> = prompt.iter().map(|&id| i64::from(id)).collect();
            let tokens = self.decoder.embed_tokens(&Tensor::from_slice(&ids).to_device(cache.device));
            let missing = longest - prompt.len() as i64;
            rows.push(Tensor::cat(&[prefix.get(row), tokens], 0).constant_pad_nd([0, 0, missing, 0]));
            padding.push(missing);
        }
        cache.set_padding(padding);
        self.decoder.step_vectors(&Tensor::stack(&rows, 0), cache)
    }

    fn step(&self, tokens: &Tensor, cache: &mut DecoderCache) -> Tensor {
        self.decoder.step(tokens, cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::clip_prefix_config;
    use mm_core::checkpoint::Weights;
    use mm_core::loss::token_cross_entropy;
    use mm_text::decoder::{GPT2_LAYOUT, Gpt2, Gpt2Config};
    use std::collections::HashMap;
    use std::path::{Path as FilePath, PathBuf};
    use tch::nn::VarStore;
    use tch::{Device, Kind};

    fn golden(folder: &str) -> PathBuf {
        FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/caption").join(folder)
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn both_mapping_networks_equal_clipcaps_with_their_gradients() {
        for folder in ["clip-prefix-mlp", "clip-prefix-transformer"] {
            let folder = golden(folder);
            let config = mm_core::read_json::<serde_json::Value>(&folder.join("config.json")).unwrap();
            let prefix_config = clip_prefix_config(&config).unwrap();
            let vs = VarStore::new(Device::Cpu);
            let gpt2 = Gpt2Config::from_hf(&config["gpt"]).unwrap();
            let width = gpt2.n_embd;
            let mapper = PrefixMapper::new(&(vs.root() / "clip_project"), &prefix_config, width);
            let decoder = Gpt2::new(&(vs.root() / "gpt"), &gpt2, None).unwrap();
            let mut weights = Weights::open_folder(&folder, "model").unwrap();
            mm_text::decoder::drop_copies(&mut weights);
            weights.fill(vs.variables().into_iter().collect(), &GPT2_LAYOUT).unwrap();
            let expected: HashMap<String, Tensor> =
                Tensor::read_safetensors(folder.join("expected.safetensors")).unwrap().into_iter().collect();

            let prefix = mapper.forward(&expected["clip_embeddings"]);
            assert!(difference(&prefix, &expected["prefix"]) < 1e-4);
            let mask = expected["attention_mask"].unsqueeze(-1);
            let tokens = decoder.embed_tokens(&expected["input_ids"]);
            let hidden = decoder.forward_vectors(&Tensor::cat(&[prefix, tokens], 1), None);
            let logits = decoder.logits(&hidden);
            assert!(difference(&(&logits * &mask), &(&expected["logits"] * &mask)) < 1e-4);

            // The labels are where the peer has them: it shifts them itself.
            let labels = expected["labels"].narrow(1, 1, logits.size()[1] - 1).reshape([-1]);
            let shifted = logits.narrow(1, 0, logits.size()[1] - 1);
            let shifted = shifted.reshape([-1, logits.size()[2]]);
            let count = labels.ne(-100).sum(Kind::Int64);
            let loss = token_cross_entropy(&shifted, &labels, 0.0) / count;
            assert!(difference(&loss, &expected["loss"]) < 1e-4);
            loss.backward();
            let mut compared = 0;
            for (name, variable) in vs.variables() {
                let Some(expected) = expected.get(&format!("grad.{name}")) else { continue };
                assert!(difference(&variable.grad(), expected) < 1e-5, "{name}");
                compared += 1;
            }
            assert!(compared >= 4);
        }
    }
}
