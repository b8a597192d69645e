//! Statistics of a data set: sizes, formats, captions, labels, questions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::tools::in_order::{CHUNK, InOrder, each, threads};
use mm_image::Header;

use crate::{Dataset, Error, Fault, Result, Sample, SampleImage, dicom};

/// The exact distribution of a measure: the count of each value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Measure(BTreeMap<u32, u64>);

/// A summary of a [`Measure`]. A percentile is the smallest value that this share of the values does not
/// exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The minimum.
    pub min: f64,
    /// The 5th percentile.
    pub p5: f64,
    /// The 25th percentile.
    pub p25: f64,
    /// The median.
    pub median: f64,
    /// The 75th percentile.
    pub p75: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The maximum.
    pub max: f64,
    /// The mean.
    pub mean: f64,
}

/// The statistics of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Samples whose image headers can be read.
    pub samples: u64,
    /// Samples among these with a [`Sample::warning`].
    #[serde(default)]
    pub warned: u64,
    /// Bad samples by the kind of fault.
    pub bad: BTreeMap<Fault, u64>,
    /// Images by format: `jpg`, `png`, `webp`.
    pub formats: BTreeMap<String, u64>,
    /// Widths in pixels, with the EXIF orientation applied.
    pub width: Measure,
    /// Heights in pixels.
    pub height: Measure,
    /// Ratios of the long side to the short side, in hundredths.
    pub aspect: Measure,
    /// Encoded sizes of the images in bytes.
    pub image_bytes: Measure,
    /// Captions per sample.
    pub captions: Measure,
    /// Words of the canonical captions.
    pub caption_words: Measure,
    /// Characters of the canonical captions.
    pub caption_chars: Measure,
    /// Samples by label.
    pub labels: BTreeMap<String, u64>,
    /// Questions by kind; those without a kind under the empty name.
    pub questions: BTreeMap<String, u64>,
    /// Samples that are a variant of another.
    pub variants: u64,
}

impl Measure {
    fn add(&mut self, value: u64) {
        *self.0.entry(value.min(u32::MAX.into()) as u32).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(value, count)| *self.0.entry(*value).or_default() += count);
    }

    /// The number of values.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The sum of all values.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(value, count)| u64::from(*value) * count).sum()
    }

    /// The summary of the values, each divided by `unit`; `None` where there are no values.
    pub fn spread(&self, unit: f64) -> Option<Spread> {
        let count = self.count();
        let (min, max) = (*self.0.first_key_value()?.0, *self.0.last_key_value()?.0);
        let percentile = |percent: u64| {
            let rank = (count * percent).div_ceil(100).max(1);
            let mut passed = 0;
            let at = self.0.iter().find(|(_, count)| {
                passed += **count;
                passed >= rank
            });
            f64::from(at.map_or(max, |(value, _)| *value)) / unit
        };
        Some(Spread {
            min: f64::from(min) / unit,
            p5: percentile(5),
            p25: percentile(25),
            median: percentile(50),
            p75: percentile(75),
            p95: percentile(95),
            max: f64::from(max) / unit,
            mean: self.total() as f64 / count as f64 / unit,
        })
    }

    /// A histogram with at most `bins` bins of equal width, from the minimum to the 99th percentile; the last
    /// bin holds all larger values. Each bin is first value, last value, count.
    pub fn histogram(&self, bins: u32) -> Vec<(u32, u32, u64)> {
        let (Some((&first, _)), Some((&last, _))) = (self.0.first_key_value(), self.0.last_key_value())
        else {
            return Vec::new();
        };
        let rank = (self.count() * 99).div_ceil(100);
        let mut passed = 0;
        let high = self.0.iter().find(|(_, count)| {
            passed += **count;
            passed >= rank
        });
        let high = high.map_or(last, |(value, _)| *value);
        let width = (high - first) / bins.max(1) + 1;
        let count = (high - first) / width + 1;
        let bin = |number: u32| {
            let from = first + number * width;
            let to = if number + 1 == count { last } else { from + width - 1 };
            (from, to, self.0.range(from..=to).map(|(_, count)| count).sum())
        };
        (0..count).map(bin).collect()
    }
}

