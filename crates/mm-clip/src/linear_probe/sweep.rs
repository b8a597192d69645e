//! The choice of the regularization strength C.

use super::{LabelledFeatures, LinearProbe, ProbeConfig};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Steps of the grid per decade of C.
const STEPS_A_DECADE: i32 = 8;
/// The ends of the grid, as powers of ten.
const DECADES: std::ops::RangeInclusive<i32> = -6..=6;

/// A tried value of C.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TriedC {
    /// The C.
    pub c: f64,
    /// Accuracy on the validation set.
    pub validation_accuracy: f64,
    /// Iterations of L-BFGS.
    pub iterations: usize,
    /// Whether training converged.
    pub converged: bool,
}

/// The choice of C.
#[derive(Clone, Debug, PartialEq)]
pub struct CSweep {
    /// The C with the best validation accuracy; of several, the smallest.
    pub best: TriedC,
    /// All tried values, sorted by C.
    pub tried: Vec<TriedC>,
}

/// Chooses C by accuracy on `validation`, and trains with it on both sets together.
///
/// The search is that of Radford et al. 2021, appendix A.3: on a grid of 96 steps between 1e-6 and 1e6 it
/// tries 1e-6, 1e-4, ... 1e6, then halves the step around the best, down to an eighth of a decade. Each
/// training starts from the parameters of the nearest tried C.
///
/// # Errors
/// As [`LinearProbe::fit`] and [`LinearProbe::evaluate`].
pub fn sweep_c(
    train: &LabelledFeatures,
    validation: &LabelledFeatures,
    config: &ProbeConfig,
) -> Result<(LinearProbe, CSweep)> {
    if (validation.class_count(), validation.width()) != (train.class_count(), train.width()) {
        let shape =
            |data: &LabelledFeatures| format!("{} classes of {} numbers", data.class_count(), data.width());
        return Err(Error::Evaluation(format!(
            "validation has {}, training {}",
            shape(validation),
            shape(train)
        )));
    }
    let mut probes: BTreeMap<i32, (LinearProbe, f64)> = BTreeMap::new();
    let best = search(|step| {
        let nearest =
            probes.iter().min_by_key(|&(&other, _)| (other - step).abs()).map(|(_, (probe, _))| probe);
        let probe = LinearProbe::fit_from(nearest, train, c_of(step), config)?;
        let accuracy = probe.evaluate(validation)?.accuracy();
        probes.insert(step, (probe, accuracy));
        Ok(accuracy)
    })?;
    let tried = |(&step, (probe, validation_accuracy)): (&i32, &(LinearProbe, f64))| TriedC {
        c: c_of(step),
        validation_accuracy: *validation_accuracy,
        iterations: probe.iterations,
        converged: probe.converged,
    };
    let sweep = CSweep { best: tried((&best, &probes[&best])), tried: probes.iter().map(tried).collect() };
    let probe =
        LinearProbe::fit_from(Some(&probes[&best].0), &train.with(validation)?, sweep.best.c, config)?;
    Ok((probe, sweep))
}

/// C at a step of the grid, counted from C = 1.
fn c_of(step: i32) -> f64 {
    10f64.powf(f64::from(step) / f64::from(STEPS_A_DECADE))
}

/// The step with the best accuracy in the search, the first of several.
fn search(mut accuracy: impl FnMut(i32) -> Result<f64>) -> Result<i32> {
    let (first, last) = (DECADES.start() * STEPS_A_DECADE, DECADES.end() * STEPS_A_DECADE);
    let mut stride = 2 * STEPS_A_DECADE;
    let mut seen: BTreeMap<i32, f64> = BTreeMap::new();
    for step in (first..=last).step_by(stride as usize) {
        seen.insert(step, accuracy(step)?);
    }
    loop {
        let best = seen.iter().rev().max_by(|a, b| a.1.total_cmp(b.1)).map_or(first, |(&step, _)| step);
        if stride == 1 {
            return Ok(best);
        }
        stride /= 2;
        for step in [best - stride, best + stride] {
            if (first..=last).contains(&step) {
                seen.insert(step, accuracy(step)?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of the search for `accuracy` as a function of the power of ten, and the tried steps.
    fn found(accuracy: impl Fn(f64) -> f64) -> (i32, Vec<i32>) {
        let mut tried = Vec::new();
        let best = search(|step| {
            tried.push(step);
            Ok(accuracy(c_of(step).log10()))
        });
        (best.unwrap(), tried)
    }

    #[test]
    fn a_single_peak_is_found_to_an_eighth_of_a_decade_in_fifteen_trainings() {
        for peak in [-5.9, -3.2, 0.0, 0.37, 2.5, 5.0] {
            let (best, tried) = found(|power| -(power - peak).abs());
            assert!((f64::from(best) / 8.0 - peak).abs() <= 0.0625 + 1e-9, "{peak}: {best}");
            assert!(tried.len() <= 15, "{tried:?}");
            let distinct: std::collections::BTreeSet<_> = tried.iter().collect();
            assert_eq!(distinct.len(), tried.len(), "no C is tried twice");
        }
    }

    #[test]
    fn the_ends_of_the_grid_are_not_passed() {
        let (best, tried) = found(|power| power);
        assert_eq!((best, tried.iter().max(), tried.iter().min()), (48, Some(&48), Some(&-48)));
        assert_eq!(found(|power| -power).0, -48);
    }

    #[test]
    fn of_equal_accuracies_the_strongest_penalty_wins() {
        assert_eq!(found(|_| 0.5).0, -48);
        let (best, _) = found(|power| if power >= 1.0 { 0.9 } else { 0.1 });
        assert_eq!(best, 8);
    }

    #[test]
    fn the_grid_has_96_steps_from_a_millionth_to_a_million() {
        assert_eq!((DECADES.end() - DECADES.start()) * STEPS_A_DECADE, 96);
        assert!((c_of(-48) / 1e-6 - 1.0).abs() < 1e-12 && (c_of(48) / 1e6 - 1.0).abs() < 1e-12);
        assert!((c_of(-4) - 0.316).abs() < 3e-4, "the C that the paper and open_clip use for ImageNet");
    }
}
