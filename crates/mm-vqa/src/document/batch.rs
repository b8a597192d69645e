//! The samples of a training step.

use super::DocumentPipeline;
use super::loss::{AttentionTargets, CellCharacter, CellGrid, CharacterTargets, cell_characters};
use super::run_config::DocumentRunConfig;
use super::target::{DocumentTarget, Place, TargetEncoder};
use mm_core::upload;
use mm_data::{Fault, Map, Sample, SampleRng};
use mm_image::RgbImage;
use mm_image::image::Rgb;
use mm_text::decoder::NextTokens;
use mm_vision::DocumentProcessor;
use std::sync::Arc;
use tch::{Device, Tensor};

/// A page and its fields, ready to be batched.
pub struct DocumentItem {
    image: RgbImage,
    target: DocumentTarget,
    /// The cell in which each token is printed; empty where it is not asked for.
    cells: Vec<Option<i64>>,
    /// The characters on the page, by cell; empty where they are not asked for.
    characters: Vec<CellCharacter>,
}

impl mm_data::Item for DocumentItem {
    fn bytes(&self) -> usize {
        let numbers = self.target.tokens.token_ids.len() + self.cells.len() + self.characters.len();
        self.image.bytes() + 16 * numbers
    }
}

/// Pages with their fields, on the model's device.
pub struct DocumentBatch {
    /// `[B, 3, H, W]`; one blank page where the model is blind.
    pub pixel_values: Tensor,
    /// The tokens to predict.
    pub next: NextTokens,
    /// Where they are printed, with `loss.attention`.
    pub(crate) attention: Option<AttentionTargets>,
    /// What is printed in each cell, with `loss.characters`.
    pub(crate) characters: Option<CharacterTargets>,
}

/// What items and batches are made with.
#[derive(Clone)]
pub(crate) struct Batching {
    processor: DocumentProcessor,
    grid: CellGrid,
    is_blind: bool,
    has_attention: bool,
    has_characters: bool,
}

impl Batching {
    pub fn new(config: &DocumentRunConfig, pipeline: &DocumentPipeline) -> Self {
        let (rows, columns) = pipeline.model.encoder.grid();
        let [height, width] = pipeline.config.encoder.image_size;
        let cell = [height as f32 / rows as f32, width as f32 / columns as f32];
        Self {
            processor: pipeline.processor.clone(),
            grid: CellGrid { rows: rows as usize, columns: columns as usize, cell },
            is_blind: config.input.blind,
            has_attention: config.loss.attention > 0.0,
            has_characters: config.loss.characters > 0.0,
        }
    }

    /// Decodes and resizes the page, and encodes its fields.
    pub fn preprocess(&self, config: &DocumentRunConfig, pipeline: &DocumentPipeline) -> Map<DocumentItem> {
        let (background, schema) = (config.data.background, config.input.schema.clone());
        let limit = config.input.max_tokens.min(pipeline.config.decoder.max_position_embeddings as usize);
        let (tokenizer, prompt, end) = (pipeline.tokenizer.clone(), pipeline.prompt, pipeline.tokens.end);
        let batching = self.clone();
        Arc::new(move |sample: &Sample, _: &mut SampleRng| {
            let bad = |problem: String| mm_data::Error::bad(Fault::Other, problem);
            let document = sample.document.as_ref().ok_or_else(|| bad("no document".to_owned()))?;
            if document.schema != schema {
                return Err(bad(format!("its schema is {}, not {schema}", document.schema)));
            }
            let encoder = TargetEncoder { tokenizer: &tokenizer, prompt, end };
            let target = encoder
                .encode(document)
                .map_err(|error| mm_data::Error::bad(Fault::Text, error.to_string()))?;
            let length = target.tokens.token_ids.len();
            if length > limit {
                return Err(bad(format!("{length} tokens, more than the {limit} of input.max_tokens")));
            }
            let page = sample.image()?.decode(background)?;
            let placement = batching.processor.placement(page.width(), page.height());
            let place = |[x, y]: Place| {
                let (x, y) = placement.from_page(f64::from(x), f64::from(y));
                [x as f32, y as f32]
            };
            let cells = match batching.has_attention {
                true => target
                    .places
                    .iter()
                    .map(|at| at.and_then(|at| batching.grid.cell_of(place(at))))
                    .collect(),
                false => Vec::new(),
            };
            let characters = match batching.has_characters {
                true => cell_characters(document, &batching.grid, &tokenizer, place),
                false => Vec::new(),
            };
            let unreadable = |error: mm_vision::Error| mm_data::Error::bad(Fault::Image, error.to_string());
            let image = batching.processor.resize(&page).map_err(unreadable)?;
            Ok(DocumentItem { image, target, cells, characters })
        })
    }

    /// The batch of `items` on `device`.
    pub fn collate(&self, items: Vec<DocumentItem>, device: Device) -> crate::Result<DocumentBatch> {
        let (mut images, mut rows, mut cells, mut characters) = (vec![], vec![], vec![], vec![]);
        for item in items {
            images.push(item.image);
            rows.push(item.target.tokens);
            cells.push(item.cells);
            characters.push(item.characters);
        }
        let next = NextTokens::new(&rows, 0);
        let attention = self.has_attention.then(|| AttentionTargets::new(&cells, &next, device));
        let slots = self.grid.rows * self.grid.columns;
        let characters = self.has_characters.then(|| CharacterTargets::new(&characters, slots, device));
        let pixel_values = match self.is_blind {
            true => self.processor.normalize_batch(&[blank_page(&self.processor)])?,
            false => self.processor.normalize_batch(&images)?,
        };
        Ok(DocumentBatch {
            pixel_values: upload(&pixel_values, device),
            next: next.to_device(device),
            attention,
            characters,
        })
    }
}

/// An empty page, in the place of pages that a model must not see.
pub(crate) fn blank_page(processor: &DocumentProcessor) -> RgbImage {
    let (width, height) = processor.output_size();
    RgbImage::from_pixel(width, height, Rgb([255; 3]))
}
