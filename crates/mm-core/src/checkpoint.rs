//! Weights in safetensors files: read strictly, written whole or not at all.
//!
//! A model's variables bear the checkpoint's names, but for those that are kept joined (see [`crate::nn`]); a [`NameMap`] tells
//! of which parts in the file a variable is made. A missing, extra or misshapen tensor is an error that names the first three.

use crate::{Error, Result};
use mm_sys::MappedFile;
use safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Gives the names in the file whose rows, stacked, are the variable of the name given.
pub type NameMap = fn(&str) -> Vec<String>;

/// The Hugging Face names: `self_attn.in_proj` is `q_proj`, `k_proj`, `v_proj`; BERT's `attention.self.in_proj` and ViT's
/// `attention.attention.in_proj` are `query`, `key`, `value`; all others are as they are.
pub fn hf_names(name: &str) -> Vec<String> {
    let split = |joined: &str, parts: [&str; 3]| parts.map(|part| name.replacen(joined, part, 1)).to_vec();
    if name.contains("self_attn.in_proj.") {
        split("in_proj", ["q_proj", "k_proj", "v_proj"])
    } else if name.contains("attention.self.in_proj.") || name.contains("attention.attention.in_proj.") {
        split("in_proj", ["query", "key", "value"])
    } else {
        vec![name.to_owned()]
    }
}

/// Fills every variable of `vs` from the safetensors `file`, converting f16, bf16 and f64 to the variable's type.
///
/// # Errors
/// The file cannot be read, is damaged, or lacks a tensor, has one too many or one of another shape.
pub fn load(vs: &VarStore, file: &Path, names: NameMap) -> Result<()> {
    read_into(file, vs.variables().into_iter().map(|(name, variable)| (names(&name), variable)).collect())
}

/// Writes every variable of `vs` to the safetensors `file`.
///
/// # Errors
/// The file cannot be written; what stood there before is then untouched.
pub fn save(vs: &VarStore, file: &Path, names: NameMap) -> Result<()> {
    let variables: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    let mut tensors = Vec::new();
    for (name, variable) in variables {
        let parts = names(&name);
        let variable = variable.detach();
        match parts.len() {
            1 => tensors.push((name_of(parts), variable)),
            count => tensors.extend(parts.into_iter().zip(variable.chunk(count as i64, 0))),
        }
    }
    write(file, &tensors)
}

fn name_of(mut parts: Vec<String>) -> String {
    parts.swap_remove(0)
}

/// Copies tensors of the safetensors `file` into `targets`, each made of the rows of the parts named beside it.
///
/// # Errors
/// As [`load`].
pub fn read_into(file: &Path, targets: Vec<(Vec<String>, Tensor)>) -> Result<()> {
    let bytes = MappedFile::open(file).map_err(|source| Error::io("read", file, source))?;
    let tensors = parse(file, &bytes)?;
    check_names(file, &tensors, &targets)?;
    for (parts, mut target) in targets {
        let rows = target.size().first().map_or(1, |&rows| rows / parts.len() as i64);
        for (index, name) in parts.iter().enumerate() {
            let view = tensors.tensor(name).map_err(|error| Error::checkpoint(file, error.to_string()))?;
            let kind = kind_of(view.dtype()).ok_or_else(|| {
                Error::checkpoint(file, format!("{name} has the unsupported type {:?}", view.dtype()))
            })?;
            match parts.len() {
                1 => mm_sys::copy_from_bytes(&mut target, view.data(), kind)?,
                _ => mm_sys::copy_from_bytes(
                    &mut target.narrow(0, index as i64 * rows, rows).detach(),
                    view.data(),
                    kind,
                )?,
            }
        }
    }
    Ok(())
}

fn check_names(file: &Path, tensors: &SafeTensors, targets: &[(Vec<String>, Tensor)]) -> Result<()> {
    let (mut missing, mut misshapen, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (parts, target) in targets {
        let mut expected = target.size();
        if let Some(rows) = expected.first_mut() {
            *rows /= parts.len() as i64;
        }
        for name in parts {
            known.insert(name.as_str());
            match tensors.tensor(name) {
                Err(_) => missing.push(name.clone()),
                Ok(view) => {
                    let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
                    // A scalar is written as [] by some savers and as [1] by others.
                    if shape != expected && !(expected.is_empty() && shape == [1]) {
                        misshapen.push(format!("{name} is {shape:?}, the model's {expected:?}"));
                    }
                }
            }
        }
    }
    let mut extra: Vec<String> = tensors
        .names()
        .into_iter()
        .filter(|name| !known.contains(name) && !is_bookkeeping(name))
        .map(str::to_owned)
        .collect();
    for list in [&mut missing, &mut misshapen, &mut extra] {
        list.sort();
    }
    let problems: Vec<String> = [("missing", missing), ("misshapen", misshapen), ("not in the model", extra)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| {
            let more = if names.len() > 3 { ", ..." } else { "" };
            format!("{} {what} ({}{more})", names.len(), names[..names.len().min(3)].join("; "))
        })
        .collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::checkpoint(file, format!("tensors do not match the model: {}", problems.join(", ")))),
    }
}

