//! A folder of images, with one folder for each class or a caption file beside each image.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sources::walk::Walk;
use crate::{Dataset, Error, Result, Sample, SampleImage, text};

/// A folder of images and its subfolders at any depth, including links. Hidden files and folders are left
/// out; files of other kinds are skipped and counted in one log line.
///
/// The first folder below `path` is the class (torchvision's `ImageFolder`). The captions are the lines of a
/// text file of the same name beside the image (`cat.png`, `cat.txt`), or else `caption` with the class
/// filled in. `cat.mask.png` or `cat-masklabel.png` beside the image is its mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    /// The folder.
    pub path: PathBuf,
    /// The caption of an image without a text file; `{label}` is replaced by the class, with `_` as a space.
    #[serde(default = "caption")]
    pub caption: String,
}

fn caption() -> String {
    "a photo of a {label}".into()
}

/// The folder as a [`Dataset`], in the order of the paths.
pub(crate) struct FolderDataset {
    name: String,
    config: FolderConfig,
    /// Paths relative to the folder.
    images: Vec<PathBuf>,
}

impl FolderDataset {
    pub(crate) fn open(config: &FolderConfig) -> Result<Self> {
        let walk = Walk::of(&config.path)?;
        let name = config.path.display().to_string();
        if walk.images.is_empty() {
            return Err(Error::Empty { name, hint: walk.why_empty() });
        }
        walk.report(&config.path);
        Ok(Self { name, config: config.clone(), images: without_masks(walk.images) })
    }
}

impl Dataset for FolderDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.images.len()
    }

    fn key(&self, index: usize) -> String {
        self.config.path.join(&self.images[index]).display().to_string()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let below = &self.images[index];
        let path = self.config.path.join(below);
        let mut parts = below.iter();
        let first = parts.next().map(|part| part.to_string_lossy().into_owned());
        let label = first.filter(|_| parts.next().is_some());
        let beside = path.with_extension("txt");
        let captions = if beside.is_file() {
            let text = text::read(&beside)?;
            text::lines(&text).map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
        } else {
            label
                .iter()
                .map(|label| self.config.caption.replace("{label}", &label.replace('_', " ")))
                .collect()
        };
        let mask = MASK_ENDINGS.iter().map(|ending| with_ending(&path, ending)).find(|mask| mask.is_file());
        Ok(Sample {
            captions,
            label,
            mask: mask.map(SampleImage::File),
            ..Sample::new(path.display().to_string(), SampleImage::File(path))
        })
    }
}

/// What takes the place of an image's extension in the name of its mask: ours, and OneTrainer's.
const MASK_ENDINGS: [&str; 2] = [".mask.png", "-masklabel.png"];

/// `path` with `ending` in place of its extension.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut stem = path.with_extension("").into_os_string();
    stem.push(ending);
    stem.into()
}

/// The images that are not masks of others among them.
fn without_masks(images: Vec<PathBuf>) -> Vec<PathBuf> {
    let masks: HashSet<PathBuf> =
        images.iter().flat_map(|path| MASK_ENDINGS.map(|ending| with_ending(path, ending))).collect();
    images.into_iter().filter(|path| !masks.contains(path)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn classes_are_folders_and_captions_are_files_beside_images() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["polar_bear/deep/b.JPG", "polar_bear/a.png", "cat/c.webp", "top.jpeg", "cat/notes.md"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        fs::write(folder.path().join("cat/c.txt"), "\u{feff}a cat asleep\r\n\n a cat \n").unwrap();
        let config = FolderConfig { path: folder.path().to_owned(), caption: caption() };
        let source = FolderDataset::open(&config).unwrap();
        let samples: Vec<_> = (0..source.len()).map(|index| source.sample(index).unwrap()).collect();
        let seen: Vec<_> = samples.iter().map(|s| (s.label.as_deref(), s.captions.join("|"))).collect();
        assert_eq!(
            seen,
            [
                (Some("cat"), "a cat asleep|a cat".to_owned()),
                (Some("polar_bear"), "a photo of a polar bear".to_owned()),
                (Some("polar_bear"), "a photo of a polar bear".to_owned()),
                (None, String::new()),
            ]
        );
    }

    #[test]
    fn a_mask_beside_an_image_is_part_of_its_sample() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a.jpg", "a.mask.png", "b.c.png", "b.c-masklabel.png", "lonely.mask.png"];
        for name in names {
            fs::write(folder.path().join(name), b"x").unwrap();
        }
        let config = FolderConfig { path: folder.path().to_owned(), caption: caption() };
        let source = FolderDataset::open(&config).unwrap();
        let masks: Vec<_> = (0..source.len()).map(|index| source.sample(index).unwrap().mask).collect();
        let name = |mask: &Option<SampleImage>| match mask {
            Some(SampleImage::File(path)) => path.file_name().unwrap().to_str().unwrap().to_owned(),
            _ => String::new(),
        };
        let found: Vec<String> = masks.iter().map(name).collect();
        assert_eq!(found, ["a.mask.png", "b.c-masklabel.png", ""]);
    }

    #[test]
    fn hidden_folders_are_no_classes_and_linked_ones_are() {
        let (folder, birds) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["cat/a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "cat/._a.jpg"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        fs::write(birds.path().join("b.jfif"), b"x").unwrap();
        std::os::unix::fs::symlink(birds.path(), folder.path().join("bird")).unwrap();
        let config = FolderConfig { path: folder.path().to_owned(), caption: caption() };
        let source = FolderDataset::open(&config).unwrap();
        let labels: Vec<_> =
            (0..source.len()).map(|index| source.sample(index).unwrap().label.unwrap()).collect();
        assert_eq!(labels, ["bird", "cat"]);
    }

    #[test]
    fn a_folder_without_images_or_no_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let open =
            |path: PathBuf| FolderDataset::open(&FolderConfig { path, caption: caption() }).err().unwrap();
        assert!(open(folder.path().to_owned()).to_string().contains("no image (.jpg, .jpeg"));
        fs::write(folder.path().join("a.heic"), b"x").unwrap();
        fs::write(folder.path().join(".b.jpg"), b"x").unwrap();
        let message = open(folder.path().to_owned()).to_string();
        assert!(message.contains("skipped 1 files: 1 .heic; convert .heic to JPEG"), "{message}");
        assert!(message.contains("1 hidden entries"), "{message}");
        assert!(open(folder.path().join("none")).to_string().contains("No such file"));
    }
}
