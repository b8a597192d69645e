//! How far the policy's predictions are from the initial model's.

use super::Comparison;
use crate::Result;
use crate::policy::{Levels, per_sample, predict, transition_of};
use mm_core::{seed, upload};
use mm_diffusion::{DiffusionPipeline, ImageNoise, ImageRequest};
use mm_dist::{ProcessGroup, ReduceOp};
use mm_train::WeightCopy;
use tch::{Kind, Tensor};

/// The places in the sampler's steps at which predictions are compared.
const PLACES: [f64; 3] = [0.2, 0.5, 0.8];

/// Sums over the images of a set, noised anew with fixed noise.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drift {
    squares: f64,
    reference_squares: f64,
    kl: f64,
    count: f64,
}

/// The drift of a set.
#[derive(Clone, Copy, Debug)]
pub(super) struct DriftNumbers {
    /// The norm of predictions divided by that of the initial model's: above 1 as images are driven to
    /// extremes, a cheap sign of an exploited reward.
    pub norm_ratio: f64,
    /// The KL of one step of the sampler with its paper's noise, a mean over the elements of an image.
    pub kl: f64,
}

impl Drift {
    /// Adds the images `samples` `[N, C, h, w]` of `requests`, whose seeds decide the noise.
    pub fn add(
        &mut self,
        pipeline: &DiffusionPipeline,
        reference: &WeightCopy,
        comparison: &Comparison,
        requests: &[ImageRequest],
        samples: &Tensor,
    ) -> Result<()> {
        let calls = pipeline.sampler_calls(comparison.steps)?;
        let transition = transition_of(None, pipeline)?;
        let texts: Vec<&str> = requests.iter().map(|request| request.prompt.as_str()).collect();
        let seeds: Vec<u64> = requests.iter().map(|request| seed::derive(request.seed, "drift", 0)).collect();
        let noise = upload(&ImageNoise::new(&seeds).draw(&samples.size()[1..])?, pipeline.device());
        for place in PLACES {
            let call = calls[(calls.len() as f64 * place) as usize];
            let noised = pipeline.policy_noised(samples, &noise, &per_sample(samples, call.now));
            let predicted = || {
                tch::no_grad(|| {
                    let conditions = pipeline.policy_conditions(&texts, comparison.guidance_scale)?;
                    predict(pipeline, &noised, call, &conditions)
                })
            };
            let (own, initial) = (predicted()?, reference.in_place(predicted)?);
            let levels = Levels { now: call.now, next: call.next };
            let step = |prediction: &Tensor| transition.step(&noised, prediction, levels);
            let sum = |x: &Tensor| x.sum(Kind::Double).double_value(&[]);
            self.kl += sum(&transition.kl(&step(&own), &step(&initial)));
            self.squares += sum(&own.square());
            self.reference_squares += sum(&initial.square());
            self.count += texts.len() as f64;
        }
        Ok(())
    }

    /// The numbers of all processes.
    pub fn of_all(&self, group: &ProcessGroup) -> Result<DriftNumbers> {
        let own = [self.squares, self.reference_squares, self.kl, self.count];
        let sums = group.reduce(&own, ReduceOp::Sum)?;
        Ok(DriftNumbers {
            norm_ratio: (sums[0] / sums[1].max(f64::MIN_POSITIVE)).sqrt(),
            kl: sums[2] / sums[3].max(1.0),
        })
    }
}
