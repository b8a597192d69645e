//! The parts of a file, as the weights of diffusers' and transformers' models.

use super::kind::{CLIP_SD1, CLIP_SDXL, OPEN_CLIP_SD2, OPEN_CLIP_SDXL, UNET, UNET_EMA, VAE};
use super::names::{UnetNames, VaeNames};
use super::open_clip::{self, Source};
use super::{Family, SingleFile};
use crate::Result;
use mm_core::checkpoint::Weights;
use std::collections::HashMap;
use tch::Tensor;

/// The layers of SD 2's text encoder in use: its U-Net reads the output of the last but one of 24.
const SD2_LAYERS: usize = 23;

/// Element types of tensors whose place another may take.
const FLOATS: [&str; 3] = ["F32", "F16", "BF16"];

impl SingleFile {
    /// The U-Net.
    ///
    /// # Errors
    /// The file has changed, or the U-Net has a tensor that is not one of its family's.
    pub fn unet(&self) -> Result<Weights> {
        let names = self.unet_names();
        let map = self.map(UNET, |name| names.to_diffusers(name))?;
        self.renamed(&map)
    }

    /// The moving average of the U-Net, if the file has one beside the weights themselves.
    ///
    /// # Errors
    /// As [`SingleFile::unet`].
    pub fn unet_ema(&self) -> Result<Option<Weights>> {
        let names = self.unet_names();
        let trained = self.map(UNET, |name| names.to_diffusers(name))?;
        // The average has the names of the weights without the dots.
        let averaged =
            |name: &str| Some(format!("{UNET_EMA}{}", name.strip_prefix("model.")?.replace('.', "")));
        let map: HashMap<String, String> =
            trained.into_iter().filter_map(|(from, to)| Some((averaged(&from)?, to))).collect();
        match map.keys().filter(|name| self.shapes.contains_key(*name)).count() {
            0 => Ok(None),
            found if found == map.len() => self.renamed(&map).map(Some),
            found => {
                Err(self.bad(format!("{UNET_EMA}* has {found} of the {} tensors of the U-Net", map.len())))
            }
        }
    }

    /// The autoencoder.
    ///
    /// # Errors
    /// The file has none, or one with a tensor that is not of its kind.
    pub fn vae(&self) -> Result<Weights> {
        let names = self.vae_names();
        let is_model = |name: &str| !name.starts_with("loss.") && !name.starts_with("model_ema.");
        let map = self.map_some(VAE, is_model, |name| names.to_diffusers(name))?;
        let mut weights = self.renamed(&map)?;
        // Its attention is convolutions of 1 x 1 in CompVis's code and linear in diffusers'.
        for name in map.values().filter(|name| name.contains(".attentions.")) {
            if weights.shape(name).is_some_and(|shape| matches!(shape, [_, _, 1, 1])) {
                let matrix = weights.tensor(name)?.f_flatten(1, -1)?;
                weights.replace(name, matrix);
            }
        }
        Ok(weights)
    }

    /// The text encoder, the first of SDXL's.
    ///
    /// # Errors
    /// The file has none, or one with a tensor that is not of its kind.
    pub fn text_encoder(&self) -> Result<Weights> {
        match self.kind.family {
            Family::Sd1 => self.clip(CLIP_SD1),
            Family::Sd2 => self.open_clip(OPEN_CLIP_SD2, SD2_LAYERS, false),
            Family::Sdxl => self.clip(CLIP_SDXL),
        }
    }

    /// SDXL's second text encoder.
    ///
    /// # Errors
    /// The file has none, or one with a tensor that is not of its kind.
    pub fn text_encoder_2(&self) -> Result<Weights> {
        match self.kind.family {
            Family::Sdxl => self.open_clip(OPEN_CLIP_SDXL, usize::MAX, true),
            family => Err(self.bad(format!("{family:?} has one text encoder"))),
        }
    }

    pub(super) fn unet_names(&self) -> UnetNames {
        UnetNames::of_ldm(self.below(UNET))
    }

    pub(super) fn vae_names(&self) -> VaeNames {
        VaeNames::of_ldm(self.below(VAE))
    }

    /// The names that begin with `prefix`, without it.
    pub(super) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> + Clone {
        self.shapes.keys().filter_map(move |name| name.strip_prefix(prefix))
    }

    /// transformers' text model, which is in the file as it is.
    fn clip(&self, prefix: &str) -> Result<Weights> {
        let is_text = |name: &str| {
            !name.ends_with("position_ids") && !name.starts_with("text_projection") && name != "logit_scale"
        };
        // Some merges of models leave the prefix out.
        let to = |name: &str| match name.starts_with("text_model.") {
            true => Some(name.to_owned()),
            false => Some(format!("text_model.{name}")),
        };
        self.renamed(&self.map_some(prefix, is_text, to)?)
    }

