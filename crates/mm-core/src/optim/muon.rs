//! Muon.

use crate::Precision;
use std::collections::BTreeMap;
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
    /// Matrices whose rows a variable stacks, as those of queries, keys and values; each is orthogonalized by
    /// itself.
    pub matrices: i64,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self { momentum: 0.95, precision: Precision::F32, lr_multiplier: 1.0, matrices: 1 }
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

/// The most numbers in matrices that are orthogonalized together.
const AT_ONCE: usize = 1 << 24;

/// One step of Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"), with
/// decoupled weight decay, and scaled to the root mean square of AdamW's updates, so that both have one
/// learning rate (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2): torch's `Muon` with
/// `adjust_lr_fn = "match_rms_adamw"`. `updated` are parameters with their momenta.
pub(super) fn step(
    updated: &[(&Tensor, &Tensor)],
    config: MuonConfig,
    weight_decay: f64,
    lr: f64,
    divisor: Option<&Tensor>,
) {
    let lr = lr * config.lr_multiplier;
    // Small matrices take less time together than one by one.
    let mut of_one_shape: BTreeMap<Vec<i64>, Vec<(&Tensor, &Tensor)>> = BTreeMap::new();
    for &(parameter, momentum) in updated {
        of_one_shape.entry(parameter.size()).or_default().push((parameter, momentum));
    }
    tch::no_grad(|| {
        for (shape, parameters) in of_one_shape {
            let [rows, columns] = [shape[0] / config.matrices, shape[1..].iter().product()];
            let count = (AT_ONCE / shape.iter().product::<i64>() as usize).max(1);
            let rate = lr * ADAMW_RMS * (rows.max(columns) as f64).sqrt();
            for parameters in parameters.chunks(count) {
                let directions = parameters
                    .iter()
                    .map(|(parameter, momentum)| nesterov(parameter, momentum, config.momentum, divisor))
                    .collect::<Vec<_>>();
                let matrices = Tensor::stack(&directions, 0).view([-1, rows, columns]);
                let directions = (orthogonalized(&matrices, config.precision) * rate)
                    .view([-1, config.matrices * rows, columns])
                    .unbind(0);
                for ((parameter, _), direction) in parameters.iter().zip(directions) {
                    let mut parameter = parameter.shallow_clone();
                    let _ = parameter.g_mul_scalar_(1.0 - lr * weight_decay);
                    let _ = parameter.g_sub_(&direction.view_as(&parameter));
                }
            }
        }
    });
}

/// Takes the gradient of `parameter` into its `momentum`, and gives Nesterov's direction.
fn nesterov(parameter: &Tensor, momentum: &Tensor, decay: f64, divisor: Option<&Tensor>) -> Tensor {
    let gradient = parameter.grad();
    let gradient = divisor.map_or(gradient.shallow_clone(), |divisor| gradient / divisor);
    let mut momentum = momentum.shallow_clone();
    let _ = momentum.lerp_(&gradient, 1.0 - decay);
    gradient.lerp(&momentum, decay)
}

/// The nearest matrices to `matrices` `[N, R, C]` whose singular values are 1, up to about a third of each:
/// the quintic Newton-Schulz iteration.
fn orthogonalized(matrices: &Tensor, precision: Precision) -> Tensor {
    let size = matrices.size();
    let is_tall = size[1] > size[2];
    let turned = |x: Tensor| if is_tall { x.transpose(1, 2) } else { x };
    let norms = matrices.norm_scalaropt_dim(2, [1i64, 2].as_slice(), true).clamp_min(EPS);
    let mut x = turned((matrices / norms).to_kind(precision.kind())).contiguous();
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..STEPS {
        let gram = x.bmm(&x.transpose(1, 2));
        let polynomial = gram.baddbmm(&gram, &gram, b, c);
        x = x.baddbmm(&polynomial, &x, a, 1.0);
    }
    turned(x).to_kind(matrices.kind())
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
            let matrices = Tensor::stack(&[&normal(2, &shape), &matrix], 0);
            let within = u.tr().matmul(&orthogonalized(&matrices, precision).get(1)).matmul(&v);
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
        let nesterov = (&clipped * 0.1 + &expected_momentum * 0.9).view([1, 4, 12]);
        let update = orthogonalized(&nesterov, config.precision).view([4, 3, 2, 2]) * (0.2 * 12f64.sqrt());
        let expected = &start * (1.0 - lr * 0.1) - update * lr;
        step(&[(&parameter, &momentum)], config, 0.1, 2.0 * lr, Some(&Tensor::from(2f32)));
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        assert!(apart(&momentum, &expected_momentum) < 1e-6);
        assert!(apart(&parameter.detach(), &expected) < 1e-5);
    }

    #[test]
    fn stacked_matrices_are_updated_as_single_ones() {
        let stacked = MuonConfig { matrices: 3, ..MuonConfig::default() };
        let updated = |config, start: &Tensor, gradient: &Tensor| {
            let parameter = start.copy().set_requires_grad(true);
            (&parameter * gradient).sum(Kind::Float).backward();
            step(&[(&parameter, &parameter.zeros_like().detach())], config, 0.1, 0.02, None);
            parameter.detach()
        };
        let (start, gradient) = (normal(7, &[12, 5]), normal(8, &[12, 5]));
        let together = updated(stacked, &start, &gradient).chunk(3, 0);
        for ((found, start), gradient) in together.iter().zip(start.chunk(3, 0)).zip(gradient.chunk(3, 0)) {
            let expected = updated(MuonConfig::default(), &start, &gradient);
            assert!((found - expected).abs().max().double_value(&[]) < 1e-6);
        }
    }

    #[test]
    fn a_gradient_of_zero_changes_nothing_but_the_decay() {
        let parameter = normal(5, &[3, 4]).set_requires_grad(true);
        let start = parameter.detach().copy();
        (&parameter * 0.0).sum(Kind::Float).backward();
        step(&[(&parameter, &start.zeros_like())], MuonConfig::default(), 0.0, 0.1, None);
        assert_eq!(parameter.detach(), start);
        let matrices = [(&[3i64, 4][..], true), (&[3], false), (&[3, 1], false), (&[8, 1, 3, 3], true)];
        for (shape, is) in matrices {
            assert_eq!(is_matrix(&normal(6, shape)), is, "{shape:?}");
        }
    }
}
