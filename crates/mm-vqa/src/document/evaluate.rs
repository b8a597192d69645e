//! Evaluation: the fields of a set's pages, measured against what is on them.

use super::batch::blank_page;
use super::run_config::DocumentRunConfig;
use super::{DocumentPipeline, DocumentReading, FieldReading, sections};
use crate::Result;
use crate::metrics::document::{DocumentPrediction, DocumentScores, FieldConfidence, document_scores};
use mm_core::{DeviceConfig, OpenOptions};
use mm_data::{Fault, Item, Map, Sample, SampleRng};
use mm_image::RgbImage;
use mm_text::generate::GenerationConfig;
use mm_train::{Cell, EvalContext, EvalSet, Evaluation, Metric, Plot, Table, gather};
use mm_vision::PagePlacement;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// A page with what is on it.
struct EvalItem {
    /// As the processor resizes it.
    image: RgbImage,
    /// Where the page is in it.
    placement: PagePlacement,
    key: String,
    right: Value,
}

impl Item for EvalItem {
    fn bytes(&self) -> usize {
        self.image.bytes()
    }
}

/// What was read on a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EvalReading {
    /// Its number in the set.
    pub index: usize,
    /// Its key in the set.
    pub key: String,
    /// What is on the page.
    pub right: Value,
    /// What was read.
    pub reading: DocumentReading,
}

impl EvalReading {
    fn prediction(&self) -> DocumentPrediction {
        let confidence =
            |field: &FieldReading| FieldConfidence { path: field.path.clone(), confidence: field.confidence };
        DocumentPrediction {
            predicted: self.reading.json.to_json(),
            right: self.right.clone(),
            confidences: self.reading.fields.iter().map(confidence).collect(),
            is_blank: self.right.as_object().is_some_and(serde_json::Map::is_empty),
        }
    }
}

/// Measures `pipeline` on `set`.
///
/// # Errors
/// The set cannot be read, fields cannot be generated, or another process is lost.
pub(crate) fn evaluate(
    pipeline: &DocumentPipeline,
    config: &DocumentRunConfig,
    set: &EvalSet,
    context: &EvalContext,
) -> Result<Evaluation> {
    let generation = config.generate.as_ref().unwrap_or(&pipeline.generation);
    // A blind model reads the same on all pages.
    let of_blank = config.input.blind.then(|| read_blank(pipeline, generation)).transpose()?;
    let mut own = Vec::new();
    let read = set.for_each_batch(context, preprocess(pipeline, config, set), |items, indices| {
        let (mut images, mut placements, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            images.push(item.image);
            placements.push(item.placement);
            pages.push((item.key, item.right));
        }
        let readings = match &of_blank {
            Some(reading) => vec![reading.clone(); pages.len()],
            None => {
                let states = pipeline.encode_resized(&images)?;
                // Places take a second pass of the decoder.
                let placements = context.wants_sections.then_some(&placements[..]);
                pipeline.read_encoded(&states, &[pipeline.prompt], generation, placements)?
            }
        };
        let rows = indices.iter().zip(pages).zip(readings);
        own.extend(rows.map(|((&index, (key, right)), reading)| EvalReading { index, key, right, reading }));
        Ok(())
    })?;
    let mut readings = gather(context.group, &own)?;
    readings.sort_by_key(|reading| reading.index);

    let predictions: Vec<DocumentPrediction> = readings.iter().map(EvalReading::prediction).collect();
    let scores = document_scores(&predictions)?;
    let blind = blind_scores(config, &predictions)?;
    let finished = readings.iter().filter(|reading| reading.reading.finished).count();
    let mut metrics: Vec<Metric> = scores.metrics().into_iter().map(metric).collect();
    metrics.push(Metric::new("finished", finished as f64 / readings.len().max(1) as f64));
    for (name, value) in blind.iter().flat_map(DocumentScores::metrics) {
        if name == ALL || name.starts_with(EXACT) {
            metrics.push(Metric::new(format!("blind_{name}"), value));
        }
    }
    let sections = if context.wants_sections { sections::draw(set, &readings)? } else { Vec::new() };
    Ok(Evaluation {
        set: set.name.clone(),
        samples: readings.len(),
        bad_samples: read.bad.len(),
        metrics,
        tables: vec![table(set, &scores, blind.as_ref())],
        plots: scores.calibration.iter().map(|answers| risk_coverage(&set.name, answers)).collect(),
        sections,
        credit: set.credit().to_owned(),
    })
}

/// The metric of documents that are right as a whole, and the prefix of those of single fields.
const ALL: &str = "all_fields_exact";
const EXACT: &str = "exact/";

