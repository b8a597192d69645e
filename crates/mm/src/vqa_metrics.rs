//! `mm eval vqa`: metrics of answers in files, without a model.

use crate::out::OutFile;
use crate::{output, table};
use anyhow::{Context, Result, ensure};
use mm_vqa::metrics::medical::{MedicalFilter, MedicalReport};
use mm_vqa::metrics::vqa::{Protocol, VqaAccuracy, VqaSet};
use mm_vqa::metrics::{Accuracy, Findings, Group, OnProblem, Prediction};
use mm_vqa::metrics::{chartqa, chartqa::ChartQaReport, docvqa, docvqa::DocVqaReport};
use mm_vqa::metrics::{choice, choice::ChoiceReport, clevr, clevr::ClevrReport, medical};
use mm_vqa::metrics::{gqa, gqa::GqaReport, pope, pope::PopeReport};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Measure predicted answers: VQA v2's accuracy as the official program computes it, GQA, CLEVR, POPE,
/// multiple choice, open and closed medical questions, documents by ANLS and charts by relaxed accuracy.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mm eval vqa --questions v2_OpenEnded_mscoco_val2014_questions.json \
                  --annotations v2_mscoco_val2014_annotations.json --results results.json\n  \
                  mm eval vqa --set gqa --questions testdev_balanced_questions.json --results results.json")]
pub struct Args {
    /// The data set, which decides the metric and the layout of the files.
    #[arg(long, value_enum, default_value = "vqa-v2")]
    set: Set,
    /// The predictions: a JSON list, or .jsonl, of objects with question_id and answer (or questionId and
    /// prediction).
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
    /// The questions; with vqa-v2 optional, to find questions without annotation.
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// With vqa-v2: the annotations.
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// With vqa-v2: the rules of comparison; `official` by default.
    #[arg(long, value_name = "official|evalai|strict")]
    protocol: Option<Protocol>,
    /// With gqa: the valid and plausible answers.
    #[arg(long, value_name = "FILE")]
    choices: Option<PathBuf>,
    /// With gqa: also measure the consistency, for which all questions need predictions.
    #[arg(long)]
    consistency: bool,
    /// With medical: measure the questions of this q_lang alone.
    #[arg(long, value_name = "en|zh")]
    language: Option<String>,
    /// With medical: measure VQA-RAD's official test questions alone, those of phrase_type test_*.
    #[arg(long)]
    test_phrases: bool,
    /// What to do where questions and predictions do not correspond: refuse; or count a question without
    /// prediction as wrong; or skip it.
    #[arg(long, value_enum, default_value = "refuse")]
    on_problem: Problem,
    /// With vqa-v2 and medical: write the score of each question, a JSON object a line.
    #[arg(long, value_name = "FILE")]
    per_question: Option<PathBuf>,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Set {
    VqaV2,
    Gqa,
    Clevr,
    Pope,
    Choice,
    Medical,
    /// DocVQA and InfographicVQA.
    #[value(name = "docvqa")]
    DocVqa,
    /// ChartQA; the id of a question is its place in the file, from 0.
    #[value(name = "chartqa")]
    ChartQa,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Problem {
    Refuse,
    Wrong,
    Skip,
}

impl From<Problem> for OnProblem {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Refuse => Self::Refuse,
            Problem::Wrong => Self::Wrong,
            Problem::Skip => Self::Skip,
        }
    }
}

/// The metrics of one set.
#[derive(Serialize)]
#[serde(tag = "set", rename_all = "snake_case")]
enum Report {
    VqaV2(VqaAccuracy),
    Gqa(GqaReport),
    Clevr(ClevrReport),
    Pope(PopeReport),
    Choice(ChoiceReport),
    Medical {
        #[serde(flatten)]
        report: MedicalReport,
        left_out: usize,
    },
    #[serde(rename = "docvqa")]
    DocVqa(DocVqaReport),
    #[serde(rename = "chartqa")]
    ChartQa(ChartQaReport),
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    args.refuse_options_of_other_sets()?;
    let per_question =
        args.per_question.as_deref().map(|file| OutFile::open(file, &["jsonl"])).transpose()?;
    let predictions = mm_vqa::metrics::read_predictions(&args.results)?;
    let report = args
        .measure(&predictions)
        .with_context(|| format!("cannot measure the answers of {}", args.results.display()))?;
    if let Some(file) = per_question {
        report.write_per_question(&file)?;
    }
    report.findings().0.iter().for_each(|finding| tracing::warn!("{finding}"));
    if args.json {
        return output::print_line(serde_json::to_string(&report)?);
    }
    output::print(&report.text())
}

