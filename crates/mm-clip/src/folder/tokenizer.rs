use super::{CheckpointFormat, OPEN_CLIP_CONFIG, open_clip};
use crate::{Error, Result};
use mm_text::{TextClean, TextTowerConfig, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What it takes to read a folder's tokenizer, so that it can be read beside the copying of weights.
pub(crate) struct TokenizerSource {
    path: PathBuf,
    form: CheckpointFormat,
    /// Of open_clip.
    text_cfg: Value,
}

impl TokenizerSource {
    /// Of the folder `path` in `form`; `text_cfg` is open_clip's.
    pub fn new(path: &Path, form: CheckpointFormat, text_cfg: &Value) -> Self {
        Self { path: path.to_owned(), form, text_cfg: text_cfg.clone() }
    }

    /// As [`ModelFolder::tokenizer`](super::ModelFolder::tokenizer).
    pub fn read(&self, tower: &TextTowerConfig) -> Result<Tokenizer> {
        self.fitting(tower).map_err(|error| error.at(&self.path))
    }

    fn fitting(&self, tower: &TextTowerConfig) -> Result<Tokenizer> {
        let positions = tower.context_length() as usize;
        let tokenizer = match self.form {
            CheckpointFormat::Hf | CheckpointFormat::Own | CheckpointFormat::Checkpoint => {
                Tokenizer::from_dir(&self.path)?.within(positions)?
            }
            // open_clip goes by the length in its config, not by the tokenizer's.
            CheckpointFormat::OpenClip | CheckpointFormat::Openai => {
                let tokenizer = self.open_clips(tower)?.with_context_length(positions)?;
                tower.check_largest_id(&tokenizer)?;
                tokenizer
            }
        };
        tower.check_tokenizer(&tokenizer)?;
        Ok(tokenizer)
    }

    /// The folder's own, or OpenAI's where it has none, its config names none and the tower has room for it.
    /// Texts are cleaned as the config says, else as the tokenizer's files do, else as open_clip does by
    /// default.
    fn open_clips(&self, tower: &TextTowerConfig) -> Result<Tokenizer> {
        let file = self.path.join(OPEN_CLIP_CONFIG);
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
            own => own?,
        };
        let keeps_case = settings.name.is_none() && settings.clean == Some(TextClean::Whitespace);
        let tokenizer = if keeps_case { tokenizer.with_case_kept()? } else { tokenizer };
        Ok(match settings.clean {
            Some(clean) => tokenizer.with_text_clean(clean)?,
            None => tokenizer.or_text_clean(settings.default_clean())?,
        })
    }
}
