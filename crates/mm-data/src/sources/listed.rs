//! Data sets with a list of images and captions that is read when they are opened: shared by the COCO,
//! Karpathy and Flickr readers.

use std::path::{Path, PathBuf};

use crate::sources::broken::{Broken, check_some};
use crate::{Dataset, Result, Sample, SampleImage};

/// An image with its captions.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) key: String,
    /// The path relative to the folder of the images.
    pub(crate) image: String,
    pub(crate) captions: Vec<String>,
}

/// A list of images as a [`Dataset`].
pub(crate) struct ListedDataset {
    name: String,
    root: PathBuf,
    entries: Vec<std::result::Result<Listed, Broken>>,
}

impl ListedDataset {
    /// # Errors
    /// No entry, or no valid one, as in a file of another layout.
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

/// The folder of the images: the configured one, or else the folder of the file.
pub(crate) fn root_beside(file: &Path, images_root: Option<&PathBuf>) -> PathBuf {
    images_root.cloned().unwrap_or_else(|| file.parent().unwrap_or(Path::new("")).to_owned())
}

impl Dataset for ListedDataset {
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