impl Args {
    fn refuse_options_of_other_sets(&self) -> Result<()> {
        for (option, is_given, sets) in [
            ("--annotations", self.annotations.is_some(), &[Set::VqaV2] as &[Set]),
            ("--protocol", self.protocol.is_some(), &[Set::VqaV2]),
            ("--choices", self.choices.is_some(), &[Set::Gqa]),
            ("--consistency", self.consistency, &[Set::Gqa]),
            ("--language", self.language.is_some(), &[Set::Medical]),
            ("--test-phrases", self.test_phrases, &[Set::Medical]),
            ("--per-question", self.per_question.is_some(), &[Set::VqaV2, Set::Medical]),
        ] {
            ensure!(!is_given || sets.contains(&self.set), "{option} does not apply to this --set");
        }
        Ok(())
    }

    fn questions(&self) -> Result<&Path> {
        self.questions.as_deref().context("name the file of questions with --questions")
    }

    fn measure(&self, predictions: &[Prediction]) -> Result<Report> {
        let on_problem = self.on_problem.into();
        Ok(match self.set {
            Set::VqaV2 => {
                let annotations =
                    self.annotations.as_deref().context("name the file of annotations with --annotations")?;
                let set = VqaSet::read(annotations, self.questions.as_deref())?;
                let protocol = self.protocol.unwrap_or_default();
                Report::VqaV2(VqaAccuracy::new(protocol, set, predictions, on_problem)?)
            }
            Set::Gqa => {
                let choices = self.choices.as_deref().map(gqa::read_choices).transpose()?;
                let options =
                    gqa::GqaOptions { consistency: self.consistency, choices: choices.as_ref(), on_problem };
                let questions = gqa::read_questions(self.questions()?)?;
                Report::Gqa(GqaReport::new(&questions, predictions, options)?)
            }
            Set::Clevr => {
                let questions = clevr::read_questions(self.questions()?)?;
                Report::Clevr(ClevrReport::new(&questions, predictions, on_problem)?)
            }
            Set::Pope => {
                let questions = pope::read_questions(self.questions()?)?;
                Report::Pope(PopeReport::new(&questions, predictions, on_problem)?)
            }
            Set::Choice => {
                let questions = choice::read_questions(self.questions()?)?;
                Report::Choice(ChoiceReport::new(&questions, predictions, on_problem)?)
            }
            Set::Medical => {
                let filter =
                    MedicalFilter { language: self.language.clone(), test_phrases: self.test_phrases };
                let (questions, left_out) = medical::read_questions(self.questions()?, &filter)?;
                let report = MedicalReport::new(&questions, predictions, on_problem)?;
                Report::Medical { report, left_out }
            }
            Set::DocVqa => {
                let questions = docvqa::read_questions(self.questions()?)?;
                Report::DocVqa(DocVqaReport::new(&questions, predictions, on_problem)?)
            }
            Set::ChartQa => {
                let questions = chartqa::read_questions(self.questions()?)?;
                Report::ChartQa(ChartQaReport::new(&questions, predictions, on_problem)?)
            }
        })
    }
}

/// A row of the table: the name, the number of questions and the percentage.
fn row(name: impl Into<String>, accuracy: &Accuracy) -> Vec<String> {
    vec![name.into(), accuracy.questions.to_string(), format!("{:.2}", accuracy.percent)]
}

fn rows(kind: &str, groups: &[Group]) -> Vec<Vec<String>> {
    groups.iter().map(|group| row(format!("{kind}: {}", group.name), &group.accuracy)).collect()
}

impl Report {
    fn findings(&self) -> &Findings {
        match self {
            Self::VqaV2(report) => &report.findings,
            Self::Gqa(report) => &report.findings,
            Self::Clevr(report) => &report.findings,
            Self::Pope(report) => &report.findings,
            Self::Choice(report) => &report.findings,
            Self::Medical { report, .. } => &report.findings,
            Self::DocVqa(report) => &report.findings,
            Self::ChartQa(report) => &report.findings,
        }
    }

    /// Writes the scores of questions.
    fn write_per_question(&self, file: &OutFile) -> Result<()> {
        match self {
            Self::VqaV2(report) => file.write_json_lines(&report.per_question),
            Self::Medical { report, .. } => file.write_json_lines(&report.per_question),
            // `refuse_options_of_other_sets` allows no file.
            _ => Ok(()),
        }
    }

