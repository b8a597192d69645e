//! The shapes data set: images of colored shapes with exact texts, drawn on demand, in any number.
//!
//! As in CLEVR (Johnson et al. 2017, <https://arxiv.org/abs/1612.06890>), an image is rendered from a scene
//! graph, so that every caption, answer and edit is exact. A [`Scene`] has one to six [`Object`]s of 6
//! shapes, 8 colors, 2 sizes and 4 patterns, which do not overlap, on a uniform background. It has
//! [`captions`](Scene::captions), [`questions`](Scene::questions), [`negatives`](Scene::negatives),
//! [`edits`](Scene::edits) and an [image](Scene::render).
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
//! With `scenes = "prompts"` the scenes are simple ones for image generation: one to three objects of one
//! color and shape, or two different ones, all solid, each with one caption ([`Scene::prompt`]): `three blue
//! stars`,
//! `a red circle above a blue square`.
//!
//! # The split
//!
//! It is compositional, as CLEVR-CoGenT: no training scene has an object of the eight [`HELD_OUT`]
//! combinations of color and shape (red star, orange square, yellow heart, green triangle, blue circle,
//! purple cross, pink star, brown circle), and each held-out scene has at least one. So held-out scenes and
//! their canonical captions are not in training, while each word is, and each color occurs with at least five
//! shapes. No text of a training scene has such a combination, neither in questions nor in negatives, and no
//! edit leads to one.
//!
//! # Determinism
//!
//! A scene depends on split, seed, index and the allowed numbers of objects; its texts depend on the scene
//! alone. Positions are whole thousandths of the side, so texts never depend on rounding, and a direction is
//! only used where it is clear ([`MARGIN`]). Pixels are computed with exact operations. All of it is the same
//! on every machine.

mod captions;
mod describe;
mod draw;
mod edits;
mod generate;
mod negatives;
mod object;
mod prompts;
mod questions;
mod render;
mod scene;

use std::sync::Arc;

use mm_image::RgbImage;
use rand::SeedableRng;
use serde::{Deserialize, Serialize};

pub use describe::Description;
pub use edits::{Edit, EditKind};
pub use negatives::{Negative, NegativeKind};
pub use object::{Background, Colour, HELD_OUT, Object, Pattern, SIDE, Shape, Size};
pub use questions::QuestionKind;
pub use scene::{MARGIN, MAX_OBJECTS, Relation, Scene};

use crate::sample::{Draw, NegativeCaption};
use crate::{Dataset, Error, Fault, Question, Result, Sample, SampleImage, SampleRng};

/// The limit on the number of samples.
const MAX_SAMPLES: usize = 1_000_000_000;

/// The scenes that are tried for an edit.
const SCENES_FOR_EDITS: usize = 32;

/// The part of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShapesSplit {
    /// Scenes without a held-out combination.
    #[default]
    Train,
    /// Scenes with at least one held-out combination.
    HeldOut,
    /// Scenes with any combinations: about a third has a held-out one.
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

/// The texts of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShapesContent {
    /// A scene with all its captions and all its questions.
    #[default]
    Captions,
    /// A scene before and after an edit, with the instruction and the canonical caption of each. The label is
    /// the kind of edit.
    Edits,
    /// A scene with its captions and hard negatives.
    Negatives,
    /// A scene with one of its questions.
    Questions,
}

