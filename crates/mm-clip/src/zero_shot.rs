//! Zero-shot classification.

use crate::{ClipPipeline, Error, Probability, Result};
use mm_train::{Cell, Table};
use serde::Serialize;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Prompt templates for class labels (Radford et al. 2021, section 3.1.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Templates(Vec<String>);

impl Default for Templates {
    /// The seven templates that carry nearly all of the gain of OpenAI's eighty for ImageNet.
    fn default() -> Self {
        Self(include_str!("../templates/imagenet-7.txt").lines().map(str::to_owned).collect())
    }
}

impl Templates {
    /// The given templates, `{}` standing for the label.
    ///
    /// # Errors
    /// There is no template, or one has no `{}`.
    pub fn new(templates: Vec<String>) -> Result<Self> {
        if templates.is_empty() {
            return Err(Error::Evaluation("there is no template".to_owned()));
        }
        if let Some(index) = templates.iter().position(|template| !has_label(template)) {
            let (number, count) = (index + 1, templates.len());
            return Err(Error::Evaluation(format!(
                "template {number} of {count}, {:?}, has no {{}} for the label",
                templates[index]
            )));
        }
        Ok(Self(templates))
    }

    /// Reads a file with one template a line, `{}` standing for the label. Empty lines are skipped.
    ///
    /// # Errors
    /// The file cannot be read, has no template, or a line has no `{}`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = mm_data::text::read(path)?;
        let lines: Vec<(usize, &str)> =
            mm_data::text::lines(&text).enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
        if let Some((index, line)) = lines.iter().find(|(_, line)| !has_label(line)) {
            let problem =
                format!("{}:{}: template {line:?} has no {{}} for the label", path.display(), index + 1);
            return Err(Error::Evaluation(problem));
        }
        if lines.is_empty() {
            return Err(Error::Evaluation(format!("{}: no template", path.display())));
        }
        Ok(Self(lines.into_iter().map(|(_, line)| line.to_owned()).collect()))
    }

    /// The templates with `label` in place of `{}`.
    pub fn fill(&self, label: &str) -> Vec<String> {
        self.0.iter().map(|template| template.replace("{}", label)).collect()
    }
}

/// Whether a template has a place for the label.
fn has_label(template: &str) -> bool {
    template.contains("{}")
}

/// A classifier made of text embeddings: each label's unit row is the mean of its prompts' embeddings.
#[derive(Debug)]
pub struct ZeroShot {
    labels: Vec<String>,
    /// Unit rows `[labels, embed_dim]`.
    weights: Tensor,
    /// The means `[labels, embed_dim]` of each label's prompts, at most of length 1.
    means: Tensor,
}

impl ZeroShot {
    /// Embeds `labels` through `templates`.
    ///
    /// # Errors
    /// No label, one that is empty or given twice, or one that the tokenizer has no tokens for.
    pub fn new(
        pipeline: &ClipPipeline,
        labels: Vec<String>,
        templates: &Templates,
        batch_size: usize,
    ) -> Result<Self> {
        if labels.is_empty() {
            return Err(Error::Evaluation("zero-shot classification needs at least one label".to_owned()));
        }
        if let Some(place) = labels.iter().position(|label| label.trim().is_empty()) {
            return Err(Error::Evaluation(format!("label {} of {} is empty", place + 1, labels.len())));
        }
        if let Some(twice) = labels.iter().enumerate().find(|(i, label)| labels[..*i].contains(label)) {
            return Err(Error::Evaluation(format!("the label {:?} is given twice", twice.1)));
        }
        let prompts: Vec<String> = labels.iter().flat_map(|label| templates.fill(label)).collect();
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let embeds = pipeline.text.embed(&prompts, batch_size)?; // [labels * templates, D]
        let (weights, means) = mm_sys::inference_mode(|| {
            let per_label = templates.0.len() as i64;
            let mean = embeds.view([labels.len() as i64, per_label, -1]).mean_dim(
                [1i64].as_slice(),
                false,
                Kind::Float,
            );
            let norm = mean.norm_scalaropt_dim(2.0, [1i64].as_slice(), true).clamp_min(1e-12);
            (&mean / norm, mean)
        });
        Ok(Self { labels, weights, means })
    }

