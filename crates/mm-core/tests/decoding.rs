//! Decoding with a cache equals attention over all positions, and its gradients are those of differences.

use mm_core::Precision;
use mm_core::nn::{AttentionMask, BlockConfig, BlockNames, Context, NormOrder, Transformer};
use mm_testing::{initialize, normal};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const WIDTH: i64 = 16;
const CONTEXT_WIDTH: i64 = 12;
/// Enough that the few queries of a step are computed as such.
const STATES: i64 = 40;

fn config(norm_order: NormOrder, context_width: Option<i64>) -> BlockConfig {
    let (width, heads, mlp_width, layers) = (WIDTH, 4, 32, 3);
    BlockConfig { width, heads, mlp_width, layers, norm_order, context_width, ..BlockConfig::default() }
}

fn transformer(vs: &mut VarStore, config: &BlockConfig, kind: Kind) -> Transformer {
    let transformer = Transformer::new(&(vs.root() / "layers"), config, &BlockNames::CLIP);
    initialize(vs, 1);
    vs.set_kind(kind);
    transformer
}

/// The distance of `x` to `expected`, as a share of it.
fn error(x: &Tensor, expected: &Tensor) -> f64 {
    ((x.to_kind(Kind::Double) - expected).norm() / expected.to_kind(Kind::Double).norm()).double_value(&[])
}

/// Prompts of `lengths` as one batch that is padded on the left: `[B, L, width]`, and their attention mask
/// `[B, L + more]`.
fn left_padded(rows: &[Tensor], lengths: &[i64], more: i64) -> (Tensor, Tensor) {
    let longest = *lengths.iter().max().unwrap();
    let pad = |(row, &length): (&Tensor, &i64)| {
        let mask = Tensor::ones([longest + more], (Kind::Int64, Device::Cpu));
        let _ = mask.narrow(0, 0, longest - length).fill_(0);
        (row.narrow(0, 0, length).constant_pad_nd([0, 0, longest - length, 0]), mask)
    };
    let (prompts, masks): (Vec<Tensor>, Vec<Tensor>) = rows.iter().zip(lengths).map(pad).unzip();
    (Tensor::stack(&prompts, 0), Tensor::stack(&masks, 0))
}

#[test]
fn cached_decoding_equals_attention_over_all_positions_for_prompts_of_different_lengths() {
    let (lengths, steps) = ([5, 3, 1, 4], 4);
    for (norm_order, context_width, kind, bound) in [
        (NormOrder::Pre, None, Kind::Float, 1e-6),
        (NormOrder::Post, None, Kind::Double, 1e-12),
        (NormOrder::Pre, Some(CONTEXT_WIDTH), Kind::Double, 1e-12),
        (NormOrder::Post, Some(CONTEXT_WIDTH), Kind::Float, 1e-6),
    ] {
        let mut vs = VarStore::new(Device::Cpu);
        let transformer = transformer(&mut vs, &config(norm_order, context_width), kind);
        let rows: Vec<Tensor> = lengths
            .iter()
            .map(|length| normal(*length as u64, &[length + steps, WIDTH]).to_kind(kind))
            .collect();
        // Two rows read each context, the second of which is padded.
        let states = normal(9, &[2, STATES, CONTEXT_WIDTH]).to_kind(kind);
        let seen = Tensor::ones([2, STATES], (Kind::Int64, Device::Cpu));
        let _ = seen.get(1).narrow(0, 3, STATES - 3).fill_(0);
        let context = context_width
            .map(|_| Context { states: states.shallow_clone(), mask: AttentionMask::padding(&seen) });

        let (prompts, attention_mask) = left_padded(&rows, &lengths, steps);
        let mut cache = transformer.new_cache(5 + steps, context.as_ref());
        let mut decode = |x: Tensor| {
            let keys = attention_mask.narrow(1, 0, cache.length() + x.size()[1]);
            transformer.forward_cached(x, &AttentionMask::padding(&keys).with_causal(), &mut cache)
        };
        let mut outputs = vec![decode(prompts)];
        for step in 0..steps {
            let token = |(row, length): (&Tensor, &i64)| row.narrow(0, length + step, 1);
            let tokens: Vec<Tensor> = rows.iter().zip(&lengths).map(token).collect();
            outputs.push(decode(Tensor::stack(&tokens, 0)));
        }
        let outputs = Tensor::cat(&outputs, 1); // [B, 5 + steps, width]

        for (index, (row, length)) in rows.iter().zip(&lengths).enumerate() {
            let (x, causal) = (row.unsqueeze(0), AttentionMask::causal());
            let expected = match &context {
                None => transformer.forward(x, &causal),
                Some(_) => {
                    // The row's own context, without its padding.
                    let group = index as i64 / 2;
                    let seen = if group == 0 { STATES } else { 3 };
                    let states = states.narrow(0, group, 1).narrow(1, 0, seen);
                    let mask = AttentionMask::none();
                    transformer.forward_with_context(x, &causal, &Context { states, mask })
                }
            };
            let found = outputs.get(index as i64).narrow(0, 5 - length, length + steps);
            let error = error(&found, &expected.get(0));
            assert!(error < bound, "{norm_order:?}, {context_width:?}, row {index} is off by {error}");
        }
    }
}

