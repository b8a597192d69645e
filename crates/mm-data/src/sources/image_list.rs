//! Images and folders of images that a command line names.

use std::path::{Path, PathBuf};

use crate::sources::walk::Walk;
use crate::{Dataset, Error, Result, Sample, SampleImage};

/// Images by their paths, without captions, in the given order: each path is an image, or a folder with the
/// images in it and its subfolders at any depth. A path where there is nothing is an image that cannot be
/// read, so that one wrong name does not keep the others from being used.
///
/// ```
/// use mm_data::{Dataset, ImageList};
///
/// let images = ImageList::open(&["a.png".into(), "b.png".into()])?;
/// assert_eq!((images.len(), images.key(1)), (2, "b.png".to_owned()));
/// # Ok::<(), mm_data::Error>(())
/// ```
#[derive(Debug)]
pub struct ImageList {
    name: String,
    images: Vec<PathBuf>,
}

impl ImageList {
    /// Lists the images of `paths`, and reads none of them.
    ///
    /// # Errors
    /// A folder cannot be read, or has no image.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut images = Vec::new();
        for path in paths {
            if path.is_dir() {
                images.extend(images_in(path)?);
            } else {
                images.push(path.clone());
            }
        }
        let name = match paths {
            [path] => path.display().to_string(),
            paths => format!("{} images and folders", paths.len()),
        };
        Ok(Self { name, images })
    }
}

fn images_in(folder: &Path) -> Result<impl Iterator<Item = PathBuf>> {
    let walk = Walk::of(folder)?;
    if walk.images.is_empty() {
        return Err(Error::Empty { name: folder.display().to_string(), hint: walk.why_empty() });
    }
    walk.report(folder);
    Ok(walk.images.into_iter().map(move |image| folder.join(image)))
}

impl Dataset for ImageList {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.images.len()
    }

    fn key(&self, index: usize) -> String {
        self.images[index].display().to_string()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        Ok(Sample::new(self.key(index), SampleImage::File(self.images[index].clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn folders_are_listed_in_the_place_of_their_argument_and_a_missing_image_is_a_bad_sample() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("photos/deep")).unwrap();
        for name in ["photos/b.png", "photos/deep/a.jpg", "photos/notes.md", "c.png"] {
            fs::write(path(name), b"x").unwrap();
        }
        let list = ImageList::open(&[path("c.png"), path("photos"), path("none.png")]).unwrap();
        let keys: Vec<String> = (0..list.len()).map(|index| list.key(index)).collect();
        let expected = ["c.png", "photos/b.png", "photos/deep/a.jpg", "none.png"];
        assert_eq!(keys, expected.map(|name| path(name).display().to_string()));
        let missing = list.sample(3).unwrap();
        assert_eq!(missing.key, keys[3]);
        assert!(missing.image().unwrap().bytes().unwrap_err().to_string().contains("none.png"));
        fs::create_dir(path("empty")).unwrap();
        let error = ImageList::open(&[path("c.png"), path("empty")]).unwrap_err().to_string();
        assert!(error.contains("empty") && error.contains("no image"), "{error}");
    }
}
