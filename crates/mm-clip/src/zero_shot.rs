use crate::{ClipPipeline, Error, Probability, Result};
use serde::Serialize;
use std::path::Path;
use tch::{Kind, Tensor};

/// Sentences that a label is set into (Radford et al. 2021, section 3.1.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Templates(Vec<String>);

impl Default for Templates {
    /// The seven that OpenAI found to carry nearly all that their eighty for ImageNet give.
    fn default() -> Self {
        Self(include_str!("../templates/imagenet-7.txt").lines().map(str::to_owned).collect())
    }
}

impl Templates {
    /// Reads a file with one template a line, `{}` standing for the label. Empty lines are passed over.
    ///
    /// # Errors
    /// The file cannot be read, has no template, or a line lacks its `{}`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = mm_data::text::read(path)?;
        let lines: Vec<(usize, &str)> =
            mm_data::text::lines(&text).enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
        if let Some((index, line)) = lines.iter().find(|(_, line)| !line.contains("{}")) {
            let problem =
                format!("{}:{}: template {line:?} has no {{}} for the label", path.display(), index + 1);
            return Err(Error::Evaluation(problem));
        }
        match lines.is_empty() {
            true => Err(Error::Evaluation(format!("{}: no template", path.display()))),
            false => Ok(Self(lines.into_iter().map(|(_, line)| line.to_owned()).collect())),
        }
    }

    /// The templates with `label` set in.
    pub fn fill(&self, label: &str) -> Vec<String> {
        self.0.iter().map(|template| template.replace("{}", label)).collect()
    }
}

/// A classifier made of text: a unit row a label, the mean of its prompts' embeddings.
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
        bundle: &ClipPipeline,
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
        let embeds = bundle.text.embed(&prompts, batch_size)?; // [labels * templates, D]
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

    /// Each image's probabilities `[N, labels]` for unit rows `[N, embed_dim]`, of the kind that the model's
    /// loss gives them.
    ///
    /// Under the sigmoid loss a label's logit is the mean of its prompts' logits. The unit row of several
    /// prompts would not do: it is nearer to an image than its prompts are, which scale and bias, learned on
    /// single texts, do not know.
    pub fn probabilities(&self, bundle: &ClipPipeline, image_embeds: &Tensor) -> Tensor {
        let rows = match bundle.head.probability() {
            Probability::Softmax => &self.weights,
            Probability::Sigmoid => &self.means,
        };
        tch::no_grad(|| bundle.head.probabilities(&bundle.head.logits(image_embeds, rows)))
    }

    /// Classifies `image_embeds` `[N, D]` and compares with the `truth`, indices of labels.
    ///
    /// # Errors
    /// As many truths as rows are not there.
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

/// How a zero-shot classifier did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ZeroShotReport {
    /// Share of images that got their label.
    pub accuracy: f64,
    /// By class.
    pub classes: Vec<ClassReport>,
}

/// How it did on one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassReport {
    /// The class.
    pub label: String,
    /// Images of the class.
    pub images: usize,
    /// Images that were said to be of it.
    pub predicted: usize,
    /// Images of which both hold.
    pub correct: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

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