#[test]
fn beams_that_go_on_from_other_beams_decode_as_from_the_start() {
    let mut vs = VarStore::new(Device::Cpu);
    let transformer = transformer(&mut vs, &config(NormOrder::Pre, Some(CONTEXT_WIDTH)), Kind::Double);
    let states = normal(9, &[2, 6, CONTEXT_WIDTH]).to_kind(Kind::Double);
    let context = Context { states, mask: AttentionMask::none() };
    let tokens = |seed| normal(seed, &[6, 1, WIDTH]).to_kind(Kind::Double);
    let causal = AttentionMask::causal();

    // Of each of two images a prompt, then three beams.
    let mut cache = transformer.new_cache(4, Some(&context));
    let prompt = normal(1, &[2, 2, WIDTH]).to_kind(Kind::Double);
    let _ = transformer.forward_cached(prompt.shallow_clone(), &causal, &mut cache);
    let spread = Tensor::from_slice(&[0i64, 0, 0, 1, 1, 1]);
    cache.select_rows(&spread);
    let _ = transformer.forward_cached(tokens(2), &causal, &mut cache);
    let parents = Tensor::from_slice(&[2i64, 2, 0, 3, 5, 4]);
    cache.select_rows(&parents);
    let found = transformer.forward_cached(tokens(3), &causal, &mut cache);
    assert_eq!(cache.length(), 4);

    let sequences = [prompt.index_select(0, &spread), tokens(2).index_select(0, &parents), tokens(3)];
    let expected = transformer.forward_with_context(Tensor::cat(&sequences, 1), &causal, &context);
    let error = error(&found.squeeze_dim(1), &expected.select(1, -1));
    assert!(error < 1e-12, "off by {error}");
}

#[test]
fn a_packed_decoder_differs_by_the_rounding_of_its_precision() {
    let context = Context { states: normal(9, &[2, 6, CONTEXT_WIDTH]), mask: AttentionMask::none() };
    let decode = |precision: Option<Precision>| {
        let mut vs = VarStore::new(Device::Cpu);
        let mut transformer =
            transformer(&mut vs, &config(NormOrder::Post, Some(CONTEXT_WIDTH)), Kind::Float);
        precision.into_iter().for_each(|precision| transformer.pack(precision));
        let kind = precision.map_or(Kind::Float, Precision::kind);
        let context = Context { states: context.states.to_kind(kind), mask: AttentionMask::none() };
        tch::no_grad(|| {
            let mut cache = transformer.new_cache(5, Some(&context));
            let mut step = |seed: u64, length: i64| {
                let x = normal(seed, &[4, length, WIDTH]).to_kind(kind);
                transformer.forward_cached(x, &AttentionMask::causal(), &mut cache)
            };
            Tensor::cat(&[step(1, 3), step(2, 1), step(3, 1)], 1)
        })
    };
    let expected = decode(None);
    for (precision, bound) in [(Precision::F32, 1e-6), (Precision::Bf16, 0.03), (Precision::Int8, 0.05)] {
        let error = error(&decode(Some(precision)), &expected);
        assert!(error < bound, "{precision:?} is off by {error}");
    }
}

#[test]
#[should_panic(expected = "6 positions in a cache of 5")]
fn more_positions_than_the_cache_has_memory_for_are_refused_with_the_numbers() {
    let mut vs = VarStore::new(Device::Cpu);
    let transformer = transformer(&mut vs, &config(NormOrder::Pre, None), Kind::Float);
    let mut cache = transformer.new_cache(5, None);
    let mut step = |length: i64| {
        transformer.forward_cached(normal(1, &[1, length, WIDTH]), &AttentionMask::causal(), &mut cache)
    };
    let _ = step(4);
    let _ = step(2);
}

#[test]
fn gradients_of_parameters_inputs_context_and_bias_are_those_of_differences() {
    for norm_order in [NormOrder::Pre, NormOrder::Post] {
        let mut vs = VarStore::new(Device::Cpu);
        let transformer = transformer(&mut vs, &config(norm_order, Some(CONTEXT_WIDTH)), Kind::Double);
        let leaf = |seed, shape: &[i64]| normal(seed, shape).to_kind(Kind::Double).set_requires_grad(true);
        let (x, states) = (leaf(2, &[4, 5, WIDTH]), leaf(3, &[2, 6, CONTEXT_WIDTH]));
        let (bias, weights) = (leaf(4, &[1, 4, 5, 5]), normal(5, &[4, 5, WIDTH]).to_kind(Kind::Double));
        let loss = || {
            let mask = AttentionMask::causal().with_bias(bias.shallow_clone());
            let context = Context { states: states.shallow_clone(), mask: AttentionMask::none() };
            let y = transformer.forward_with_context(x.shallow_clone(), &mask, &context);
            (y * &weights).sum(Kind::Double)
        };
        loss().backward();
        let inputs = [("x", &x), ("context", &states), ("bias", &bias)];
        let inputs = inputs.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
        for (name, mut tensor) in vs.variables().into_iter().chain(inputs) {
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
                "{norm_order:?}, {name}: {expected} is {found} by differences"
            );
        }
    }
}