impl ShapesContent {
    fn word(self) -> &'static str {
        match self {
            Self::Captions => "captions",
            Self::Edits => "edits",
            Self::Negatives => "negatives",
            Self::Questions => "questions",
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The scenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShapesScenes {
    /// Objects of all attributes, no two alike.
    #[default]
    Varied,
    /// Large solid objects: one to three of one color and shape, or two different ones, by default half of
    /// the time each.
    Prompts,
}

impl ShapesScenes {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The usual percentage of scenes of two different objects.
const HALF: u32 = 50;

fn is_half(pairs: &u32) -> bool {
    *pairs == HALF
}

/// The config of the shapes data set:
///
/// ```
/// let toml = "kind = 'shapes'\nsamples = 100\nobjects = [2, 3]";
/// let config: mm_data::DatasetConfig = toml::from_str(toml)?;
/// let sample = config.open()?.sample(7)?;
/// assert_eq!(sample.key, "train-0000007");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShapesConfig {
    /// The number of samples, up to 1,000,000,000.
    pub samples: usize,
    /// The part of the split.
    pub split: ShapesSplit,
    /// The side of an image in pixels, 8 to 1024.
    pub size: u32,
    /// The seed of the scenes.
    pub seed: u64,
    /// The minimum and maximum number of objects of a scene, within 1 to [`MAX_OBJECTS`].
    pub objects: [u32; 2],
    /// With `scenes = "prompts"`: the percentage of scenes of two different objects, the others being of one
    /// kind.
    #[serde(skip_serializing_if = "is_half")]
    pub pairs: u32,
    /// The texts of a sample: captions, edits, negatives or questions.
    #[serde(skip_serializing_if = "ShapesContent::is_default")]
    pub content: ShapesContent,
    /// The scenes: varied ones, or simple ones with one caption each, for image generation.
    #[serde(skip_serializing_if = "ShapesScenes::is_default")]
    pub scenes: ShapesScenes,
    /// The kinds of edits, where the content is edits; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<EditKind>,
}

impl Default for ShapesConfig {
    fn default() -> Self {
        Self {
            samples: 10_000,
            split: ShapesSplit::Train,
            size: 64,
            seed: 0,
            objects: [1, 4],
            pairs: HALF,
            content: ShapesContent::Captions,
            scenes: ShapesScenes::Varied,
            edits: Vec::new(),
        }
    }
}

impl ShapesConfig {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// A setting that is out of its range, by name.
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
        } else if self.pairs > 100 {
            format!("pairs = {} must be between 0 and 100", self.pairs)
        } else if self.pairs != HALF && (self.scenes != ShapesScenes::Prompts || least > 2 || most < 2) {
            format!(
                "pairs = {} needs scenes = \"prompts\" and objects that allow both, such as [1, 3]",
                self.pairs
            )
        } else {
            return Ok(());
        };
        Err(Error::Setting(format!("shapes: {wrong}")))
    }

    /// The scene of an index, which may be beyond `samples`. It depends on `split`, `seed`, `objects` and
    /// `pairs`; numbers of objects out of range are clamped.
    pub fn scene(&self, index: u64) -> Scene {
        let mut key = [0; 32];
        for (part, number) in key.chunks_exact_mut(8).zip([self.seed, self.split as u64, index, 0]) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        let rng = &mut SampleRng::from_seed(key);
        match self.scenes {
            ShapesScenes::Varied => generate::scene(self, rng),
            ShapesScenes::Prompts => generate::prompt_scene(self, rng),
        }
    }
}

/// A scene as an image of `size` x `size` pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Drawing {
    scene: Arc<Scene>,
    size: u32,
}

impl Draw for Drawing {
    fn draw(&self) -> RgbImage {
        self.scene.render(self.size)
    }

    fn dimensions(&self) -> (u32, u32) {
        (self.size, self.size)
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
        let split = config.split.word();
        let name = match config.content {
            ShapesContent::Captions => format!("shapes ({split})"),
            content => format!("shapes ({split}, {})", content.word()),
        };
        Ok(Self { name, config: config.clone() })
    }

    fn drawn(&self, scene: Arc<Scene>) -> SampleImage {
        SampleImage::Drawn(Arc::new(Drawing { scene, size: self.config.size }))
    }

    fn captions(&self, scene: &Scene) -> Vec<String> {
        match self.config.scenes {
            ShapesScenes::Varied => scene.captions(),
            ShapesScenes::Prompts => vec![scene.prompt()],
        }
    }

    /// The questions of a scene with ids that are unique in the data set.
    fn questions(scene: &Scene, index: usize) -> Vec<Question> {
        let mut questions = scene.questions();
        for question in &mut questions {
            question.id += (index * questions::MOST) as u64;
        }
        questions
    }

    /// The scene of the index with one of its edits, chosen by the index in turn. Where the scene has none of
    /// the kinds in the config, as one of equal objects, another scene takes its place.
    fn edited(&self, key: String, index: usize) -> Result<Sample> {
        let edits = |attempt: usize| {
            let mut edits = self.config.scene((index + attempt * MAX_SAMPLES) as u64).edits();
            edits.retain(|edit| self.config.edits.is_empty() || self.config.edits.contains(&edit.kind));
            Some(edits).filter(|edits| !edits.is_empty())
        };
        let edits = (0..SCENES_FOR_EDITS).find_map(edits).unwrap_or_default();
        let Edit { kind, before, instruction, after, .. } = one_by_index(edits, index, "edit")?;
        let first_caption = |scene: &Scene| self.captions(scene).into_iter().next();
        let captions = [&before, &after].into_iter().filter_map(first_caption).collect();
        Ok(Sample {
            key,
            captions,
            scene: Some(Arc::new(after.clone())),
            label: Some(kind.word().to_owned()),
            images: [before, after].map(|scene| self.drawn(Arc::new(scene))).into(),
            instruction: Some(instruction),
            ..Sample::default()
        })
    }
}

