//! The tensors of safetensors files, mapped and copied to variables.

use super::files::{Found, absence, find};
use super::finite::has_non_finite;
use super::targets::{Target, targets};
use super::{ShardIndex, TensorLayout, kind_of, refuse_lfs_pointer};
use crate::{Error, Result};
use mm_sys::MappedFile;
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// Bytes of a file that are copied before their pages are released.
const COPIED_AT_ONCE: usize = 4 << 20;

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Element type, as safetensors names it.
    pub dtype: String,
    /// Size in the file.
    pub bytes: u64,
}

impl TensorInfo {
    /// The number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

/// The tensors of a checkpoint, in one safetensors file or in the shards of an index. The files are
/// memory-mapped: the bytes of a tensor are read when it is copied and released afterwards, so that a model
/// is never in memory twice.
///
/// A tensor of type I8 is a quantized matrix: row r is its integers times element r of the tensor
/// `NAME_scale`.
#[derive(Debug)]
pub struct Weights {
    /// The file, or the index.
    path: PathBuf,
    files: Vec<(PathBuf, MappedFile)>,
    pub(super) tensors: BTreeMap<String, Place>,
    /// The entries of the files' headers.
    metadata: BTreeMap<String, String>,
    /// What [`Weights::replace`] set.
    replaced: BTreeMap<String, Replacement>,
}

/// A tensor in memory, in the place of one in the file.
#[derive(Debug)]
struct Replacement {
    tensor: Tensor,
    shape: Vec<usize>,
}

/// The allowed elements of a tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    Finite,
    Any,
}

/// The location of a tensor.
#[derive(Clone, Debug)]
pub(super) struct Place {
    file: usize,
    pub dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl Weights {
    /// Maps one safetensors file.
    ///
    /// # Errors
    /// The file cannot be read, or its header does not describe it.
    pub fn open(file: &Path) -> Result<Self> {
        let mut weights = Self::empty(file);
        weights.map(file)?;
        Ok(weights)
    }

    /// Maps `STEM.safetensors` of `folder`, or the shards of `STEM.safetensors.index.json`, or one of these
    /// with a variant in its name, as `STEM.fp16.safetensors`.
    ///
    /// # Errors
    /// As [`Weights::open`]; the folder has none of these files, a shard is missing, or index and shards
    /// disagree.
    pub fn open_folder(folder: &Path, stem: &str) -> Result<Self> {
        match find(folder, stem) {
            Some(Found::File(file)) => Self::open(&file),
            Some(Found::Sharded(index)) => Self::open_shards(folder, &index),
            None => {
                Err(Error::checkpoint(&folder.join(format!("{stem}.safetensors")), absence(folder, stem)))
            }
        }
    }

    /// Adds the tensors of another file, e.g. the part of a model that does not train.
    ///
    /// # Errors
    /// As [`Weights::open`], or a tensor is in both files.
    pub fn add(&mut self, file: &Path) -> Result<()> {
        self.map(file)
    }

    fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
            replaced: BTreeMap::new(),
        }
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self> {
        let text = std::fs::read(index).map_err(|source| Error::io("read", index, source))?;
        let shards = ShardIndex::parse(&text).map_err(|problem| Error::checkpoint(index, problem))?;
        let mut weights = Self::empty(index);
        for shard in shards.shards() {
            let file = folder.join(shard);
            if !file.exists() {
                return Err(Error::checkpoint(index, format!("the shard {shard} is missing; copy it again")));
            }
            weights.map(&file)?;
        }
        for (name, shard) in &shards.weight_map {
            match weights.tensors.get(name) {
                Some(place) if weights.files[place.file].0 == folder.join(shard) => {}
                _ => {
                    return Err(Error::checkpoint(
                        index,
                        format!("{name} should be in {shard}, where it is not"),
                    ));
                }
            }
        }
        Ok(weights)
    }

