//! The indexes that are searched.

use crate::api_error::{ApiError, ApiResult};
use crate::config::IndexConfig;
use crate::worker::{Opened, spawn};
use crate::{Error, Result};
use mm_search::{Index, IndexDescription};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// An index with the model of its queries.
#[derive(Debug)]
pub struct ServedIndex {
    /// The name of the CLIP that embeds queries.
    pub model: String,
    index: Arc<OnceLock<OpenIndex>>,
}

/// An open index. Several threads query it at once.
#[derive(Clone)]
pub struct OpenIndex(pub Arc<Index>);

impl std::fmt::Debug for OpenIndex {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_tuple("OpenIndex").field(self.0.description()).finish()
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
        let index = Arc::new(OnceLock::new());
        let served = Self { model: config.model.clone(), index: Arc::clone(&index) };
        let (config, name) = (config.clone(), name.to_owned());
        let (from, report) = (from.to_owned(), opened.clone());
        let failed = move |problem| Error::Index { name, problem };
        let thread = spawn(opened, failed, move || {
            let found = open_index(&config, &from).map_err(|error| error.to_string())?;
            let _ = index.set(found); // once a thread
            let _ = report.send(Ok(())); // the server may have ended
            Ok(())
        })?;
        Ok((served, thread))
    }

    /// The index.
    ///
    /// # Errors
    /// 503: it is not opened yet.
    pub fn opened(&self) -> ApiResult<&Arc<Index>> {
        let opened = self.index.get().map(|OpenIndex(index)| index);
        opened.ok_or_else(|| ApiError::unavailable("the index is being opened: try again"))
    }
}

fn open_index(config: &IndexConfig, from: &str) -> mm_search::Result<OpenIndex> {
    let index = Index::open(&config.path)?;
    let own = index.description();
    own.accept_model(&config.path, &IndexDescription::new(from, own.dim, own.rows)?)?;
    Ok(OpenIndex(Arc::new(index)))
}
