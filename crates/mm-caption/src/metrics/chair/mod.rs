//! CHAIR on COCO: the objects of a caption that are not in its image.
//!
//! CHAIR (Rohrbach et al. 2018, <https://arxiv.org/abs/1809.02156>) finds the words of a caption that name
//! one of the 80 classes of COCO. A mention is a hallucination if neither an instance of the class is
//! annotated in the image nor a reference caption names it.
//!
//! - CHAIR-s is the share of captions with a hallucination.
//! - CHAIR-i is the share of mentions that are hallucinations. Repeated mentions count each time.
//!
//! Mentions are those of the published program, with its quirks, so that numbers compare with published ones:
//! `bus` is not found because its singular becomes `bu` (while `buses` is), nor is a word within a compound
//! with a hyphen.
//!
//! ```
//! use mm_caption::metrics::chair::{CocoObjects, ImageObjects};
//!
//! let mut images = ImageObjects::default();
//! images.add_reference(42, "Two puppies on a couch.");
//! let report = images.chair(&[(42, "a dog next to a cat on a sofa")])?;
//! assert_eq!((report.chair_s, report.chair_i), (1.0, 1.0 / 3.0));
//! assert_eq!(report.captions[0].hallucinated().next().unwrap().class, "cat");
//! # Ok::<(), mm_caption::metrics::chair::ChairError>(())
//! ```

mod objects;
mod singular;
mod tokens;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use objects::{CocoObjects, Mention};

/// The annotations or the captions cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum ChairError {
    /// The file of annotations cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is not an instances file of COCO.
    #[error("{}: {reason}; expected is a file such as instances_val2014.json of COCO", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// The objects of an image are not known.
    #[error("image {image} has neither instances nor reference captions: add its annotations")]
    UnknownImage {
        /// The id of the image.
        image: u64,
    },
}

/// The objects of images: the ground truth of CHAIR.
#[derive(Debug, Clone, Default)]
pub struct ImageObjects {
    images: HashMap<u64, BTreeSet<&'static str>>,
}

/// The parts of an instances file that CHAIR needs.
#[derive(Deserialize)]
struct Instances {
    #[serde(default)]
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    category_id: u64,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

impl ImageObjects {
    /// Adds the classes of the instances of a file: `instances_val2014.json`. Published numbers use the files
    /// of train2014 and of val2014.
    ///
    /// # Errors
    /// The file cannot be read, is not an instances file, or has a category that is not one of the 80
    /// classes.
    pub fn add_instances(&mut self, path: &Path) -> Result<(), ChairError> {
        let file = File::open(path).map_err(|source| ChairError::Io { path: path.to_owned(), source })?;
        let wrong = |reason: String| ChairError::Format { path: path.to_owned(), reason };
        let instances: Instances =
            serde_json::from_reader(BufReader::new(file)).map_err(|error| wrong(error.to_string()))?;
        let mut classes: HashMap<u64, &'static str> = HashMap::new();
        for Category { id, name } in &instances.categories {
            let class = CocoObjects::get().class(name);
            let class = class.ok_or_else(|| wrong(format!("category {name:?} is not a class of COCO")))?;
            classes.insert(*id, class);
        }
        for image in &instances.images {
            self.images.entry(image.id).or_default();
        }
        for Annotation { image_id, category_id } in instances.annotations {
            let class = classes.get(&category_id).ok_or_else(|| {
                wrong(format!("an annotation of image {image_id} has the unknown category {category_id}"))
            })?;
            self.images.entry(image_id).or_default().insert(class);
        }
        Ok(())
    }

    /// Adds the objects that a reference caption names.
    pub fn add_reference(&mut self, image: u64, caption: &str) {
        let mentions = CocoObjects::get().mentions(caption);
        self.images.entry(image).or_default().extend(mentions.into_iter().map(|mention| mention.class));
    }

    /// The classes of an image; `None` if it is not known.
    pub fn classes(&self, image: u64) -> Option<&BTreeSet<&'static str>> {
        self.images.get(&image)
    }

    /// Scores captions, each with the id of its image.
    ///
    /// # Errors
    /// The objects of an image are not known.
    pub fn chair<S: AsRef<str>>(&self, captions: &[(u64, S)]) -> Result<ChairReport, ChairError> {
        let score = |(image, caption): &(u64, S)| {
            let classes = self.classes(*image).ok_or(ChairError::UnknownImage { image: *image })?;
            let mentions = CocoObjects::get().mentions(caption.as_ref());
            let is_hallucinated = mentions.iter().map(|mention| !classes.contains(mention.class)).collect();
            Ok(ChairCaption { image: *image, mentions, is_hallucinated })
        };
        captions.iter().map(score).collect::<Result<Vec<_>, _>>().map(ChairReport::of)
    }
}

/// A caption with its mentions of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChairCaption {
    /// The id of the image.
    pub image: u64,
    /// The mentions of objects, in order.
    pub mentions: Vec<Mention>,
    /// Whether each mention is a hallucination.
    pub is_hallucinated: Vec<bool>,
}

impl ChairCaption {
    /// The mentions that are not in the image.
    pub fn hallucinated(&self) -> impl Iterator<Item = &Mention> {
        self.mentions.iter().zip(&self.is_hallucinated).filter(|(_, is)| **is).map(|(mention, _)| mention)
    }
}

/// CHAIR over a corpus.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChairReport {
    /// The share of captions with at least one hallucination.
    pub chair_s: f64,
    /// The share of mentions that are hallucinations; 0 without mentions.
    pub chair_i: f64,
    /// The number of mentions of objects.
    pub mentions: usize,
    /// The number of mentions that are hallucinations.
    pub hallucinated: usize,
    /// Each caption, in the order given.
    pub captions: Vec<ChairCaption>,
}

impl ChairReport {
    fn of(captions: Vec<ChairCaption>) -> Self {
        let mentions = captions.iter().map(|caption| caption.mentions.len()).sum();
        let hallucinated = captions.iter().map(|caption| caption.hallucinated().count()).sum();
        let with_one = captions.iter().filter(|caption| caption.hallucinated().next().is_some()).count();
        let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        Self {
            chair_s: share(with_one, captions.len()),
            chair_i: share(hallucinated, mentions),
            mentions,
            hallucinated,
            captions,
        }
    }
}
