//! Prompts: texts without images, one a line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sources::lines::{Rows, check_some, row, rows};
use crate::{Dataset, Result, Sample, text};

/// A text file with one prompt a line, for text-to-image training, reward models and evaluation. Blank lines
/// are skipped. A sample has the prompt as its only caption and no image. In the config:
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("prompts.txt");
/// std::fs::write(&path, "a red fox in the snow\na lighthouse at night\n")?;
/// let toml = format!("kind = \"prompts\"\npath = {path:?}");
/// let config: mm_data::DatasetConfig = toml::from_str(&toml)?;
/// let sample = config.open()?.sample(1)?;
/// assert_eq!(sample.captions, ["a lighthouse at night"]);
/// assert!(sample.images.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptsConfig {
    /// The text file.
    pub path: PathBuf,
}

/// The prompts as a [`Dataset`].
pub(crate) struct PromptsDataset {
    name: String,
    path: PathBuf,
    prompts: Rows<String>,
}

impl PromptsDataset {
    /// # Errors
    /// The file cannot be read or has no prompt.
    pub(crate) fn open(config: &PromptsConfig) -> Result<Self> {
        let path = config.path.clone();
        let prompts = rows(&path, text::open(&path)?, |line| Ok(Ok(line.trim().to_owned())))?;
        check_some(&path, &prompts)?;
        Ok(Self { name: path.display().to_string(), path, prompts })
    }
}

impl Dataset for PromptsDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.prompts.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (line, prompt) = row(&self.path, &self.prompts, index)?;
        let key = format!("{}:{line}", self.name);
        Ok(Sample { key, captions: vec![prompt.clone()], ..Sample::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: &[u8]) -> Result<PromptsDataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.txt");
        std::fs::write(&path, bytes).unwrap();
        PromptsDataset::open(&PromptsConfig { path })
    }

    #[test]
    fn each_line_is_a_prompt_and_blank_lines_are_skipped() {
        let dataset = open("\u{feff}a fox \r\n\r\n\u{feff}ein Füchslein\nlast".as_bytes()).unwrap();
        let sample = |index| dataset.sample(index).unwrap();
        assert_eq!((dataset.len(), &sample(0).captions[0][..]), (3, "a fox"));
        assert_eq!(
            (&sample(1).captions[0][..], sample(1).key.ends_with("prompts.txt:3")),
            ("ein Füchslein", true)
        );
        assert_eq!(sample(2).image().unwrap_err().to_string(), "the sample has no image");
    }

    #[test]
    fn a_line_that_is_not_text_is_a_bad_sample_with_its_line() {
        let dataset = open(b"a fox\ncaf\xe9\n").unwrap();
        let message = dataset.sample(1).unwrap_err().to_string();
        assert!(message.contains("prompts.txt:2: column 4: not UTF-8 text"), "{message}");
    }

    #[test]
    fn a_file_without_a_prompt_does_not_open() {
        let message = |bytes: &[u8]| open(bytes).err().unwrap().to_string();
        assert!(message(b"\n \n").ends_with("has no samples: the file has no rows"));
        assert!(message(b"\xe9").contains("none of its 1 rows can be read; the first is line 1: column 1"));
    }
}
