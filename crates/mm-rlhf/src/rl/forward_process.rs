//! Learning from the images of a roll-out alone, noised anew: DiffusionNFT, and reward-weighted regression.

use super::config::{RlConfig, RlMethod};
use super::rollout::Samples;
use crate::Result;
use crate::policy::nft_loss;
use mm_core::{seed, upload};
use mm_diffusion::{DiffusionPipeline, ImageNoise, SamplerCall};
use mm_train::{Loss, MicroBatch, WeightCopy};
use tch::{Kind, Tensor};

/// What losses on noised images are computed with.
pub(super) struct ForwardProcess<'a> {
    pub pipeline: &'a DiffusionPipeline,
    pub config: &'a RlConfig,
    /// The policy that makes the images, of NFT.
    pub old: Option<&'a WeightCopy>,
    /// The initial weights, where the distance from them counts.
    pub reference: Option<&'a WeightCopy>,
}

/// Noised images of one micro-batch.
struct Noised {
    /// As the denoiser reads them, `[N, C, h, w]`.
    sample: Tensor,
    noise: Tensor,
    /// `[N]`, of each image's call of the sampler.
    timestep: Tensor,
    level: Tensor,
}

impl ForwardProcess<'_> {
    /// Runs `samples` forward and backward at one drawn level of noise after the other; the levels are those
    /// of the sampler. `pass` decides the draws.
    ///
    /// # Errors
    /// libtorch refuses an operation.
    pub fn backward(&self, samples: &Samples, pass: u64, micro_batch: &MicroBatch) -> Result<Loss> {
        let calls = self.pipeline.sampler_calls(self.config.steps)?;
        let timesteps = match self.config.method {
            RlMethod::Nft => self.config.nft.timesteps,
            _ => self.config.rwr.timesteps,
        };
        let prompts: Vec<&str> = samples.prompts.iter().map(String::as_str).collect();
        let share = 1.0 / timesteps as f64;
        let (mut total, mut distance) = (Tensor::from(0.0), Tensor::from(0.0));
        for draw in 0..timesteps {
            let noised = self.noised(samples, &calls, pass, (draw, timesteps))?;
            let predict = || -> Result<Tensor> {
                let conditions = self.pipeline.policy_conditions(&prompts, self.config.guidance_scale)?;
                let at = (&noised.timestep, &noised.level);
                Ok(self.pipeline.policy_prediction(&noised.sample, at, &conditions)?)
            };
            let by =
                |weights: &WeightCopy| weights.in_place(|| tch::no_grad(|| micro_batch.forward(predict)));
            let old = self.old.map(by).transpose()?;
            let reference = self.reference.map(by).transpose()?;
            let prediction = micro_batch.forward(predict)?;
            let losses = match old {
                Some(old) => self.nft(samples, &noised, &prediction, &old),
                None => self.regression(samples, &noised, &prediction),
            };
            let mut loss = losses.mean(Kind::Float);
            if let Some(reference) = reference {
                let squared = (&prediction - reference).square().mean(Kind::Float);
                distance += squared.detach() * share;
                loss += squared * self.config.kl_coefficient;
            }
            let loss = loss * share;
            if draw + 1 == timesteps {
                micro_batch.sync_gradients_on_next_backward();
            }
            micro_batch.backward(&(&loss * micro_batch.loss_scale))?;
            total += loss.detach();
        }
        Ok(Loss { total, parts: vec![("distance", distance)] })
    }

    /// DiffusionNFT's loss of each image, `[N]`: the factor is the largest advantage, as in its code. Images
    /// without an advantage have none.
    fn nft(&self, samples: &Samples, noised: &Noised, prediction: &Tensor, old: &Tensor) -> Tensor {
        let beta = self.config.nft.beta;
        let device = self.pipeline.device();
        let optimality = on_device(samples.weights.iter().map(|&weight| weight as f32), device);
        let kept = on_device(samples.is_kept.iter().map(|&is_kept| f32::from(is_kept)), device);
        let loss = if self.pipeline.is_flow() {
            nft_loss(&noised.sample, &noised.level, &samples.clean, prediction, old, &optimality, beta)
        } else {
            // The same process as a flow: its sample is scaled so that the weights of image and noise sum to
            // 1.
            let level = noised.level.view([-1, 1, 1, 1]);
            let (root, rest) = (level.sqrt(), (1f64 - &level).sqrt());
            let sum = &root + &rest;
            let velocity = |noise: &Tensor| noise - (&noised.sample - noise * &rest) / &root;
            nft_loss(
                &(&noised.sample / &sum),
                &(&rest / &sum).view([-1]),
                &samples.clean,
                &velocity(prediction),
                &velocity(old),
                &optimality,
                beta,
            )
        };
        loss * kept * self.config.advantage_clip
    }

    /// The squared error of the prediction of each image, `[N]`, by the weight of its reward.
    fn regression(&self, samples: &Samples, noised: &Noised, prediction: &Tensor) -> Tensor {
        let target = self.pipeline.policy_target(&samples.clean, &noised.noise);
        let weights = on_device(samples.weights.iter().map(|&weight| weight as f32), self.pipeline.device());
        let errors = (prediction - target).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
        errors * weights
    }

    /// The images of `samples`, each at the level of a drawn call and with noise of its own, for the draw
    /// number `draw` of `draws`.
    fn noised(
        &self,
        samples: &Samples,
        calls: &[SamplerCall],
        pass: u64,
        (draw, draws): (usize, usize),
    ) -> Result<Noised> {
        let device = self.pipeline.device();
        let seed_of =
            |purpose: &str, seed: u64| seed::derive(seed::derive(seed, purpose, pass), "draw", draw as u64);
        let seeds: Vec<u64> = samples.seeds.iter().map(|&seed| seed_of("noise", seed)).collect();
        let noise = upload(&ImageNoise::new(&seeds).draw(&samples.clean.size()[1..])?, device);
        // The draws of an image are spread over the calls.
        let call_of = |&seed: &u64| {
            let first = seed::derive(seed, "level", pass);
            calls[(first as usize % calls.len() + draw * calls.len() / draws) % calls.len()]
        };
        let drawn: Vec<SamplerCall> = samples.seeds.iter().map(call_of).collect();
        let timestep = on_device(drawn.iter().map(|call| call.timestep as f32), device);
        let level = on_device(drawn.iter().map(|call| call.now as f32), device);
        let sample = self.pipeline.policy_noised(&samples.clean, &noise, &level);
        Ok(Noised { sample, noise, timestep, level })
    }
}

/// Numbers of images as a tensor `[N]`.
fn on_device(numbers: impl Iterator<Item = f32>, device: tch::Device) -> Tensor {
    upload(&Tensor::from_slice(&numbers.collect::<Vec<f32>>()), device)
}
