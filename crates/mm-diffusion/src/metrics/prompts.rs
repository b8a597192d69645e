//! Agreement of generated images with their prompts.

use super::{Features, MetricsError, Result};
use crate::{ImageParameters, PARAMETERS_KEYWORD, RECORD_KEYWORD};
use mm_caption::metrics::{CLIP_SCORE_PROMPT, CLIP_SCORE_WEIGHT, clip_scores};
use mm_clip::TextEmbedder;
use serde::Deserialize;
use std::path::Path;

/// The means of two forms of the agreement by a CLIP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PromptScores {
    /// The number of images with a prompt.
    pub pairs: usize,
    /// CLIPScore (Hessel et al. 2021): `2.5 max(cos, 0)` with "A photo depicts " before the prompt.
    pub clip_score: f64,
    /// `100 max(cos, 0)` with the prompt alone, which papers on text-to-image models print.
    pub clip_cosine: f64,
}

impl PromptScores {
    /// The scores of images with features of a CLIP's image side. `prompts` has an entry for each image;
    /// images without prompt are left out. `text` is the CLIP's text side, which embeds `batch_size` prompts
    /// at once.
    ///
    /// # Errors
    /// The numbers of images and prompts differ, no image has a prompt, or a prompt has no tokens.
    pub fn new(
        images: &Features,
        text: &TextEmbedder,
        prompts: &[Option<&str>],
        batch_size: usize,
    ) -> Result<Self> {
        if prompts.len() != images.count() {
            let (images, prompts) = (images.count(), prompts.len());
            return Err(MetricsError::Features(format!(
                "CLIPScore of {images} images and {prompts} prompts"
            )));
        }
        let pairs = (0..).zip(prompts).filter_map(|(row, prompt)| Some((row, (*prompt)?)));
        let (rows, prompts): (Vec<i64>, Vec<&str>) = pairs.unzip();
        if rows.is_empty() {
            return Err(MetricsError::Features("CLIPScore needs an image with a prompt".to_owned()));
        }
        let images = images.select(&rows)?.unit_rows()?;
        let mean = |texts: &[&str]| -> Result<f64> {
            let scores = clip_scores(&images, &text.embed(texts, batch_size)?)?;
            Ok(scores.iter().copied().map(f64::from).sum::<f64>() / scores.len() as f64)
        };
        let prefixed: Vec<String> =
            prompts.iter().map(|prompt| format!("{CLIP_SCORE_PROMPT}{prompt}")).collect();
        let prefixed: Vec<&str> = prefixed.iter().map(String::as_str).collect();
        let to_percent = 100.0 / f64::from(CLIP_SCORE_WEIGHT);
        Ok(Self {
            pairs: rows.len(),
            clip_score: mean(&prefixed)?,
            clip_cosine: to_percent * mean(&prompts)?,
        })
    }
}

/// The prompt that a PNG file says it was made from: that of this program's record, or of the `parameters` of
/// another program. None where there is none, as in files of other formats.
pub fn stored_prompt(file: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Record {
        prompt: String,
    }
    let texts = mm_image::read_png_text(file).ok()?;
    let text =
        |keyword: &str| texts.iter().find(|(found, _)| found == keyword).map(|(_, text)| text.as_str());
    let record = || serde_json::from_str(text(RECORD_KEYWORD)?).ok().map(|record: Record| record.prompt);
    let parameters = || text(PARAMETERS_KEYWORD).map(|text| ImageParameters::parse(text).prompt);
    record().or_else(parameters).filter(|prompt| !prompt.trim().is_empty())
}

/// The images and prompts of a `.jsonl` file, in its order: `{"image": FILE, "prompt": TEXT}` a line, other
/// keys are ignored. The lines of `mm generate --json` are such a file.
///
/// # Errors
/// The file cannot be read, a line has not this form, or there is no line.
pub fn read_prompts(file: &Path) -> Result<Vec<(String, String)>> {
    #[derive(Deserialize)]
    struct Line {
        image: String,
        prompt: String,
    }
    let problem = |problem: String| MetricsError::prompts(file, problem);
    let text = std::fs::read_to_string(file).map_err(|error| problem(error.to_string()))?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let parsed = lines.map(|(number, line)| {
        let line: Line = serde_json::from_str(line).map_err(|error| {
            problem(format!("line {number}: {error}: a line is {{\"image\": FILE, \"prompt\": TEXT}}"))
        })?;
        Ok((line.image, line.prompt))
    });
    let parsed = parsed.collect::<Result<Vec<_>>>()?;
    match parsed.is_empty() {
        true => Err(problem("it has no line: write {\"image\": FILE, \"prompt\": TEXT}".to_owned())),
        false => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_image::{RgbImage, write_png_with_text};

    fn stored(texts: &[(&str, &str)]) -> Option<String> {
        stored_prompt(&write_png_with_text(&RgbImage::new(4, 4), texts).unwrap())
    }

    #[test]
    fn a_png_has_the_prompt_of_its_record_or_of_another_program() {
        let parameters = ("parameters", "a star\nSteps: 20, Sampler: Euler a, Seed: 1");
        assert_eq!(stored(&[parameters, ("mm", r#"{"prompt": "a cat", "seed": 1}"#)]).unwrap(), "a cat");
        assert_eq!(stored(&[parameters, ("mm", "not a record")]).unwrap(), "a star");
        assert_eq!(stored(&[("mm", r#"{"prompt": " "}"#)]), None);
        assert_eq!(stored(&[]), None);
        assert_eq!(stored_prompt(b"GIF89a"), None);
    }

    #[test]
    fn a_wrong_line_of_prompts_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prompts.jsonl");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read_prompts(&file).map_err(|error| error.to_string())
        };
        let good = "{\"image\": \"a.png\", \"prompt\": \"a cat\", \"seed\": 1}\n\n";
        assert_eq!(read(good).unwrap(), [("a.png".to_owned(), "a cat".to_owned())]);
        assert!(read(&format!("{good}{{\"image\": 1}}")).unwrap_err().contains("line 3"));
        assert!(read("\n").unwrap_err().contains("it has no line"));
        let missing = read_prompts(&folder.path().join("none.jsonl")).unwrap_err().to_string();
        assert!(missing.contains("none.jsonl"), "{missing}");
    }
}