impl Stats {
    /// Counts a data set on `workers` threads, or one per core for 0. Only the headers of images are read.
    /// `progress` is called with the number of samples done. A stream is counted for one epoch. A sample that
    /// cannot be read is counted as bad.
    ///
    /// # Errors
    /// A stream that cannot be started, or a mix with a stream in it.
    pub fn of(source: &dyn Dataset, workers: usize, progress: &(dyn Fn(usize) + Sync)) -> Result<Self> {
        let samples = InOrder::new(source)?;
        let chunks: Vec<usize> = (0..source.len().div_ceil(CHUNK)).collect();
        let all = Mutex::new(Self::default());
        let done = AtomicUsize::new(0);
        each(&chunks, threads(source, workers), |chunk| {
            let range = chunk * CHUNK..source.len().min((chunk + 1) * CHUNK);
            let length = range.len();
            let mut some = Self::default();
            for (_, sample) in samples.read(range) {
                let counted = sample.map_err(|bad| bad.fault).and_then(|sample| {
                    let headers = || sample.images.iter().map(header).collect::<Result<Vec<_>>>();
                    let images = Error::guarded(headers).map_err(|error| error.fault())?;
                    some.add(&sample, &images);
                    Ok(())
                });
                if let Err(fault) = counted {
                    *some.bad.entry(fault).or_default() += 1;
                }
            }
            all.lock().unwrap_or_else(PoisonError::into_inner).merge(&some);
            progress(length + done.fetch_add(length, Ordering::Relaxed));
            Ok(())
        })?;
        Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a sample. `images` are the header and the number of encoded bytes of each image.
    pub(crate) fn add(&mut self, sample: &Sample, images: &[(Header, u64)]) {
        let Sample { captions, label, questions, variant_of, warning, .. } = sample;
        self.samples += 1;
        self.warned += u64::from(warning.is_some());
        for (header, bytes) in images {
            *self.formats.entry(header.extension().to_owned()).or_default() += 1;
            self.width.add(header.width.into());
            self.height.add(header.height.into());
            self.aspect.add((header.aspect() * 100.0).round() as u64);
            self.image_bytes.add(*bytes);
        }
        self.captions.add(captions.len() as u64);
        if let Some(canonical) = captions.first() {
            self.caption_words.add(canonical.split_whitespace().count() as u64);
            self.caption_chars.add(canonical.trim().chars().count() as u64);
        }
        if let Some(label) = label {
            *self.labels.entry(label.clone()).or_default() += 1;
        }
        for question in questions {
            *self.questions.entry(question.kind.clone().unwrap_or_default()).or_default() += 1;
        }
        self.variants += u64::from(variant_of.is_some());
    }

    /// Adds other statistics.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.warned += other.warned;
        self.variants += other.variants;
        add_all(&mut self.bad, &other.bad);
        let named = [
            (&mut self.formats, &other.formats),
            (&mut self.labels, &other.labels),
            (&mut self.questions, &other.questions),
        ];
        named.into_iter().for_each(|(mine, others)| add_all(mine, others));
        let measures = [
            (&mut self.width, &other.width),
            (&mut self.height, &other.height),
            (&mut self.aspect, &other.aspect),
            (&mut self.image_bytes, &other.image_bytes),
            (&mut self.captions, &other.captions),
            (&mut self.caption_words, &other.caption_words),
            (&mut self.caption_chars, &other.caption_chars),
        ];
        measures.into_iter().for_each(|(mine, others)| mine.merge(others));
    }

    /// The up to `most` most frequent labels with their counts; ties are sorted by name.
    pub fn top_labels(&self, most: usize) -> Vec<(&str, u64)> {
        let mut labels: Vec<(&str, u64)> =
            self.labels.iter().map(|(label, count)| (label.as_str(), *count)).collect();
        labels.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        labels.truncate(most);
        labels
    }
}