    fn text(&self) -> String {
        let accuracies = |rows: &[Vec<String>]| table::render(&["questions", "number", "accuracy %"], rows);
        match self {
            Self::VqaV2(report) => vqa_text(report),
            Self::Gqa(report) => accuracies(&gqa_rows(report)) + &distribution_line(report),
            Self::Clevr(report) => {
                let mut all = vec![row("all", &report.overall)];
                all.extend(rows("kind", &report.by_kind));
                all.extend(rows("function", &report.by_function));
                all.extend(rows("family", &report.by_family));
                accuracies(&all)
            }
            Self::Pope(report) => pope_text(report),
            Self::Choice(report) => {
                let mut all = vec![row("all", &report.overall)];
                all.extend(rows("category", &report.by_category));
                let chance = table::percent(report.chance);
                format!("{}\nguessing gives {chance}\n", accuracies(&all))
            }
            Self::Medical { report, left_out } => {
                let rows = medical_rows(report);
                format!("{}\n{left_out} entries of the file are left out\n", accuracies(&rows))
            }
            Self::DocVqa(report) => {
                let mut all = vec![
                    row("ANLS (RRC)", &report.anls_rrc),
                    row("ANLS (package anls)", &report.anls_package),
                    row("exact", &report.exact),
                ];
                all.extend(rows("ANLS (RRC)", &report.by_question_type));
                table::render(&["metric", "questions", "%"], &all)
            }
            Self::ChartQa(report) => {
                let all = [row("relaxed accuracy", &report.relaxed), row("exact", &report.exact)];
                table::render(&["metric", "questions", "%"], &all)
            }
        }
    }
}

fn vqa_text(report: &VqaAccuracy) -> String {
    let mut all = vec![row("all", &report.overall)];
    all.extend(rows("answer type", &report.by_answer_type));
    all.extend(rows("question type", &report.by_question_type));
    let rules = report.rules.iter().map(|rule| {
        let name = serde_json::to_value(rule.rule).ok();
        let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let example = rule.example.as_ref();
        let example = example.map(|it| format!("{:?} -> {:?}", it.before, it.after)).unwrap_or_default();
        let example = table::shortened(&example);
        vec![name, example, rule.predictions.to_string(), rule.answers.to_string()]
    });
    let unanimous = &report.unanimous;
    format!(
        "protocol: {}\n\n{}\n{}\n{} questions have equal answers, so that nothing is normalised; of their \
         predictions the rules would change {}, and make {} right\n",
        report.protocol,
        table::render(&["questions", "number", "accuracy %"], &all),
        table::render_left(2, &["rule", "first", "predictions", "answers"], &rules.collect::<Vec<_>>()),
        unanimous.questions,
        unanimous.changed_by_rules,
        unanimous.wrong_without_rules
    )
}

fn gqa_rows(report: &GqaReport) -> Vec<Vec<String>> {
    let mut all = vec![row("all", &report.overall), row("binary", &report.binary), row("open", &report.open)];
    let optional = [
        ("consistency", report.consistency),
        ("validity", report.validity),
        ("plausibility", report.plausibility),
    ];
    all.extend(optional.iter().filter_map(|(name, accuracy)| Some(row(*name, accuracy.as_ref()?))));
    all.extend(rows("structural type", &report.by_structural_type));
    all.extend(rows("semantic type", &report.by_semantic_type));
    all.extend(rows("steps", &report.by_steps));
    all.extend(rows("words", &report.by_words));
    all
}

fn distribution_line(report: &GqaReport) -> String {
    let line = |value| format!("\ndistribution: {value:.2} (lower is better)\n");
    report.distribution.map(line).unwrap_or_default()
}

fn pope_text(report: &PopeReport) -> String {
    let share = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{:.2}", 100.0 * value));
    let all = std::iter::once(("all", &report.overall));
    let categories = report.by_category.iter().map(|(name, scores)| (name.as_str(), scores));
    let rows = all.chain(categories).map(|(name, scores)| {
        vec![
            name.to_owned(),
            scores.questions.to_string(),
            share(Some(scores.accuracy)),
            share(scores.precision),
            share(scores.recall),
            share(scores.f1),
            share(Some(scores.yes_ratio)),
        ]
    });
    let header = ["questions", "number", "accuracy %", "precision %", "recall %", "F1 %", "yes %"];
    table::render(&header, &rows.collect::<Vec<_>>())
}

fn medical_rows(report: &MedicalReport) -> Vec<Vec<String>> {
    let mut all = vec![
        row("all", &report.overall),
        row("closed", &report.closed),
        row("open, equal", &report.open),
        row("open, recall of words", &report.open_recall),
        row("open, F1 of words", &report.open_f1),
    ];
    all.extend(rows("modality", &report.by_modality));
    all.extend(rows("organ", &report.by_organ));
    all.extend(rows("question type", &report.by_question_type));
    all
}
