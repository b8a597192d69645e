//! Dropout of layers and of transformer blocks. It draws from libtorch's generator, of which there is one a
//! process: hence one test.

use mm_core::nn::{AttentionMask, BlockConfig, BlockNames, Context, Dropout, NormOrder, Transformer};
use mm_testing::{initialize, normal};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Two passes with dropout of one seed, a pass of another seed, one without dropout before and one after.
fn outputs(forward: impl Fn() -> Tensor, set_training: impl Fn(bool)) -> [Tensor; 5] {
    let before = forward();
    set_training(true);
    let [one, again, other] = [7, 7, 8].map(|seed| {
        tch::manual_seed(seed);
        forward()
    });
    set_training(false);
    [before, one, again, other, forward()]
}

fn check(forward: impl Fn() -> Tensor, set_training: impl Fn(bool)) {
    let [before, one, again, other, after] = outputs(forward, set_training);
    assert!(before == after && one == again && one != before && one != other);
}

#[test]
fn dropout_is_for_training_follows_the_seed_and_keeps_the_mean() {
    let dropout = Dropout::new(0.25);
    let ones = Tensor::ones([100, 100], (Kind::Float, Device::Cpu));
    check(|| dropout.forward(ones.shallow_clone()), |on| dropout.set_training(on));
    dropout.set_training(true);
    let dropped = dropout.forward(ones.shallow_clone());
    let zeros = dropped.eq(0.0).sum(Kind::Int64).int64_value(&[]);
    assert!((2200..2800).contains(&zeros), "{zeros} of 10,000 are zero");
    let kept = dropped.masked_select(&dropped.ne(0.0));
    assert!((kept - 1.0 / 0.75).abs().max().double_value(&[]) < 1e-6);
    let never = Dropout::new(0.0);
    never.set_training(true);
    assert!(!never.is_active());

    for norm_order in [NormOrder::Pre, NormOrder::Post] {
        let config = BlockConfig {
            width: 16,
            heads: 4,
            mlp_width: 24,
            layers: 2,
            norm_order,
            context_width: Some(12),
            dropout: 0.3,
            ..BlockConfig::default()
        };
        let vs = VarStore::new(Device::Cpu);
        let blocks = Transformer::new(&(vs.root() / "layers"), &config, &BlockNames::CLIP);
        initialize(&vs, 1);
        let x = normal(2, &[2, 5, 16]);
        let context = Context { states: normal(3, &[2, 7, 12]), mask: AttentionMask::none() };
        let forward = || blocks.forward_with_context(x.shallow_clone(), &AttentionMask::causal(), &context);
        check(forward, |on| blocks.set_training(on));
    }
}
