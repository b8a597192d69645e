//! All metrics of a set of captions, as one value.

use std::sync::Arc;

use rayon::prelude::*;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::bleu::BleuStatistics;
use super::cider::{Cider, CiderForm};
use super::distinct::distinct;
use super::document_frequencies::DocumentFrequencies;
use super::files::CaptionedImage;
use super::ptb;
use super::rouge::rouge_l;

/// Names of metrics with their values, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores(pub Vec<(String, f64)>);

impl Scores {
    /// Adds a metric.
    pub fn push(&mut self, name: impl Into<String>, value: f64) {
        self.0.push((name.into(), value));
    }

    /// The value of a metric.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The scores of one image.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ImageScores {
    /// The image's id.
    pub image_id: String,
    /// The measured caption.
    pub caption: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: Scores,
}

/// The metrics of a set of captions.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CaptionMetrics {
    /// The number of images.
    pub images: usize,
    /// The number of references.
    pub references: usize,
    /// The number of images whose references give CIDEr's weights.
    pub df_images: usize,
    /// The metrics of the whole set: `bleu_1` to `bleu_4`, `rouge_l`, `cider_d` (pycocoevalcap's CIDEr),
    /// `cider` and `distinct_1` to `distinct_3`.
    pub scores: Scores,
    /// The scores of each image, in the order of the references. BLEU and distinct-n of the set are not their
    /// mean.
    #[serde(skip)]
    pub per_image: Vec<ImageScores>,
    /// What makes a number unfit for comparison.
    pub warnings: Vec<String>,
}

/// The tokens of a set of captions, as the peer's tokenizer finds them: all references are one file for it,
/// and all hypotheses another.
#[derive(Clone, Debug)]
pub struct TokenizedCaptions {
    /// The tokens of each image's hypothesis.
    pub hypotheses: Vec<String>,
    /// The tokens of each image's references.
    pub references: Vec<Vec<String>>,
}

impl TokenizedCaptions {
    /// Tokenizes the captions of images.
    pub fn new(images: &[CaptionedImage]) -> Self {
        let hypotheses: Vec<&str> = images.iter().map(|image| image.hypothesis.as_str()).collect();
        let all: Vec<&str> =
            images.iter().flat_map(|image| image.references.iter().map(String::as_str)).collect();
        let (hypotheses, all) =
            rayon::join(|| ptb::tokenize_lines(&hypotheses), || ptb::tokenize_lines(&all));
        let mut all = all.into_iter();
        let references =
            images.iter().map(|image| all.by_ref().take(image.references.len()).collect()).collect();
        Self { hypotheses, references }
    }
}

impl CaptionMetrics {
    /// Measures captions. CIDEr's weights are `frequencies`, or those of the references.
    pub fn new(images: &[CaptionedImage], frequencies: Option<Arc<DocumentFrequencies>>) -> Self {
        Self::of_tokens(images, &TokenizedCaptions::new(images), frequencies)
    }

    /// Adds a metric that was computed elsewhere: its value for the set, and one for each image, in order.
    pub fn add(&mut self, name: &str, value: f64, per_image: &[f64]) {
        self.scores.push(name, value);
        for (row, &value) in self.per_image.iter_mut().zip(per_image) {
            row.scores.push(name, value);
        }
    }

