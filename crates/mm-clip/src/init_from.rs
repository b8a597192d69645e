//! The initial model of a run: new, from a checkpoint, or from a checkpoint for each tower.

use crate::folder::ModelFolder;
use crate::layer_groups::group_of;
use crate::tokenizer::{Vocabulary, train_tokenizer};
use crate::{Clip, ClipConfig, Error, Lock, ModelConfig, Result, TokenizerConfig};
use mm_core::checkpoint::variable_shapes;
use mm_core::nn::take_frozen;
use mm_text::Tokenizer;
use mm_train::TaskContext;
use mm_vision::ImageProcessor;
use std::path::Path as FilePath;
use tch::Tensor;
use tch::nn::{Path, VarStore};

/// The initial model: its config, and the checkpoints that fill both towers or one of them.
pub(crate) struct InitFrom {
    pub config: ClipConfig,
    both: Option<ModelFolder>,
    image: Option<ModelFolder>,
    text: Option<ModelFolder>,
    resolution: Option<i64>,
    lock_image: Option<Lock>,
    lock_text: Option<Lock>,
}

impl InitFrom {
    /// Opens the checkpoints of `model`, which is valid. If one of them is missing, the run's own
    /// `checkpoint` takes its place.
    ///
    /// # Errors
    /// A checkpoint cannot be opened, or the resolution does not suit the image tower.
    pub fn open(model: &ModelConfig, checkpoint: Option<&FilePath>) -> Result<Self> {
        if let Some((name, error)) = missing(model) {
            let Some(saved) =
                checkpoint.filter(|checkpoint| ModelFolder::is_described_checkpoint(checkpoint))
            else {
                return Err(error.into());
            };
            tracing::warn!("{name} is missing: the run continues with the weights in {}", saved.display());
            return Self::resumed(model, saved);
        }
        let open = |name: &Option<String>| name.as_deref().map(ModelFolder::open).transpose();
        let (both, image, text) = (open(&model.from)?, open(&model.image_from)?, open(&model.text_from)?);
        let mut config = match &both {
            Some(folder) => folder.clip()?.clone(),
            None => {
                let image = match &image {
                    Some(folder) => Some(folder.image()?.0),
                    None => model.image.clone(),
                };
                let text = match &text {
                    Some(folder) => Some(folder.text()?.0),
                    None => model.text.clone(),
                };
                let (Some(embed_dim), Some(image), Some(text)) = (model.embed_dim, image, text) else {
                    return Err(Error::Model("[model] has no tower or no embed_dim".to_owned()));
                };
                ClipConfig {
                    loss: model.loss.unwrap_or_default(),
                    image_projection: model.image_projection.unwrap_or(true),
                    text_projection: model.text_projection.unwrap_or(true),
                    ..ClipConfig::new(embed_dim, image, text)
                }
            }
        };
        if let Some(size) = model.resolution {
            config.image = config.image.with_image_size(size)?;
        }
        let (resolution, lock_image, lock_text) = (model.resolution, model.lock_image, model.lock_text);
        Ok(Self { config, both, image, text, resolution, lock_image, lock_text })
    }

    /// Takes all weights from the run's own checkpoint `saved`.
    fn resumed(model: &ModelConfig, saved: &FilePath) -> Result<Self> {
        let folder = ModelFolder::open_last_step(saved)?;
        let config = folder.clip()?.clone();
        let (lock_image, lock_text) = (model.lock_image, model.lock_text);
        Ok(Self {
            config,
            both: Some(folder),
            image: None,
            text: None,
            resolution: None,
            lock_image,
            lock_text,
        })
    }

