//! Captions judged against scene graphs: the faithfulness of captions of the shapes data set.
//!
//! The scenes of [`mm_data::shapes`] are known exactly and their captions follow a small grammar, so a
//! caption can be judged without a reference caption, a detector or a language model.
//! [`ParsedCaption::parse`] reads a caption, [`SceneScore::of`] judges it, and [`SceneChair`] sums scores
//! over a corpus.
//!
//! Two metrics of free text have their exact counterpart here:
//!
//! - CHAIR (Rohrbach et al. 2018, <https://arxiv.org/abs/1809.02156>): the share of captions with something
//!   that is not in the image, and the share of mentions that are not in the image. "CHAIR on scene graphs"
//!   covers colors, patterns, sizes, counts and relations as well as objects.
//! - SPICE (Anderson et al. 2016, <https://arxiv.org/abs/1607.08822>): the F1 of the caption's tuples
//!   (object; object, attribute; object, relation, object) against those of the scene.
//!   [`SceneScore::faithfulness`] is this F1, or 0 if a part of the caption could not be parsed: a reward for
//!   self-critical training.
//!
//! ```
//! use mm_caption::metrics::scenes::{HallucinationKind, SceneScore};
//! use mm_data::shapes::ShapesConfig;
//!
//! let scene = ShapesConfig::default().scene(0);
//! let canonical = SceneScore::of(&scene.captions()[0], &scene);
//! assert!(canonical.is_faithful() && canonical.f1() == 1.0);
//!
//! let score = SceneScore::of("exactly six hearts", &scene);
//! assert!(!score.is_faithful() && score.kind(HallucinationKind::Count).wrong == 1);
//! ```

mod judge;
mod parse;

#[cfg(test)]
mod tests;

use mm_data::shapes::Scene;
use serde::Serialize;

pub use parse::{ParsedCaption, Phrase};

/// The kind of a statement of a caption that can be false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HallucinationKind {
    /// There is an object of the named shape, distinct from the other objects of the caption.
    Object,
    /// That object has the named color.
    Colour,
    /// That object has the named pattern.
    Pattern,
    /// That object has the named size.
    Size,
    /// Exactly as many objects as the number says have the named attributes.
    Count,
    /// Two objects have the named relation.
    Relation,
}

impl HallucinationKind {
    /// All kinds, in the order of [`SceneScore::kinds`].
    pub const ALL: [Self; 6] =
        [Self::Object, Self::Colour, Self::Pattern, Self::Size, Self::Count, Self::Relation];

    /// The name in reports and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Colour => "colour",
            Self::Pattern => "pattern",
            Self::Size => "size",
            Self::Count => "count",
            Self::Relation => "relation",
        }
    }
}

/// The number of mentions, and of the wrong ones among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Mentions {
    /// All mentions.
    pub all: usize,
    /// The mentions that are false of the scene.
    pub wrong: usize,
}

impl Mentions {
    pub(super) fn add(&mut self, is_true: bool) {
        self.all += 1;
        self.wrong += usize::from(!is_true);
    }

    /// The share of wrong mentions; 0 without mentions.
    pub fn share(self) -> f64 {
        ratio(self.wrong, self.all)
    }
}

/// A caption judged against the scene of its image.
///
/// The noun phrases of a caption are assigned to distinct objects of the scene so that as many statements as
/// possible are true. A statement is a noun phrase (an object with these attributes exists), a number
/// (exactly so many objects match the phrase), a relation (it holds between the assigned objects by at least
/// [`MARGIN`](mm_data::shapes::MARGIN)) or a part that cannot be parsed, which is false.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SceneScore {
    /// The number of statements.
    pub statements: usize,
    /// The number of true statements.
    pub true_statements: usize,
    /// The noun phrases, wrong where no object has all attributes of the phrase.
    pub objects: Mentions,
    /// The parts of statements by [`HallucinationKind`], in the order of [`HallucinationKind::ALL`].
    pub kinds: [Mentions; 6],
    /// The number of tuples of the caption: each object, attribute and relation, and each wrong number.
    pub caption_tuples: usize,
    /// The number of tuples of the caption that are true of the scene.
    pub true_tuples: usize,
    /// The number of tuples of the scene: each object, its three attributes, and one relation for each two
    /// objects that follow each other from left to right, as in the canonical caption.
    pub scene_tuples: usize,
    /// The number of tuples of the scene that the caption states.
    pub stated_tuples: usize,
    /// The part of the caption that is not in the grammar, from its first word to the end.
    pub unparsed: Option<String>,
}

