//! Stacks of Llama's form: grouped queries, rotary positions, gated MLPs and root-mean-square norms.

use mm_core::Precision;
use mm_core::nn::{
    AttentionMask, BlockConfig, BlockNames, GroupedQueries, MlpKind, NormKind, RopeConfig, RopeScaling,
    Transformer,
};
use mm_testing::{initialize, normal};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const WIDTH: i64 = 16;

fn config(kv_heads: i64) -> BlockConfig {
    let rope = RopeConfig { theta: 100.0, scaling: RopeScaling::Linear { factor: 2.0 } };
    BlockConfig {
        width: WIDTH,
        heads: 4,
        grouped: Some(GroupedQueries { kv_heads, head_width: 6, in_bias: true, out_bias: false, rope }),
        mlp_width: 20,
        mlp: MlpKind::Gated,
        norm: NormKind::Rms,
        layers: 3,
        ..BlockConfig::default()
    }
}

fn transformer(vs: &mut VarStore, config: &BlockConfig, kind: Kind) -> Transformer {
    let transformer = Transformer::new(&(vs.root() / "layers"), config, &BlockNames::LLAMA);
    initialize(vs, 1);
    vs.set_kind(kind);
    transformer
}

/// The distance of `x` to `expected`, as a share of it.
fn error(x: &Tensor, expected: &Tensor) -> f64 {
    ((x.to_kind(Kind::Double) - expected).norm() / expected.to_kind(Kind::Double).norm()).double_value(&[])
}

#[test]
fn cached_decoding_equals_one_call_for_prompts_of_different_lengths_at_any_positions() {
    let (lengths, longest, steps) = ([5, 3, 1], 5, 9);
    // In f32 with more than 8 keys a query, and in f64, which libtorch's fused kernel computes.
    for (kv_heads, kind, bound) in [(2, Kind::Double, 1e-12), (1, Kind::Float, 2e-6), (4, Kind::Float, 2e-6)]
    {
        let mut vs = VarStore::new(Device::Cpu);
        let transformer = transformer(&mut vs, &config(kv_heads), kind);
        let rows: Vec<Tensor> = lengths
            .iter()
            .map(|length| normal(*length as u64, &[length + steps, WIDTH]).to_kind(kind))
            .collect();
        let padding = Tensor::from_slice(&lengths.map(|length| longest - length)).unsqueeze(-1); // [B, 1]
        // Positions without padding give the same roundings as each row alone; the others the same distances.
        for has_positions in [true, false] {
            let mut cache = transformer.new_cache(longest + steps, None);
            let mut decode = |x: Tensor| {
                let (start, end) = (cache.length(), cache.length() + x.size()[1]);
                let places = Tensor::arange(end, (Kind::Int64, Device::Cpu));
                let seen = places.ge_tensor(&padding).to_kind(Kind::Int64);
                let mut mask = AttentionMask::padding(&seen).with_causal();
                if has_positions {
                    mask =
                        mask.with_positions((places - &padding).clamp_min(0).narrow(1, start, end - start));
                }
                transformer.forward_cached(x, &mask, &mut cache)
            };
            let prompts: Vec<Tensor> = rows
                .iter()
                .zip(lengths)
                .map(|(row, length)| row.narrow(0, 0, length).constant_pad_nd([0, 0, longest - length, 0]))
                .collect();
            let mut outputs = vec![decode(Tensor::stack(&prompts, 0))];
            for step in 0..steps {
                let tokens: Vec<Tensor> =
                    rows.iter().zip(lengths).map(|(row, length)| row.narrow(0, length + step, 1)).collect();
                outputs.push(decode(Tensor::stack(&tokens, 0)));
            }
            let outputs = Tensor::cat(&outputs, 1);
            for ((index, row), length) in (0..).zip(&rows).zip(lengths) {
                let expected = transformer.forward(row.unsqueeze(0), &AttentionMask::causal()).get(0);
                let found = outputs.get(index).narrow(0, longest - length, length + steps);
                let error = error(&found, &expected);
                let bound = if has_positions || kind == Kind::Float { bound } else { 1e-6 };
                assert!(error < bound, "{kv_heads} of 4 heads, row {index} is off by {error}");
            }
        }
    }
}

#[test]
fn a_batch_of_one_token_equals_that_token_in_a_longer_text_with_a_bias() {
    let mut vs = VarStore::new(Device::Cpu);
    let transformer = transformer(&mut vs, &config(2), Kind::Double);
    let x = normal(1, &[2, 7, WIDTH]).to_kind(Kind::Double);
    let bias = normal(2, &[1, 4, 7, 7]).to_kind(Kind::Double);
    let whole =
        transformer.forward(x.shallow_clone(), &AttentionMask::causal().with_bias(bias.shallow_clone()));
    let mut cache = transformer.new_cache(7, None);
    for place in 0..7 {
        let bias = bias.narrow(2, place, 1).narrow(3, 0, place + 1);
        let mask = AttentionMask::causal().with_bias(bias);
        let y = transformer.forward_cached(x.narrow(1, place, 1), &mask, &mut cache);
        let error = error(&y, &whole.narrow(1, place, 1));
        assert!(error < 1e-12, "place {place} is off by {error}");
    }
}

