//! Steps of a pipeline's sampler.

use super::{Levels, Transition};
use crate::{Error, Result};
use mm_diffusion::{DiffusionPipeline, PolicyConditions, SamplerCall};
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
    let all = |value: f64| Tensor::full([sample.size()[0]], value, (Kind::Float, sample.device()));
    Ok(pipeline.policy_prediction(sample, (&all(call.timestep), &all(call.now)), conditions)?)
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