/// Element `index` of the repeated list.
fn one_by_index<T>(mut all: Vec<T>, index: usize, what: &str) -> Result<T> {
    if all.is_empty() {
        return Err(Error::bad(Fault::Other, format!("the scene has no {what}")));
    }
    let place = index % all.len();
    Ok(all.swap_remove(place))
}

impl Dataset for ShapesDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.config.samples
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let key = format!("{}-{index:07}", self.config.split.word());
        if self.config.content == ShapesContent::Edits {
            return self.edited(key, index);
        }
        let scene = self.config.scene(index as u64);
        let mut sample = Sample { key, label: Some(scene.label()), ..Sample::default() };
        match self.config.content {
            ShapesContent::Questions => {
                let questions = Self::questions(&scene, index);
                sample.questions = vec![one_by_index(questions, index, "question")?];
            }
            ShapesContent::Negatives => {
                sample.captions = self.captions(&scene);
                sample.negatives = scene.negatives().into_iter().map(NegativeCaption::from).collect();
            }
            ShapesContent::Captions | ShapesContent::Edits => {
                sample.captions = self.captions(&scene);
                sample.questions = Self::questions(&scene, index);
            }
        }
        let scene = Arc::new(scene);
        sample.images = vec![self.drawn(Arc::clone(&scene))];
        sample.scene = Some(scene);
        Ok(sample)
    }
}

impl From<Negative> for NegativeCaption {
    fn from(Negative { kind, positive, negative }: Negative) -> Self {
        Self { positive, negative, kind: Some(kind.word().to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let message_of = |config: ShapesConfig| config.check().unwrap_err().to_string();
        let fine = ShapesConfig::default;
        assert_eq!(
            message_of(ShapesConfig { size: 4, ..fine() }),
            "shapes: size = 4 must be between 8 and 1024 pixels"
        );
        for samples in [0, usize::MAX] {
            assert!(message_of(ShapesConfig { samples, ..fine() }).contains("samples = "), "{samples}");
        }
        for objects in [[0, 4], [3, 2], [1, 7]] {
            assert!(message_of(ShapesConfig { objects, ..fine() }).contains("objects = "), "{objects:?}");
        }
        assert!(toml::from_str::<ShapesConfig>("sample = 3").is_err());
    }

    #[test]
    fn a_sample_decodes_to_the_drawing_that_its_png_has() {
        let sample = ShapesDataset::new(&ShapesConfig::default()).unwrap().sample(3).unwrap();
        let image = sample.image().unwrap();
        let decoded = mm_image::decode(&image.bytes().unwrap(), [0; 3]).unwrap();
        assert_eq!(decoded, image.decode([0; 3]).unwrap());
        assert_eq!(sample.questions[0].id, 30);
        assert_eq!(*sample.scene.unwrap(), ShapesConfig::default().scene(3));
    }

    #[test]
    fn a_scene_without_an_edit_of_the_kind_is_replaced() {
        let config =
            "content = 'edits'\nscenes = 'prompts'\nedits = ['recolour']\nsamples = 300\nobjects = [1, 3]";
        let edits = ShapesDataset::new(&toml::from_str(config).unwrap()).unwrap();
        for index in 0..300 {
            let sample = edits.sample(index).unwrap();
            assert!(sample.instruction.unwrap().starts_with("make the "));
            assert_eq!(sample.label.as_deref(), Some("recolour"));
        }
    }

    #[test]
    fn each_scene_has_content_of_every_kind() {
        let open = |content: &str| {
            let config = format!("content = '{content}'\nsamples = 2000\nsize = 64");
            ShapesDataset::new(&toml::from_str(&config).unwrap()).unwrap()
        };
        let [edits, negatives, questions] = ["edits", "negatives", "questions"].map(open);
        assert_eq!(edits.name(), "shapes (train, edits)");
        let mut kinds = std::collections::BTreeSet::new();
        for index in 0..2000 {
            let edit = edits.sample(index).unwrap();
            let [before, after] = edit.image_pair().unwrap().map(|image| image.decode([0; 3]).unwrap());
            assert_ne!(before, after, "{edit:?}");
            assert_eq!((edit.captions.len(), edit.instruction.is_some()), (2, true));
            kinds.insert(edit.label);
            let negative = negatives.sample(index).unwrap();
            assert!(!negative.negatives.is_empty() && negative.image().is_ok());
            assert!(negative.negatives.iter().all(|pair| pair.positive != pair.negative));
            assert_eq!(questions.sample(index).unwrap().questions.len(), 1);
        }
        assert_eq!(kinds.len(), EditKind::ALL.len());
        let all = ShapesDataset::new(&ShapesConfig::default()).unwrap().sample(3).unwrap();
        assert_eq!(questions.sample(3).unwrap().questions[0], all.questions[3]);
    }
}
