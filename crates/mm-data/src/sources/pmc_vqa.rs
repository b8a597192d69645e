//! PMC-VQA: a CSV file of multiple-choice questions about figures of medical articles.

use std::path::PathBuf;

use csv::ByteRecord;
use serde::{Deserialize, Serialize};

use crate::sources::asked::{Asked, AskedDataset, AskedList};
use crate::sources::delimited::{Dialect, Rows};
use crate::{Error, Fault, Question, Result, text};

/// Questions of PMC-VQA (Zhang et al. 2023, <https://arxiv.org/abs/2305.10415>): `train.csv`, `test.csv` and
/// `test_clean.csv` of the first version, `train_2.csv` and `test_2.csv` of the second.
///
/// A sample is a question with four [`choices`](Question::choices), without their letters; the answer is one
/// of them. Its key is `LINE FIGURE`, [`Question::id`] its line, [`Question::kind`] `choice`, and
/// [`Sample::group`](crate::Sample::group) the article of the figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PmcVqaConfig {
    /// The CSV file.
    pub path: PathBuf,
    /// The folder of the figures, such as `images` or `figures`; by default the folder of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
}

const LETTERS: [char; 4] = ['A', 'B', 'C', 'D'];

const DIALECT: Dialect = Dialect {
    delimiter: b',',
    quoting: true,
    way_out: "close it, or double a quotation mark inside a value",
};

/// The places of the columns.
struct Columns {
    figure: usize,
    question: usize,
    choices: [usize; 4],
    answer: usize,
    /// The letter of the right choice, in a column of its own in the first version.
    label: Option<usize>,
}

impl Columns {
    /// # Errors
    /// A column is missing. The message lists those of the file.
    fn of(config: &PmcVqaConfig, header: &ByteRecord) -> Result<Self> {
        let names: Vec<String> =
            header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
        let find = |wanted: &str| names.iter().position(|name| name == wanted);
        let column = |wanted: &str| {
            find(wanted).ok_or_else(|| {
                let present = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                let path = config.path.display();
                Error::Setting(format!("{path}: no column `{wanted}` of PMC-VQA; the file has {present}"))
            })
        };
        Ok(Self {
            figure: column("Figure_path")?,
            question: column("Question")?,
            choices: [column("Choice A")?, column("Choice B")?, column("Choice C")?, column("Choice D")?],
            // A released loader reads the column under this misspelt name.
            answer: find("Anwser").map_or_else(|| column("Answer"), Ok)?,
            label: find("Answer_label"),
        })
    }

    fn asked(&self, line: u64, record: &ByteRecord) -> std::result::Result<Asked, String> {
        let cell = |at: usize| {
            let bytes = record
                .get(at)
                .ok_or_else(|| format!("the row has {} columns, fewer than the header", record.len()))?;
            let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?;
            Ok::<_, String>(text.trim().to_owned())
        };
        let mut choices = Vec::with_capacity(LETTERS.len());
        for (&at, letter) in self.choices.iter().zip(LETTERS) {
            let choice = cell(at)?;
            let rest = choice.strip_prefix(letter).and_then(|rest| rest.trim_start().strip_prefix(':'));
            choices.push(rest.unwrap_or(&choice).trim().to_owned());
        }
        let label = self.label.map(cell).transpose()?.filter(|label| !label.is_empty());
        let right = right_choice(&choices, label.as_deref(), &cell(self.answer)?)?;
        let figure = cell(self.figure)?;
        let question = Question {
            id: line,
            text: cell(self.question)?,
            answers: vec![choices[right].clone()],
            kind: Some("choice".to_owned()),
            choices,
            ..Question::default()
        };
        let group = figure.split_once('_').map(|(article, _)| article.to_owned());
        Ok(Asked { group, ..Asked::one(format!("{line} {figure}"), figure, question) })
    }
}

/// The index of the right choice: that of the letter in `label`, or else in `answer`, or else the choice that
/// equals `answer`.
fn right_choice(choices: &[String], label: Option<&str>, answer: &str) -> std::result::Result<usize, String> {
    let letter = |text: &str| LETTERS.iter().position(|letter| text == letter.to_string());
    if let Some(label) = label {
        return letter(label).ok_or_else(|| format!("Answer_label is {label:?}, not A, B, C or D"));
    }
    letter(answer)
        .or_else(|| choices.iter().position(|choice| choice == answer))
        .ok_or_else(|| format!("the answer {answer:?} is neither a letter nor one of the choices"))
}

