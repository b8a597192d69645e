//! Writing of safetensors files, atomically.

use super::dtype_of;
use crate::{Error, Result};
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Writes named tensors to the safetensors `file`, in the order of their names' alignment, through a
/// temporary file that is synced and renamed.
///
/// # Errors
/// The file cannot be written; an existing file is then unchanged.
pub fn write(file: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    write_with_metadata(file, tensors, ("format", "pt".to_owned())) // transformers requires it
}

/// As [`write()`], with the entry `metadata` (key and text) in the file's header.
///
/// # Errors
/// As [`write()`].
pub fn write_with_metadata(
    file: &Path,
    tensors: &[(String, Tensor)],
    metadata: (&str, String),
) -> Result<()> {
    let views = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), Stored::new(file, name, tensor)?)))
        .collect::<Result<Vec<_>>>()?;
    // A single key: the library writes several in an order that differs from run to run.
    let metadata = [(metadata.0.to_owned(), metadata.1)].into();
    write_atomically(file, |partial| {
        let io = |source| Error::io("write", file, source);
        // The library creates files that only their owner can read; models are shared.
        let shared = File::create(partial).and_then(|created| created.metadata()).map_err(io)?.permissions();
        safetensors::serialize_to_file(views, Some(metadata), partial).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(source) => io(source),
            error => Error::checkpoint(file, error.to_string()),
        })?;
        std::fs::set_permissions(partial, shared).map_err(io)
    })
}

/// Calls `write` with a temporary file beside `file`, syncs it and renames it to `file`: a reader sees the
/// old file or the new one, never a part.
///
/// # Errors
/// `write` fails, or the disk is full or not writable; the temporary file is then removed.
pub fn write_atomically(file: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = partial_file(file);
    let written = write(&partial).and_then(|()| {
        File::open(&partial)
            .and_then(|handle| handle.sync_all())
            .and_then(|()| std::fs::rename(&partial, file))
            .map_err(|source| Error::io("write", file, source))
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&partial); // the first error is the one to report
    }
    written
}

/// The temporary file beside `file` that [`write_atomically`] fills.
pub fn partial_file(file: &Path) -> PathBuf {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    partial.into()
}

/// Calls `write` with a hidden folder beside `folder` and renames it to `folder`, replacing an existing one:
/// a reader sees a complete folder or none.
///
/// # Errors
/// `write` fails, or the disk is full or not writable; the hidden folder is then removed.
pub fn write_folder<E: From<Error>>(
    folder: &Path,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let io = |source| E::from(Error::io("write", folder, source));
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder.with_file_name(format!(".{name}.partial"));
    let _ = std::fs::remove_dir_all(&partial); // a killed process may have left it
    std::fs::create_dir_all(&partial).map_err(io)?;
    let written = write(&partial).and_then(|()| {
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(io)?;
        }
        std::fs::rename(&partial, folder).map_err(io)
    });
    if written.is_err() {
        let _ = std::fs::remove_dir_all(&partial); // the first error is the one to report
    }
    written
}

/// A tensor for the writer of the safetensors library.
struct Stored {
    tensor: Tensor,
    shape: Vec<usize>,
    dtype: Dtype,
}

impl Stored {
    fn new(file: &Path, name: &str, tensor: &Tensor) -> Result<Self> {
        let dtype = dtype_of(tensor.kind()).ok_or_else(|| {
            Error::checkpoint(file, format!("{name} has the unsupported type {:?}", tensor.kind()))
        })?;
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
