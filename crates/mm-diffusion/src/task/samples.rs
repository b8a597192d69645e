//! The images that an evaluation makes, and what a judge says of them.

use super::config::DiffusionRunConfig;
use crate::judge::{SceneReader, SceneVerdict, judge};
use crate::pipeline::{DiffusionPipeline, GenerateOptions, ImageRequest, to_pictures};
use crate::{Error, Result};
use mm_data::shapes::Scene;
use mm_image::RgbImage;
use mm_train::{EvalContext, EvalSet, gather};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A prompt of an evaluation set.
pub(super) struct Prompt {
    pub text: String,
    /// The images before and after, of an edit.
    pub edit: Option<[RgbImage; 2]>,
    pub scene: Option<Arc<Scene>>,
}

/// An image that was made, with what the judge says.
pub(super) struct Made {
    /// The prompt's number.
    pub index: usize,
    pub picture: RgbImage,
    pub judged: Judged,
}

/// What is measured of an image.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Judged {
    pub verdict: Option<SceneVerdict>,
    /// Of an edit: the mean difference, from 0 to 1, of the pixels that must not change.
    pub unchanged_error: Option<f64>,
}

/// The first prompts of `set`, at most as many as the config says.
pub(super) fn prompts(config: &DiffusionRunConfig, set: &EvalSet) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    for index in 0..set.len().min(config.sample.prompts) {
        let Ok(sample) = set.sample(index) else { continue };
        let (text, edit) = match &sample.instruction {
            Some(instruction) => {
                let [before, after] = sample.image_pair()?;
                let edit = [before.decode(set.background)?, after.decode(set.background)?];
                (Some(instruction.clone()), Some(edit))
            }
            None => {
                let template = config.textual_inversion.as_ref().and_then(|config| config.prompt(index));
                (template.or_else(|| sample.captions.first().cloned()), None)
            }
        };
        prompts.extend(text.map(|text| Prompt { text, edit, scene: sample.scene.clone() }));
    }
    Ok(prompts)
}

/// How the images of an evaluation are made at one guidance scale.
pub(super) fn generate_options(config: &DiffusionRunConfig, guidance: f64) -> GenerateOptions {
    GenerateOptions {
        steps: Some(config.sample.steps),
        guidance_scale: Some(guidance),
        ..GenerateOptions::default()
    }
}

/// Makes the images of this rank's share of `prompts` at one guidance scale, and judges those of all ranks:
/// the verdicts are in the order of the prompts, the pictures are this rank's.
pub(super) fn make(
    pipeline: &DiffusionPipeline,
    config: &DiffusionRunConfig,
    prompts: &[Prompt],
    guidance: f64,
    reader: Option<&SceneReader>,
    context: &EvalContext,
) -> Result<(Vec<Made>, Vec<Judged>)> {
    let options = generate_options(config, guidance);
    let (rank, world) = (context.group.rank(), context.group.world());
    let own: Vec<usize> = (0..prompts.len()).filter(|index| index % world == rank).collect();
    let mut made = Vec::new();
    // Edits and other prompts are computed apart: the model reads an image in one of them.
    for edits in [false, true] {
        let of_kind: Vec<usize> =
            own.iter().copied().filter(|&index| prompts[index].edit.is_some() == edits).collect();
        for indices in of_kind.chunks(context.batch_size) {
            let request = |&index: &usize| ImageRequest {
                prompt: prompts[index].text.clone(),
                negative_prompt: None,
                seed: index as u64,
            };
            let requests: Vec<ImageRequest> = indices.iter().map(request).collect();
            let sources: Vec<RgbImage> = indices
                .iter()
                .filter_map(|&index| prompts[index].edit.as_ref().map(|[before, _]| before.clone()))
                .collect();
            let sample = match edits {
                true => pipeline.sample_edits(&requests, &sources, &options)?,
                false => pipeline.sample(&requests, None, &options, &mut |_| Ok(()))?,
            };
            let pictures = to_pictures(&pipeline.decode(&sample, false));
            let seen = reader.map(|reader| reader.read(&pictures)).transpose()?;
            for (place, (&index, picture)) in indices.iter().zip(pictures).enumerate() {
                let Prompt { scene, edit, .. } = &prompts[index];
                let verdict =
                    scene.as_ref().zip(seen.as_ref()).map(|(scene, seen)| judge(scene, &seen[place]));
                let unchanged_error = edit.as_ref().map(|images| unchanged_error(images, &picture));
                made.push(Made { index, picture, judged: Judged { verdict, unchanged_error } });
            }
            context.progress.report("images made", made.len() as u64, own.len() as u64);
        }
    }
    let judged: Vec<(usize, Judged)> = made.iter().map(|made| (made.index, made.judged)).collect();
    let mut all = gather(context.group, &judged)?;
    all.sort_by_key(|(index, _)| *index);
    Ok((made, all.into_iter().map(|(_, judged)| judged).collect()))
}

/// The mean difference of `picture` from the wanted image, from 0 to 1, where the edit changes nothing.
fn unchanged_error([before, after]: &[RgbImage; 2], picture: &RgbImage) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    if picture.dimensions() != before.dimensions() {
        return 1.0;
    }
    for ((before, after), made) in before.pixels().zip(after.pixels()).zip(picture.pixels()) {
        if before == after {
            let off = |channel: usize| f64::from(made.0[channel].abs_diff(after.0[channel]));
            sum += (off(0) + off(1) + off(2)) / (3.0 * 255.0);
            count += 1;
        }
    }
    sum / count.max(1) as f64
}

/// Opens the judge that the config names.
pub(super) fn open_judge(config: &DiffusionRunConfig) -> Result<Option<SceneReader>> {
    let Some(judge) = &config.sample.judge else { return Ok(None) };
    let options = mm_core::OpenOptions { device: config.run.device.clone(), ..Default::default() };
    SceneReader::open(judge, &options)
        .map(Some)
        .map_err(|error| Error::Model(format!("sample.judge: {error}")))
}
