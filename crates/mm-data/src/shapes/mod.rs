//! The shapes data set: pictures of coloured shapes with all that can be said of them, drawn on demand,
//! endless.
//!
//! In the spirit of CLEVR (Johnson et al. 2017, <https://arxiv.org/abs/1612.06890>): a picture is made from a
//! graph, so that every caption, answer and edit is exact. A [`Scene`] has one to six [`Object`]s, each one
//! of 6 shapes, 8 colours, 2 sizes and 4 patterns, which lie apart on an even ground. It gives
//! [`captions`](Scene::captions), [`questions`](Scene::questions), [`negatives`](Scene::negatives),
//! [`edits`](Scene::edits) and its [picture](Scene::render).
//!
//! ```
//! use mm_data::shapes::ShapesConfig;
//!
//! let scene = ShapesConfig::default().scene(0);
//! assert_eq!(scene, ShapesConfig::default().scene(0)); // split, seed and index decide
//! assert_eq!(scene.render(64).dimensions(), (64, 64));
//! for negative in scene.negatives() {
//!     println!("{}, and not {}", negative.positive, negative.negative);
//! }
//! ```
//!
//! # The split
//!
//! It asks for composition, as CLEVR-CoGenT does: no training scene has an object of the eight [`HELD_OUT`]
//! combinations of colour and shape (red star, orange square, yellow heart, green triangle, blue circle,
//! purple cross, pink star, brown circle), and each held-out scene has one at least. So no held-out scene is
//! a training scene, and no canonical caption of one is a caption of the other; yet each word is in training,
//! each colour with five shapes. No text of a training scene names such a combination, not even to deny it:
//! neither in questions nor in negatives, and no edit leads to one.
//!
//! # What follows from what
//!
//! Rank, seed, index and the allowed numbers of objects make the scene; the scene alone makes its texts.
//! Positions are whole thousandths of the side, so no rounding decides what is said, and a direction is said
//! only where it is plain ([`MARGIN`]). Pixels are computed with exact operations alone. All is the same on
//! every machine.

mod captions;
mod describe;
mod draw;
mod edits;
mod generate;
mod negatives;
mod object;
mod questions;
mod render;
mod scene;

use std::io::Cursor;

use image::{ImageFormat, RgbImage};
use rand::SeedableRng;
use serde::{Deserialize, Serialize};

pub use describe::Description;
pub use edits::{Edit, EditKind};
pub use negatives::{Negative, NegativeKind};
pub use object::{Background, Colour, HELD_OUT, Object, Pattern, SIDE, Shape, Size};
pub use questions::QuestionKind;
pub use scene::{MARGIN, MAX_OBJECTS, Relation, Scene};

use crate::{Dataset, Error, Fault, Result, Sample, SampleImage, SampleRng};

/// The most samples of a source.
const MAX_SAMPLES: usize = 1_000_000_000;

/// Which side of the split to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShapesSplit {
    /// Scenes without a held-out combination.
    #[default]
    Train,
    /// Scenes with at least one.
    HeldOut,
    /// Any combinations, as they come: about a third of the scenes has a held-out one.
    All,
}

impl ShapesSplit {
    fn word(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::HeldOut => "held_out",
            Self::All => "all",
        }
    }
}

/// Which scenes to make. In the config:
///
/// ```
/// let config: mm_data::DatasetConfig = toml::from_str("kind = \"shapes\"\nsamples = 100\nobjects = [2, 3]")?;
/// let sample = config.open()?.sample(7)?;
/// assert_eq!(sample.key, "train-0000007");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShapesConfig {
    /// How many, up to 1,000,000,000.
    pub samples: usize,
    /// The side of the split.
    pub split: ShapesSplit,
    /// The side of a picture in pixels, 8 to 1024.
    pub size: u32,
    /// Other scenes for another seed.
    pub seed: u64,
    /// How many objects a scene has, from and to, within 1 to [`MAX_OBJECTS`].
    pub objects: [u32; 2],
}