    /// As [`Self::new`], for captions whose tokens are known.
    pub fn of_tokens(
        images: &[CaptionedImage],
        tokens: &TokenizedCaptions,
        frequencies: Option<Arc<DocumentFrequencies>>,
    ) -> Self {
        let frequencies =
            frequencies.unwrap_or_else(|| Arc::new(DocumentFrequencies::from_references(&tokens.references)));
        let warnings: Vec<String> = frequencies.warning().into_iter().collect();
        let forms = [CiderForm::Robust, CiderForm::Plain];
        let ciders = forms.map(|form| Cider::new(Arc::clone(&frequencies), form));
        let measured: Vec<Measured> = tokens
            .hypotheses
            .par_iter()
            .zip(&tokens.references)
            .map(|(hypothesis, references)| Measured::new(hypothesis, references, &ciders))
            .collect();

        let mut bleu = BleuStatistics::default();
        measured.iter().for_each(|measured| bleu += measured.bleu);
        let mean = |value: fn(&Measured) -> f64| {
            measured.iter().map(value).sum::<f64>() / measured.len().max(1) as f64
        };
        let mut scores = named(
            bleu.scores(),
            mean(|measured| measured.rouge_l),
            [mean(|measured| measured.cider[0]), mean(|measured| measured.cider[1])],
        );
        for (order, value) in distinct(&tokens.hypotheses).into_iter().enumerate() {
            scores.push(format!("distinct_{}", order + 1), value);
        }
        let rows = images.iter().zip(&measured).map(|(image, measured)| ImageScores {
            image_id: image.image_id.clone(),
            caption: image.hypothesis.clone(),
            scores: named(measured.bleu.scores(), measured.rouge_l, measured.cider),
        });
        Self {
            images: images.len(),
            references: images.iter().map(|image| image.references.len()).sum(),
            df_images: frequencies.images(),
            scores,
            per_image: rows.collect(),
            warnings,
        }
    }
}

/// The measures of one image.
struct Measured {
    bleu: BleuStatistics,
    rouge_l: f64,
    /// CIDEr-D and CIDEr.
    cider: [f64; 2],
}

impl Measured {
    fn new(hypothesis: &str, references: &[String], ciders: &[Cider; 2]) -> Self {
        // Both forms weigh the references in the same way.
        let prepared = ciders[0].prepare(references);
        Self {
            bleu: BleuStatistics::new(hypothesis, references),
            rouge_l: rouge_l(hypothesis, references),
            cider: [0, 1].map(|form: usize| ciders[form].score(hypothesis, &prepared)),
        }
    }
}

fn named(bleu: [f64; 4], rouge_l: f64, [robust, plain]: [f64; 2]) -> Scores {
    let mut scores = Scores::default();
    for (order, value) in bleu.into_iter().enumerate() {
        scores.push(format!("bleu_{}", order + 1), value);
    }
    scores.push("rouge_l", rouge_l);
    scores.push("cider_d", robust);
    scores.push("cider", plain);
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, hypothesis: &str, references: &[&str]) -> CaptionedImage {
        CaptionedImage {
            image_id: id.to_owned(),
            hypothesis: hypothesis.to_owned(),
            references: references.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    #[test]
    fn the_value_holds_set_scores_rows_and_warnings() {
        let images = [
            image("1", "A dog runs.", &["A dog runs.", "The dog is running!"]),
            image("2", "", &["Two cats"]),
        ];
        let mut metrics = CaptionMetrics::new(&images, None);
        metrics.add("other", 0.25, &[0.5, 0.0]);
        assert_eq!(
            (metrics.scores.get("other"), metrics.per_image[0].scores.get("other")),
            (Some(0.25), Some(0.5))
        );
        assert_eq!((metrics.images, metrics.references, metrics.per_image.len()), (2, 3, 2));
        assert_eq!(metrics.per_image[0].scores.get("rouge_l"), Some(1.0));
        assert_eq!(metrics.per_image[1].scores.get("cider_d"), Some(0.0));
        assert_eq!(metrics.scores.get("rouge_l"), Some(0.5));
        assert!(metrics.warnings[0].contains("of 2 images, fewer than 100"), "{:?}", metrics.warnings);
        let json = serde_json::to_string(&metrics).unwrap();
        assert!(
            json.starts_with(r#"{"images":2,"references":3,"df_images":2,"scores":{"bleu_1":"#),
            "{json}"
        );
        let row = serde_json::to_string(&metrics.per_image[1]).unwrap();
        assert!(row.starts_with(r#"{"image_id":"2","caption":"","bleu_1":"#), "{row}");
    }

    #[test]
    fn the_weights_of_one_image_are_zero_and_a_warning_says_so() {
        let metrics = CaptionMetrics::new(&[image("1", "a dog", &["a dog"])], None);
        assert_eq!(metrics.scores.get("cider_d"), Some(0.0));
        assert!(metrics.warnings[0].contains("CIDEr is 0 by construction"), "{:?}", metrics.warnings);
        let none = CaptionMetrics::new(&[], None);
        assert!(none.scores.0.iter().all(|(_, value)| value.is_finite()), "{:?}", none.scores);
    }
}
