//! Evaluation: captions of a set's images, measured against its references and scene graphs.

use crate::metrics::scenes::{HallucinationKind, SceneChair, SceneScore};
use crate::metrics::{CLIP_SCORE_PROMPT, CaptionMetrics, CaptionedImage, clip_scores, ref_clip_scores};
use crate::run_config::CaptionRunConfig;
use crate::set_captioner::{Resized, resize};
use crate::task::references;
use crate::{CaptionPipeline, Result, sections};
use mm_clip::ClipPipeline;
use mm_core::{DeviceConfig, OpenOptions};
use mm_data::{Fault, Item, Map, Sample, SampleRng};
use mm_image::RgbImage;
use mm_text::generate::{GenerationConfig, Hypothesis};
use mm_train::{Cell, EvalContext, EvalSet, Evaluation, Metric, Table, gather};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An image with its references.
struct EvalItem {
    image: Resized,
    references: Vec<String>,
}

impl Item for EvalItem {
    fn bytes(&self) -> usize {
        self.image.bytes()
    }
}

/// The caption of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EvalCaption {
    /// Its number in the set.
    pub index: usize,
    /// Its key in the set.
    pub key: String,
    /// The caption.
    pub caption: String,
    /// Its tokens, without the prompt.
    pub tokens: Vec<u32>,
    /// Whether it ended by itself.
    pub finished: bool,
    /// The captions that it is compared with.
    pub references: Vec<String>,
    /// CLIPScore and RefCLIPScore, with `metrics.clip`.
    pub clip_scores: Option<[f32; 2]>,
}

/// Measures `pipeline` on `set`.
///
/// # Errors
/// The set cannot be read, captions cannot be generated, or another process is lost.
pub(crate) fn evaluate(
    pipeline: &CaptionPipeline,
    config: &CaptionRunConfig,
    set: &EvalSet,
    context: &EvalContext,
) -> Result<Evaluation> {
    let options = OpenOptions { device: DeviceConfig::from(pipeline.device), ..OpenOptions::default() };
    let clip = config.metrics.clip.as_deref().map(|clip| ClipPipeline::open(clip, &options)).transpose()?;
    let map = preprocess(pipeline, config, set, clip.as_ref());
    let mut own = Vec::new();
    let read = set.for_each_batch(context, map, |items, indices| {
        own.extend(caption(pipeline, config, clip.as_ref(), items, &indices)?);
        Ok(())
    })?;
    let mut captions = gather(context.group, &own)?;
    captions.sort_by_key(|caption| caption.index);

    let images: Vec<CaptionedImage> = captions
        .iter()
        .map(|row| CaptionedImage {
            image_id: row.key.clone(),
            hypothesis: row.caption.clone(),
            references: row.references.clone(),
        })
        .collect();
    let measured = CaptionMetrics::new(&images, None);
    let scores = scene_scores(set, &captions)?;
    let scenes = (!scores.is_empty()).then(|| SceneChair::of(&scores));
    let finished = captions.iter().filter(|caption| caption.finished).count();
    let mut metrics: Vec<Metric> = measured
        .scores
        .0
        .iter()
        .map(|(name, value)| Metric { name: name.clone(), value: *value, is_headline: name == "cider_d" })
        .collect();
    metrics.push(Metric::new("finished", finished as f64 / captions.len().max(1) as f64));
    let clip_scores: Option<Vec<[f32; 2]>> = captions.iter().map(|caption| caption.clip_scores).collect();
    for (place, name) in ["clip_score", "ref_clip_score"].into_iter().enumerate() {
        let Some(scores) = clip_scores.as_ref().filter(|scores| !scores.is_empty()) else { continue };
        let sum: f64 = scores.iter().map(|scores| f64::from(scores[place])).sum();
        metrics.push(Metric::new(name, sum / scores.len() as f64));
    }
    let mut tables = vec![metrics_table(set, &captions, &metrics)];
    if let Some(chair) = &scenes {
        metrics.push(Metric::headline("faithful", 1.0 - chair.chair_s));
        metrics.extend([
            Metric::new("chair_s", chair.chair_s),
            Metric::new("chair_i", chair.chair_i),
            Metric::new("tuple_f1", chair.f1),
            Metric::new("unparsed", chair.unparsed),
        ]);
        tables.push(scenes_table(chair));
    }
    let sections = if context.wants_sections {
        sections::draw(pipeline, &config.input.prompt, set, &captions, &measured, &scores)?
    } else {
        Vec::new()
    };
    Ok(Evaluation {
        set: set.name.clone(),
        samples: captions.len(),
        bad_samples: read.bad.len(),
        metrics,
        tables,
        sections,
        credit: set.credit().to_owned(),
        ..Evaluation::default()
    })
}

