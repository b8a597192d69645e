use super::{FolderForm, OPEN_CLIP_CONFIG, open_clip};
use crate::{Error, Result};
use mm_text::{TOKENIZER_FILES, TextTowerConfig, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What it takes to read a folder's tokenizer, so that it can be read beside the copying of weights.
pub(crate) struct TokenizerSource {
    path: PathBuf,
    form: FolderForm,
    /// Of open_clip.
    text_cfg: Value,
}

impl TokenizerSource {
    /// Of the folder `path` in `form`; `text_cfg` is open_clip's.
    pub fn new(path: &Path, form: FolderForm, text_cfg: &Value) -> Self {
        Self { path: path.to_owned(), form, text_cfg: text_cfg.clone() }
    }

    /// As [`ModelFolder::tokenizer`](super::ModelFolder::tokenizer).
    pub fn read(&self, tower: &TextTowerConfig) -> Result<Tokenizer> {
        self.fitting(tower).map_err(|error| error.at(&self.path))
    }

    fn fitting(&self, tower: &TextTowerConfig) -> Result<Tokenizer> {
        let positions = tower.context_length() as usize;
        let tokenizer = match self.form {
            FolderForm::Hf => Tokenizer::from_dir(&self.path)?.within(positions)?,
            // open_clip goes by the length in its config, not by the tokenizer's.
            FolderForm::OpenClip | FolderForm::Openai => self.open_clips(tower)?.with_context_length(positions)?,
        };
        tower.check_tokenizer(&tokenizer)?;
        Ok(tokenizer)
    }

    /// The folder's own, or OpenAI's where it has none, its config names none and the tower has room for it.
    fn open_clips(&self, tower: &TextTowerConfig) -> Result<Tokenizer> {
        let file = self.path.join(OPEN_CLIP_CONFIG);
        let named = open_clip::tokenizer_name(&self.text_cfg).map_err(|error| error.at(&file))?;
        let absent = match Tokenizer::from_dir(&self.path) {
            Err(absent @ mm_text::Error::NoTokenizer(_)) => absent,
            own => return Ok(own?),
        };
        if let Some(name) = named {
            let problem = format!("the tokenizer is {name}, whose files are not here: save them beside this one");
            return Err(Error::Folder { path: file, problem });
        }
        let openais = Tokenizer::openai_clip()?;
        match openais.vocab_size() as i64 <= tower.vocab_size() {
            true => Ok(openais),
            false => Err(absent.into()),
        }
    }
}

/// The files of the tokenizer in `folder`.
pub(crate) fn tokenizer_files(folder: &Path) -> Vec<PathBuf> {
    TOKENIZER_FILES.map(|name| folder.join(name)).into_iter().filter(|file| file.exists()).collect()
}
