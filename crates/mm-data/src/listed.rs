//! Data sets whose list of samples is read whole at opening: the common half of the COCO, Karpathy and Flickr readers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Error, Fault, Result, Sample, SampleImage, Source};

/// An image of a list with its captions.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) key: String,
    /// Below the folder of the images.
    pub(crate) image: String,
    pub(crate) captions: Vec<String>,
}

/// Something of the list that is no sample. It takes a place among the samples, so that it is counted when the loader
/// comes to it, and what there is equals what is read and what is skipped.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) fault: Fault,
    /// What it is and what is wrong with it: `annotations[7]: missing field ...`.
    pub(crate) reason: String,
}

impl Broken {
    pub(crate) fn new(fault: Fault, reason: impl Into<String>) -> Self {
        Self { fault, reason: shortened(reason.into()) }
    }

    /// The error of the sample, with the file that it is of.
    pub(crate) fn error(&self, file: &str) -> Error {
        Error::bad(self.fault, format!("{file}: {}", self.reason))
    }
}

/// A reason that a log has room for: parsers quote what they found, which may be a caption or a whole file.
pub(crate) fn shortened(mut reason: String) -> String {
    const LONGEST: usize = 300;
    if reason.len() > LONGEST {
        reason.truncate(reason.floor_char_boundary(LONGEST));
        reason.push('…');
    }
    reason
}

/// A list of images as a [`Source`].
pub(crate) struct ListedSource {
    name: String,
    root: PathBuf,
    entries: Vec<std::result::Result<Listed, Broken>>,
}

impl ListedSource {
    /// Errors: no entry, or none that is whole, which is a file of another layout.
    pub(crate) fn new(
        file: &Path,
        images_root: Option<&PathBuf>,
        entries: Vec<std::result::Result<Listed, Broken>>,
    ) -> Result<Self> {
        let name = file.display().to_string();
        check_some(&name, &entries)?;
        Ok(Self { name, root: root_beside(file, images_root), entries })
    }
}

/// The folder of the images: that of the config, or else the one with the file.
pub(crate) fn root_beside(file: &Path, images_root: Option<&PathBuf>) -> PathBuf {
    images_root.cloned().unwrap_or_else(|| file.parent().unwrap_or(Path::new("")).to_owned())
}

/// Errors: no entry, or none that is whole.
pub(crate) fn check_some<T>(name: &str, entries: &[std::result::Result<T, Broken>]) -> Result<()> {
    if entries.iter().any(|entry| entry.is_ok()) {
        return Ok(());
    }
    // A wrong field tells most: images without captions follow from captions without text.
    let broken = || entries.iter().filter_map(|entry| entry.as_ref().err());
    let hint = match broken().find(|broken| broken.fault == Fault::Json).or(broken().next()) {
        None => "the file lists none".to_owned(),
        Some(first) => format!("none of its {} entries is whole; the first: {}", entries.len(), first.reason),
    };
    Err(Error::Empty { name: name.to_owned(), hint })
}

impl Source for ListedSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let listed = self.entries[index].as_ref().map_err(|broken| broken.error(&self.name))?;
        let image = SampleImage::File(self.root.join(&listed.image));
        Ok(Sample { captions: listed.captions.clone(), ..Sample::new(&listed.key, image) })
    }
}

/// Which splits of a file to read.
pub(crate) enum Splits<'a> {
    /// `train`, and `restval` where there is one: the part that Karpathy left over, which everyone trains on.
    Training,
    /// These.
    Named(&'a [String]),
}

impl<'a> Splits<'a> {
    pub(crate) fn of(named: &'a [String]) -> Self {
        if named.is_empty() { Self::Training } else { Self::Named(named) }
    }

    pub(crate) fn has(&self, split: &str) -> bool {
        match self {
            Self::Training => split == "train" || split == "restval",
            Self::Named(names) => names.iter().any(|name| name == split),
        }
    }

    /// Errors: a split that no entry is of, told with those that are there.
    pub(crate) fn check(&self, file: &Path, present: &BTreeMap<String, usize>) -> Result<()> {
        let train = ["train".to_owned()];
        let wanted = match self {
            Self::Training => &train[..],
            Self::Named(names) => names,
        };
        match wanted.iter().find(|name| !present.contains_key(*name)) {
            None => Ok(()),
            Some(missing) => Err(Error::Setting(format!(
                "{}: no split `{missing}`; the file has {}: set `split` to one or a list of these",
                file.display(),
                counted(present)
            ))),
        }
    }
}

fn counted(present: &BTreeMap<String, usize>) -> String {
    if present.is_empty() {
        return "none".into();
    }
    present.iter().map(|(split, count)| format!("`{split}` ({count})")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shortened("é".repeat(150)), "é".repeat(150));
        assert_eq!(shortened(format!("x{}", "é".repeat(150))), format!("x{}…", "é".repeat(149)));
    }
}
