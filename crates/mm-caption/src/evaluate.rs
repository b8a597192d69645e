//! Evaluation: captions of a set's images, measured against its references and scene graphs.

use crate::metrics::scenes::{HallucinationKind, SceneChair, SceneScore};
use crate::metrics::{CaptionMetrics, CaptionedImage};
use crate::run_config::CaptionRunConfig;
use crate::task::references;
use crate::{CaptionPipeline, Result, sections};
use mm_data::{Fault, Item, Map, Sample, SampleRng};
use mm_image::RgbImage;
use mm_text::generate::{GenerationConfig, Prompt};
use mm_train::{Cell, EvalContext, EvalSet, Evaluation, Metric, Table, gather};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An image with its references.
struct EvalItem {
    image: RgbImage,
    key: String,
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
    /// Whether it ended by itself.
    pub finished: bool,
    /// The captions that it is compared with.
    pub references: Vec<String>,
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
    let generation = config.generate.clone().unwrap_or_else(|| pipeline.generation.clone());
    let mut own = Vec::new();
    let read = set.for_each_batch(context, preprocess(pipeline, config, set), |items, indices| {
        own.extend(caption(pipeline, config, &generation, items, &indices)?);
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
        sections::draw(pipeline, set, &captions, &measured, &scores)?
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
    })
}

fn preprocess(pipeline: &CaptionPipeline, config: &CaptionRunConfig, set: &EvalSet) -> Map<EvalItem> {
    let (processor, background) = (pipeline.processor.clone(), set.background);
    let which = config.input.references;
    Arc::new(move |sample: &Sample, _: &mut SampleRng| {
        let references = references(&sample.captions, which).to_vec();
        if references.is_empty() {
            return Err(mm_data::Error::bad(Fault::NoCaption, "no caption to compare with"));
        }
        let image = processor
            .resize(&sample.image()?.decode(background)?)
            .map_err(|error| mm_data::Error::bad(Fault::Image, error.to_string()))?;
        Ok(EvalItem { image, key: sample.key.clone(), references })
    })
}

fn caption(
    pipeline: &CaptionPipeline,
    config: &CaptionRunConfig,
    generation: &GenerationConfig,
    items: Vec<EvalItem>,
    indices: &[usize],
) -> Result<Vec<EvalCaption>> {
    let images: Vec<RgbImage> = items.iter().map(|item| item.image.clone()).collect();
    let prompts: Vec<Prompt> = indices
        .iter()
        .map(|&index| pipeline.prompt(&config.input.prompt, index as u64))
        .collect::<Result<_>>()?;
    let one = GenerationConfig { num_return_sequences: 1, ..generation.clone() };
    let texts = pipeline.generate(&pipeline.encode_resized(&images)?, &prompts, &one)?;
    let row = |((item, &index), texts): ((EvalItem, &usize), Vec<_>)| {
        let Some(text): Option<&mm_text::generate::Hypothesis> = texts.first() else { return Ok(None) };
        let EvalItem { key, references, .. } = item;
        let caption = pipeline.tokenizer.decode(&text.tokens)?;
        Ok(Some(EvalCaption { index, key, caption, finished: text.finished, references }))
    };
    let rows: Result<Vec<Option<EvalCaption>>> = items.into_iter().zip(indices).zip(texts).map(row).collect();
    Ok(rows?.into_iter().flatten().collect())
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
