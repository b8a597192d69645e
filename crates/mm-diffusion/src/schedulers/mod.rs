//! Schedulers: from noise to an image in steps, as diffusers 0.42 does it.
//!
//! A diffusion model is trained to undo noise. The *noise schedule* says how much: at the training timestep t
//! a sample is `sqrt(alphas_cumprod[t]) x0 + sqrt(1 - alphas_cumprod[t]) noise` ([`NoiseSchedule`]). A
//! scheduler picks a few of these timesteps, gives the model the sample at each, and computes the sample at
//! the next from the model's output. The schedulers differ in how they do this:
//!
//! | scheduler | idea | calls in n steps | draws noise |
//! |---|---|---|---|
//! | [`Ddpm`][1] | the Markov chain of training, reversed (Ho et al. 2020) | n | yes |
//! | [`Ddim`][2] | the same marginals without noise (Song et al. 2020) | n | with `eta` > 0 |
//! | [`Pndm`][3] | linear multistep on DDIM's step (Liu et al. 2022) | n + 1, or n + 9 | |
//! | [`Lms`][4] | linear multistep over sigma (k-diffusion) | n | |
//! | [`Euler`][5] | Euler's method over sigma (Karras et al. 2022) | n | |
//! | [`EulerAncestral`][6] | a longer Euler step, and fresh noise (k-diffusion) | n | yes |
//! | [`Heun`][7] | Euler's step, corrected at its end (Karras et al. 2022) | 2n - 1 | |
//! | [`DpmMultistep`][8] | exponential integrator (Lu et al. 2022) | n | in its SDE form |
//! | [`UniPc`][9] | the same, with a corrector that costs no call (Zhao et al. 2023) | n | |
//! | [`Lcm`][10] | jumps to x0 and back, for consistency models (Luo et al. 2023) | n | yes |
//! | [`FlowMatchEuler`][11] | Euler's method on a straight flow (Esser et al. 2024) | n | |
//!
//! [1]: SchedulerKind::Ddpm
//! [2]: SchedulerKind::Ddim
//! [3]: SchedulerKind::Pndm
//! [4]: SchedulerKind::Lms
//! [5]: SchedulerKind::Euler
//! [6]: SchedulerKind::EulerAncestral
//! [7]: SchedulerKind::Heun
//! [8]: SchedulerKind::DpmMultistep
//! [9]: SchedulerKind::UniPc
//! [10]: SchedulerKind::Lcm
//! [11]: SchedulerKind::FlowMatchEuler
//!
//! [`SchedulerConfig`] reads `scheduler_config.json`, and builds a [`Scheduler`] for a number of steps:
//!
//! ```
//! use mm_diffusion::schedulers::{SchedulerConfig, SchedulerOptions};
//! use tch::{Device, Kind, Tensor};
//!
//! let config = SchedulerConfig::from_json(
//!     r#"{"_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
//!         "beta_schedule": "scaled_linear"}"#,
//! )?;
//! let mut scheduler = config.build(4, &SchedulerOptions::default())?;
//! assert_eq!(scheduler.timesteps(), [999.0, 666.0, 333.0, 0.0]);
//!
//! let model = |input: &Tensor, _timestep: f64| input * 0.5;
//! let mut noise = || Tensor::zeros([1, 4, 8, 8], (Kind::Float, Device::Cpu));
//! let mut sample = Tensor::ones([1, 4, 8, 8], (Kind::Float, Device::Cpu)) * scheduler.init_noise_sigma();
//! for call in 0..scheduler.timesteps().len() {
//!     let input = scheduler.scale_model_input(&sample, call);
//!     let output = model(&input, scheduler.timesteps()[call]);
//!     sample = scheduler.step(&output, call, &sample, &mut noise)?;
//! }
//! # Ok::<(), mm_diffusion::Error>(())
//! ```
//!
//! Nothing here draws random numbers: noise comes from the caller, so that each image can have its own seed.
//!
//! To add a scheduler: a variant of [`SchedulerKind`] with its class and word, its defaults in `defaults.rs`,
//! a file like `ddim.rs`, an arm in [`SchedulerConfig::build`], and its cases in the goldens.

mod alphas;
mod betas;
mod calls;
mod config;
mod ddim;
mod ddpm;
mod defaults;
mod dpm_multistep;
mod euler;
mod euler_ancestral;
mod flow_match;
mod heun;
mod kind;
mod lcm;
mod lms;
mod pndm;
mod prediction;
mod settings;
mod sigma_scheduler;
mod sigmas;
mod spacing;
mod unipc;

pub use betas::NoiseSchedule;
pub use config::{SchedulerConfig, SchedulerOptions};
pub use kind::SchedulerKind;
pub use settings::PredictionType;

use crate::Result;
use tch::Tensor;

/// A scheduler that is set up for a number of steps. `call` counts the model's calls from 0.
///
/// Samples, model outputs and noise are `[B, ...]` of one shape. A step computes in f32 and returns the kind
/// of its sample. Schedulers that remember earlier calls (PNDM, LMS, Heun, DPM-Solver++, UniPC) take the
/// calls in order, and start again after [`set_begin_index`](Self::set_begin_index); the others take any call
/// at any time.
pub trait Scheduler: std::fmt::Debug + Send {
    /// The timestep that the model gets at each call. Not integers where the noise level lies between two
    /// training timesteps.
    fn timesteps(&self) -> &[f64];

    /// The noise level at each call and, last, after the final call: `sigma` of x0 + sigma noise, or for flow
    /// matching of (1 - sigma) x0 + sigma noise. Empty for the schedulers that compute with `alphas_cumprod`:
    /// DDPM, DDIM, PNDM and LCM.
    fn sigmas(&self) -> &[f64] {
        &[]
    }

    /// The factor of the standard normal noise that a run starts from.
    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    /// What the model is given for `sample` at `call`.
    ///
    /// # Panics
    /// There is no such call.
    fn scale_model_input(&self, sample: &Tensor, call: usize) -> Tensor {
        let _ = call;
        sample.shallow_clone()
    }

    /// The sample after `call`. `noise` draws standard normal noise of the sample's shape; it is called
    /// exactly as often as diffusers draws, also where the noise then has no weight.
    fn step(
        &mut self,
        model_output: &Tensor,
        call: usize,
        sample: &Tensor,
        noise: &mut dyn FnMut() -> Tensor,
    ) -> Result<Tensor>;

    /// The model's estimate of the noise-free sample at `call`, for previews. `sample` is the one before
    /// [`scale_model_input`](Self::scale_model_input). Neither clipped nor thresholded.
    ///
    /// # Panics
    /// There is no such call.
    fn pred_original_sample(&self, model_output: &Tensor, call: usize, sample: &Tensor) -> Tensor;

    /// `original` with as much noise as a sample has before `call`: the start of image-to-image, and the
    /// known part of an inpainted image.
    ///
    /// # Panics
    /// There is no such call.
    fn add_noise(&self, original: &Tensor, noise: &Tensor, call: usize) -> Tensor;

    /// Model calls per step: 2 for Heun, else 1. Image-to-image that skips k steps starts at call k *
    /// `order`.
    fn order(&self) -> usize {
        1
    }

    /// Forgets earlier calls and makes `call` the first: 0 for another run, later for image-to-image.
    fn set_begin_index(&mut self, call: usize) -> Result<()>;
}
