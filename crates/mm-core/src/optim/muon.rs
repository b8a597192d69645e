//! Muon.

use crate::Precision;
use tch::Tensor;

/// The hyperparameters of Muon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonConfig {
    /// Decay of the momentum, which is Nesterov's.
    pub momentum: f64,
    /// Precision of the iteration that orthogonalizes: torch's is bf16. The momentum is f32.
    pub precision: Precision,
    /// Multiplies the learning rate, which is that of AdamW's variables.
    pub lr_multiplier: f64,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self { momentum: 0.95, precision: Precision::F32, lr_multiplier: 1.0 }
    }
}

/// Coefficients of the Newton-Schulz iteration, and its steps.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
const STEPS: usize = 5;
const EPS: f64 = 1e-7;

/// The root mean square of an update of AdamW, about.
const ADAMW_RMS: f64 = 0.2;

/// Whether Muon can update the variable: a matrix, or the kernels of a convolution as one of the rows
/// `[output, input * height * width]`.
pub(super) fn is_matrix(variable: &Tensor) -> bool {
    let size = variable.size();
    size.len() > 1 && size[0] > 1 && size[1..].iter().product::<i64>() > 1
}

/// One step of Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"), with
/// decoupled weight decay, and scaled to the root mean square of AdamW's updates, so that both have one
/// learning rate (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2): torch's `Muon` with
/// `adjust_lr_fn = "match_rms_adamw"`.
pub(super) fn step(
    parameter: &Tensor,
    momentum: &Tensor,
    config: MuonConfig,
    weight_decay: f64,
    lr: f64,
    divisor: Option<&Tensor>,
) {
    let lr = lr * config.lr_multiplier;
    tch::no_grad(|| {
        let gradient = parameter.grad();
        let gradient = divisor.map_or(gradient.shallow_clone(), |divisor| gradient / divisor);
        let (mut momentum, mut parameter) = (momentum.shallow_clone(), parameter.shallow_clone());
        let _ = momentum.lerp_(&gradient, 1.0 - config.momentum);
        let nesterov = gradient.lerp(&momentum, config.momentum).flatten(1, -1);
        let direction = orthogonalized(&nesterov, config.precision);
        let size = direction.size();
        let rate = lr * ADAMW_RMS * (size[0].max(size[1]) as f64).sqrt();
        let _ = parameter.g_mul_scalar_(1.0 - lr * weight_decay);
        let _ = parameter.g_sub_(&(direction.view_as(&parameter) * rate));
    });
}

/// The nearest matrix to `matrix` `[R, C]` whose singular values are 1, up to about a third of each: the
/// quintic Newton-Schulz iteration.
fn orthogonalized(matrix: &Tensor, precision: Precision) -> Tensor {
    let size = matrix.size();
    let is_tall = size[0] > size[1];
    let turned = |x: Tensor| if is_tall { x.tr() } else { x };
    let mut x = turned((matrix / matrix.norm().clamp_min(EPS)).to_kind(precision.kind()));
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..STEPS {
        let gram = x.matmul(&x.tr());
        let polynomial = &gram * b + gram.matmul(&gram) * c;
        x = &x * a + polynomial.matmul(&x);
    }
    turned(x).to_kind(matrix.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;
    use tch::Kind;

    #[test]
    fn singular_values_become_about_one_and_singular_vectors_stay() {
        let (f32, bf16) = ((Precision::F32, 1e-4), (Precision::Bf16, 0.05));
        let cases = [([6, 6], f32), ([5, 20], f32), ([20, 5], f32), ([5, 20], bf16)];
        for (shape, (precision, tolerance)) in cases {
            let matrix = normal(1, &shape);
            let (u, _, v) = matrix.svd(true, true);
            let within = u.tr().matmul(&orthogonalized(&matrix, precision)).matmul(&v);
            let diagonal = within.diagonal(0, 0, 1);
            let (least, greatest) = (diagonal.min().double_value(&[]), diagonal.max().double_value(&[]));
            assert!((0.5..1.5).contains(&least) && (0.5..1.5).contains(&greatest), "{diagonal}");
            let beside = (&within - diagonal.diag_embed(0, 0, 1)).abs().max().double_value(&[]);
            assert!(beside < tolerance, "{beside}");
        }
    }

    #[test]
    fn a_step_is_that_of_the_definition() {
        let lr = 0.02;
        let config = MuonConfig { momentum: 0.9, lr_multiplier: 0.5, ..MuonConfig::default() };
        let parameter = normal(2, &[4, 3, 2, 2]).set_requires_grad(true);
        let (start, momentum) = (parameter.detach().copy(), normal(3, &[4, 3, 2, 2]));
        let gradient = normal(4, &[4, 3, 2, 2]);
        (&parameter * &gradient).sum(Kind::Float).backward();
        let clipped = &gradient / 2.0;
        let expected_momentum = &momentum * 0.9 + &clipped * 0.1;
        let nesterov = (&clipped * 0.1 + &expected_momentum * 0.9).view([4, 12]);
        let update = orthogonalized(&nesterov, config.precision).view([4, 3, 2, 2]) * (0.2 * 12f64.sqrt());
        let expected = &start * (1.0 - lr * 0.1) - update * lr;
        step(&parameter, &momentum, config, 0.1, 2.0 * lr, Some(&Tensor::from(2f32)));
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        assert!(apart(&momentum, &expected_momentum) < 1e-6);
        assert!(apart(&parameter.detach(), &expected) < 1e-5);
    }

    #[test]
    fn a_gradient_of_zero_changes_nothing_but_the_decay() {
        let parameter = normal(5, &[3, 4]).set_requires_grad(true);
        let start = parameter.detach().copy();
        (&parameter * 0.0).sum(Kind::Float).backward();
        step(&parameter, &start.zeros_like(), MuonConfig::default(), 0.0, 0.1, None);
        assert_eq!(parameter.detach(), start);
        let matrices = [(&[3i64, 4][..], true), (&[3], false), (&[3, 1], false), (&[8, 1, 3, 3], true)];
        for (shape, is) in matrices {
            assert_eq!(is_matrix(&normal(6, shape)), is, "{shape:?}");
        }
    }
}