    /// The tokenizer that `config` names or trains, else the checkpoint's. A trained one sets the vocabulary
    /// of the text tower.
    ///
    /// # Errors
    /// It cannot be opened or trained, or does not fit the text tower.
    pub fn tokenizer(
        &mut self,
        config: Option<&TokenizerConfig>,
        context: &TaskContext,
    ) -> Result<Tokenizer> {
        let missing = || Error::Model("[tokenizer] is missing".to_owned());
        let config = config.cloned().unwrap_or_default();
        let with_text_clean = |tokenizer: Tokenizer| match config.text_clean {
            Some(clean) => tokenizer.with_text_clean(clean),
            None => Ok(tokenizer),
        };
        let context_length = self.config.text.context_length() as usize;
        let saved = context.checkpoint.filter(|checkpoint| ModelFolder::is_described_checkpoint(checkpoint));
        let tokenizer = match (&config.from, config.vocab_size, saved) {
            (None, None, _) => {
                let folder = self.both.as_ref().or(self.text.as_ref()).ok_or_else(missing)?;
                return Ok(with_text_clean(folder.tokenizer()?)?);
            }
            (Some(from), _, Some(saved)) if !from.exists() => {
                let (from, shown) = (from.display(), saved.display());
                tracing::warn!("{from} is missing: the run continues with the tokenizer in {shown}");
                Tokenizer::from_dir(saved)?.with_context_length(context_length)?
            }
            (Some(from), _, _) => Tokenizer::from_dir(from)?.with_context_length(context_length)?,
            (None, Some(vocab_size), saved) => {
                let tokenizer = match saved {
                    Some(saved) => Tokenizer::from_dir(saved)?.with_context_length(context_length)?,
                    None => {
                        let clean = config.text_clean.unwrap_or_default();
                        let captions = context.captions_by_sample("captions read for the tokenizer");
                        let vocabulary = Vocabulary::Pieces(vocab_size);
                        train_tokenizer(context, captions.flatten(), clean, vocabulary, context_length)?
                    }
                };
                self.config.text.set_vocabulary(&tokenizer);
                tokenizer
            }
        };
        self.config.text.check_tokenizer(&tokenizer)?;
        self.config.text.check_largest_id(&tokenizer)?;
        Ok(with_text_clean(tokenizer)?)
    }

    /// The checkpoint's preprocessing, or that of the image tower's family.
    pub fn processor(&self) -> Result<ImageProcessor> {
        let size = self.config.image.image_size() as u32;
        match self.both.as_ref().or(self.image.as_ref()) {
            Some(folder) if self.resolution.is_some() => Ok(folder.processor()?.with_size(size)?),
            Some(folder) => folder.processor(),
            None => Ok(self.config.image.default_processor()),
        }
    }

    /// Builds the model on `vs`, with initial values for the variables that no checkpoint fills, and moves
    /// the variables of locked layers into a store of their own.
    ///
    /// # Errors
    /// A checkpoint does not fit the model.
    pub fn build(self, vs: &VarStore) -> Result<(Clip, VarStore)> {
        let config = &self.config;
        let resized = self.resolution.map(|_| &config.image);
        let make = |path: &Path| Clip::new(path, config);
        let mut towers: Vec<(ModelFolder, &str)> =
            [(self.image, "visual_projection"), (self.text, "text_projection")]
                .into_iter()
                .filter_map(|(folder, projection)| Some((folder?, projection)))
                .collect();
        let variables_of = |variables: &[(String, Tensor)], projection: &str| -> Vec<(String, Tensor)> {
            let is_image = projection.starts_with("visual");
            let is_own = |name: &str| group_of(name, config).is_some_and(|group| group.is_image == is_image);
            variables
                .iter()
                .filter(|(name, _)| is_own(name) && !name.starts_with(projection))
                .map(|(name, variable)| (name.clone(), variable.shallow_clone()))
                .collect()
        };
        let clip = match self.both {
            Some(folder) => folder.build(vs, resized, make)?,
            None => {
                let shapes = variable_shapes(make)?;
                for (folder, projection) in &mut towers {
                    // A tower's folder may have a projection: it leads to a space that is not this model's.
                    folder.drop_projections();
                    folder.check(variables_of(&shapes, projection), resized)?;
                }
                make(&vs.root())?
            }
        };
        let variables: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
        for (folder, projection) in towers {
            folder.fill_variables(variables_of(&variables, projection), resized)?;
        }
        let is_locked = |name: &str| {
            group_of(name, config).is_some_and(|group| {
                let lock = if group.is_image { self.lock_image } else { self.lock_text };
                lock.is_some_and(|lock| group.behind >= lock.unlocked_groups)
            })
        };
        let frozen = take_frozen(vs, is_locked);
        Ok((clip, frozen))
    }
}

/// The first checkpoint of `model` that cannot be found, with the reason.
fn missing(model: &ModelConfig) -> Option<(&str, mm_core::Error)> {
    let names = [&model.from, &model.image_from, &model.text_from].into_iter().flatten();
    names.map(String::as_str).find_map(|name| Some((name, mm_core::hub::resolve(name).err()?)))
}