/// Opens the file. An invalid row is a bad sample in its place.
pub(crate) fn open(config: &PmcVqaConfig) -> Result<AskedDataset> {
    let mut rows = Rows::new(&config.path, text::open(&config.path)?, DIALECT);
    let Some((line, header)) = rows.next().transpose()? else {
        return Err(Error::Empty {
            name: config.path.display().to_string(),
            hint: "the file is empty".into(),
        });
    };
    let header = header.map_err(|reason| Error::Line { path: config.path.clone(), line, reason })?;
    let columns = Columns::of(config, &header)?;
    let mut list = AskedList::default();
    for row in rows {
        let (line, record) = row?;
        let asked = record.and_then(|record| columns.asked(line, &record));
        list.add(Fault::Row, &format!("line {line}"), asked);
    }
    list.open(&config.path, config.images_root.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::sources::asked::tests::{assert_bad, one};

    fn open_text(text: &str) -> Result<AskedDataset> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        open(&PmcVqaConfig { path: file.path().to_owned(), images_root: Some("figures".into()) })
    }

    #[test]
    fn choices_lose_their_letters_in_both_versions() {
        let first = "Figure_path,Question,Answer,Choice A,Choice B,Choice C,Choice D,Answer_label\n\
            PMC1064097_F1.jpg,What is the uptake pattern?,Focal uptake pattern, A:Diffuse, \
            B:Focal uptake pattern , C:No uptake,\"D:Ring, thin\",B\n";
        let second = "index,Figure_path,Caption,Question,Choice A,Choice B,Choice C,Choice D,Answer,split\n\
            0,PMC8253797_Fig4_11.jpg,A scan,Which?, A: CT ,B: MRI, C: PET, D: X-ray ,D,train\n";
        for (text, answer, group, image, id) in [
            (first, "Focal uptake pattern", "PMC1064097", "figures/PMC1064097_F1.jpg", 2),
            (second, "X-ray", "PMC8253797", "figures/PMC8253797_Fig4_11.jpg", 2),
            (&second.replace("Answer", "Anwser"), "X-ray", "PMC8253797", "figures/PMC8253797_Fig4_11.jpg", 2),
            (
                &second.replace(",D,train", ",MRI,train"),
                "MRI",
                "PMC8253797",
                "figures/PMC8253797_Fig4_11.jpg",
                2,
            ),
        ] {
            let source = open_text(text).unwrap();
            let (question, path) = one(&source, 0);
            assert_eq!((question.id, question.answers.join("|"), path), (id, answer.into(), image.into()));
            assert!(question.choices.iter().all(|choice| !choice.contains(':')), "{:?}", question.choices);
            assert_eq!((question.choices.len(), question.kind.as_deref()), (4, Some("choice")));
            assert_eq!(source.sample(0).unwrap().group.as_deref(), Some(group));
        }
        let (question, _) = one(&open_text(first).unwrap(), 0);
        assert_eq!(question.choices, ["Diffuse", "Focal uptake pattern", "No uptake", "Ring, thin"]);
    }

    #[test]
    fn a_missing_column_is_an_error_that_lists_those_of_the_file() {
        let error =
            open_text("Figure_path,Question,Choice A,Choice B,Choice C,Choice D,Answr\n").err().unwrap();
        let expected = "no column `Answer` of PMC-VQA; the file has `Figure_path`, `Question`, `Choice A`, \
            `Choice B`, `Choice C`, `Choice D`, `Answr`";
        assert!(error.to_string().ends_with(expected), "{error}");
        assert!(open_text("").err().unwrap().to_string().contains("the file is empty"));
    }

    #[test]
    fn invalid_rows_are_counted_in_their_place() {
        let text = "Figure_path,Question,Answer,Choice A,Choice B,Choice C,Choice D\n\
            a_1.jpg,Which?,A,1,2,3,4\n\
            a_1.jpg,Which?,5,1,2,3,4\n\
            a_1.jpg,Which?,A,1,2\n\
            a_1.jpg,,A,1,2,3,4\n\
            a_1.jpg,Which?,C,1,2,,4\n\
            ,Which?,C,1,2,3,4\n";
        let expected = [
            "line 3: the answer \"5\" is neither a letter nor one of the choices",
            "line 4: the row has 5 columns, fewer than the header",
            "line 5: question 5 a_1.jpg is empty",
            "line 6: the answer of question 6 a_1.jpg is empty",
            "line 7: question 7  is of no image",
        ];
        assert_bad(&open_text(text).unwrap(), 1, &expected);
    }
}
