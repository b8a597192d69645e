//! A data set inside the table of another.

use std::sync::Arc;

use crate::{Dataset, DatasetConfig, Error, Result, Sample};

/// Opens the data set of a `kind` that needs its samples by index.
///
/// # Errors
/// It cannot be opened, is empty or a stream, or mixes others by weight: the weights would be lost.
pub(crate) fn open_indexed(kind: &str, config: &DatasetConfig) -> Result<Arc<dyn Dataset>> {
    let dataset: Arc<dyn Dataset> = Arc::from(config.open()?);
    let name = dataset.name();
    if dataset.mixture().is_some() {
        return Err(Error::Setting(format!(
            "`{name}` is weighted, which `{kind}` does not keep: put the `{kind}` inside, not around it"
        )));
    }
    if dataset.stream().is_some() {
        return Err(Error::Setting(format!(
            "`{name}` is a stream, which has no samples by index as `{kind}` needs them: unpack it, or pack \
             it as plain tars"
        )));
    }
    if dataset.is_empty() {
        return Err(Error::Empty { name: name.to_owned(), hint: format!("`{kind}` needs some") });
    }
    Ok(dataset)
}

/// Reads a sample. A panic of a reader is an error of the sample.
pub(crate) fn read(dataset: &dyn Dataset, index: usize) -> Result<Sample> {
    Error::guarded(|| dataset.sample(index))
}
