//! N processes compute the loss and gradients of one process, for every loss and layout of logits. The
//! classic mistake, gradients off by a factor of N, fails each of these tests.

mod common;

use common::{as_processes, difference};
use mm_dist::{Contrastive, ContrastiveConfig, GradientAverage, Logits, ProcessGroup, ReduceOp};
use mm_testing::normal;
use std::collections::BTreeMap;
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

const BATCH: i64 = 12;

/// Two linear towers, a temperature and a bias.
struct Towers {
    vs: VarStore,
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
}

impl Towers {
    fn new() -> Self {
        let vs = VarStore::new(Device::Cpu);
        let root = vs.root();
        let var = |name: &str, value: Tensor| {
            let mut variable = root.var(name, &value.size(), Init::Const(0.0));
            tch::no_grad(|| variable.copy_(&value));
            variable
        };
        Self {
            image: var("image", normal(1, &[7, 5])),
            text: var("text", normal(2, &[6, 5])),
            logit_scale: var("logit_scale", Tensor::from(1.7f32)),
            logit_bias: var("logit_bias", Tensor::from_slice(&[-1.5f32])),
            vs,
        }
    }

    fn loss(&self, contrastive: &Contrastive, is_siglip: bool, images: &Tensor, texts: &Tensor) -> Tensor {
        let unit = |x: Tensor| &x / x.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
        let (images, texts) = (unit(images.matmul(&self.image)), unit(texts.matmul(&self.text)));
        if is_siglip {
            contrastive.siglip(&images, &texts, &self.logit_scale, &self.logit_bias).unwrap()
        } else {
            contrastive.info_nce(&images, &texts, &self.logit_scale).unwrap()
        }
    }
}

/// The loss of the global batch, and the gradients in a process of `group`, with `accumulate` passes.
fn train(
    group: &ProcessGroup,
    logits: Logits,
    is_siglip: bool,
    accumulate: i64,
) -> (f64, BTreeMap<String, Tensor>) {
    let towers = Towers::new();
    let contrastive = Contrastive::new(group, ContrastiveConfig { logits, tile: 2 });
    let mut average = GradientAverage::new(group, &towers.vs).unwrap();
    let count = BATCH / accumulate / group.world() as i64;
    let mut total = 0.0;
    for pass in 0..accumulate {
        let first = pass * BATCH / accumulate + group.rank() as i64 * count;
        let rows = |x: Tensor| x.narrow(0, first, count);
        if pass + 1 == accumulate {
            average.arm();
        }
        let loss = towers.loss(
            &contrastive,
            is_siglip,
            &rows(normal(3, &[BATCH, 7])),
            &rows(normal(4, &[BATCH, 6])),
        );
        (&loss / accumulate as f64).backward();
        total += loss.double_value(&[]) / accumulate as f64;
    }
    average.finish().unwrap();
    let mean = group.reduce(&[total], ReduceOp::Average).unwrap()[0];
    let gradients = towers.vs.variables().into_iter().filter(|(_, v)| v.grad().defined());
    (mean, gradients.map(|(name, variable)| (name, variable.grad().copy())).collect())
}

fn assert_alike(is_siglip: bool) {
    for accumulate in [1, 3] {
        let (loss, expected) = train(&ProcessGroup::alone(), Logits::Local, is_siglip, accumulate);
        assert_eq!(expected.len(), if is_siglip { 4 } else { 3 });
        for logits in [Logits::Gathered, Logits::Local, Logits::Tiled] {
            for world in [1, 2, 4] {
                let run = |group: &ProcessGroup| train(group, logits, is_siglip, accumulate);
                let results =
                    if world == 1 { vec![run(&ProcessGroup::alone())] } else { as_processes(world, run) };
                for (rank, (own, gradients)) in results.into_iter().enumerate() {
                    let what = format!("{logits:?}, rank {rank} of {world}, {accumulate} passes");
                    assert!((own - loss).abs() < 1e-5 * loss.abs(), "{what}: {own} for {loss}");
                    assert!(gradients.keys().eq(expected.keys()), "{what}: {:?}", gradients.keys());
                    for (name, gradient) in gradients {
                        let off = difference(&gradient, &expected[&name]);
                        assert!(off < 1e-5, "{what}: the gradient of {name} is off by {off}");
                    }
                }
            }
        }
    }
}

#[test]
fn info_nce_over_processes_equals_one_process() {
    assert_alike(false);
}

#[test]
fn siglip_over_processes_equals_one_process() {
    assert_alike(true);
}

#[test]
fn without_a_graph_only_the_value_is_computed() {
    for is_siglip in [false, true] {
        let value = |group: &ProcessGroup| {
            let towers = Towers::new();
            let config = ContrastiveConfig { logits: Logits::Tiled, tile: 3 };
            let count = BATCH / group.world() as i64;
            let rows = |x: Tensor| x.narrow(0, group.rank() as i64 * count, count);
            let (images, texts) = (rows(normal(3, &[BATCH, 7])), rows(normal(4, &[BATCH, 6])));
            let loss =
                tch::no_grad(|| towers.loss(&Contrastive::new(group, config), is_siglip, &images, &texts));
            assert!(!loss.requires_grad() && loss.kind() == Kind::Float);
            group.reduce(&[loss.double_value(&[])], ReduceOp::Average).unwrap()[0]
        };
        let one = value(&ProcessGroup::alone());
        assert!(as_processes(2, value).into_iter().all(|two| (two - one).abs() < 1e-5 * one.abs()));
    }
}
