//! What becomes of each sample: kept, bad or filtered.

use std::io::Cursor;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::hash::{Seen, perceptual_hash};
use crate::sources::webdataset::{Member, members_of};
use crate::tools::in_order::InOrder;
use mm_image::{Header, RgbImage};

use crate::{BadSample, Error, Fault, Result, Sample};

/// How well images and captions fit, a cosine each; NaN where there is none.
pub type Score<'a> = &'a (dyn Fn(&[RgbImage], &[&str]) -> Result<Vec<f32>> + Sync);

/// The colour behind transparent images, where their pixels are judged.
const BACKGROUND: [u8; 3] = [255; 3];

/// What becomes of a sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// It is kept; its hash, if hashes are asked for.
    Kept(u64),
    /// It cannot be read.
    Bad(Box<BadSample>),
    /// This filter, of the list's, drops it.
    Filtered(usize),
}

/// A sample as it goes into a tar.
pub(super) struct Packed {
    pub sample: Sample,
    /// The header and the number of encoded bytes of each image.
    pub images: Vec<(Header, u64)>,
    pub members: Vec<Member>,
}

/// A sample's number, what becomes of it, and what of it is written.
pub(super) struct Judged {
    pub index: usize,
    pub verdict: Outcome,
    pub packed: Option<Packed>,
}

/// The filters of a job.
pub(super) struct FilterPass<'a> {
    pub samples: &'a InOrder<'a>,
    pub filters: &'a [Filter],
    pub check_images: bool,
    pub score: Option<Score<'a>>,
}

impl FilterPass<'_> {
    /// Judges each sample of a range for itself.
    ///
    /// Errors: the model's.
    pub fn judge(&self, range: Range<usize>) -> Result<Vec<Judged>> {
        let mut judged: Vec<(Judged, Option<RgbImage>)> =
            self.samples.read(range).into_iter().map(|(index, sample)| self.one(index, sample)).collect();
        if let Some((place, score)) = self.threshold() {
            self.score(&mut judged, place, score)?;
        }
        Ok(judged.into_iter().map(|(judged, _)| judged).collect())
    }

    /// The samples of a range as they were judged before.
    ///
    /// Errors: the source gives fewer than it did then.
    pub fn replay(&self, range: Range<usize>, verdicts: &[Outcome]) -> Result<Vec<Judged>> {
        let one = |(index, sample): (usize, std::result::Result<Sample, BadSample>)| {
            let verdict = verdicts[index].clone();
            let Outcome::Kept(_) = verdict else { return Judged { index, verdict, packed: None } };
            match sample.and_then(|sample| self.pack(sample)) {
                Ok(packed) => Judged { index, verdict, packed: Some(packed) },
                Err(bad) => Judged { index, verdict: Outcome::Bad(Box::new(bad)), packed: None },
            }
        };
        let range = range.start.min(verdicts.len())..range.end.min(verdicts.len());
        let samples = self.samples.read(range.clone());
        if samples.len() < range.len() {
            let reason = "it gave fewer samples when it was read a second time, as filter duplicates needs it: \
                          make it plain tars first, without this filter";
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
    ) -> (Judged, Option<RgbImage>) {
        let without = |verdict| (Judged { index, verdict, packed: None }, None);
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
                (Judged { index, verdict: Outcome::Kept(hash), packed: Some(packed) }, pixels)
            }
            Err(error) => without(Outcome::Bad(Box::new(self.samples.bad(packed.sample.key, &error)))),
        }
    }

    /// Lays a sample out as it goes into a tar: its image as it is, the kind told from the bytes.
    fn pack(&self, sample: Sample) -> std::result::Result<Packed, BadSample> {
        let laid_out = Error::guarded(|| {
            let (mut images, mut files) = (Vec::new(), Vec::new());
            for image in &sample.images {
                let bytes = image.bytes()?.into_owned();
                let header = Header::read(Cursor::new(&bytes))?;
                images.push((header, bytes.len() as u64));
                files.push((header.extension(), bytes));
            }
            Ok((images, members_of(&sample, files)?))
        });
        match laid_out {
            Ok((images, members)) => Ok(Packed { sample, images, members }),
            Err(error) => Err(self.samples.bad(sample.key, &error)),
        }
    }

    /// Drops what the model finds too unlike, and what has no caption.
    fn score(&self, judged: &mut [(Judged, Option<RgbImage>)], place: usize, least: f32) -> Result<()> {
        let score = self.score.ok_or_else(|| Error::Setting("filter clip_score: it needs a model".into()))?;
        let (mut scored, mut images, mut captions) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (judged, pixels)) in judged.iter_mut().enumerate() {
            let Some(packed) = &judged.packed else { continue };
            match (packed.sample.captions.first(), pixels.take()) {
                (Some(caption), Some(pixels)) => {
                    scored.push(number);
                    images.push(pixels);
                    captions.push(caption.clone());
                }
                _ => (judged.verdict, judged.packed) = (Outcome::Filtered(place), None),
            }
        }
        let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
        let scores = if scored.is_empty() { Vec::new() } else { score(&images, &captions)? };
        for (number, score) in scored.into_iter().zip(scores) {
            if score.is_nan() || score < least {
                let judged = &mut judged[number].0;
                (judged.verdict, judged.packed) = (Outcome::Filtered(place), None);
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

/// Whether the fate of a sample hangs on those before it.
pub(super) fn compares(filters: &[Filter]) -> bool {
    filters.iter().any(|filter| matches!(filter, Filter::Duplicates(_)))
}

/// Drops what looks like a sample before it that is kept, in the order of their numbers.
pub(super) fn compare(filters: &[Filter], verdicts: &mut [Outcome]) {
    for (place, filter) in filters.iter().enumerate() {
        let Filter::Duplicates(bits) = filter else { continue };
        let mut seen = Seen::new(*bits);
        for verdict in &mut *verdicts {
            if matches!(verdict, Outcome::Kept(hash) if !seen.is_new(*hash)) {
                *verdict = Outcome::Filtered(place);
            }
        }
    }
}
