//! Decides for each sample: kept, bad or filtered.

use std::io::Cursor;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::hash::{Seen, perceptual_hash};
use crate::sources::webdataset::{Member, members_of};
use crate::tools::in_order::InOrder;
use mm_image::{Header, RgbImage};

use crate::{BadSample, Error, Fault, Result, Sample};

/// Computes the cosine similarity of each image and its caption; NaN where there is none.
pub type Score<'a> = &'a (dyn Fn(&[RgbImage], &[&str]) -> Result<Vec<f32>> + Sync);

/// The background of transparent images, for filters of pixels.
const BACKGROUND: [u8; 3] = [255; 3];

/// The outcome of a sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// Kept, with its hash if a filter needs it.
    Kept(u64),
    /// Cannot be read.
    Bad(Box<BadSample>),
    /// Dropped by the filter with this index.
    Filtered(usize),
}

/// A sample in the form that is written to a tar.
pub(super) struct Packed {
    pub sample: Sample,
    /// The header and the number of encoded bytes of each image.
    pub images: Vec<(Header, u64)>,
    pub members: Vec<Member>,
}

/// The index of a sample, its outcome, and its members if it is kept.
pub(super) struct FilteredSample {
    pub index: usize,
    pub outcome: Outcome,
    pub packed: Option<Packed>,
}

/// Applies the filters of a job.
pub(super) struct FilterPass<'a> {
    pub samples: &'a InOrder<'a>,
    pub filters: &'a [Filter],
    pub check_images: bool,
    pub score: Option<Score<'a>>,
}

