//! A model with its preprocessing and tokenizer: opened from a folder, used for embedding, saved.

use crate::folder::{Architecture, CheckpointFormat, Description, ModelFolder, Saved};
use crate::{Clip, ClipConfig, ContrastiveHead, Error, ImageEncoder, Result, TextEncoder};
use mm_core::checkpoint::StoredType;
use mm_core::{OpenOptions, upload};
use mm_dist::ProcessGroup;
use mm_image::RgbImage;
use mm_text::{Padding, TokenBatch, Tokenizer};
use mm_vision::{ImageProcessor, ImageTowerConfig};
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// An image encoder with its preprocessing.
#[derive(Debug)]
pub struct ImageEmbedder {
    /// From pixels to vectors.
    pub encoder: ImageEncoder,
    /// From images to `pixel_values`.
    pub processor: ImageProcessor,
    /// The device of the encoder.
    pub device: Device,
}

/// A text encoder with its tokenizer.
#[derive(Debug)]
pub struct TextEmbedder {
    /// From tokens to vectors.
    pub encoder: TextEncoder,
    /// From texts to tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// The padding of batches.
    pub padding: Padding,
    /// The device of the encoder.
    pub device: Device,
}

/// A CLIP with its preprocessing and tokenizer.
#[derive(Debug)]
pub struct ClipPipeline {
    /// The image side.
    pub image: ImageEmbedder,
    /// The text side.
    pub text: TextEmbedder,
    /// The comparison of the two.
    pub head: ContrastiveHead,
    /// The config of the model.
    pub config: ClipConfig,
}

impl ImageEmbedder {
    /// Opens the image side of the model in a folder or of a hub name: of a CLIP, or a single image tower.
    /// Its weights have no gradients.
    ///
    /// # Errors
    /// As [`ClipPipeline::open`].
    pub fn open(model: &str, options: &OpenOptions) -> Result<Self> {
        let folder = ModelFolder::open(model)?;
        let (mut tower, projection) = folder.image()?;
        let processor = resized(folder.processor()?, &mut tower, options.resolution)?;
        let mut vs = VarStore::new(options.resolve_device()?);
        let resized = options.resolution.map(|_| &tower);
        let mut encoder = folder.build(&vs, resized, |path| ImageEncoder::new(path, &tower, projection))?;
        vs.freeze();
        options.pack(&vs, |precision| encoder.pack(precision));
        Ok(Self { encoder, processor, device: vs.device() })
    }

    /// Unit rows `[N, D]` f32 of images of any size, in one batch.
    ///
    /// # Errors
    /// An image has no pixels.
    pub fn embed(&self, images: &[RgbImage]) -> Result<Tensor> {
        Ok(self.embed_pixels(&self.processor.process_batch(images)?))
    }

    /// Unit rows `[N, D]` f32 of images already resized by the processor, in one batch.
    ///
    /// # Errors
    /// The images differ in size.
    pub fn embed_resized(&self, images: &[RgbImage]) -> Result<Tensor> {
        Ok(self.embed_pixels(&self.processor.normalize_batch(images)?))
    }

    fn embed_pixels(&self, pixel_values: &Tensor) -> Tensor {
        let pixel_values = upload(pixel_values, self.device);
        mm_sys::inference_mode(|| self.encoder.encode(&pixel_values, false)).to_device(Device::Cpu)
    }
}

impl TextEmbedder {
    /// Opens the text side of the model in a folder or of a hub name: of a CLIP, or a single text tower.
    ///
    /// # Errors
    /// As [`ClipPipeline::open`].
    pub fn open(model: &str, options: &OpenOptions) -> Result<Self> {
        let folder = ModelFolder::open(model)?;
        let (tower, projection) = folder.text()?;
        let tokenizer = Arc::new(folder.tokenizer()?);
        let vs = VarStore::new(options.resolve_device()?);
        let mut encoder = folder.build(&vs, None, |path| TextEncoder::new(path, &tower, projection))?;
        options.pack(&vs, |precision| encoder.pack(precision));
        Ok(Self { encoder, tokenizer, padding: tower.padding(), device: vs.device() })
    }

    /// Unit rows `[N, D]` f32 of texts, in batches of `batch_size`.
    ///
    /// # Errors
    /// A text has no tokens.
    pub fn embed(&self, texts: &[&str], batch_size: usize) -> Result<Tensor> {
        self.embed_among(texts, batch_size, &ProcessGroup::alone())
    }