fn metric((name, value): (String, f64)) -> Metric {
    let is_headline = name == ALL || name == "exact/total";
    Metric { name, value, is_headline }
}

fn preprocess(pipeline: &DocumentPipeline, config: &DocumentRunConfig, set: &EvalSet) -> Map<EvalItem> {
    let (processor, background) = (pipeline.processor.clone(), set.background);
    let schema = config.input.schema.clone();
    Arc::new(move |sample: &Sample, _: &mut SampleRng| {
        let document = sample.document.as_ref().filter(|document| document.schema == schema);
        let missing = || mm_data::Error::bad(Fault::Other, format!("no document of the schema {schema}"));
        let right = document.ok_or_else(missing)?.value.to_json();
        let page = sample.image()?.decode(background)?;
        let bad = |error: mm_vision::Error| mm_data::Error::bad(Fault::Image, error.to_string());
        let image = processor.resize(&page).map_err(bad)?;
        let placement = processor.placement(page.width(), page.height());
        Ok(EvalItem { image, placement, key: sample.key.clone(), right })
    })
}

/// The scores of the model of `metrics.blind`, which reads the same on every page.
fn blind_scores(
    config: &DocumentRunConfig,
    predictions: &[DocumentPrediction],
) -> Result<Option<DocumentScores>> {
    let Some(model) = &config.metrics.blind else { return Ok(None) };
    let options = OpenOptions { device: DeviceConfig::from(tch::Device::Cpu), ..OpenOptions::default() };
    let blind = DocumentPipeline::open(model, &options)?;
    let reading = read_blank(&blind, &blind.generation)?;
    let blind: Vec<DocumentPrediction> = predictions
        .iter()
        .map(|prediction| DocumentPrediction {
            predicted: reading.json.to_json(),
            confidences: Vec::new(),
            ..prediction.clone()
        })
        .collect();
    Ok(Some(document_scores(&blind)?))
}

/// What `pipeline` reads on an empty page.
fn read_blank(pipeline: &DocumentPipeline, generation: &GenerationConfig) -> Result<DocumentReading> {
    let states = pipeline.encode_resized(&[blank_page(&pipeline.processor)])?;
    let readings = pipeline.read_encoded(&states, &[pipeline.prompt], generation, None)?;
    Ok(readings.into_iter().next().unwrap_or_default())
}

fn table(set: &EvalSet, scores: &DocumentScores, blind: Option<&DocumentScores>) -> Table {
    let mut columns = vec!["field", "pages", "exact", "F1"];
    columns.extend(blind.map(|_| "exact, blind"));
    let of_blind = |name: &str| {
        let field = blind?.fields.iter().find(|field| field.field == name);
        Some(field.and_then(|field| field.exact_share()).map_or(Cell::Missing, Cell::Share))
    };
    let share = |share: Option<f64>| share.map_or(Cell::Missing, Cell::Share);
    let mut rows: Vec<Vec<Cell>> = scores
        .fields
        .iter()
        .map(|field| {
            let mut row = vec![
                Cell::Text(field.field.clone()),
                Cell::Count(field.documents as u64),
                share(field.exact_share()),
                Cell::Share(field.counts.f1()),
            ];
            row.extend(of_blind(&field.field));
            row
        })
        .collect();
    let mut all = vec![
        Cell::Text("all of a page".to_owned()),
        Cell::Count(scores.documents as u64),
        share(scores.all_fields_exact),
        Cell::Share(scores.micro.f1()),
    ];
    all.extend(blind.map(|blind| share(blind.all_fields_exact)));
    rows.push(all);
    let noted = |what: &str, value: Option<f64>| {
        value.map_or(String::new(), |value| format!("; {what} {:.1} %", 100.0 * value))
    };
    let title = format!(
        "{}: {} pages, {} blank{}{}{}",
        set.name,
        scores.documents,
        scores.blank_documents,
        noted("nothing found on blank ones", scores.blank_nothing_found),
        noted("tree edit accuracy", scores.tree_edit_accuracy),
        noted("calibration error", scores.expected_calibration_error),
    );
    Table { title, columns: columns.into_iter().map(str::to_owned).collect(), rows }
}

/// The share of wrong values among those with the highest confidences.
fn risk_coverage(name: &str, answers: &crate::metrics::calibration::Answers) -> Plot {
    let curve = answers.risk_coverage().iter().map(|point| (point.coverage, point.risk)).collect();
    Plot {
        title: format!("{name}: risk (share of wrong values) by coverage (share of values kept)"),
        x: "coverage".to_owned(),
        lines: vec![("most confident first".to_owned(), curve)],
    }
}
