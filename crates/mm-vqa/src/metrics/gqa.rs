//! GQA's metrics (Hudson and Manning, 2019, section 4.4), as the published `eval.py` computes them.
//!
//! Answers are equal or not: no normalisation. All numbers but the consistency's entailed questions are of
//! the balanced questions. Grounding is missing: it needs attention maps and scene graphs.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::accuracy::{Accuracy, Group, groups, score};
use super::error::Result;
use super::id::Id;
use super::json;
use super::matching::{FindingKind, Findings, OnProblem, match_predictions};
use super::predictions::Prediction;

/// A question of `*_questions.json`, an object from ids to questions.
#[derive(Clone, Debug, Deserialize)]
pub struct GqaQuestion {
    /// The text.
    pub question: String,
    /// The right answer.
    pub answer: String,
    /// Whether the question is of the balanced set.
    #[serde(rename = "isBalanced")]
    pub is_balanced: bool,
    /// The types.
    pub types: GqaTypes,
    /// Groups of questions with one distribution of answers.
    #[serde(default)]
    pub groups: GqaGroups,
    /// The ids of questions whose answer follows from this one's.
    #[serde(default)]
    pub entailed: Vec<Id>,
    /// The program.
    #[serde(default)]
    pub semantic: Vec<GqaStep>,
}

/// The types of a question.
#[derive(Clone, Debug, Deserialize)]
pub struct GqaTypes {
    /// `verify`, `query`, `choose`, `logical` or `compare`.
    pub structural: String,
    /// `obj`, `attr`, `cat`, `rel` or `global`.
    pub semantic: String,
    /// Such as `existThat`.
    pub detailed: String,
}

/// The groups of a question.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct GqaGroups {
    /// Such as `color`; the distribution is computed over it.
    pub global: Option<String>,
}

/// A step of a program.
#[derive(Clone, Debug, Deserialize)]
pub struct GqaStep {
    operation: String,
    #[serde(default)]
    argument: String,
}

/// The answers that fit a question, of `*_choices.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct GqaChoices {
    /// Answers of the question's kind.
    pub valid: Vec<String>,
    /// Answers that the scenes have for the question's object.
    pub plausible: Vec<String>,
}

/// Reads questions.
///
/// # Errors
/// The file cannot be read or has another layout.
pub fn read_questions(path: &Path) -> Result<Vec<(Id, GqaQuestion)>> {
    let text = mm_data::text::read(path)?;
    let layout = "GQA questions: an object from ids to questions";
    let questions: BTreeMap<Id, GqaQuestion> = json::parse(path, &text, layout)?;
    Ok(questions.into_iter().collect())
}

/// Reads choices.
///
/// # Errors
/// The file cannot be read or has another layout.
pub fn read_choices(path: &Path) -> Result<HashMap<Id, GqaChoices>> {
    let text = mm_data::text::read(path)?;
    json::parse(path, &text, "GQA choices: an object from ids to `valid` and `plausible`")
}

/// What to measure beside the accuracy.
#[derive(Clone, Copy, Debug, Default)]
pub struct GqaOptions<'a> {
    /// Measure the consistency, for which questions that are not balanced need predictions too.
    pub consistency: bool,
    /// Measure validity and plausibility with these choices.
    pub choices: Option<&'a HashMap<Id, GqaChoices>>,
    /// What to do where questions and predictions do not correspond.
    pub on_problem: OnProblem,
}

/// GQA's metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GqaReport {
    /// The accuracy of the balanced questions.
    pub overall: Accuracy,
    /// That of questions whose structural type is not `query`.
    pub binary: Accuracy,
    /// That of `query` questions.
    pub open: Accuracy,
    /// The mean, over rightly answered questions that entail others, of the accuracy on those.
    pub consistency: Option<Accuracy>,
    /// How many predictions are of the question's kind.
    pub validity: Option<Accuracy>,
    /// How many predictions make sense for the question's object.
    pub plausibility: Option<Accuracy>,
    /// The chi-square statistic of predicted against right answers, over groups weighted by size, over 100.
    /// Lower is better. It grows with the size of the set.
    pub distribution: Option<f64>,
    /// By structural type.
    pub by_structural_type: Vec<Group>,
    /// By semantic type.
    pub by_semantic_type: Vec<Group>,
    /// By the number of steps of the program, without the last query.
    pub by_steps: Vec<Group>,
    /// By the number of words of the question.
    pub by_words: Vec<Group>,
    /// What does not correspond.
    pub findings: Findings,
}

