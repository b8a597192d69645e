//! What an index holds: `index.json`.

use crate::{Error, Result, RowType};
use mm_core::checkpoint::folder_digest;
use mm_core::{hub, read_json, write_json};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version of the files.
const FORMAT: u32 = 1;

/// What an index holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexDescription {
    /// The version of the files.
    format: u32,
    /// The model that embedded the images, as it was named.
    pub model: String,
    /// The digest of its folder.
    pub digest: String,
    /// The numbers of an embedding.
    pub dim: usize,
    /// The type of the stored numbers.
    pub rows: RowType,
}

impl IndexDescription {
    /// Of an index of the embeddings, of `dim` numbers each, of the model in a folder or of a hub name.
    ///
    /// # Errors
    /// The model's files cannot be read.
    pub fn new(model: &str, dim: usize, rows: RowType) -> Result<Self> {
        let digest = folder_digest(&hub::resolve(model)?)?;
        Ok(Self { format: FORMAT, model: model.to_owned(), digest, dim, rows })
    }

    /// The file of the index in `folder`.
    pub(crate) fn file(folder: &Path) -> PathBuf {
        folder.join("index.json")
    }

    /// Of the index in `folder`.
    ///
    /// # Errors
    /// There is no index, or one of another version of this program.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = Self::file(folder);
        if !file.exists() {
            let problem = "it is no index: it has no index.json; make one with `mm search index`";
            return Err(Error::index(folder, problem));
        }
        let description: Self = read_json(&file)?;
        if description.format != FORMAT {
            let found = description.format;
            let problem = format!("its format is {found}, and this program reads {FORMAT}: index again");
            return Err(Error::index(folder, problem));
        }
        Ok(description)
    }

    /// Writes the description of a new index.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        Ok(write_json(&Self::file(folder), self)?)
    }

    /// Checks that the index in `folder` can take embeddings of `other`: of the same model, of the same type.
    ///
    /// # Errors
    /// It cannot; the difference is named.
    pub fn accept(&self, folder: &Path, other: &Self) -> Result<()> {
        self.accept_model(folder, other)?;
        if self.rows != other.rows {
            let (own, other) = (self.rows, other.rows);
            let problem =
                format!("its rows are {own:?}, not {other:?}: leave --rows out, or name a new index");
            return Err(Error::index(folder, problem));
        }
        Ok(())
    }

    /// Checks that the index in `folder` can be queried with embeddings of `other`: of the same model.
    ///
    /// # Errors
    /// It was made with another model.
    pub fn accept_model(&self, folder: &Path, other: &Self) -> Result<()> {
        if self.digest == other.digest && self.dim == other.dim {
            return Ok(());
        }
        let problem = format!(
            "it holds embeddings of another model, {} ({} numbers), not of {} ({}): embeddings of two models \
             cannot be compared; name the model of the index, or a new index",
            self.model, self.dim, other.model, other.dim
        );
        Err(Error::index(folder, problem))
    }
}
