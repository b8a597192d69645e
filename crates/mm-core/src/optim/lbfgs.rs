//! L-BFGS with a strong Wolfe line search.

use crate::Result;
use std::collections::VecDeque;
use tch::Tensor;

/// The settings of [`lbfgs`].
#[derive(Clone, Copy, Debug)]
pub struct LbfgsConfig {
    /// Pairs of steps and gradient changes that approximate the curvature.
    pub history: usize,
    /// The most iterations; each is one line search.
    pub max_iterations: usize,
    /// The largest absolute element of the gradient at which the search has converged.
    pub gradient_tolerance: f64,
}

impl Default for LbfgsConfig {
    fn default() -> Self {
        Self { history: 10, max_iterations: 1000, gradient_tolerance: 1e-6 }
    }
}

/// The result of [`lbfgs`].
#[derive(Debug)]
pub struct Minimum {
    /// The lowest point found, of the start's shape.
    pub point: Tensor,
    /// The function there.
    pub value: f64,
    /// The largest absolute element of the gradient there.
    pub gradient: f64,
    /// Iterations done.
    pub iterations: usize,
    /// Whether the gradient is within the tolerance. It is not if the iterations ran out, or if rounding
    /// leaves no descent.
    pub converged: bool,
}

/// Minimizes a smooth function by L-BFGS (Nocedal & Wright 2006, "Numerical optimization", algorithms 7.4 and
/// 7.5) with a line search for the strong Wolfe conditions (algorithms 3.5 and 3.6).
///
/// `objective` returns the value and the gradient at a point of the shape, device and type (f64) of `start`.
/// A step to a point with a value that is not finite is shortened; a `start` with such a value is the result.
///
/// ```
/// use mm_core::optim::{LbfgsConfig, lbfgs};
/// use tch::{Kind, Tensor};
///
/// let target = Tensor::from_slice(&[3.0, -1.0]);
/// let found = lbfgs(&target.zeros_like(), &LbfgsConfig::default(), |x| {
///     let difference = x - &target;
///     Ok((difference.square().sum(Kind::Double).double_value(&[]), 2.0 * difference))
/// })?;
/// assert!(found.converged && found.value < 1e-12);
/// # Ok::<(), mm_core::Error>(())
/// ```
///
/// # Errors
/// Those of `objective`.
pub fn lbfgs(
    start: &Tensor,
    config: &LbfgsConfig,
    mut objective: impl FnMut(&Tensor) -> Result<(f64, Tensor)>,
) -> Result<Minimum> {
    let (value, gradient) = objective(start)?;
    let (mut point, mut value, mut gradient) = (start.copy(), value, gradient);
    let mut history = VecDeque::with_capacity(config.history);
    let mut iterations = 0;
    while value.is_finite()
        && iterations < config.max_iterations
        && largest(&gradient) > config.gradient_tolerance
    {
        let direction = -towards_minimum(&gradient, &history);
        // Without curvature the length of the gradient is no estimate of the step.
        let first_step = if history.is_empty() { (1.0 / length(&gradient)).min(1.0) } else { 1.0 };
        let line = Line { point: &point, value, slope: dot(&gradient, &direction), direction: &direction };
        let Some(found) = line.search(first_step, &mut objective)? else {
            if history.is_empty() {
                break; // not even steepest descent decreases the value
            }
            history.clear();
            continue;
        };
        let (step, change) = (&found.point - &point, &found.gradient - &gradient);
        let curvature = dot(&step, &change);
        if curvature > f64::EPSILON * dot(&change, &change) {
            if history.len() == config.history {
                history.pop_front();
            }
            history.push_back(Pair { step, change, curvature });
        }
        (point, value, gradient) = (found.point, found.value, found.gradient);
        iterations += 1;
    }
    let gradient = largest(&gradient);
    Ok(Minimum { point, value, gradient, iterations, converged: gradient <= config.gradient_tolerance })
}

/// A step, the change of the gradient over it, and their product.
struct Pair {
    step: Tensor,
    change: Tensor,
    curvature: f64,
}

/// The inverse of the Hessian, approximated by `history`, times `gradient` (algorithm 7.4).
fn towards_minimum(gradient: &Tensor, history: &VecDeque<Pair>) -> Tensor {
    let mut direction = gradient.copy();
    let mut weights = Vec::with_capacity(history.len());
    for pair in history.iter().rev() {
        let weight = dot(&pair.step, &direction) / pair.curvature;
        direction -= &pair.change * weight;
        weights.push(weight);
    }
    if let Some(last) = history.back() {
        direction *= last.curvature / dot(&last.change, &last.change); // equation 7.20
    }
    for (pair, weight) in history.iter().zip(weights.into_iter().rev()) {
        let correction = weight - dot(&pair.change, &direction) / pair.curvature;
        direction += &pair.step * correction;
    }
    direction
}

