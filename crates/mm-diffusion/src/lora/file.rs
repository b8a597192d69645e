//! Reading a LoRA file and applying it.

use super::keys::{Key, Role, Spelled, other_kind};
use super::metadata::AdapterMetadata;
use super::{Component, ComponentModules, LoraLayers, LoraPair, LoraReport};
use crate::{Error, Result};
use mm_core::checkpoint::Weights;
use mm_core::lora::ADAPTER_WEIGHTS_FILE;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// The file that diffusers writes into a folder.
pub(crate) const DIFFUSERS_FILE: &str = "pytorch_lora_weights.safetensors";

/// Endings of files that PyTorch pickles.
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// A LoRA, every layer of which is one of the model's.
#[derive(Debug)]
pub struct LoraFile {
    path: PathBuf,
    layers: LoraLayers,
    spellings: BTreeSet<&'static str>,
}

/// The names of one layer's tensors.
#[derive(Debug, Default)]
pub(super) struct Entry {
    down: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
}

/// The entries of a file by component and layer, and the spellings.
pub(super) type Entries = BTreeMap<(Option<Component>, Spelled), Entry>;

impl LoraFile {
    /// Reads the LoRA at `path`, a safetensors file or a folder of diffusers or PEFT, for a pipeline with
    /// `modules`.
    ///
    /// # Errors
    /// The file is damaged or a pickle; it holds an adapter of another kind, no LoRA, tensors of no layer of
    /// the model (the first three are named), half a pair, a layer of another shape, or numbers that are not
    /// finite.
    pub fn open(path: &Path, modules: &ComponentModules) -> Result<Self> {
        let (file, weights) = open_weights(path)?;
        let bad = |problem: String| Error::Lora { path: file.clone(), problem };
        let (entries, spellings) = entries(&weights).map_err(bad)?;
        let metadata = AdapterMetadata::read(&file, &weights).map_err(bad)?;
        let mut layers = LoraLayers::new();
        let mut unmatched = Vec::new();
        let total = entries.len();
        for ((component, spelled), entry) in entries {
            let product = entry.product(&weights).map_err(bad)?;
            let fits = |shape: &[i64]| shape.iter().product::<i64>() == product.iter().product::<i64>();
            let Some((component, module)) = modules.resolve(component, &spelled, fits) else {
                unmatched.push(entry.name().to_owned());
                continue;
            };
            let shape = modules.shape(component, &module).unwrap_or_default();
            let named = |problem: String| bad(format!("{}.{module}: {problem}", component.name()));
            let mut pair = entry.read(&weights)?;
            if pair.alpha.is_none() {
                pair.alpha = metadata.alpha(component, &module, pair.rank()).map_err(bad)?;
            }
            pair.check(shape).map_err(named)?;
            if layers.entry(component).or_default().insert(module.clone(), pair).is_some() {
                return Err(named("it is in the file twice, in two spellings".to_owned()));
            }
        }
        refuse_unmatched(&unmatched, total).map_err(bad)?;
        Ok(Self { path: file, layers, spellings })
    }