fn add_all<K: Ord + Clone>(mine: &mut BTreeMap<K, u64>, others: &BTreeMap<K, u64>) {
    others.iter().for_each(|(key, count)| *mine.entry(key.clone()).or_default() += count);
}

/// The header of an image and its encoded size in bytes. Of a file, only the header is read, except for
/// DICOM.
fn header(image: &SampleImage) -> Result<(Header, u64)> {
    if let SampleImage::File(path) = image
        && !dicom::is_dicom_file(path)
    {
        let file = File::open(path).map_err(Error::io(path))?;
        let bytes = file.metadata().map_err(Error::io(path))?.len();
        return Ok((Header::read(BufReader::new(file))?, bytes));
    }
    let encoded = image.bytes()?;
    Ok((Header::read(Cursor::new(&encoded))?, encoded.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DatasetConfig;

    fn measure(values: &[u64]) -> Measure {
        let mut measure = Measure::default();
        values.iter().for_each(|value| measure.add(*value));
        measure
    }

    #[test]
    fn a_summary_equals_that_of_the_sorted_values() {
        let values: Vec<u64> = (1..=200).rev().collect();
        let spread = measure(&values).spread(1.0).unwrap();
        assert_eq!(
            (spread.min, spread.p5, spread.median, spread.p95, spread.max),
            (1.0, 10.0, 100.0, 190.0, 200.0)
        );
        assert_eq!((spread.mean, measure(&[7]).spread(100.0).unwrap().p25), (100.5, 0.07));
        assert_eq!(measure(&[]).spread(1.0), None);
    }

    #[test]
    fn a_histogram_counts_each_value_once() {
        assert_eq!(measure(&[]).histogram(8), []);
        assert_eq!(measure(&[5, 5]).histogram(8), [(5, 5, 2)]);
        let mut values: Vec<u64> = (0..1000).map(|number| 2 + number % 20).collect();
        values.push(u64::from(u32::MAX));
        let bins = measure(&values).histogram(5);
        assert_eq!(bins.iter().map(|(_, _, count)| count).sum::<u64>(), 1001);
        assert_eq!((bins[0], bins.len(), bins[4].1), ((2, 5, 200), 5, u32::MAX));
    }

    #[test]
    fn the_number_of_threads_does_not_change_the_counts() {
        let shapes: DatasetConfig = toml::from_str("kind = 'shapes'\nsamples = 100\nsize = 32").unwrap();
        let source = shapes.open().unwrap();
        let stats = Stats::of(&*source, 1, &|_| {}).unwrap();
        assert_eq!(stats, Stats::of(&*source, 4, &|_| {}).unwrap());
        assert_eq!((stats.samples, stats.formats["png"], stats.labels.values().sum()), (100, 100, 100));
        assert_eq!(stats.width.spread(1.0).unwrap().min, 32.0);
        assert_eq!(stats.aspect.spread(100.0).unwrap().max, 1.0);
        assert!(stats.questions["count"] > 0 && stats.top_labels(2).len() == 2);
    }

    #[test]
    fn unreadable_samples_are_counted_by_fault() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.png"), b"no image").unwrap();
        std::fs::write(folder.path().join("b.png"), crate::sources::emoji::pairs(Default::default())[0].png)
            .unwrap();
        std::os::unix::fs::symlink(folder.path().join("none"), folder.path().join("c.png")).unwrap();
        let config = toml::Table::from_iter(
            [("kind", "folder"), ("path", folder.path().to_str().unwrap())]
                .map(|(k, v)| (k.into(), v.into())),
        );
        let source = config.try_into::<DatasetConfig>().unwrap().open().unwrap();
        let stats = Stats::of(&*source, 2, &|_| {}).unwrap();
        assert_eq!((stats.samples, stats.bad), (1, [(Fault::File, 1), (Fault::Image, 1)].into()));
    }
}
