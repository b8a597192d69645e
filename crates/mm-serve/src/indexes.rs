//! The indexes that are searched.

use crate::api_error::{ApiError, ApiResult};
use crate::config::IndexConfig;
use crate::worker::{Opened, spawn};
use crate::{Error, Result};
use mm_search::{Index, IndexDescription};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

/// An index with the model of its queries.
#[derive(Clone)]
pub struct ServedIndex {
    /// The name of the CLIP that embeds queries.
    pub model: String,
    path: PathBuf,
    /// None until it is opened. Several threads query it at once.
    index: Arc<RwLock<Option<Arc<Index>>>>,
}

impl std::fmt::Debug for ServedIndex {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("ServedIndex").field("model", &self.model).finish_non_exhaustive()
    }
}

impl ServedIndex {
    /// Opens the index `name` on a thread, which reports to `opened`, and checks that it was made with the
    /// model of the folder or hub name `from`.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn open(
        name: &str,
        config: &IndexConfig,
        from: &str,
        opened: &Opened,
    ) -> Result<(Self, JoinHandle<()>)> {
        let index = Arc::new(RwLock::new(None));
        let served =
            Self { model: config.model.clone(), path: config.path.clone(), index: Arc::clone(&index) };
        let (config, name) = (config.clone(), name.to_owned());
        let (from, report) = (from.to_owned(), opened.clone());
        let failed = move |problem| Error::Index { name, problem };
        let thread = spawn(opened, failed, move || {
            let found = open_index(&config, &from).map_err(|error| error.to_string())?;
            *index.write().unwrap_or_else(PoisonError::into_inner) = Some(found);
            let _ = report.send(Ok(())); // the server may have ended
            Ok(())
        })?;
        Ok((served, thread))
    }

    /// The index.
    ///
    /// # Errors
    /// 503: it is not opened yet.
    pub fn opened(&self) -> ApiResult<Arc<Index>> {
        let opened = self.index.read().unwrap_or_else(PoisonError::into_inner).clone();
        opened.ok_or_else(|| ApiError::unavailable("the index is being opened: try again"))
    }

    /// `index`, or where `mm search index` has changed it, the index as it is now. It reads files.
    ///
    /// # Errors
    /// The index on disk is damaged.
    pub fn refreshed(&self, index: Arc<Index>) -> mm_search::Result<Arc<Index>> {
        if !index.has_changed()? {
            return Ok(index);
        }
        let current = Arc::new(Index::open(&self.path)?);
        current.description().accept_model(&self.path, index.description())?;
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&current));
        Ok(current)
    }
}

fn open_index(config: &IndexConfig, from: &str) -> mm_search::Result<Arc<Index>> {
    let index = Index::open(&config.path)?;
    let own = index.description();
    own.accept_model(&config.path, &IndexDescription::new(from, own.dim, own.rows)?)?;
    Ok(Arc::new(index))
}