    /// open_clip's text model.
    fn open_clip(&self, prefix: &str, layers: usize, has_projection: bool) -> Result<Weights> {
        // Not more than there are: a table of names is made of it.
        let present =
            self.below(prefix).filter_map(open_clip::layer).max().map_or(0, |last| last.saturating_add(1));
        let layers = layers.min(present).min(self.shapes.len());
        let made = open_clip::to_transformers(self.below(prefix), layers, has_projection);
        let made = made.map_err(|problem| self.bad(problem))?;
        if made.is_empty() {
            return Err(self.missing(prefix));
        }
        let mut weights = Weights::open(&self.path)?;
        // Weights are renamed in place and gain no tensors: of the three that an in_proj is split into, two
        // take the places of tensors of other parts.
        let list = weights.list();
        let mut spares = list
            .iter()
            .filter(|tensor| !tensor.name.starts_with(prefix) && FLOATS.contains(&tensor.dtype.as_str()))
            .map(|tensor| tensor.name.clone());
        let mut map = HashMap::new();
        for (to, source) in &made {
            let from = match source {
                Source::Whole(from) | Source::Transposed(from) | Source::Third(from, 0) => {
                    format!("{prefix}{from}")
                }
                Source::Third(..) => {
                    spares.next().ok_or_else(|| self.bad(format!("it has little more than {prefix}*")))?
                }
            };
            map.insert(from, to.clone());
        }
        let mut thirds: HashMap<&str, Vec<Tensor>> = HashMap::new();
        for (_, source) in &made {
            if let Source::Third(from, _) = source
                && !thirds.contains_key(from.as_str())
            {
                let joined = weights.tensor(&format!("{prefix}{from}"))?;
                if joined.size().first().is_none_or(|rows| rows % 3 != 0) {
                    return Err(
                        self.bad(format!("{prefix}{from} is {:?}: it has no three parts", joined.size()))
                    );
                }
                thirds.insert(from, joined.f_chunk(3, 0)?);
            }
        }
        weights.retain(|name| map.contains_key(name));
        weights.rename(|name| map.get(name).cloned().unwrap_or_default());
        for (to, source) in &made {
            match source {
                Source::Whole(_) => {}
                Source::Transposed(from) => {
                    let tensor = weights.tensor(to)?;
                    if tensor.dim() != 2 {
                        return Err(self.bad(format!("{prefix}{from} is {:?}: no matrix", tensor.size())));
                    }
                    weights.replace(to, tensor.f_transpose(0, 1)?.f_contiguous()?);
                }
                Source::Third(from, third) => {
                    if let Some(part) = thirds.get(from.as_str()).and_then(|parts| parts.get(*third as usize))
                    {
                        weights.replace(to, part.f_contiguous()?);
                    }
                }
            }
        }
        Ok(weights)
    }

    /// The new name of every tensor that begins with `prefix`.
    fn map(&self, prefix: &str, to: impl Fn(&str) -> Option<String>) -> Result<HashMap<String, String>> {
        self.map_some(prefix, |_| true, to)
    }

    /// As [`SingleFile::map`], of the tensors for which `is_wanted` holds.
    fn map_some(
        &self,
        prefix: &str,
        is_wanted: impl Fn(&str) -> bool,
        to: impl Fn(&str) -> Option<String>,
    ) -> Result<HashMap<String, String>> {
        let renamed = self.below(prefix).filter(|name| is_wanted(name)).map(|name| match to(name) {
            Some(to) => Ok((format!("{prefix}{name}"), to)),
            None => {
                let family = self.kind.family;
                Err(self
                    .bad(format!("{prefix}{name} is no tensor of {family:?}: it is a model of another kind")))
            }
        });
        let map: HashMap<String, String> = renamed.collect::<Result<_>>()?;
        if map.is_empty() { Err(self.missing(prefix)) } else { Ok(map) }
    }

    /// The tensors of `map` under their new names.
    fn renamed(&self, map: &HashMap<String, String>) -> Result<Weights> {
        let mut weights = Weights::open(&self.path)?;
        weights.retain(|name| map.contains_key(name));
        weights.rename(|name| map.get(name).cloned().unwrap_or_default());
        Ok(weights)
    }

    pub(super) fn missing(&self, prefix: &str) -> crate::Error {
        self.bad(format!("it has no {prefix}*, so this part must come from elsewhere"))
    }
}