/// The required decrease of the function, as a share of the linear prediction.
const SUFFICIENT_DECREASE: f64 = 1e-4;
/// The largest slope at the end of a step, as a share of the slope at its start.
const CURVATURE: f64 = 0.9;
/// The most evaluations of a line search.
const EVALUATIONS: usize = 40;

/// A ray from a point in a descent direction.
struct Line<'a> {
    point: &'a Tensor,
    value: f64,
    slope: f64,
    direction: &'a Tensor,
}

/// A point of a [`Line`].
struct Trial {
    step: f64,
    value: f64,
    slope: f64,
    point: Tensor,
    gradient: Tensor,
}

impl Line<'_> {
    /// A point that satisfies the strong Wolfe conditions (algorithm 3.5). If rounding leaves none, the
    /// lowest point found below the start; none if there is no such point.
    fn search(
        &self,
        first_step: f64,
        objective: &mut dyn FnMut(&Tensor) -> Result<(f64, Tensor)>,
    ) -> Result<Option<Trial>> {
        if self.slope >= 0.0 {
            return Ok(None);
        }
        let mut low = self.start();
        let mut step = first_step;
        for evaluation in 1..=EVALUATIONS {
            let trial = self.at(step, objective)?;
            if !self.descends(&trial) || (low.step > 0.0 && trial.value >= low.value) {
                return self.zoom(low, trial, evaluation, objective);
            }
            if self.is_flat(&trial) {
                return Ok(Some(trial));
            }
            if trial.slope >= 0.0 {
                return self.zoom(trial, low, evaluation, objective);
            }
            low = trial;
            step *= 2.0;
        }
        Ok(Some(low).filter(|low| low.step > 0.0))
    }

    /// Narrows the interval between `low`, the lowest point with sufficient decrease, and `high` (algorithm
    /// 3.6).
    fn zoom(
        &self,
        mut low: Trial,
        mut high: Trial,
        evaluations: usize,
        objective: &mut dyn FnMut(&Tensor) -> Result<(f64, Tensor)>,
    ) -> Result<Option<Trial>> {
        for _ in evaluations..EVALUATIONS {
            let trial = self.at(between(&low, &high), objective)?;
            if !self.descends(&trial) || trial.value >= low.value {
                high = trial;
                continue;
            }
            if self.is_flat(&trial) {
                return Ok(Some(trial));
            }
            if trial.slope * (high.step - low.step) >= 0.0 {
                high = low;
            }
            low = trial;
        }
        Ok(Some(low).filter(|low| low.step > 0.0))
    }

    fn start(&self) -> Trial {
        // Never read: step 0 is not a result.
        let (point, gradient) = (self.point.shallow_clone(), self.direction.shallow_clone());
        Trial { step: 0.0, value: self.value, slope: self.slope, point, gradient }
    }

    fn at(&self, step: f64, objective: &mut dyn FnMut(&Tensor) -> Result<(f64, Tensor)>) -> Result<Trial> {
        let point = self.point + self.direction * step;
        let (value, gradient) = objective(&point)?;
        Ok(Trial { step, value, slope: dot(&gradient, self.direction), point, gradient })
    }

    /// The first Wolfe condition; false where the value is not a number.
    fn descends(&self, trial: &Trial) -> bool {
        trial.value <= self.value + SUFFICIENT_DECREASE * trial.step * self.slope
    }

    /// The second, strong, Wolfe condition.
    fn is_flat(&self, trial: &Trial) -> bool {
        trial.slope.abs() <= -CURVATURE * self.slope
    }
}

/// A step between two: the minimum of the cubic through values and slopes (equation 3.59), kept away from the
/// ends; the middle where it has none.
fn between(low: &Trial, high: &Trial) -> f64 {
    let (a, b) = (low, high);
    let d1 = a.slope + b.slope - 3.0 * (a.value - b.value) / (a.step - b.step);
    let d2 = (b.step - a.step).signum() * (d1 * d1 - a.slope * b.slope).sqrt();
    let share = 1.0 - (b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2);
    let share = if share.is_finite() { share.clamp(0.1, 0.9) } else { 0.5 };
    a.step + share * (b.step - a.step)
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.flatten(0, -1).dot(&b.flatten(0, -1)).double_value(&[])
}

fn length(a: &Tensor) -> f64 {
    dot(a, a).sqrt()
}