    /// [`TextEmbedder::embed`] with the batches distributed over the processes of `group`, which all get all
    /// rows.
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`], or another process fails.
    pub fn embed_among(&self, texts: &[&str], batch_size: usize, group: &ProcessGroup) -> Result<Tensor> {
        let rows = self.embed_tokens(&self.tokenizer.encode_all(texts)?, batch_size, group)?;
        check_rows(&rows, |row| format!("the text {:?}", texts[row]))?;
        Ok(rows)
    }

    /// As [`TextEmbedder::embed_among`], of texts that are tokenized. It does not check that rows are finite.
    ///
    /// # Errors
    /// libtorch refuses a batch, or another process fails.
    pub fn embed_tokens(
        &self,
        texts: &[Vec<u32>],
        batch_size: usize,
        group: &ProcessGroup,
    ) -> Result<Tensor> {
        self.map_rows(texts, batch_size, group, |tokens| self.encoder.encode(tokens))
    }

    /// The rows that `compute` returns for texts, in batches of `batch_size`. Texts are sorted by length,
    /// because a batch takes the time of its longest text; the rows are in the order of the texts. The
    /// batches are distributed over the processes of `group`.
    ///
    /// # Errors
    /// libtorch refuses a batch.
    pub(crate) fn map_rows(
        &self,
        rows: &[Vec<u32>],
        batch_size: usize,
        group: &ProcessGroup,
        compute: impl Fn(&TokenBatch) -> Tensor,
    ) -> Result<Tensor> {
        let mut by_length: Vec<usize> = (0..rows.len()).collect();
        by_length.sort_by_key(|&index| rows[index].len());
        let batches_of = |rank: usize| by_length.chunks(batch_size).skip(rank).step_by(group.world());
        let batches: Vec<Tensor> = batches_of(group.rank())
            .map(|indices| {
                let rows: Vec<Vec<u32>> = indices.iter().map(|&index| rows[index].clone()).collect();
                let tokens = self.tokenizer.collate(&rows, self.padding).to_device(self.device);
                mm_sys::inference_mode(|| compute(&tokens)).to_device(Device::Cpu)
            })
            .collect();
        let own = if batches.is_empty() {
            Tensor::zeros([0, self.encoder.output_width()], (Kind::Float, Device::Cpu))
        } else {
            mm_sys::inference_mode(|| Tensor::f_cat(&batches, 0))?
        };
        let all = mm_sys::inference_mode(|| group.gather_rows(&own))?;
        let mut place = vec![0i64; rows.len()];
        for (position, &index) in (0..group.world()).flat_map(batches_of).flatten().enumerate() {
            place[index] = position as i64;
        }
        Ok(mm_sys::inference_mode(|| all.f_index_select(0, &Tensor::from_slice(&place)))?)
    }
}

impl ClipPipeline {
    /// A pipeline of a model in memory.
    pub fn new(
        clip: Clip,
        config: ClipConfig,
        tokenizer: Arc<Tokenizer>,
        processor: ImageProcessor,
        device: Device,
    ) -> Self {
        let Clip { image, text, head } = clip;
        Self {
            image: ImageEmbedder { encoder: image, processor, device },
            text: TextEmbedder { encoder: text, tokenizer, padding: config.text.padding(), device },
            head,
            config,
        }
    }

    /// The cosine similarity of each image with the text at the same index, in one batch.
    ///
    /// # Errors
    /// The numbers of images and texts differ, an image has no pixels, or a text has no tokens.
    pub fn cosines(&self, images: &[RgbImage], texts: &[&str]) -> Result<Vec<f32>> {
        let (images, texts) = (self.image.embed(images)?, self.text.embed(texts, texts.len().max(1))?);
        let cosines = mm_sys::inference_mode(|| {
            images.f_mul(&texts)?.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
        })?;
        Ok(Vec::try_from(cosines.contiguous())?)
    }

    /// Opens the CLIP in a folder or of a hub name for inference.
    ///
    /// # Errors
    /// A file is missing or damaged, the architecture is not supported, or config, weights and tokenizer do
    /// not match.
    pub fn open(model: &str, options: &OpenOptions) -> Result<Self> {
        let vs = VarStore::new(options.resolve_device()?);
        let mut pipeline = Self::load(ModelFolder::open(model)?, &vs, options.resolution)?;
        options.pack(&vs, |precision| {
            pipeline.image.encoder.pack(precision);
            pipeline.text.encoder.pack(precision);
        });
        Ok(pipeline)
    }

    /// Builds the CLIP of `folder` on `vs` and fills it.
    ///
    /// # Errors
    /// As [`ClipPipeline::open`].
    pub fn load(folder: ModelFolder, vs: &VarStore, resolution: Option<i64>) -> Result<Self> {
        let mut config = folder.clip()?.clone();
        let processor = resized(folder.processor()?, &mut config.image, resolution)?;
        let source = folder.tokenizer_source();
        // Reading a vocabulary takes as long as copying a tower: they run in parallel.
        let (tokenizer, clip) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| source.read(&config.text));
            let clip = folder.build(vs, resolution.map(|_| &config.image), |path| Clip::new(path, &config));
            (tokenizer.join(), clip)
        });
        let clip = clip?;
        let tokenizer = tokenizer.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Self::new(clip, config, Arc::new(tokenizer), processor, vs.device()))
    }

    /// Writes the model, with the variables in `stores`, to the existing `folder`.
    ///
    /// # Errors
    /// A file cannot be written, or `format` cannot represent the model.
    pub fn save(
        &self,
        stores: &[&VarStore],
        folder: &Path,
        format: CheckpointFormat,
        dtype: StoredType,
    ) -> Result<()> {
        let variables = stores.iter().flat_map(|vs| vs.variables()).collect();
        self.save_variables(variables, folder, format, dtype)
    }

    /// As [`ClipPipeline::save`], with the variables by name.
    ///
    /// # Errors
    /// As [`ClipPipeline::save`].
    pub fn save_variables(
        &self,
        variables: Vec<(String, Tensor)>,
        folder: &Path,
        format: CheckpointFormat,
        dtype: StoredType,
    ) -> Result<()> {
        let architecture = Architecture::Clip(self.config.clone());
        Saved { description: self.description(&architecture), variables }.write(folder, format, dtype)
    }

    /// The most widely supported format that can represent the model; see [`Description::format`].
    ///
    /// # Errors
    /// No format can represent it.
    pub fn format(&self) -> Result<CheckpointFormat> {
        self.description(&Architecture::Clip(self.config.clone())).format()
    }

    /// Writes config, preprocessing and tokenizer of a checkpoint to the existing `folder`, which then opens
    /// as a model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn save_description(&self, folder: &Path) -> Result<()> {
        let architecture = Architecture::Clip(self.config.clone());
        self.description(&architecture).write(folder, CheckpointFormat::Checkpoint, StoredType::F32)
    }

    fn description<'a>(&'a self, architecture: &'a Architecture) -> Description<'a> {
        Description {
            architecture,
            tokenizer: Some(&self.text.tokenizer),
            writes_tokenizer: true,
            processor: Some(&self.image.processor),
            hf_model_name: None,
        }
    }
}

/// Checks that all rows `[N, D]` are finite. `name` gives the name of the sample of a row.
///
/// # Errors
/// A row has a NaN or infinite number; its sample is named.
pub fn check_rows(rows: &Tensor, name: impl Fn(usize) -> String) -> Result<()> {
    let is_finite =
        |rows: &Tensor| mm_sys::inference_mode(|| rows.f_sum(Kind::Double)?.f_isfinite()?.f_int64_value(&[]));
    if is_finite(rows)? != 0 {
        return Ok(());
    }
    for row in 0..rows.size()[0] {
        if is_finite(&rows.f_get(row)?)? == 0 {
            return Err(Error::NotFinite { sample: name(row as usize) });
        }
    }
    Ok(())
}

/// `processor` and `tower` for images of another resolution, if given.
fn resized(
    processor: ImageProcessor,
    tower: &mut ImageTowerConfig,
    resolution: Option<i64>,
) -> Result<ImageProcessor> {
    let Some(size) = resolution.filter(|&size| size != tower.image_size()) else { return Ok(processor) };
    *tower = tower.clone().with_image_size(size)?;
    Ok(processor.with_size(size as u32)?)
}
