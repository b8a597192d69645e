//! The branches of guidance, and the prediction that they give together.

use super::attention::TokenMaps;
use super::denoiser::Conditions;
use super::open::{DiffusionPipeline, Family};
use super::options::{GenerateOptions, ImageRequest, Settings};
use crate::Result;
use crate::text::{TextConditions, guidance_embedding};
use tch::{Kind, Tensor};

/// The branches of guidance, of which each is a prediction for all images.
pub(super) struct Guidance {
    /// The calls of a step, each for one branch or for all.
    passes: Vec<Pass>,
    /// The prompts alone, where some steps have no guidance.
    alone: Option<Pass>,
}

/// A call of the model.
struct Pass {
    conditions: Conditions,
    /// Channels that the model reads beside the sample.
    extra: Option<Tensor>,
    branches: i64,
    /// The branch that reads the prompts, if it is one of this call.
    prompts: Option<i64>,
}

impl DiffusionPipeline {
    /// The branches of guidance: no prompt (or the negative one) and the prompt; of an instructed edit the
    /// instruction, the image alone, and neither. `extra` are the channels beside the sample of each.
    pub(super) fn guidance(
        &self,
        requests: &[ImageRequest],
        options: &GenerateOptions,
        settings: &Settings,
        extra: &[Option<Tensor>],
    ) -> Result<Guidance> {
        let prompts: Vec<&str> = requests.iter().map(|request| request.prompt.as_str()).collect();
        let negative: Vec<Option<&str>> =
            requests.iter().map(|request| request.negative_prompt.as_deref()).collect();
        for (prompt, end) in self.text.cut(&prompts)? {
            tracing::warn!("the end of the prompt {prompt:?} is not read, it is too long: {end:?}");
        }
        let same = requests.iter().all(|request| {
            request.prompt == requests[0].prompt && request.negative_prompt == requests[0].negative_prompt
        });
        let positive = self.text.encode(&prompts, options.clip_skip)?;
        let count = requests.len() as i64;
        let pass = |text: TextConditions, extra: Option<Tensor>, branches: i64, prompts: Option<i64>| {
            let rows = branches * count;
            let on = (Kind::Float, self.device);
            let (height, width) = (settings.height as f64, settings.width as f64);
            let sizes = (self.family == Family::Sdxl).then(|| {
                let sizes =
                    Tensor::from_slice(&[height, width, 0.0, 0.0, height, width]).to_kind(Kind::Float);
                sizes.to_device(self.device).expand([rows, 6], false)
            });
            let guidance = self
                .denoiser
                .guidance_width()
                .map(|width| guidance_embedding(settings.guidance_scale, rows, width, on.1));
            let conditions = self.denoiser.prepare(text, branches, same, sizes, guidance);
            Pass { conditions, extra, branches, prompts }
        };
        let is_edit = extra.len() == 3;
        let is_guided = settings.guidance_scale > 1.0
            && self.denoiser.guidance_width().is_none()
            && (!is_edit || options.image_guidance_scale >= 1.0);
        let copy = |extra: &Option<Tensor>| extra.as_ref().map(Tensor::shallow_clone);
        if !is_guided {
            return Ok(Guidance { passes: vec![pass(positive, copy(&extra[0]), 1, Some(0))], alone: None });
        }
        let negative = self.text.encode_negative(&negative, &positive)?;
        let (texts, of_prompts): (Vec<&TextConditions>, usize) = match is_edit {
            true => (vec![&positive, &negative, &negative], 0),
            false => (vec![&negative, &positive], 1),
        };
        let extras: Vec<Option<Tensor>> =
            (0..texts.len()).map(|branch| copy(if is_edit { &extra[branch] } else { &extra[0] })).collect();
        let passes = if options.guidance_in_two_passes {
            let each = texts.iter().zip(extras).enumerate();
            each.map(|(branch, (text, extra))| {
                pass(text.shallow_clone(), extra, 1, (branch == of_prompts).then_some(0))
            })
            .collect()
        } else {
            let extra: Option<Vec<&Tensor>> = extras.iter().map(Option::as_ref).collect();
            let extra = extra.map(|all| Tensor::cat(&all, 0));
            let text = texts[1..].iter().fold(texts[0].shallow_clone(), |all, text| all.followed_by(text));
            vec![pass(text, extra, texts.len() as i64, Some(of_prompts as i64))]
        };
        let has_interval = settings.guidance_interval != [0.0, 1.0];
        let alone = has_interval.then(|| pass(positive, copy(&extra[0]), 1, Some(0)));
        Ok(Guidance { passes, alone })
    }

    /// The guided prediction for `input` `[N, C, h, w]` at `timestep`, after the `share` of the steps. The
    /// attention to the prompts' tokens is added to `maps`.
    pub(super) fn predict(
        &self,
        guidance: &Guidance,
        (input, timestep, share): (&Tensor, f64, f64),
        settings: &Settings,
        maps: &mut Option<TokenMaps>,
    ) -> Result<Tensor> {
        let count = input.size()[0];
        let mut call = |pass: &Pass| -> Result<Tensor> {
            let rows = input.repeat([pass.branches, 1, 1, 1]);
            let rows = match &pass.extra {
                Some(extra) => Tensor::cat(&[&rows, extra], 1),
                None => rows,
            };
            let watched = maps.as_mut().zip(pass.prompts);
            let (output, weights) =
                self.denoiser.forward(&rows, timestep, &pass.conditions, watched.is_some())?;
            if let Some((maps, branch)) = watched {
                maps.add(&weights, branch * count)?;
            }
            Ok(output)
        };
        let [from, to] = settings.guidance_interval;
        if let Some(alone) = guidance.alone.as_ref().filter(|_| share < from || share > to) {
            return call(alone);
        }
        let outputs: Vec<Tensor> = guidance.passes.iter().map(call).collect::<Result<_>>()?;
        Ok(combine(&Tensor::cat(&outputs, 0), count, settings))
    }
}

/// The guided prediction from those of the branches, `[branches * N, C, h, w]`.
fn combine(outputs: &Tensor, count: i64, settings: &Settings) -> Tensor {
    let parts = outputs.split(count, 0);
    match &parts[..] {
        [alone] => alone.shallow_clone(),
        [none, prompt] => {
            let guided = none + (prompt - none) * settings.guidance_scale;
            rescaled(guided, prompt, settings.guidance_rescale)
        }
        [instruction, image, none] => {
            let image_scale = settings.image_guidance_scale.unwrap_or(1.0);
            none + (instruction - image) * settings.guidance_scale + (image - none) * image_scale
        }
        _ => unreachable!("guidance has one, two or three branches"),
    }
}

/// `guided`, with a `share` of it brought to the deviation of `prompt`.
fn rescaled(guided: Tensor, prompt: &Tensor, share: f64) -> Tensor {
    if share == 0.0 {
        return guided;
    }
    let deviation = |x: &Tensor| x.std_dim([1i64, 2, 3].as_slice(), true, true);
    let factor = deviation(prompt) / deviation(&guided);
    &guided * factor * share + guided * (1.0 - share)
}