fn largest(gradient: &Tensor) -> f64 {
    gradient.abs().max().double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// The allowed multiple of scipy's iterations: rounding differs between processors and changes the path.
    const AT_MOST: usize = 2;

    const TIGHT: LbfgsConfig = LbfgsConfig { history: 10, max_iterations: 1000, gradient_tolerance: 1e-9 };

    fn sum(x: &Tensor) -> f64 {
        x.sum(Kind::Double).double_value(&[])
    }

    /// `0.5 * sum scale * (x - target)^2`, whose curvatures span `scale`.
    fn quadratic(x: &Tensor, scale: &Tensor, target: &Tensor) -> Result<(f64, Tensor)> {
        let difference = x - target;
        let gradient = scale * &difference;
        Ok((0.5 * sum(&(&gradient * &difference)), gradient))
    }

    /// Rosenbrock's valley in pairs of dimensions: lowest, 0, where all is 1.
    fn rosenbrock(x: &Tensor) -> Result<(f64, Tensor)> {
        let (a, b) = (x.select(1, 0), x.select(1, 1));
        let (off, rest): (Tensor, Tensor) = (&b - a.square(), 1.0 - &a);
        let gradient = Tensor::stack(&[-400.0 * &a * &off - 2.0 * &rest, 200.0 * &off], 1);
        Ok((sum(&(100.0 * off.square() + rest.square())), gradient))
    }

    #[test]
    fn a_quadratic_of_condition_ten_thousand_is_solved_to_its_minimum() {
        let scale =
            Tensor::from_slice(&(0..20).map(|i| 10f64.powf(4.0 * f64::from(i) / 19.0)).collect::<Vec<_>>());
        let target = Tensor::from_slice(&(0..20).map(|i| f64::from(i).sin()).collect::<Vec<_>>());
        let found = lbfgs(&target.zeros_like(), &TIGHT, |x| quadratic(x, &scale, &target)).unwrap();
        assert!(found.converged, "{found:?}");
        assert!((&found.point - &target).abs().max().double_value(&[]) < 1e-8);
        assert!(found.iterations < AT_MOST * 627, "scipy's L-BFGS-B takes 627: {found:?}");
    }

    #[test]
    fn the_valley_of_rosenbrock_is_followed_to_its_end() {
        let start = Tensor::from_slice(&[-1.2, 1.0, 0.5, -2.0, 3.0, 8.0]).view([3, 2]);
        let found = lbfgs(&start, &TIGHT, rosenbrock).unwrap();
        assert!(found.converged, "{found:?}");
        assert!(found.iterations < AT_MOST * 138, "scipy's L-BFGS-B takes 138: {found:?}");
        assert!((&found.point - 1.0).abs().max().double_value(&[]) < 1e-8);
        assert_eq!(found.point.size(), [3, 2]);
    }

    #[test]
    fn every_iteration_satisfies_the_wolfe_conditions() {
        let start = Tensor::from_slice(&[-1.2, 1.0]).view([1, 2]);
        let mut before = rosenbrock(&start).unwrap();
        let mut from = start.copy();
        for iterations in 1..20 {
            let found =
                lbfgs(&start, &LbfgsConfig { max_iterations: iterations, ..TIGHT }, rosenbrock).unwrap();
            let after = rosenbrock(&found.point).unwrap();
            let step = &found.point - &from;
            let (slope, slope_after) = (dot(&before.1, &step), dot(&after.1, &step));
            assert!(slope < 0.0);
            assert!(after.0 <= before.0 + 1e-4 * slope && slope_after.abs() <= 0.9 * slope.abs());
            (before, from) = (after, found.point);
        }
    }

    #[test]
    fn a_step_to_a_value_that_is_not_finite_is_shortened() {
        // Lowest at 1, not a number left of 0, and steep beside it.
        let barrier = |x: &Tensor| Ok((sum(&(x - x.log())), 1.0 - x.reciprocal()));
        let mut outside = 0;
        let found = lbfgs(&Tensor::from_slice(&[50.0]), &TIGHT, |x| {
            outside += usize::from(x.double_value(&[0]) < 0.0);
            barrier(x)
        });
        let found = found.unwrap();
        assert!(found.converged && (found.point.double_value(&[0]) - 1.0).abs() < 1e-8, "{found:?}");
        assert!(outside > 0);
        let nowhere = lbfgs(&Tensor::from_slice(&[-1.0]), &TIGHT, barrier).unwrap();
        assert!(nowhere.value.is_nan() && !nowhere.converged && nowhere.iterations == 0);
    }

    #[test]
    fn iterations_that_run_out_are_no_convergence() {
        let start = Tensor::from_slice(&[-1.2, 1.0]).view([1, 2]);
        let found = lbfgs(&start, &LbfgsConfig { max_iterations: 3, ..TIGHT }, rosenbrock).unwrap();
        assert_eq!((found.iterations, found.converged), (3, false));
        assert!(found.value < rosenbrock(&start).unwrap().0);
    }

    #[test]
    fn errors_of_the_objective_are_the_callers() {
        let fail = |_: &Tensor| Err(tch::TchError::Torch("out of memory".to_owned()).into());
        assert!(
            lbfgs(&Tensor::from_slice(&[0.0]), &TIGHT, fail)
                .unwrap_err()
                .to_string()
                .contains("out of memory")
        );
    }
}
