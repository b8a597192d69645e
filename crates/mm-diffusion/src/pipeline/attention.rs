//! How an image attends to the words of its prompt.

use super::edit::Edit;
use super::open::DiffusionPipeline;
use super::options::{GenerateOptions, GeneratedImage, ImageRequest};
use super::sample::StepProgress;
use crate::textual_inversion::expand;
use crate::{Error, Result};
use mm_image::WordAttention;
use mm_sys::inference_mode;
use tch::{Kind, Tensor};

/// The attention of the positions of one image to the tokens of its prompt, summed over layers and steps.
pub(super) struct TokenMaps {
    /// Positions that all layers are brought to.
    rows: i64,
    columns: i64,
    /// `[L, rows, columns]`.
    sum: Tensor,
    layers: usize,
}

impl TokenMaps {
    pub(super) fn new(rows: i64, columns: i64) -> Self {
        Self { rows, columns, sum: Tensor::from(0f32), layers: 0 }
    }

    /// Adds the `weights` `[B, heads, N, L]` of each layer for the image in row `row`.
    pub(super) fn add(&mut self, weights: &[Tensor], row: i64) -> Result<()> {
        for layer in weights {
            let mean = layer.select(0, row).mean_dim([0i64].as_slice(), false, Kind::Float); // [N, L]
            let (positions, tokens) = mean.size2()?;
            let (rows, columns) = self.grid(positions)?;
            let map = mean.tr().reshape([1, tokens, rows, columns]);
            let map = map.upsample_bicubic2d([self.rows, self.columns], false, None, None);
            self.sum = &self.sum + map.squeeze_dim(0).clamp_min(0.0).to_device(tch::Device::Cpu);
            self.layers += 1;
        }
        Ok(())
    }

    /// The grid of a layer with `positions`: that of the maps, or halved some times.
    fn grid(&self, positions: i64) -> Result<(i64, i64)> {
        let (mut rows, mut columns) = (self.rows, self.columns);
        while rows * columns > positions && rows * columns > 1 {
            (rows, columns) = ((rows + 1) / 2, (columns + 1) / 2);
        }
        match rows * columns == positions {
            true => Ok((rows, columns)),
            false => {
                let problem = format!("{positions} positions are no grid of a {rows} x {columns} image");
                Err(Error::Model(problem))
            }
        }
    }

    /// The mean of the maps of `tokens`, row by row.
    fn mean(&self, tokens: &[usize]) -> Result<Vec<f32>> {
        let index: Vec<i64> = tokens.iter().map(|&token| token as i64).collect();
        let maps = self.sum.f_index_select(0, &Tensor::from_slice(&index))?;
        let mean = maps.mean_dim([0i64].as_slice(), false, Kind::Float) / self.layers.max(1) as f64;
        Ok(Vec::try_from(mean.contiguous().view(-1))?)
    }
}

impl DiffusionPipeline {
    /// The image of `request`, and how its positions attend to each word of the prompt: the weights of a
    /// U-Net's cross-attention, or of a transformer's joint attention, averaged over heads, layers and steps,
    /// with layers of fewer positions enlarged (Tang et al. 2023, "What the DAAM", section 3). Slower than
    /// [`DiffusionPipeline::generate`], and of more memory: the weights are computed in full.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::generate`].
    pub fn generate_with_attention(
        &self,
        request: &ImageRequest,
        edit: Option<&Edit>,
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(&StepProgress) -> Result<()>,
    ) -> Result<(GeneratedImage, Vec<WordAttention>)> {
        let settings = self.settings(options, edit)?;
        let unit = self.reduction() * self.denoiser.unit();
        let mut maps = Some(TokenMaps::new(settings.height / unit, settings.width / unit));
        let requests = std::slice::from_ref(request);
        let sample =
            inference_mode(|| self.run(requests, (edit, &[]), options, &settings, &mut maps, on_step))?;
        let image = self.pictures(&sample, options)?.remove(0);
        let maps = maps.expect("the maps were given");
        let tokenizer = &self.text.first.tokenizer;
        let tokens = tokenizer.encode(&expand(&self.text.new_tokens, &request.prompt))?;
        let words = tokenizer.words(&[], &tokens)?.into_iter().map(|(word, tokens)| {
            Ok(WordAttention { word, columns: maps.columns as usize, values: maps.mean(&tokens)? })
        });
        Ok((image, words.collect::<Result<_>>()?))
    }
}