impl GqaReport {
    /// Measures predictions.
    ///
    /// # Errors
    /// `on_problem` is to refuse and something does not correspond, or nothing is left to measure.
    pub fn new(
        questions: &[(Id, GqaQuestion)],
        predictions: &[Prediction],
        options: GqaOptions,
    ) -> Result<Self> {
        let mut findings = Findings::default();
        let is_measured = |question: &GqaQuestion| options.consistency || question.is_balanced;
        let items: Vec<_> = questions.iter().filter(|(_, question)| is_measured(question)).collect();
        let all = match_predictions(items, |(id, _)| id, predictions, &mut findings, options.on_problem)?;
        let by_id: HashMap<&Id, (&GqaQuestion, &Prediction)> = all
            .iter()
            .filter_map(|((id, question), prediction)| Some((id, (question, (*prediction)?))))
            .collect();
        let balanced: Vec<Item> = all
            .iter()
            .filter(|((_, question), _)| question.is_balanced)
            .map(|((id, question), prediction)| Item::new(id, question, *prediction))
            .collect();
        let of = |is_counted: fn(&Item) -> bool| {
            Accuracy::of(balanced.iter().filter(|item| is_counted(item)).map(|item| score(item.is_right)))
        };
        let by = |name: fn(&Item) -> String| {
            let named: Vec<_> = balanced.iter().map(|item| (name(item), score(item.is_right))).collect();
            groups(named.iter().map(|(name, score)| (Some(name.as_str()), *score)))
        };
        let consistency = options.consistency.then(|| consistency(&balanced, &by_id, &mut findings));
        let choices = options.choices.map(|choices| validity(&balanced, choices, &mut findings));
        Ok(Self {
            overall: of(|_| true),
            binary: of(|item| item.question.types.structural != "query"),
            open: of(|item| item.question.types.structural == "query"),
            consistency,
            validity: choices.map(|(validity, _)| validity),
            plausibility: choices.map(|(_, plausibility)| plausibility),
            distribution: distribution(&balanced),
            by_structural_type: by(|item| item.question.types.structural.clone()),
            by_semantic_type: by(|item| item.question.types.semantic.clone()),
            by_steps: by(|item| format!("{:02}", item.question.steps())),
            by_words: by(|item| format!("{:02}", item.question.question.split_whitespace().count())),
            findings,
        })
    }
}

impl GqaQuestion {
    /// The number of steps of reasoning: the last query is none.
    fn steps(&self) -> usize {
        let is_query = |step: &&GqaStep| {
            let text = format!("{}: {}", step.operation, step.argument);
            ["exist", "query: name", "choose name"].iter().any(|query| text.contains(query))
        };
        self.semantic.iter().filter(|step| !is_query(step)).count()
    }
}

/// A balanced question.
struct Item<'a> {
    id: &'a Id,
    question: &'a GqaQuestion,
    predicted: Option<&'a str>,
    is_right: bool,
}

impl<'a> Item<'a> {
    fn new(id: &'a Id, question: &'a GqaQuestion, prediction: Option<&'a Prediction>) -> Self {
        let predicted = prediction.map(|prediction| prediction.answer.as_str());
        Self { id, question, predicted, is_right: predicted == Some(&question.answer) }
    }
}

fn consistency(
    balanced: &[Item],
    by_id: &HashMap<&Id, (&GqaQuestion, &Prediction)>,
    findings: &mut Findings,
) -> Accuracy {
    let mut scores = Vec::new();
    for item in balanced.iter().filter(|item| item.is_right) {
        let mut of_entailed = Vec::new();
        for id in item.question.entailed.iter().filter(|&id| id != item.id) {
            match by_id.get(id) {
                Some((entailed, prediction)) => of_entailed.push(score(entailed.answer == prediction.answer)),
                None => findings.add(FindingKind::UnknownEntailedQuestions, id),
            }
        }
        if !of_entailed.is_empty() {
            scores.push(Accuracy::of(of_entailed).mean);
        }
    }
    Accuracy::of(scores)
}

/// Validity and plausibility. For questions about common attributes the published program takes the three
/// names of attributes for the only valid answers.
fn validity(
    balanced: &[Item],
    choices: &HashMap<Id, GqaChoices>,
    findings: &mut Findings,
) -> (Accuracy, Accuracy) {
    const COMMON: [&str; 3] = ["color", "material", "shape"];
    let (mut valid, mut plausible) = (Vec::new(), Vec::new());
    for item in balanced {
        let Some(choices) = choices.get(item.id) else {
            findings.add(FindingKind::QuestionsWithoutChoices, item.id);
            continue;
        };
        let is_common = item.question.types.detailed.contains("Common");
        let has = |group: &[String]| {
            item.predicted.is_some_and(|predicted| {
                if is_common { COMMON.contains(&predicted) } else { group.iter().any(|one| one == predicted) }
            })
        };
        valid.push(score(has(&choices.valid)));
        plausible.push(score(has(&choices.plausible)));
    }
    (Accuracy::of(valid), Accuracy::of(plausible))
}

/// `None` where no question has a group.
fn distribution(balanced: &[Item]) -> Option<f64> {
    // For each group, of each right answer: how often it is right, and how often predicted.
    let mut counts: BTreeMap<&str, BTreeMap<&str, (f64, f64)>> = BTreeMap::new();
    for item in balanced {
        let Some(group) = item.question.groups.global.as_deref() else { continue };
        let counts = counts.entry(group).or_default();
        counts.entry(&item.question.answer).or_default().0 += 1.0;
        if let Some(predicted) = item.predicted {
            counts.entry(predicted).or_default().1 += 1.0;
        }
    }
    let (mut sum, mut overall) = (0.0, 0.0);
    for counts in counts.values() {
        let right = counts.values().filter(|(gold, _)| *gold > 0.0);
        let chi_square: f64 = right.map(|(gold, predicted)| (predicted - gold).powi(2) / gold).sum();
        let questions: f64 = counts.values().map(|(gold, _)| gold).sum();
        sum += chi_square * questions;
        overall += questions;
    }
    (overall > 0.0).then(|| sum / overall / 100.0)
}