    /// The labels, in the order of the columns of [`ZeroShot::probabilities`].
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Each image's probabilities `[N, labels]`, on the CPU, for unit rows `[N, embed_dim]` on any device:
    /// softmax or sigmoid, as the model's loss has it.
    ///
    /// Under the sigmoid loss a label's logit is the mean of its prompts' logits. The unit row of their mean
    /// is closer to an image than the prompts are, and scale and bias were learned on single texts.
    pub fn probabilities(&self, pipeline: &ClipPipeline, image_embeds: &Tensor) -> Tensor {
        let (head, device) = (&pipeline.head, pipeline.image.device);
        let rows = match head.probability() {
            Probability::Softmax => &self.weights,
            Probability::Sigmoid => &self.means,
        };
        tch::no_grad(|| {
            let logits = head.logits(&image_embeds.to_device(device), &rows.to_device(device));
            head.probabilities(&logits).to_device(Device::Cpu)
        })
    }

    /// Classifies `image_embeds` `[N, D]` and compares with the `truth`, indices of labels.
    ///
    /// # Errors
    /// There is not one truth for each row, or no row.
    pub fn evaluate(&self, image_embeds: &Tensor, truth: &[usize]) -> Result<ZeroShotReport> {
        let scores = tch::no_grad(|| image_embeds.matmul(&self.weights.transpose(0, 1)).argmax(1, false));
        let predicted = Vec::<i64>::try_from(scores)?;
        if predicted.len() != truth.len() || truth.is_empty() {
            return Err(Error::Evaluation(format!("{} images with {} labels", predicted.len(), truth.len())));
        }
        let mut classes: Vec<ClassReport> = self
            .labels
            .iter()
            .map(|label| ClassReport { label: label.clone(), ..Default::default() })
            .collect();
        for (&predicted, &truth) in predicted.iter().zip(truth) {
            classes[truth].images += 1;
            classes[predicted as usize].predicted += 1;
            classes[truth].correct += usize::from(predicted as usize == truth);
        }
        let correct = classes.iter().map(|class| class.correct).sum::<usize>();
        Ok(ZeroShotReport { accuracy: correct as f64 / truth.len() as f64, classes })
    }
}

/// The results of a zero-shot classifier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ZeroShotReport {
    /// Share of images that got their label.
    pub accuracy: f64,
    /// By class.
    pub classes: Vec<ClassReport>,
}

impl ZeroShotReport {
    /// Recall and precision by class, under the accuracy.
    pub fn table(&self) -> Table {
        let row = |class: &ClassReport| {
            vec![
                Cell::Text(class.label.clone()),
                Cell::Count(class.images as u64),
                Cell::share(class.correct, class.images),
                Cell::share(class.correct, class.predicted),
            ]
        };
        let (accuracy, chance) = (Cell::Share(self.accuracy), Cell::share(1, self.classes.len()));
        Table {
            title: format!("Zero-shot accuracy {} (chance {})", accuracy.text(), chance.text()),
            columns: ["class", "images", "recall", "precision"].map(str::to_owned).into(),
            rows: self.classes.iter().map(row).collect(),
        }
    }
}

/// The results of one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassReport {
    /// The class.
    pub label: String,
    /// Images of the class.
    pub images: usize,
    /// Images that were classified as it.
    pub predicted: usize,
    /// Images of the class that were classified as it.
    pub correct: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_templates_hold_the_label_or_are_refused_with_their_number() {
        let new =
            |templates: &[&str]| Templates::new(templates.iter().map(|&text| text.to_owned()).collect());
        assert_eq!(new(&["a {} and a {}", "{}"]).unwrap().fill("cat"), ["a cat and a cat", "cat"]);
        assert!(new(&[]).unwrap_err().to_string().contains("no template"));
        let error = new(&["{}", "a { }"]).unwrap_err().to_string();
        assert!(error.contains("template 2 of 2, \"a { }\", has no {}"), "{error}");
    }

    #[test]
    fn templates_hold_the_label_or_are_refused_with_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("templates.txt");
        std::fs::write(&file, "a photo of a {}.\n\na drawing\n").unwrap();
        assert!(Templates::read(&file).unwrap_err().to_string().contains("templates.txt:3"));
        std::fs::write(&file, "\u{feff}a photo of a {}.\r\n\r\n{} drawn\r\n").unwrap();
        assert_eq!(Templates::read(&file).unwrap().fill("cat"), ["a photo of a cat.", "cat drawn"]);
        assert_eq!(Templates::default().fill("cat").len(), 7);
    }
}
