//! The tokenizer of a model folder.

use super::{CheckpointFormat, open_clip};
use crate::{Error, Result};
use mm_core::hf::OPEN_CLIP_CONFIG_FILE;
use mm_text::{TextClean, TextTowerConfig, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The location and settings of a folder's tokenizer, to read it while the weights are copied.
pub(crate) struct TokenizerSource {
    path: PathBuf,
    format: CheckpointFormat,
    /// open_clip's `text_cfg`, else null.
    text_cfg: Value,
}

impl TokenizerSource {
    /// The tokenizer of the folder `path` in `format`; `text_cfg` is open_clip's.
    pub fn new(path: &Path, format: CheckpointFormat, text_cfg: &Value) -> Self {
        Self { path: path.to_owned(), format, text_cfg: text_cfg.clone() }
    }

    /// As [`ModelFolder::tokenizer`](super::ModelFolder::tokenizer).
    pub fn read(&self, tower: &TextTowerConfig) -> Result<Tokenizer> {
        self.read_fitting(tower).map_err(|error| error.at(&self.path))
    }

    fn read_fitting(&self, tower: &TextTowerConfig) -> Result<Tokenizer> {
        let positions = self.context_length(tower)? as usize;
        let tokenizer = match self.format {
            CheckpointFormat::Hf | CheckpointFormat::Own | CheckpointFormat::Checkpoint => {
                Tokenizer::from_dir(&self.path)?.within(positions)?
            }
            // open_clip uses the length in its config, not the tokenizer's.
            CheckpointFormat::OpenClip | CheckpointFormat::Openai => {
                let tokenizer = self.open_clip(tower)?.with_context_length(positions)?;
                tower.check_largest_id(&tokenizer)?;
                tokenizer
            }
        };
        tower.check_tokenizer(&tokenizer)?;
        Ok(tokenizer)
    }

    /// The length at which texts are cut, if the tokenizer sets no smaller one.
    fn context_length(&self, tower: &TextTowerConfig) -> Result<i64> {
        let positions = tower.context_length();
        Ok(match (self.format, tower) {
            (CheckpointFormat::OpenClip, TextTowerConfig::Bert(_)) => {
                open_clip::context_length(&self.text_cfg)?.min(positions)
            }
            _ => positions,
        })
    }

    /// The folder's tokenizer, or OpenAI's where the folder has none, its config names none and the
    /// vocabulary fits the tower. Texts are cleaned as the config sets, else as the tokenizer's files do,
    /// else as open_clip does by default.
    fn open_clip(&self, tower: &TextTowerConfig) -> Result<Tokenizer> {
        let file = self.path.join(OPEN_CLIP_CONFIG_FILE);
        let settings = open_clip::tokenizer_settings(&self.text_cfg).map_err(|error| error.at(&file))?;
        let tokenizer = match Tokenizer::from_dir(&self.path) {
            Err(absent @ mm_text::Error::NoTokenizer(_)) => {
                if let Some(name) = settings.name {
                    let problem = format!(
                        "the tokenizer is {name}, whose files are not here: save them beside this one"
                    );
                    return Err(Error::Folder { path: file, problem });
                }
                let openais = Tokenizer::openai_clip()?;
                if openais.vocab_size() as i64 > tower.vocab_size() {
                    return Err(absent.into());
                }
                openais
            }
            found => found?,
        };
        let keeps_case = settings.name.is_none() && settings.clean == Some(TextClean::Whitespace);
        let tokenizer = if keeps_case { tokenizer.with_case_kept()? } else { tokenizer };
        Ok(match settings.clean {
            Some(clean) => tokenizer.with_text_clean(clean)?,
            None => tokenizer.or_text_clean(settings.default_clean())?,
        })
    }
}