impl FilterPass<'_> {
    /// Applies the filters of single samples to a range.
    ///
    /// # Errors
    /// The model fails.
    pub fn filter(&self, range: Range<usize>) -> Result<Vec<FilteredSample>> {
        let mut filtered: Vec<(FilteredSample, Option<RgbImage>)> =
            self.samples.read(range).into_iter().map(|(index, sample)| self.one(index, sample)).collect();
        if let Some((place, score)) = self.threshold() {
            self.score(&mut filtered, place, score)?;
        }
        Ok(filtered.into_iter().map(|(filtered, _)| filtered).collect())
    }

    /// The samples of a range with known outcomes.
    ///
    /// # Errors
    /// The data set has fewer samples than in the first pass.
    pub fn replay(&self, range: Range<usize>, outcomes: &[Outcome]) -> Result<Vec<FilteredSample>> {
        let one = |(index, sample): (usize, std::result::Result<Sample, BadSample>)| {
            let outcome = outcomes[index].clone();
            let Outcome::Kept(_) = outcome else { return FilteredSample { index, outcome, packed: None } };
            match sample.and_then(|sample| self.pack(sample)) {
                Ok(packed) => FilteredSample { index, outcome, packed: Some(packed) },
                Err(bad) => FilteredSample { index, outcome: Outcome::Bad(Box::new(bad)), packed: None },
            }
        };
        let range = range.start.min(outcomes.len())..range.end.min(outcomes.len());
        let samples = self.samples.read(range.clone());
        if samples.len() < range.len() {
            let reason = "the stream has fewer samples in the second pass, which filter duplicates needs: \
                          pack it without this filter first";
            return Err(Error::Setting(reason.into()));
        }
        Ok(samples.into_iter().map(one).collect())
    }

    fn threshold(&self) -> Option<(usize, f32)> {
        self.filters.iter().enumerate().find_map(|(place, filter)| match filter {
            Filter::ClipScore(least) => Some((place, *least)),
            _ => None,
        })
    }

    fn one(
        &self,
        index: usize,
        sample: std::result::Result<Sample, BadSample>,
    ) -> (FilteredSample, Option<RgbImage>) {
        let without = |outcome| (FilteredSample { index, outcome, packed: None }, None);
        let packed = match sample.and_then(|sample| self.pack(sample)) {
            Ok(packed) => packed,
            Err(bad) => return without(Outcome::Bad(Box::new(bad))),
        };
        let caption = packed.sample.captions.first().map_or("", String::as_str);
        if let Some(place) = self
            .filters
            .iter()
            .position(|filter| !packed.images.iter().all(|(header, _)| filter.keeps(header, caption)))
        {
            return without(Outcome::Filtered(place));
        }
        let needs_pixels = compares(self.filters) || self.threshold().is_some() || self.check_images;
        let decoded = || Error::guarded(|| first_decoded(&packed.sample));
        let pixels = needs_pixels.then(decoded).transpose();
        match pixels {
            Ok(pixels) => {
                let hash = pixels.as_ref().filter(|_| compares(self.filters)).map_or(0, perceptual_hash);
                (FilteredSample { index, outcome: Outcome::Kept(hash), packed: Some(packed) }, pixels)
            }
            Err(error) => without(Outcome::Bad(Box::new(self.samples.bad(packed.sample.key, &error)))),
        }
    }

    /// Converts a sample to tar members: its images unchanged, with extensions detected from the bytes.
    fn pack(&self, sample: Sample) -> std::result::Result<Packed, BadSample> {
        let packed = Error::guarded(|| {
            let mut images = Vec::new();
            let mut files = Vec::new();
            for image in &sample.images {
                let bytes = image.bytes()?.into_owned();
                let header = Header::read(Cursor::new(&bytes))?;
                images.push((header, bytes.len() as u64));
                files.push((header.extension(), bytes));
            }
            Ok((images, members_of(&sample, files)?))
        });
        match packed {
            Ok((images, members)) => Ok(Packed { sample, images, members }),
            Err(error) => Err(self.samples.bad(sample.key, &error)),
        }
    }

    /// Drops samples below the score `least`, and those without a caption.
    fn score(
        &self,
        filtered: &mut [(FilteredSample, Option<RgbImage>)],
        place: usize,
        least: f32,
    ) -> Result<()> {
        let score = self.score.ok_or_else(|| Error::Setting("filter clip_score needs a model".into()))?;
        let mut scored = Vec::new();
        let mut images = Vec::new();
        let mut captions = Vec::new();
        for (number, (filtered, pixels)) in filtered.iter_mut().enumerate() {
            let Some(packed) = &filtered.packed else { continue };
            match (packed.sample.captions.first(), pixels.take()) {
                (Some(caption), Some(pixels)) => {
                    scored.push(number);
                    images.push(pixels);
                    captions.push(caption.clone());
                }
                _ => (filtered.outcome, filtered.packed) = (Outcome::Filtered(place), None),
            }
        }
        let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
        let scores = if scored.is_empty() { Vec::new() } else { score(&images, &captions)? };
        for (number, score) in scored.into_iter().zip(scores) {
            if score.is_nan() || score < least {
                let filtered = &mut filtered[number].0;
                (filtered.outcome, filtered.packed) = (Outcome::Filtered(place), None);
            }
        }
        Ok(())
    }
}

/// Decodes all images of a sample and returns the first: `clip_score` and `duplicates` use it.
fn first_decoded(sample: &Sample) -> Result<RgbImage> {
    let pixels: Vec<RgbImage> =
        sample.images.iter().map(|image| image.decode(BACKGROUND)).collect::<Result<_>>()?;
    pixels.into_iter().next().ok_or_else(|| Error::bad(Fault::NoImage, "no image"))
}

/// Whether a filter compares samples with each other.
pub(super) fn compares(filters: &[Filter]) -> bool {
    filters.iter().any(|filter| matches!(filter, Filter::Duplicates(_)))
}

/// Drops duplicates of earlier kept samples, in the order of their indices.
pub(super) fn compare(filters: &[Filter], outcomes: &mut [Outcome]) {
    for (place, filter) in filters.iter().enumerate() {
        let Filter::Duplicates(bits) = filter else { continue };
        let mut seen = Seen::new(*bits);
        for outcome in &mut *outcomes {
            if matches!(outcome, Outcome::Kept(hash) if !seen.is_new(*hash)) {
                *outcome = Outcome::Filtered(place);
            }
        }
    }
}
