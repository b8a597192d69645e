//! Steps of a pipeline's sampler.

use super::{Levels, Transition};
use crate::{Error, Result};
use mm_diffusion::{DiffusionPipeline, GenerateOptions, PolicyConditions, SamplerCall};
use mm_image::RgbImage;
use tch::{Kind, Tensor};

/// The noise of steps: that of the config, `rl.policy_gradient.noise`, or the one of the paper for the
/// model's process: Flow-GRPO's of a flow, DDPO's of a diffusion process.
///
/// # Errors
/// The config's is for the other kind of process, or out of its range.
pub(crate) fn transition_of(noise: Option<Transition>, pipeline: &DiffusionPipeline) -> Result<Transition> {
    let is_flow = pipeline.is_flow();
    let transition = noise.unwrap_or(match is_flow {
        true => Transition::FlowSde { noise: 0.7 },
        false => Transition::Ddim { eta: 1.0 },
    });
    transition.check().map_err(|problem| Error::Config(format!("rl.policy_gradient.noise: {problem}")))?;
    if transition.is_of_flow() == is_flow {
        return Ok(transition);
    }
    Err(Error::Config(match is_flow {
        true => "rl.policy_gradient.noise: the model is a flow: use flow_sde, cps or dance_grpo".to_owned(),
        false => "rl.policy_gradient.noise: the model has a noise schedule: use ddim".to_owned(),
    }))
}

/// The prediction of all samples at one call.
pub(crate) fn predict(
    pipeline: &DiffusionPipeline,
    sample: &Tensor,
    call: SamplerCall,
    conditions: &PolicyConditions,
) -> Result<Tensor> {
    let at = (&per_sample(sample, call.timestep), &per_sample(sample, call.now));
    Ok(pipeline.policy_prediction(sample, at, conditions)?)
}

/// The step of the sampler without noise: Euler's of a flow, DDIM's of a diffusion process.
pub(crate) fn deterministic_step(
    is_flow: bool,
    sample: &Tensor,
    prediction: &Tensor,
    SamplerCall { now, next, .. }: SamplerCall,
) -> Tensor {
    match is_flow {
        true => sample + prediction * (next - now),
        false => Transition::Ddim { eta: 0.0 }.step(sample, prediction, Levels { now, next }).mean,
    }
}

/// `value` for each of `samples`, `[N]`, f32.
pub(crate) fn per_sample(samples: &Tensor, value: f64) -> Tensor {
    Tensor::full([samples.size()[0]], value, (Kind::Float, samples.device()))
}

/// The pictures of `samples` `[N, C, h, w]`.
pub(crate) fn pictures(pipeline: &DiffusionPipeline, samples: &Tensor) -> Result<Vec<RgbImage>> {
    let generated = pipeline.pictures(samples, &GenerateOptions::default())?;
    Ok(generated.into_iter().map(|generated| generated.picture).collect())
}
