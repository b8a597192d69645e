//! What a normalisation did to a text, and how often.

use serde::Serialize;

use super::consensus::Answer;
use super::normalize::Normalized;

/// A step of a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u16)]
pub enum Rule {
    /// A line feed or tab became a space or white space at an end was removed; in `strict` also: a run of
    /// white space became one space.
    Whitespace,
    /// A comma or question mark was dropped, or `'s` split from its word, before all else. `evalai` alone.
    Tokenization,
    /// One of the 21 punctuation marks was dropped or became a space.
    Punctuation,
    /// A comma between digits, because of which every mark of the text was dropped and none became a space.
    DigitComma,
    /// A period that no digit follows was dropped.
    Period,
    /// Periods stayed, because only the first 32 are dropped.
    PeriodLimit,
    /// A character became lower case.
    LowerCase,
    /// `none`, `zero`, ... `ten` became a number.
    NumberWord,
    /// `a`, `an` or `the` was dropped.
    Article,
    /// An apostrophe was added to, or for `somebody'd` removed from, a word of the list.
    Contraction,
    /// Nothing of the text is left.
    Emptied,
}

impl Rule {
    /// All rules, in the order in which they apply.
    pub const ALL: [Self; 11] = [
        Self::Whitespace,
        Self::Tokenization,
        Self::Punctuation,
        Self::DigitComma,
        Self::Period,
        Self::PeriodLimit,
        Self::LowerCase,
        Self::NumberWord,
        Self::Article,
        Self::Contraction,
        Self::Emptied,
    ];
}

/// The rules that changed a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules(u16);

impl Rules {
    /// Whether the rule changed the text.
    pub fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u16) != 0
    }

    pub(super) fn set(&mut self, rule: Rule, changed: bool) {
        self.0 |= u16::from(changed) << rule as u16;
    }
}

impl FromIterator<Rule> for Rules {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        let mut all = Self::default();
        rules.into_iter().for_each(|rule| all.set(rule, true));
        all
    }
}

/// A text before and after its normalisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The text.
    pub before: String,
    /// What it is compared as.
    pub after: String,
}

/// How often a rule changed a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleUse {
    /// The rule.
    pub rule: Rule,
    /// The number of predictions that it changed.
    pub predictions: usize,
    /// The number of human answers that it changed.
    pub answers: usize,
    /// The first text of the file that it changed.
    pub example: Option<Example>,
}

/// Counts of each rule over some questions, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleTally {
    predictions: [usize; Rule::ALL.len()],
    answers: [usize; Rule::ALL.len()],
    examples: [Option<Example>; Rule::ALL.len()],
}

impl RuleTally {
    pub(super) fn count_prediction(&mut self, before: &str, compared: &Normalized) {
        for (at, _) in Rule::ALL.into_iter().enumerate().filter(|&(_, rule)| compared.rules.has(rule)) {
            self.predictions[at] += 1;
            self.show(at, before, &compared.text);
        }
    }

    pub(super) fn count_answer(&mut self, answer: &Answer) {
        let rules = answer.compared.rules;
        for (at, _) in Rule::ALL.into_iter().enumerate().filter(|&(_, rule)| rules.has(rule)) {
            self.answers[at] += answer.annotators;
            self.show(at, answer.given, &answer.compared.text);
        }
    }

    fn show(&mut self, rule: usize, before: &str, after: &str) {
        self.examples[rule].get_or_insert_with(|| Example { before: before.into(), after: after.into() });
    }

    /// The counts of both; `later` is of later questions.
    pub(super) fn merge(mut self, later: Self) -> Self {
        for at in 0..Rule::ALL.len() {
            self.predictions[at] += later.predictions[at];
            self.answers[at] += later.answers[at];
        }
        for (example, later) in self.examples.iter_mut().zip(later.examples) {
            *example = example.take().or(later);
        }
        self
    }

    /// The rules that changed something.
    pub(super) fn into_uses(self) -> Vec<RuleUse> {
        let counts = self.predictions.into_iter().zip(self.answers).zip(self.examples);
        let uses = Rule::ALL
            .into_iter()
            .zip(counts)
            .map(|(rule, ((predictions, answers), example))| RuleUse { rule, predictions, answers, example });
        uses.filter(|rule| rule.predictions + rule.answers > 0).collect()
    }
}