    /// The layers of the LoRA at `path`, without a pipeline to check them against: for another spelling of
    /// the same file.
    ///
    /// # Errors
    /// As [`LoraFile::open`]; or the file is in a spelling that does not have the model's own names, as
    /// kohya's and PEFT's folders.
    pub fn read_layers(path: &Path) -> Result<LoraLayers> {
        let (file, weights) = open_weights(path)?;
        let bad = |problem: String| Error::Lora { path: file.clone(), problem };
        let (entries, _) = entries(&weights).map_err(bad)?;
        let metadata = AdapterMetadata::read(&file, &weights).map_err(bad)?;
        let mut layers = LoraLayers::new();
        for ((component, spelled), entry) in entries {
            let (Some(component), Spelled::Dotted(module)) = (component, spelled) else {
                let name = entry.name();
                return Err(bad(format!("{name} does not have the name of a layer as its model has it")));
            };
            let mut pair = entry.read(&weights)?;
            if pair.alpha.is_none() {
                pair.alpha = metadata.alpha(component, &module, pair.rank()).map_err(bad)?;
            }
            layers.entry(component).or_default().insert(module, pair);
        }
        Ok(layers)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The layers, under the names of the model.
    pub fn layers(&self) -> &LoraLayers {
        &self.layers
    }

    /// What the file holds.
    pub fn report(&self) -> LoraReport {
        LoraReport::of(&self.layers, &self.spellings)
    }

    /// Adds `scale` times the LoRA to the weights of `component` and returns the number of changed layers.
    /// The sums are computed in f32; several LoRAs are applied one after the other.
    ///
    /// # Errors
    /// `scale` is not finite, or `weights` are not those of the pipeline that the file was opened for.
    pub fn apply(&self, component: Component, weights: &mut Weights, scale: f64) -> Result<usize> {
        let bad = |problem: String| Error::Lora { path: self.path.clone(), problem };
        if !scale.is_finite() {
            return Err(bad(format!("the scale is {scale}")));
        }
        let Some(layers) = self.layers.get(&component) else { return Ok(0) };
        for (module, pair) in layers {
            let name = format!("{module}.weight");
            let weight = weights.tensor(&name)?;
            let shape = weight.size();
            pair.check(&shape).map_err(|problem| bad(format!("{}.{module}: {problem}", component.name())))?;
            let delta = pair.delta(&shape)?.f_mul_scalar(scale)?;
            weights.replace(&name, weight.f_add(&delta)?);
        }
        Ok(layers.len())
    }
}

/// Opens the file at `path`, or the one that diffusers or PEFT wrote into a folder there.
pub(super) fn open_weights(path: &Path) -> Result<(PathBuf, Weights)> {
    let bad = |problem: String| Error::Lora { path: path.to_owned(), problem };
    let file = if path.is_dir() {
        let files = [ADAPTER_WEIGHTS_FILE, DIFFUSERS_FILE].map(|name| path.join(name));
        files.into_iter().find(|file| file.exists()).ok_or_else(|| {
            bad(format!("the folder has neither {ADAPTER_WEIGHTS_FILE} nor {DIFFUSERS_FILE}: name the file"))
        })?
    } else {
        path.to_owned()
    };
    let extension =
        file.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    if PICKLES.contains(&extension.as_str()) {
        return Err(bad("a pickle, and reading one runs the code in it; convert it if you trust it: \
             python -c \"import sys, torch, safetensors.torch as s; \
             s.save_file({k: v.contiguous() for k, v in torch.load(sys.argv[1], map_location='cpu', \
             weights_only=True).items()}, sys.argv[2])\" IN OUT.safetensors"
            .to_owned()));
    }
    let weights = Weights::open(&file)?;
    Ok((file, weights))
}

/// The tensors of a file by layer.
pub(super) fn entries(weights: &Weights) -> Result<(Entries, BTreeSet<&'static str>), String> {
    let (mut entries, mut spellings, mut unknown) = (Entries::new(), BTreeSet::new(), Vec::new());
    let names = weights.list();
    for tensor in &names {
        let name = &tensor.name;
        if let Some(kind) = other_kind(name) {
            return Err(format!("{name} is of {kind}, which is not supported"));
        }
        let Some(key) = Key::parse(name) else {
            unknown.push(name.clone());
            continue;
        };
        if key.role != Role::Alpha {
            spellings.insert(key.spelling);
        }
        let entry: &mut Entry = entries.entry((key.component, key.module)).or_default();
        let place = match key.role {
            Role::Down => &mut entry.down,
            Role::Up => &mut entry.up,
            Role::Alpha => &mut entry.alpha,
        };
        if let Some(first) = place.replace(name.clone()) {
            return Err(format!("{first} and {name} are the same tensor in two spellings"));
        }
    }
    if entries.is_empty() && unknown.is_empty() {
        return Err("the file has no tensors".to_owned());
    }
    if entries.is_empty() {
        return Err(format!("not a LoRA: it has {}", first_three(&unknown)));
    }
    refuse_unmatched(&unknown, names.len())?;
    Ok((entries, spellings))
}

/// Refuses a file with tensors of no layer: `names` of each, of `total`.
fn refuse_unmatched(names: &[String], total: usize) -> Result<(), String> {
    match names.len() {
        0 => Ok(()),
        count => Err(format!(
            "{count} of {total} match no layer of the model ({}): is this a LoRA for another model?",
            first_three(names)
        )),
    }
}

fn first_three(names: &[String]) -> String {
    let more = if names.len() > 3 { ", ..." } else { "" };
    format!("{}{more}", names[..names.len().min(3)].join(", "))
}

impl Entry {
    /// A name to point at.
    fn name(&self) -> &str {
        self.down.as_deref().or(self.up.as_deref()).or(self.alpha.as_deref()).unwrap_or_default()
    }

    fn both(&self) -> Result<(&str, &str), String> {
        match (&self.down, &self.up) {
            (Some(down), Some(up)) => Ok((down, up)),
            _ => Err(format!("{} stands alone: the other half of the pair is missing", self.name())),
        }
    }

    /// The shape of `up @ down`, read from the header.
    pub fn product(&self, weights: &Weights) -> Result<Vec<i64>, String> {
        let (down, up) = self.both()?;
        let shape = |name: &str| -> Vec<i64> {
            weights.shape(name).unwrap_or_default().iter().map(|&size| size as i64).collect()
        };
        let (down, up) = (shape(down), shape(up));
        Ok(up.iter().take(1).chain(down.iter().skip(1)).copied().collect())
    }

    /// The rank, read from the header.
    pub fn rank(&self, weights: &Weights) -> i64 {
        let shape = self.down.as_deref().and_then(|name| weights.shape(name)).unwrap_or_default();
        shape.first().map_or(0, |&size| size as i64)
    }

    /// The alpha that stands as a tensor in the file.
    pub fn alpha(&self, weights: &Weights) -> Result<Option<f64>> {
        let Some(name) = &self.alpha else { return Ok(None) };
        let tensor = weights.tensor(name)?;
        match tensor.numel() {
            1 => Ok(Some(tensor.f_view([1])?.f_double_value(&[0])?)),
            _ => Err(Error::Lora {
                path: weights.path().to_owned(),
                problem: format!("{name} is {:?}: an alpha is one number", tensor.size()),
            }),
        }
    }

    fn read(&self, weights: &Weights) -> Result<LoraPair> {
        let bad = |problem| Error::Lora { path: weights.path().to_owned(), problem };
        let (down, up) = self.both().map_err(bad)?;
        let read = |name: &str| -> Result<Tensor> { Ok(weights.tensor(name)?) };
        Ok(LoraPair { down: read(down)?, up: read(up)?, alpha: self.alpha(weights)? })
    }
}
