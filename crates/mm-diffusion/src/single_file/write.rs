//! The way back: the parts of a diffusers folder in one file.

use super::Family;
use super::kind::{CLIP_SD1, CLIP_SDXL, OPEN_CLIP_SD2, OPEN_CLIP_SDXL, UNET, VAE};
use super::names::{UnetNames, VaeNames};
use super::open_clip::{Target, to_open_clip};
use crate::{Error, Result};
use mm_core::checkpoint::{Weights, write};
use std::path::Path;
use tch::{Kind, Tensor};

/// The parts of a pipeline, under diffusers' and transformers' names.
#[derive(Clone, Copy, Debug)]
pub struct DiffusersParts<'a> {
    /// The U-Net.
    pub unet: &'a Weights,
    /// The autoencoder.
    pub vae: &'a Weights,
    /// The text encoder, the first of SDXL's.
    pub text_encoder: &'a Weights,
    /// SDXL's second.
    pub text_encoder_2: Option<&'a Weights>,
}

/// Writes `parts` of a model of `family` as one file for programs that read CompVis's and Stability AI's
/// checkpoints, in numbers of `kind`. SD 2's text encoder has 23 layers there too; those programs leave the
/// last out anyway.
///
/// # Errors
/// A part has a tensor that is not of its family or not finite, SDXL's second text encoder is missing, or the
/// file cannot be written.
pub fn write_single_file(file: &Path, family: Family, parts: DiffusersParts, kind: Kind) -> Result<()> {
    Ok(write(file, &tensors(family, parts, kind)?)?)
}

/// The tensors of the file.
pub(super) fn tensors(family: Family, parts: DiffusersParts, kind: Kind) -> Result<Vec<(String, Tensor)>> {
    let mut tensors = Vec::new();
    let listed = |weights: &Weights| -> Vec<String> {
        let names = weights.list().into_iter().map(|tensor| tensor.name);
        names.filter(|name| !name.ends_with("position_ids")).collect()
    };
    let unknown = |weights: &Weights, name: &str| {
        Error::folder(
            weights.path(),
            format!("{name} is no tensor of {family:?}: it is a model of another kind"),
        )
    };
    let names = listed(parts.unet);
    let table = UnetNames::of_diffusers(names.iter().map(String::as_str));
    for name in &names {
        let to = table.to_ldm(name).ok_or_else(|| unknown(parts.unet, name))?;
        tensors.push((format!("{UNET}{to}"), parts.unet.tensor(name)?.f_to_kind(kind)?));
    }
    let names = listed(parts.vae);
    let table = VaeNames::of_diffusers(names.iter().map(String::as_str));
    for name in &names {
        let to = table.to_ldm(name).ok_or_else(|| unknown(parts.vae, name))?;
        let mut tensor = parts.vae.tensor(name)?.f_to_kind(kind)?;
        if name.contains(".attentions.") && tensor.dim() == 2 {
            tensor = tensor.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        }
        tensors.push((format!("{VAE}{to}"), tensor));
    }
    let clip = |prefix: &str, tensors: &mut Vec<(String, Tensor)>| -> Result<()> {
        for name in listed(parts.text_encoder) {
            let to = text_name(&name);
            tensors.push((format!("{prefix}{to}"), parts.text_encoder.tensor(&name)?.f_to_kind(kind)?));
        }
        Ok(())
    };
    match family {
        Family::Sd1 => clip(CLIP_SD1, &mut tensors)?,
        Family::Sd2 => tensors.extend(open_clip(OPEN_CLIP_SD2, parts.text_encoder, listed, kind)?),
        Family::Sdxl => {
            clip(CLIP_SDXL, &mut tensors)?;
            let second =
                parts.text_encoder_2.ok_or_else(|| Error::Model("SDXL has two text encoders".to_owned()))?;
            tensors.extend(open_clip(OPEN_CLIP_SDXL, second, listed, kind)?);
        }
    }
    Ok(tensors)
}

/// The name of a text model's tensor with the prefix that transformers 5 leaves out.
fn text_name(name: &str) -> String {
    if name.starts_with("text_") { name.to_owned() } else { format!("text_model.{name}") }
}

fn open_clip(
    prefix: &str,
    weights: &Weights,
    listed: impl Fn(&Weights) -> Vec<String>,
    kind: Kind,
) -> Result<Vec<(String, Tensor)>> {
    let bad = |problem: String| Error::folder(weights.path(), problem);
    let names = listed(weights);
    // The names of the file by those with the prefix.
    let stored = |name: &str| names.iter().find(|stored| text_name(stored) == name);
    let mut tensors = Vec::new();
    for name in &names {
        let Some(target) = to_open_clip(&text_name(name)).map_err(bad)? else { continue };
        let (to, tensor) = match target {
            Target::Whole(to) => (to, weights.tensor(name)?),
            Target::Transposed(to) => (to, weights.tensor(name)?.f_transpose(0, 1)?),
            Target::Joined(to, parts) => {
                let parts = parts.iter().map(|part| Ok(weights.tensor(stored(part).unwrap_or(part))?));
                (to, Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
            }
        };
        tensors.push((format!("{prefix}{to}"), tensor.f_to_kind(kind)?.f_contiguous()?));
    }
    Ok(tensors)
}