#[test]
fn weights_and_pooled_outputs_are_those_of_the_whole_pass() {
    let mut vs = VarStore::new(Device::Cpu);
    let transformer = transformer(&mut vs, &config(2), Kind::Double);
    let x = normal(1, &[2, 5, WIDTH]).to_kind(Kind::Double);
    let causal = AttentionMask::causal();
    let whole = transformer.forward(x.shallow_clone(), &causal);
    let (again, weights) = transformer.forward_with_weights(x.shallow_clone(), &causal);
    assert!(error(&again, &whole) < 1e-12);
    assert_eq!((weights.len(), weights[0].size()), (3, vec![2, 4, 5, 5]));
    let pooled = transformer.forward_at(x, &causal, &Tensor::from_slice(&[4i64, 2]));
    for (row, place) in [(0, 4), (1, 2)] {
        assert!(error(&pooled.get(row), &whole.get(row).get(place)) < 1e-12);
    }
}

#[test]
fn a_packed_stack_differs_by_the_rounding_of_its_precision() {
    let decode = |precision: Option<Precision>| {
        let mut vs = VarStore::new(Device::Cpu);
        let mut transformer = transformer(&mut vs, &config(2), Kind::Float);
        precision.into_iter().for_each(|precision| transformer.pack(precision));
        let kind = precision.map_or(Kind::Float, Precision::kind);
        tch::no_grad(|| {
            let mut cache = transformer.new_cache(20, None);
            let mut step = |seed: u64, length: i64| {
                let x = normal(seed, &[2, length, WIDTH]).to_kind(kind);
                transformer.forward_cached(x, &AttentionMask::causal(), &mut cache)
            };
            let outputs: Vec<Tensor> =
                std::iter::once(step(1, 12)).chain((2..10).map(|seed| step(seed, 1))).collect();
            let outputs = Tensor::cat(&outputs, 1);
            assert_eq!(outputs.kind(), kind);
            outputs
        })
    };
    let expected = decode(None);
    for (precision, bound) in [(Precision::F32, 1e-6), (Precision::Bf16, 0.03), (Precision::Int8, 0.05)] {
        let error = error(&decode(Some(precision)), &expected);
        assert!(error < bound, "{precision:?} is off by {error}");
    }
}

#[test]
fn checkpointed_gradients_are_equal_bit_for_bit() {
    let seen = Tensor::from_slice(&[1i64, 1, 1, 1, 1, 0, 0, 1, 1, 1]).view([2, 5]);
    let positions = Tensor::from_slice(&[0i64, 1, 2, 3, 4, 0, 0, 0, 1, 2]).view([2, 5]);
    let padded = || AttentionMask::padding(&seen).with_causal().with_positions(positions.shallow_clone());
    for precision in [Precision::F32, Precision::Bf16] {
        for mask in [AttentionMask::causal(), padded()] {
            let gradients = |gradient_checkpointing: bool| {
                let mut vs = VarStore::new(Device::Cpu);
                let config = BlockConfig { gradient_checkpointing, ..config(2) };
                let transformer = transformer(&mut vs, &config, Kind::Float);
                let x = normal(3, &[2, 5, WIDTH]).set_requires_grad(true);
                let y = precision.autocast(Device::Cpu, || transformer.forward(x.shallow_clone(), &mask));
                y.to_kind(Kind::Float).square().sum(Kind::Float).backward();
                let mut named: Vec<(String, Tensor)> =
                    vs.variables().into_iter().map(|(name, variable)| (name, variable.grad())).collect();
                named.push(("input".to_owned(), x.grad()));
                named.sort_by(|a, b| a.0.cmp(&b.0));
                named
            };
            let plain = gradients(false);
            // Six matrices, two norms and two biases a block, and the input.
            assert_eq!(plain.len(), 3 * (6 + 2 + 2) + 1);
            assert!(gradients(true) == plain, "{mask:?}, {precision:?}");
        }
    }
}

#[test]
fn gradients_of_parameters_and_inputs_are_those_of_differences() {
    let mut vs = VarStore::new(Device::Cpu);
    let transformer = transformer(&mut vs, &config(2), Kind::Double);
    let x = normal(2, &[2, 5, WIDTH]).to_kind(Kind::Double).set_requires_grad(true);
    let weights = normal(5, &[2, 5, WIDTH]).to_kind(Kind::Double);
    let loss = || {
        let y = transformer.forward(x.shallow_clone(), &AttentionMask::causal());
        (y * &weights).sum(Kind::Double)
    };
    loss().backward();
    let input = [("x".to_owned(), x.shallow_clone())];
    for (name, mut tensor) in vs.variables().into_iter().chain(input) {
        let (start, step) = (tensor.detach().copy(), 1e-5);
        let direction = normal(6, &tensor.size()).to_kind(Kind::Double);
        let expected = (tensor.grad() * &direction).sum(Kind::Double).double_value(&[]);
        let [ahead, behind] = [step, -step].map(|step| {
            tch::no_grad(|| {
                tensor.copy_(&(&start + &direction * step));
                loss().double_value(&[])
            })
        });
        tch::no_grad(|| tensor.copy_(&start));
        let found = (ahead - behind) / (2.0 * step);
        assert!(
            (found - expected).abs() < 1e-6 * (1.0 + expected.abs()),
            "{name}: {expected} is {found} by differences"
        );
    }
}