/// Tensors that savers add and no forward pass reads.
fn is_bookkeeping(name: &str) -> bool {
    name.ends_with(".position_ids") || name.ends_with(".num_batches_tracked")
}

/// Writes named tensors to the safetensors `file`, in the order of their names' alignment, through a temporary file that is
/// synced and renamed.
///
/// # Errors
/// The file cannot be written; what stood there before is then untouched.
pub fn write(file: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    write_with_metadata(file, tensors, &[])
}

/// As [`write()`], with text beside the tensors in the file's header.
///
/// # Errors
/// As [`write()`].
pub fn write_with_metadata(file: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, String)]) -> Result<()> {
    let views = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), Stored::new(file, name, tensor)?)))
        .collect::<Result<Vec<_>>>()?;
    let format = ("format", "pt".to_owned()); // which transformers asks for
    let metadata = metadata.iter().cloned().chain([format]).map(|(key, text)| (key.to_owned(), text)).collect();
    write_atomically(file, |partial| {
        let io = |source| Error::io("write", file, source);
        // The library writes through a temporary file that only its owner may read; models are shared.
        let shared = File::create(partial).and_then(|created| created.metadata()).map_err(io)?.permissions();
        safetensors::serialize_to_file(views, Some(metadata), partial).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(source) => io(source),
            error => Error::checkpoint(file, error.to_string()),
        })?;
        std::fs::set_permissions(partial, shared).map_err(io)
    })
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type, as safetensors names it.
    pub dtype: String,
}

impl TensorInfo {
    /// Its number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

/// The tensors of the safetensors `file`, by name; their data is not read.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn list(file: &Path) -> Result<Vec<TensorInfo>> {
    let bytes = MappedFile::open(file).map_err(|source| Error::io("read", file, source))?;
    let mut tensors: Vec<TensorInfo> = parse(file, &bytes)?
        .iter()
        .map(|(name, view)| TensorInfo {
            name: name.to_owned(),
            shape: view.shape().to_vec(),
            dtype: format!("{:?}", view.dtype()),
        })
        .collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

fn parse<'a>(file: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes)
        .map_err(|error| Error::checkpoint(file, format!("not a whole safetensors file ({error}); copy it again")))
}

/// Lets `write` fill a temporary file beside `file`, syncs it and renames it to `file`: a reader finds the old file or the new
/// one, never a part.
///
/// # Errors
/// `write` fails, or the disk is full or not writable; the temporary file is then removed.
pub fn write_atomically(file: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let written = write(partial).and_then(|()| {
        File::open(partial)
            .and_then(|handle| handle.sync_all())
            .and_then(|()| std::fs::rename(partial, file))
            .map_err(|source| Error::io("write", file, source))
    });
    if written.is_err() {
        let _ = std::fs::remove_file(partial); // the first error is the one to report
    }
    written
}

/// A tensor as safetensors' writer wants it.
struct Stored {
    tensor: Tensor,
    shape: Vec<usize>,
    dtype: Dtype,
}

impl Stored {
    fn new(file: &Path, name: &str, tensor: &Tensor) -> Result<Self> {
        let dtype = dtype_of(tensor.kind())
            .ok_or_else(|| Error::checkpoint(file, format!("{name} has the unsupported type {:?}", tensor.kind())))?;
        let tensor = tensor.detach().f_to_device(tch::Device::Cpu)?.contiguous();
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        Ok(Self { tensor, shape, dtype })
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        self.tensor.copy_data_u8(&mut bytes, self.tensor.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

const TYPES: [(Dtype, Kind); 6] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::F64, Kind::Double),
    (Dtype::I64, Kind::Int64),
    (Dtype::U8, Kind::Uint8),
];

fn kind_of(dtype: Dtype) -> Option<Kind> {
    TYPES.iter().find(|&&(d, _)| d == dtype).map(|&(_, kind)| kind)
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    TYPES.iter().find(|&&(_, k)| k == kind).map(|&(dtype, _)| dtype)
}

#[cfg(test)]
mod tests;
