//! The documents of all pages of a set, read in batches.

use super::{DocumentPipeline, DocumentReading};
use crate::Result;
use mm_data::{Fault, Item, Map, Sample, SampleRng};
use mm_image::RgbImage;
use mm_text::generate::GenerationConfig;
use mm_train::{EvalContext, EvalSet, ReadReport};
use mm_vision::PagePlacement;
use std::sync::Arc;

/// How the pages of a set are read.
#[derive(Clone, Copy, Debug)]
pub struct SetReader<'a> {
    /// The model.
    pub pipeline: &'a DocumentPipeline,
    /// The tokens that documents begin with: see [`DocumentPipeline::prompt_tokens`].
    pub prompt: &'a [u32],
    /// How they are generated.
    pub generation: &'a GenerationConfig,
    /// Whether fields get their places on the page.
    pub has_places: bool,
}

/// A page of a set with what was read of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PageReading {
    /// The number of the page in the set.
    pub index: usize,
    /// The key of its sample.
    pub key: String,
    /// What was read.
    pub reading: DocumentReading,
}

/// A page resized for the model.
struct Resized {
    key: String,
    page: RgbImage,
    placement: PagePlacement,
}

impl Item for Resized {
    fn bytes(&self) -> usize {
        self.page.bytes()
    }
}

impl SetReader<'_> {
    /// Reads the pages of `set` that can be decoded, in order, and calls `body` with each batch. Pages are
    /// decoded ahead of the model.
    ///
    /// # Errors
    /// More pages are bad than the set allows, `body` fails, or as [`DocumentPipeline::read_encoded`].
    pub fn read_set(
        &self,
        set: &EvalSet,
        context: &EvalContext,
        mut body: impl FnMut(Vec<PageReading>) -> mm_train::Result<()>,
    ) -> Result<ReadReport> {
        let (processor, background) = (self.pipeline.processor.clone(), set.background);
        let map: Map<Resized> = Arc::new(move |sample: &Sample, _: &mut SampleRng| {
            let page = sample.image()?.decode(background)?;
            let placement = processor.placement(page.width(), page.height());
            let bad = |error: mm_vision::Error| mm_data::Error::bad(Fault::Image, error.to_string());
            let page = processor.resize(&page).map_err(bad)?;
            Ok(Resized { key: sample.key.clone(), page, placement })
        });
        let mut read = |items, indices: Vec<usize>| body(self.read_batch(items, &indices)?);
        Ok(set.for_each_batch(context, map, &mut read)?)
    }

    fn read_batch(&self, items: Vec<Resized>, indices: &[usize]) -> Result<Vec<PageReading>> {
        let (mut keys, mut pages, mut placements) = (Vec::new(), Vec::new(), Vec::new());
        for Resized { key, page, placement } in items {
            keys.push(key);
            pages.push(page);
            placements.push(placement);
        }
        let states = self.pipeline.encode_resized(&pages)?;
        let placements = self.has_places.then_some(placements.as_slice());
        let readings = self.pipeline.read_encoded(&states, self.prompt, self.generation, placements)?;
        let of_page = keys.into_iter().zip(indices).zip(readings);
        Ok(of_page.map(|((key, &index), reading)| PageReading { index, key, reading }).collect())
    }
}