fn preprocess(
    pipeline: &CaptionPipeline,
    config: &CaptionRunConfig,
    set: &EvalSet,
    clip: Option<&ClipPipeline>,
) -> Map<EvalItem> {
    let resize = resize(pipeline, clip, set);
    let which = config.input.references;
    Arc::new(move |sample: &Sample, _: &mut SampleRng| {
        let references = references(&sample.captions, which).to_vec();
        if references.is_empty() {
            return Err(mm_data::Error::bad(Fault::NoCaption, "no caption to compare with"));
        }
        Ok(EvalItem { image: resize(sample)?, references })
    })
}

fn caption(
    pipeline: &CaptionPipeline,
    config: &CaptionRunConfig,
    clip: Option<&ClipPipeline>,
    items: Vec<EvalItem>,
    indices: &[usize],
) -> Result<Vec<EvalCaption>> {
    let (mut images, mut for_clip, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for EvalItem { image, references } in items {
        images.push(image.image);
        for_clip.extend(image.for_clip);
        texts.push((image.key, references));
    }
    let prompts = pipeline.prompts(&config.input.prompt, indices.iter().map(|&index| index as u64))?;
    let generation = config.generate.as_ref().unwrap_or(&pipeline.generation);
    let one = GenerationConfig { num_return_sequences: 1, ..generation.clone() };
    let found = pipeline.generate(&pipeline.encode_resized(&images)?, &prompts, &one)?;
    let mut rows = Vec::with_capacity(indices.len());
    for ((&index, (key, references)), found) in indices.iter().zip(texts).zip(found) {
        let Some(Hypothesis { tokens, finished, .. }) = found.into_iter().next() else { continue };
        let caption = pipeline.tokenizer.decode(&tokens)?;
        rows.push(EvalCaption { index, key, caption, tokens, finished, references, clip_scores: None });
    }
    if let Some(clip) = clip {
        add_clip_scores(clip, &for_clip, &mut rows)?;
    }
    Ok(rows)
}

/// Scores `rows`, a caption for each of `images`, with `clip`.
fn add_clip_scores(clip: &ClipPipeline, images: &[RgbImage], rows: &mut [EvalCaption]) -> Result<()> {
    let prompted = |caption: &String| format!("{CLIP_SCORE_PROMPT}{caption}");
    let embed = |texts: Vec<String>| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        clip.text.embed(&texts, texts.len().max(1))
    };
    let images = clip.image.embed_resized(images)?;
    let captions = embed(rows.iter().map(|row| prompted(&row.caption)).collect())?;
    let references = embed(rows.iter().flat_map(|row| row.references.iter().map(prompted)).collect())?;
    let counts: Vec<usize> = rows.iter().map(|row| row.references.len()).collect();
    let scores = clip_scores(&images, &captions)?;
    let ref_scores = ref_clip_scores(&scores, &captions, &references, &counts)?;
    for (row, scores) in rows.iter_mut().zip(scores.into_iter().zip(ref_scores)) {
        row.clip_scores = Some(scores.into());
    }
    Ok(())
}

/// The captions against the scene graphs of their images; empty for a set without.
fn scene_scores(set: &EvalSet, captions: &[EvalCaption]) -> Result<Vec<SceneScore>> {
    let has_scenes = match captions.first() {
        Some(first) => set.sample(first.index)?.scene.is_some(),
        None => false,
    };
    if !has_scenes {
        return Ok(Vec::new());
    }
    let score = |row: &EvalCaption| {
        let scene = set.sample(row.index)?.scene;
        Ok(scene.map(|scene| SceneScore::of(&row.caption, &scene)).unwrap_or_default())
    };
    captions.iter().map(score).collect()
}

fn metrics_table(set: &EvalSet, captions: &[EvalCaption], metrics: &[Metric]) -> Table {
    let references: usize = captions.iter().map(|caption| caption.references.len()).sum();
    Table {
        title: format!("{}: {} images, {references} references", set.name, captions.len()),
        columns: vec!["metric".to_owned(), "value".to_owned()],
        rows: metrics
            .iter()
            .map(|metric| vec![Cell::Text(metric.name.clone()), Cell::Number(metric.value)])
            .collect(),
    }
}

fn scenes_table(chair: &SceneChair) -> Table {
    let kinds = HallucinationKind::ALL.map(|kind| {
        let mentions = chair.kind(kind);
        vec![
            Cell::Text(kind.word().to_owned()),
            Cell::Count(mentions.all as u64),
            Cell::Share(mentions.share()),
        ]
    });
    let columns = ["statements about", "mentions", "false"].map(str::to_owned).into();
    let title = format!(
        "CHAIR on scene graphs: {:.1} % of captions with a false statement, {:.1} % of objects; F1 {:.3}",
        100.0 * chair.chair_s,
        100.0 * chair.chair_i,
        chair.f1
    );
    Table { title, columns, rows: kinds.into() }
}