impl Default for ShapesConfig {
    fn default() -> Self {
        Self { samples: 10_000, split: ShapesSplit::Train, size: 64, seed: 0, objects: [1, 4] }
    }
}

impl ShapesConfig {
    /// Errors: a number that is out of its range, by name.
    pub fn check(&self) -> Result<()> {
        let [least, most] = self.objects;
        let wrong = if !(1..=MAX_SAMPLES).contains(&self.samples) {
            format!("samples = {} must be between 1 and {MAX_SAMPLES}", self.samples)
        } else if !(8..=1024).contains(&self.size) {
            format!("size = {} must be between 8 and 1024 pixels", self.size)
        } else if least < 1 || least > most || most > MAX_OBJECTS as u32 {
            format!(
                "objects = [{least}, {most}] must be two numbers, the smaller first, from 1 to {MAX_OBJECTS}"
            )
        } else {
            return Ok(());
        };
        Err(Error::Setting(format!("shapes: {wrong}")))
    }

    /// The scene of an index, which may be beyond `samples`. It depends on `split`, `seed` and `objects`, of
    /// which numbers out of range count as the nearest in range.
    pub fn scene(&self, index: u64) -> Scene {
        let mut key = [0; 32];
        for (part, number) in key.chunks_exact_mut(8).zip([self.seed, self.split as u64, index, 0]) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        generate::scene(self, &mut SampleRng::from_seed(key))
    }
}

/// A scene that is drawn when its pixels are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    /// The scene.
    pub scene: Scene,
    /// The side of the picture in pixels.
    pub size: u32,
}

impl Drawing {
    /// The pixels, `size` x `size`.
    pub fn render(&self) -> RgbImage {
        self.scene.render(self.size)
    }

    /// The picture as a PNG. Errors: a size of 0.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut png = Cursor::new(Vec::new());
        let written = self.render().write_to(&mut png, ImageFormat::Png);
        written
            .map_err(|error| Error::bad(Fault::Image, format!("no PNG of {0} x {0}: {error}", self.size)))?;
        Ok(png.into_inner())
    }
}

/// The shapes as a [`Dataset`].
pub(crate) struct ShapesDataset {
    name: String,
    config: ShapesConfig,
}

impl ShapesDataset {
    pub(crate) fn new(config: &ShapesConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { name: format!("shapes ({})", config.split.word()), config: config.clone() })
    }
}

impl Dataset for ShapesDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.config.samples
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let scene = self.config.scene(index as u64);
        let mut questions = scene.questions();
        for question in &mut questions {
            question.id += (index * questions::MOST) as u64;
        }
        Ok(Sample {
            captions: scene.captions(),
            label: Some(scene.label()),
            questions,
            ..Sample::new(
                format!("{}-{index:07}", self.config.split.word()),
                SampleImage::Drawn(Box::new(Drawing { scene, size: self.config.size })),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_named() {
        let said = |config: ShapesConfig| config.check().unwrap_err().to_string();
        let fine = ShapesConfig::default;
        assert_eq!(
            said(ShapesConfig { size: 4, ..fine() }),
            "shapes: size = 4 must be between 8 and 1024 pixels"
        );
        for samples in [0, usize::MAX] {
            assert!(said(ShapesConfig { samples, ..fine() }).contains("samples = "), "{samples}");
        }
        for objects in [[0, 4], [3, 2], [1, 7]] {
            assert!(said(ShapesConfig { objects, ..fine() }).contains("objects = "), "{objects:?}");
        }
        assert!(toml::from_str::<ShapesConfig>("sample = 3").is_err());
    }

    #[test]
    fn a_sample_is_drawn_without_encoding_and_written_as_png() {
        let sample = ShapesDataset::new(&ShapesConfig::default()).unwrap().sample(3).unwrap();
        let decoded = mm_image::decode(&sample.image.bytes().unwrap(), [0; 3]).unwrap();
        assert_eq!(decoded, sample.image.decode([0; 3]).unwrap());
        assert_eq!(sample.questions[0].id, 30);
    }
}