impl SceneScore {
    /// Judges a caption. Any text has a score: a text outside of the grammar of the captions is one false
    /// statement.
    pub fn of(caption: &str, scene: &Scene) -> Self {
        judge::judge(ParsedCaption::parse(caption), scene)
    }

    /// Whether every statement is true and the whole caption could be parsed.
    pub fn is_faithful(&self) -> bool {
        self.statements == self.true_statements
    }

    /// The mentions of one kind.
    pub fn kind(&self, kind: HallucinationKind) -> Mentions {
        self.kinds[kind as usize]
    }

    /// The share of the caption's tuples that are true of the scene; 0 without tuples.
    pub fn precision(&self) -> f64 {
        ratio(self.true_tuples, self.caption_tuples)
    }

    /// The share of the scene's tuples that the caption states.
    pub fn recall(&self) -> f64 {
        ratio(self.stated_tuples, self.scene_tuples)
    }

    /// The harmonic mean of [`precision`](Self::precision) and [`recall`](Self::recall).
    pub fn f1(&self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }
    }

    /// The reward of a caption in 0 to 1: [`f1`](Self::f1), or 0 if a part could not be parsed.
    pub fn faithfulness(&self) -> f64 {
        if self.unparsed.is_some() { 0.0 } else { self.f1() }
    }
}

/// [`SceneScore::faithfulness`] of a caption: 1 for the canonical caption, 0 for text outside of the grammar.
pub fn faithfulness(caption: &str, scene: &Scene) -> f64 {
    SceneScore::of(caption, scene).faithfulness()
}

/// CHAIR on scene graphs, with the mean scores of a corpus.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct SceneChair {
    /// The number of captions.
    pub captions: usize,
    /// The share of captions with at least one false statement.
    pub chair_s: f64,
    /// The share of noun phrases that match no object.
    pub chair_i: f64,
    /// The share of wrong mentions of each [`HallucinationKind`], with their number, in the order of
    /// [`HallucinationKind::ALL`].
    pub kinds: [Mentions; 6],
    /// The share of captions with a part that could not be parsed.
    pub unparsed: f64,
    /// The mean precision of the tuples.
    pub precision: f64,
    /// The mean recall of the tuples.
    pub recall: f64,
    /// The mean F1 of the tuples.
    pub f1: f64,
}

impl SceneChair {
    /// Sums the scores of a corpus; all zero for no scores.
    pub fn of(scores: &[SceneScore]) -> Self {
        let count = |is: fn(&SceneScore) -> bool| scores.iter().filter(|score| is(score)).count();
        let mean = |value: fn(&SceneScore) -> f64| {
            scores.iter().map(value).sum::<f64>() / scores.len().max(1) as f64
        };
        let (mut objects, mut kinds) = (Mentions::default(), [Mentions::default(); 6]);
        for score in scores {
            sum(&mut objects, score.objects);
            kinds.iter_mut().zip(score.kinds).for_each(|(total, part)| sum(total, part));
        }
        Self {
            captions: scores.len(),
            chair_s: ratio(count(|score| !score.is_faithful()), scores.len()),
            chair_i: objects.share(),
            kinds,
            unparsed: ratio(count(|score| score.unparsed.is_some()), scores.len()),
            precision: mean(SceneScore::precision),
            recall: mean(SceneScore::recall),
            f1: mean(SceneScore::f1),
        }
    }

    /// The mentions of one kind.
    pub fn kind(&self, kind: HallucinationKind) -> Mentions {
        self.kinds[kind as usize]
    }
}

fn sum(total: &mut Mentions, part: Mentions) {
    total.all += part.all;
    total.wrong += part.wrong;
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