    /// Adds the tensors of `file`.
    fn map(&mut self, file: &Path) -> Result<()> {
        let bytes = MappedFile::open(file).map_err(|source| Error::io("read", file, source))?;
        // The library checks that tensors neither overlap nor leave gaps, that their sizes match their
        // shapes, and that they end with the file: no shape needs more memory than the file has bytes.
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| {
            let damaged = format!("not a complete safetensors file ({error}); copy it again");
            Error::checkpoint(file, refuse_lfs_pointer(&bytes).err().unwrap_or(damaged))
        })?;
        let data = size_of::<u64>() + header;
        for (name, info) in metadata.tensors() {
            let bytes = data + info.data_offsets.0..data + info.data_offsets.1;
            let place = Place { file: self.files.len(), dtype: info.dtype, shape: info.shape.clone(), bytes };
            if self.tensors.insert(name.clone(), place).is_some() {
                return Err(Error::checkpoint(file, format!("{name} is in another shard already")));
            }
        }
        let entries = metadata.metadata().iter().flatten();
        self.metadata.extend(entries.map(|(key, entry)| (key.clone(), entry.clone())));
        self.files.push((file.to_owned(), bytes));
        Ok(())
    }

    /// The entry `key` of the file's header (`__metadata__`), if there is one; of several files the last.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The tensors, sorted by name.
    pub fn list(&self) -> Vec<TensorInfo> {
        let info = |(name, place): (&String, &Place)| TensorInfo {
            name: name.clone(),
            shape: place.shape.clone(),
            dtype: format!("{:?}", place.dtype),
            bytes: place.bytes.len() as u64,
        };
        self.tensors.iter().map(info).collect()
    }

    /// The shape of the tensor `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        match self.replaced.get(name) {
            Some(replacement) => Some(&replacement.shape),
            None => self.tensors.get(name).map(|place| place.shape.as_slice()),
        }
    }

    /// Puts `tensor` in the place of the tensor `name` of the file, as of a table of positions that is
    /// resized to another resolution.
    pub fn replace(&mut self, name: &str, tensor: Tensor) {
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        self.replaced.insert(name.to_owned(), Replacement { tensor, shape });
    }

    /// Whether a tensor's name begins with `prefix`.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(prefix))
    }

    /// Whether a tensor's name ends with `suffix`.
    pub fn has_suffix(&self, suffix: &str) -> bool {
        self.tensors.keys().any(|name| name.ends_with(suffix))
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The opened file or index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Drops the tensors for which `keep` is false, as if they were not in the file.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| keep(name));
        self.replaced.retain(|name, _| keep(name));
    }

    /// Renames every tensor by `to`. Of tensors with the same new name the last remains.
    pub fn rename(&mut self, to: impl Fn(&str) -> String) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors.into_iter().map(|(name, place)| (to(&name), place)).collect();
        let replaced = std::mem::take(&mut self.replaced);
        self.replaced = replaced.into_iter().map(|(name, tensor)| (to(&name), tensor)).collect();
    }

    /// The tensor `name` of the file, in f32 on the CPU.
    ///
    /// # Errors
    /// It does not exist, has an unsupported type, or has NaN or infinite numbers.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let place = self.place(name)?;
        // Checked before memory is allocated: elements of unsupported types may be smaller than a byte.
        self.kind(name, place)?;
        let shape: Vec<i64> = self.shape(name).into_iter().flatten().map(|&n| n as i64).collect();
        let mut tensor = Tensor::f_empty(shape, (Kind::Float, tch::Device::Cpu))?;
        self.copy(name, &mut tensor, Numbers::Finite)?;
        Ok(tensor)
    }

    /// Checks that there is a tensor of the right shape for every variable, and no other. Variables need no
    /// memory: see [`shapes_only`](crate::nn::shapes_only).
    ///
    /// # Errors
    /// Tensors are missing, extra or of another shape; the first three of each are named.
    pub fn check(&self, variables: Vec<(String, Tensor)>, layout: &TensorLayout) -> Result<()> {
        self.check_targets(&targets(variables, layout))
    }

    /// Copies the tensors into `variables`, converting to their types. Every variable is filled and every
    /// tensor used.
    ///
    /// # Errors
    /// As [`Weights::check`]; a tensor has an unsupported type, or NaN or infinite numbers.
    pub fn fill(&self, variables: Vec<(String, Tensor)>, layout: &TensorLayout) -> Result<()> {
        self.copy_all(variables, layout, Numbers::Finite)
    }

    /// As [`Weights::fill`], with NaN and infinite numbers allowed.
    pub fn fill_any(&self, variables: Vec<(String, Tensor)>, layout: &TensorLayout) -> Result<()> {
        self.copy_all(variables, layout, Numbers::Any)
    }

    fn copy_all(
        &self,
        variables: Vec<(String, Tensor)>,
        layout: &TensorLayout,
        numbers: Numbers,
    ) -> Result<()> {
        let targets = targets(variables, layout);
        self.check_targets(&targets)?;
        // In the order of the file, which is fastest on a disk.
        let mut parts: Vec<(&str, Tensor)> = targets.iter().flat_map(Target::places).collect();
        parts.sort_by_key(|(name, _)| self.tensors.get(*name).map(|place| (place.file, place.bytes.start)));
        for (name, mut place) in parts {
            self.copy(name, &mut place, numbers)?;
        }
        Ok(())
    }

    /// Copies the tensor `name` into `target`, of the same shape, some rows at a time, so that even the
    /// largest tensor is never in memory twice.
    fn copy(&self, name: &str, target: &mut Tensor, numbers: Numbers) -> Result<()> {
        if let Some(Replacement { tensor, .. }) = self.replaced.get(name) {
            return Ok(tch::no_grad(|| target.f_copy_(tensor))?);
        }
        let place = self.place(name)?;
        let (kind, file) = (self.kind(name, place)?, &self.files[place.file].1);
        let rows = place.shape.first().copied().unwrap_or(1);
        let row_bytes = place.bytes.len().checked_div(rows).unwrap_or(0);
        let step = (COPIED_AT_ONCE / row_bytes.max(1)).max(1);
        for row in (0..rows).step_by(step) {
            let count = step.min(rows - row);
            let mut part = if count < rows {
                target.f_narrow(0, row as i64, count as i64)?
            } else {
                target.shallow_clone()
            };
            let from = place.bytes.start + row * row_bytes;
            let bytes = from..from + count * row_bytes;
            mm_sys::copy_from_bytes(&mut part, &file[bytes.clone()], kind)?;
            if numbers == Numbers::Finite && has_non_finite(&file[bytes.clone()], kind) {
                let problem =
                    format!("{name} has NaN or infinite numbers: the model is broken, use an earlier one");
                return Err(Error::checkpoint(&self.files[place.file].0, problem));
            }
            file.release(bytes);
        }
        if kind == Kind::Int8 { self.scale(name, target) } else { Ok(()) }
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.tensors.get(name).ok_or_else(|| Error::checkpoint(&self.path, format!("{name} is missing")))
    }

    /// The type of the tensor `name` at `place`.
    fn kind(&self, name: &str, place: &Place) -> Result<Kind> {
        kind_of(place.dtype).ok_or_else(|| {
            let problem = format!("{name} has the unsupported type {:?}", place.dtype);
            Error::checkpoint(&self.files[place.file].0, problem)
        })
    }

    /// Multiplies the rows of the int8 matrix `name`, copied to `target`, by their scales.
    fn scale(&self, name: &str, target: &mut Tensor) -> Result<()> {
        let scale_name = scale_of(name);
        let rows = target.size().first().copied().unwrap_or(1);
        let missing =
            || Error::checkpoint(&self.path, format!("{name} is int8 without its {scale_name} [{rows}]"));
        let scale = self
            .tensors
            .get(&scale_name)
            .filter(|scale| scale.dtype == Dtype::F32 && scale.shape == [rows as usize]);
        let scale = scale.ok_or_else(missing)?;
        let mut factors = Tensor::f_empty([rows], (Kind::Float, tch::Device::Cpu))?;
        mm_sys::copy_from_bytes(&mut factors, &self.files[scale.file].1[scale.bytes.clone()], Kind::Float)?;
        let mut shape = vec![1; target.dim().max(1)];
        shape[0] = rows;
        Ok(tch::no_grad(|| {
            target.f_mul_(&factors.view(shape.as_slice()).to_device(target.device())).map(drop)
        })?)
    }
}

/// The name of an int8 matrix's scales.
pub(super) fn scale_of(name: &str) -> String {
    format!("{name}_scale")
}
